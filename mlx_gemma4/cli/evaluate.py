"""``mlx_gemma4 eval``: word error rates, and what a conversion lost."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from mlx_gemma4.cli import quality
from mlx_gemma4.cli.shared.errors import message
from mlx_gemma4.cli.shared.notes import note, warn_incomplete
from mlx_gemma4.cli.shared.options import (
    add_endpointing,
    add_model,
    add_speech,
    endpointing,
    load_model,
    speech_instruction,
    speech_use,
)
from mlx_gemma4.cli.shared.report import add_report, aligned, check_limit, report_file, save
from mlx_gemma4.cli.shared.signals import Terminated

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from mlx_gemma4.inputs.audio.endpoint import Endpointing
    from mlx_gemma4.measure.wer import Normalizer, Recording, Result, Score, Transcribe
    from mlx_gemma4.programs.transcribe import Segment, Transcriber

WER = "Measure word and character error rates of transcripts, over a manifest of recordings and their texts."
MANIFEST = 'JSON lines {"audio": path beside the manifest, "text": what is said, "set": a name to group by, if any}'
NORMALIZER = (
    "what texts pass through before they are compared. whisper: Whisper's for the language; in English it writes "
    "number words as digits and joins neighbours into one word ('eight eight zero four' is '8804'), so that one wrong "
    "digit makes a number wrong. basic: Whisper's for all languages: lower case, no punctuation; each spoken digit is "
    "a word. none: texts as they are (default: whisper)"
)
COLUMNS = ("set", "recordings", "exact", "words", "sub", "del", "ins", "WER", "CER", "sound s", "work s", "work/sound")

COMMON = ("--help", "--help-all")
"""The options that ``--help`` shows."""
WER_COMMON = ("--help", "--help-all", "--model", "--language", "--normalizer", "--live", "--limit", "--json")
EXAMPLES = (
    "mlx_gemma4 eval wer manifest.jsonl --live",
    "mlx_gemma4 eval quality --reference google/gemma-4-12B-it --model out",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    measures = parser.add_subparsers(dest="measure", metavar="MEASURE", required=True)
    wer = measures.add_parser("wer", help=WER, description=WER, common=WER_COMMON, examples=EXAMPLES[:1])
    wer.add_argument("manifest", metavar="MANIFEST", help=MANIFEST)
    add_model(wer)
    add_speech(wer)
    add_endpointing(wer)
    wer.set_defaults(translate_to=None)  # the true text is a transcript, not a translation
    wer.add_argument("--normalizer", choices=("whisper", "basic", "none"), default="whisper", help=NORMALIZER)
    wer.add_argument("--live", action="store_true", help="also transcribe live, and measure how long texts take")
    wer.add_argument("--limit", type=int, metavar="N", help="measure the first N recordings only")
    add_report(wer, "including those of each recording")
    lost = measures.add_parser(
        "quality", help=quality.QUALITY, description=quality.QUALITY, common=quality.COMMON, examples=EXAMPLES[1:]
    )
    quality.add_arguments(lost)


def run(arguments: argparse.Namespace) -> None:
    check_limit(arguments.limit)
    if arguments.measure == "quality":
        quality.run(arguments)
    else:
        run_wer(arguments)


def run_wer(arguments: argparse.Namespace) -> None:
    from mlx_gemma4.measure.wer import check_extra, check_files, normalizer, read_manifest

    # everything that can be wrong is reported before the model is loaded
    recordings = read_manifest(arguments.manifest)[: arguments.limit]
    check_files(recordings)
    check_extra()
    normalize = normalizer(arguments.normalizer, arguments.language)
    instruction, settings = speech_instruction(arguments), endpointing(arguments)
    report = report_file(arguments)
    model, processor = load_model(arguments, speech_use(arguments.max_segment))

    from mlx_gemma4.programs.transcribe import Transcriber

    transcriber = Transcriber(model, processor, text=instruction, max_segment=arguments.max_segment)
    run = Run(recordings, transcriber, settings, normalize, report)
    if arguments.live:
        run_live(run)
    else:
        run_offline(run)
    run.end()


class Run:
    """Measures recordings in order. One that cannot be read does not cost the results of the others.

    Args:
        report: The file of ``--json``.
    """

    def __init__(
        self,
        recordings: list[Recording],
        transcriber: Transcriber,
        settings: Endpointing,
        normalize: Normalizer,
        report: Path | None,
    ) -> None:
        self.transcriber, self.settings, self.normalize = transcriber, settings, normalize
        self._recordings, self._report = recordings, report
        self._unreadable: dict[str, str] = {}
        self._stopped: BaseException | None = None
        self._done = 0

    def results(self, hear: Transcribe) -> Iterator[Result]:
        """Measure until the end, or until a signal."""
        from mlx_gemma4.measure.wer import evaluate

        try:
            for result in evaluate(self._recordings, hear, self.normalize, unreadable=self._skip):
                self._done += 1
                note(progress(self._done + len(self._unreadable), len(self._recordings), result))
                yield result
        except (KeyboardInterrupt, Terminated) as stopped:
            self._stopped = stopped

    def save(self, figures: dict[str, Any]) -> None:
        """Write the figures to the file, with the recordings that are missing in them."""
        missing = [{"audio": name, "problem": problem} for name, problem in self._unreadable.items()]
        save(self._report, {**figures, "unreadable": missing, "complete": self._stopped is None})

    def end(self) -> None:
        """Raise what went wrong, after everything else was reported."""
        if self._stopped is not None:
            note(f"Stopped after {self._done} of {len(self._recordings)} recordings: the rates are those of these.")
            raise self._stopped
        if self._unreadable:
            raise ValueError(
                f"{len(self._unreadable)} of {len(self._recordings)} recordings could not be read "
                f"({', '.join(self._unreadable)}): the rates are those of the others"
            )

    def _skip(self, recording: Recording, problem: Exception) -> None:
        self._unreadable[recording.name] = message(problem)
        note(f"{recording.name}: {message(problem)}")


def run_offline(run: Run) -> None:
    """Print a table for whole recordings."""
    from mlx_gemma4.programs.segments import joined, transcribe_each

    segments: list[Segment] = []

    def hear(sounds: Iterable[np.ndarray]) -> Iterator[str]:
        for segments[:] in transcribe_each(sounds, run.transcriber, run.settings):
            yield joined(segments)

    results = []
    for result in run.results(hear):
        results.append(result)
        warn_incomplete(segments, result.recording.name)
    print(table(results))
    run.save(figures(results))


def run_live(run: Run) -> None:
    """Print a table for utterances heard live, one for the same utterances offline, and the delays of the texts."""
    from mlx_gemma4.measure.live_wer import LiveEvaluation
    from mlx_gemma4.measure.wer import score

    live = LiveEvaluation(run.transcriber, run.settings)
    results, offline = [], []
    for result in run.results(lambda sounds: map(live.hear, sounds)):
        began = time.perf_counter()
        text = live.again()
        work = time.perf_counter() - began
        counted = score(result.recording.text, text, run.normalize)
        counted = replace(counted, sound_seconds=result.score.sound_seconds, work_seconds=work)
        results.append(result)
        offline.append(replace(result, heard=text, score=counted))
    print(f"live\n{table(results)}\n\noffline, the same utterances\n{table(offline)}\n")
    print(f"{live.different} of {live.utterances} utterances differ between live and offline")
    print(live.delays.report(live.work))
    delays = {"after_decision": live.delays.seconds, "after_speech": live.delays.after_speech}
    counts = {"utterances": live.utterances, "different": live.different, "work": asdict(live.work)}
    run.save({"live": figures(results), "offline": figures(offline), **counts, "delays": delays})


def progress(number: int, count: int, result: Result) -> str:
    """A recording in one line, with both texts if they differ."""
    line = f"{number}/{count} {result.recording.name}"
    return line if result.score.exact else f"{line}: {result.recording.text!r}, heard {result.heard!r}"


def table(results: list[Result]) -> str:
    """A row for each set, and one for all if there are several."""
    from mlx_gemma4.measure.wer import Score, totals

    groups = totals(results)
    several = len(groups) > 1
    rows = [_row(name or ("(none)" if several else "all"), score) for name, score in groups.items()]
    if several:
        rows.append(_row("all", sum(groups.values(), Score())))
    return aligned([COLUMNS, *rows])


def figures(results: list[Result]) -> dict[str, Any]:
    """The figures of the table, unrounded, and those of each recording with its texts. Rates are fractions of 1."""
    from mlx_gemma4.measure.wer import Score, totals

    return {
        "all": _figures(sum((result.score for result in results), Score())),
        "sets": {name: _figures(score) for name, score in totals(results).items() if name},
        "recordings": [
            {
                "audio": result.recording.name,
                "set": result.recording.group,
                "text": result.recording.text,
                "heard": result.heard,
                **_figures(result.score),
            }
            for result in results
        ],
    }


def _figures(score: Score) -> dict[str, Any]:
    rates = {"wer": score.wer, "cer": score.cer, "real_time_factor": score.real_time_factor}
    return {**rates, **asdict(score)}


def _row(name: str, score: Score) -> tuple[str, ...]:
    counts = (score.recordings, score.exact, score.words, score.substitutions, score.deletions, score.insertions)
    factor = "–" if score.real_time_factor is None else f"{score.real_time_factor:.2f}"
    seconds = (f"{score.sound_seconds:.1f}", f"{score.work_seconds:.1f}", factor)
    return (name, *map(str, counts), _percent(score.wer), _percent(score.cer), *seconds)


def _percent(rate: float | None) -> str:
    return "–" if rate is None else f"{rate:.2%}"

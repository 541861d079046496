"""Error rates: single texts, a corpus, manifests, and the command ``eval wer``."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from golden import said, spans, utterances
from reference_cases import SHORT, media_file

from mlx_gemma4.cli import main
from mlx_gemma4.cli.evaluate import figures, progress, table
from mlx_gemma4.measure.wer import Recording, Result, Score, evaluate, normalizer, read_manifest, score, totals
from mlx_gemma4.programs.transcribe import Segment

EXTRA = "Error rates need two packages: pip install jiwer whisper-normalizer"
ENGLISH, BASIC, NONE = normalizer(), normalizer("basic"), normalizer("none")

Refused = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run ``eval wer`` so that it must fail; return its message."""

    def run(*arguments: str | Path) -> str:
        assert main(["eval", "wer", *map(str, arguments)]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("mlx_gemma4: error: ") and err.count("\n") == 1 and err.endswith("\n")
        return err.removeprefix("mlx_gemma4: error: ").removesuffix("\n")

    return run


def manifest(folder: Path, *lines: Any) -> Path:
    """Write JSON lines into ``folder``; a string becomes a line as it is."""
    path = folder / "manifest.jsonl"
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def sound_file(path: Path, seconds: float = 1.0) -> Path:
    soundfile.write(path, np.full(round(seconds * 16_000), 0.1), 16_000)
    return path


def errors(counted: Score) -> tuple[int, int, int, int]:
    return counted.words, counted.substitutions, counted.deletions, counted.insertions


# one text


@pytest.mark.parametrize(
    ("truth", "heard", "counts", "characters", "rates"),
    [
        ("go back again", "go back again", (3, 0, 0, 0), (13, 0), (0.0, 0.0)),
        ("go back again", "go forth again", (3, 1, 0, 0), (13, 5), (1 / 3, 5 / 13)),
        ("go back again", "back again", (3, 0, 1, 0), (13, 3), (1 / 3, 3 / 13)),
        ("go back", "go right back", (2, 0, 0, 1), (7, 6), (1 / 2, 6 / 7)),
        ("go back", "", (2, 0, 2, 0), (7, 7), (1.0, 1.0)),
        ("no", "no no no", (1, 0, 0, 2), (2, 6), (2.0, 3.0)),
    ],
)
def test_errors_counted_by_hand(
    truth: str, heard: str, counts: tuple[int, ...], characters: tuple[int, int], rates: tuple[float, float]
) -> None:
    """Substitution, deletion, insertion, an empty transcript, and more errors than words."""
    counted = score(truth, heard, NONE)
    assert errors(counted) == counts
    assert (counted.characters, counted.character_errors) == characters
    assert (counted.wer, counted.cer) == pytest.approx(rates)
    assert (counted.recordings, counted.exact) == (1, int(truth == heard))


def test_words_in_silence_are_insertions() -> None:
    """The true text may be empty, also after the normalizer; then there is no rate."""
    for truth, normalize in (("", NONE), (" \n", NONE), ("[noise]", BASIC), ("Uh, hmm.", ENGLISH)):
        assert errors(score(truth, "", normalize)) == (0, 0, 0, 0)
        assert score(truth, "", normalize).exact == 1
        counted = score(truth, "thank you", normalize)
        assert (errors(counted), counted.characters, counted.character_errors) == ((0, 0, 0, 2), 0, 9)
        assert (counted.exact, counted.wer, counted.cer) == (0, None, None)


@pytest.mark.parametrize(
    ("normalize", "counts"),
    [(ENGLISH, (4, 0, 0, 0)), (BASIC, (4, 1, 0, 0)), (NONE, (3, 3, 0, 0))],
    ids=["whisper", "basic", "none"],
)
def test_texts_are_compared_after_the_normalizer(normalize: Any, counts: tuple[int, ...]) -> None:
    """Contractions, numbers, punctuation and case. Line ends and repeated spaces never count."""
    assert errors(score("It's\n twenty  Meters.", "it's 20 meters", normalize)) == counts


def test_whispers_english_normalizer_joins_digits() -> None:
    """A wrong digit is then a wrong number. Separate digits stay separate, and ``basic`` counts each."""
    truth = "eight eight zero four"
    assert errors(score(truth, "8804", ENGLISH)) == (1, 0, 0, 0)
    assert errors(score(truth, "eight eight zero five", ENGLISH)) == (1, 1, 0, 0)
    assert errors(score(truth, "eight eight zero", ENGLISH)) == (1, 1, 0, 0)
    assert errors(score(truth, "8 8 0 4", ENGLISH)) == (1, 1, 0, 3)
    assert errors(score(truth, "eight eight zero five", BASIC)) == (4, 1, 0, 0)
    assert errors(score(truth, "eight eight zero", BASIC)) == (4, 0, 1, 0)


def test_the_language_chooses_whispers_normalizer() -> None:
    assert normalizer("whisper", "english")("zero colour") == "0 color"
    assert normalizer("whisper", "German")("Null, Über!").split() == ["null", "über"]
    assert normalizer("basic", "English")("Zero, colour!").split() == ["zero", "colour"]
    with pytest.raises(ValueError, match=r"^Expected a normalizer of whisper, basic, none, got 'nfc'$"):
        normalizer("nfc")


# many


def test_the_rate_of_a_corpus_is_not_a_mean_of_rates() -> None:
    """1 error in 1 word and 0 in 9 are 10 %, not 50; insertions in silence count as well."""
    scores = [score("no", "yes", NONE), score("a b c d e f g h i", "a b c d e f g h i", NONE)]
    assert sum(scores, Score()).wer == pytest.approx(0.1)
    scores.append(score("", "thank you", NONE))
    counted = sum(scores, Score())
    assert errors(counted) == (10, 1, 0, 2)
    assert (counted.recordings, counted.exact) == (3, 1)
    assert counted.wer == pytest.approx(0.3)
    assert counted.cer == pytest.approx((3 + 9) / (2 + 17))


def test_evaluate_transcribes_and_scores_recordings(tmp_path: Path) -> None:
    """With any function. Its time counts as work, the samples as sound."""
    recordings = [
        Recording("a", sound_file(tmp_path / "a.wav", 1.5), "One word", "x"),
        Recording("b", sound_file(tmp_path / "b.wav", 0.5), "two words", "y"),
        Recording("c", tmp_path / "a.wav", "", "x"),
    ]
    lengths = []

    def transcribe(sounds: Iterable[np.ndarray]) -> Iterator[str]:
        for samples in sounds:
            lengths.append(len(samples))
            yield "one word"

    results = list(evaluate(recordings, transcribe, BASIC))
    assert lengths == [24_000, 8_000, 24_000]
    assert [result.recording for result in results] == recordings
    assert [errors(result.score) for result in results] == [(2, 0, 0, 0), (2, 2, 0, 0), (0, 0, 0, 2)]
    groups = totals(results)
    assert list(groups) == ["x", "y"]
    assert (groups["x"].sound_seconds, groups["y"].sound_seconds) == (3.0, 0.5)
    assert errors(groups["x"]) == (2, 0, 0, 2)
    assert 0 < groups["x"].work_seconds < 1
    assert groups["x"].real_time_factor == groups["x"].work_seconds / 3


def test_recordings_may_be_read_ahead(tmp_path: Path) -> None:
    """Each text belongs to its recording, and those that cannot be read are named in their order."""
    soundfile.write(tmp_path / "zero.wav", np.zeros(0), 16_000)
    names = ["zero", "a", "b", "zero", "c", "zero"]
    for length, name in enumerate("abc", 1):
        sound_file(tmp_path / f"{name}.wav", length)
    told: list[str] = []

    def transcribe(sounds: Iterable[np.ndarray]) -> Iterator[str]:
        for samples in list(sounds):
            yield f"{len(samples)} samples"

    recordings = [Recording(f"{index} {name}", tmp_path / f"{name}.wav", "") for index, name in enumerate(names)]
    unreadable = [f"{index} zero" for index in (0, 3, 5)]
    for result in evaluate(recordings, transcribe, NONE, unreadable=lambda each, _: told.append(each.name)):
        told.append(f"{result.recording.name}: {result.heard}, {result.score.sound_seconds:g} s")
    assert told == [
        unreadable[0],
        "1 a: 16000 samples, 1 s",
        "2 b: 32000 samples, 2 s",
        unreadable[1],
        "4 c: 48000 samples, 3 s",
        unreadable[2],
    ]
    with pytest.raises(ValueError, match=r"zero\.wav holds no sound"):
        next(evaluate(recordings, transcribe, NONE))


# tables and JSON


def result(name: str, truth: str, heard: str, group: str, sound: float, work: float) -> Result:
    counted = score(truth, heard, NONE) + Score(sound_seconds=sound, work_seconds=work)
    return Result(Recording(name, Path(name), truth, group), heard, counted)


RESULTS = [
    result("1.wav", "go back again", "go forth again", "clean", 2.0, 0.5),
    result("2.wav", "no", "no", "clean", 2.0, 0.5),
    result("3.wav", "", "thank you", "", 1.0, 2.0),
]


def test_the_table() -> None:
    """A row for each set and one for all; a single set has one row; no rate without words."""
    assert table(RESULTS).splitlines() == [
        "set     recordings  exact  words  sub  del  ins     WER     CER  sound s  work s  work/sound",
        "clean            2      1      4    1    0    0  25.00%  33.33%      4.0     1.0        0.25",
        "(none)           1      0      0    0    0    2       –       –      1.0     2.0        2.00",
        "all              3      1      4    1    0    2  75.00%  93.33%      5.0     3.0        0.60",
    ]
    assert [line.split()[0] for line in table(RESULTS[:2]).splitlines()] == ["set", "clean"]
    assert [line.split()[0] for line in table(RESULTS[2:]).splitlines()] == ["set", "all"]


def test_progress_shows_both_texts_where_they_differ() -> None:
    assert progress(1, 3, RESULTS[0]) == "1/3 1.wav: 'go back again', heard 'go forth again'"
    assert progress(2, 3, RESULTS[1]) == "2/3 2.wav"


def test_the_figures() -> None:
    """Those of the table, and of each recording with its texts. A set without a name is only in the sum."""
    told = figures(RESULTS)
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert list(told["sets"]) == ["clean"]
    assert told["all"] == {
        "wer": 0.75,
        "cer": 14 / 15,
        "real_time_factor": 0.6,
        "recordings": 3,
        "exact": 1,
        "words": 4,
        "substitutions": 1,
        "deletions": 0,
        "insertions": 2,
        "characters": 15,
        "character_errors": 14,
        "sound_seconds": 5.0,
        "work_seconds": 3.0,
    }
    keys = ("audio", "set", "text", "heard", "wer", "cer")
    assert [[one[key] for key in keys] for one in told["recordings"]] == [
        ["1.wav", "clean", "go back again", "go forth again", 1 / 3, 5 / 13],
        ["2.wav", "clean", "no", "no", 0.0, 0.0],
        ["3.wav", "", "", "thank you", None, None],
    ]


def test_eval_wer_on_the_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two exact transcripts and one insertion: the table, the notes and the file."""
    names = ("pico-04.wav", "hibari-03.wav", "espeak-00.wav")
    heard = [said(name, "short") for name in names]
    begin, *more = heard[1].split()[:-1] or [""]
    truths = [f"{heard[0].capitalize()}!", " ".join([begin, *more]), heard[2]]
    written_truths = [truths[0], [begin, " ".join(more)], truths[2], "never looked for"]
    lines = [
        {"audio": str(media_file(name)), "text": text, "seconds": 1}
        for name, text in zip((*names, "absent.wav"), written_truths, strict=True)
    ]
    path = manifest(tmp_path, *lines)
    options = ["--model", "demo", "--dtype", "float32", "--prompt", SHORT, "--limit", "3"]
    written = tmp_path / "figures.json"
    assert main(["eval", "wer", str(path), *options, "--json", str(written)]) == 0
    out, err = capsys.readouterr()
    header, row = out.splitlines()
    assert header.split()[:9] == ["set", "recordings", "exact", "words", "sub", "del", "ins", "WER", "CER"]
    each = [score(truth, text, ENGLISH) for truth, text in zip(truths, heard, strict=True)]
    seconds = sum(soundfile.info(media_file(name)).duration for name in names)
    assert (row.split()[:9], float(row.split()[9])) == (counts(sum(each, Score())), pytest.approx(seconds, abs=0.1))
    assert [one.exact for one in each] == [1, 0, 1]
    assert err.splitlines() == [
        f"1/3 {lines[0]['audio']}",
        f"2/3 {lines[1]['audio']}: {truths[1]!r}, heard {heard[1]!r}",
        f"3/3 {lines[2]['audio']}",
    ]
    told = json.loads(written.read_text())
    assert (told["all"]["wer"], told["all"]["cer"]) == pytest.approx((sum(each, Score()).wer, sum(each, Score()).cer))
    assert (told["all"]["sound_seconds"], told["sets"]) == (pytest.approx(seconds, abs=0.02), {})
    assert [one["wer"] for one in told["recordings"]] == [one.wer for one in each]
    assert [one["heard"] for one in told["recordings"]] == heard

    for name, normalize, exact in (("basic", BASIC, 2), ("none", NONE, 1)):
        assert main(["eval", "wer", str(path), *options, "--normalizer", name]) == 0
        total = sum((score(truth, text, normalize) for truth, text in zip(truths, heard, strict=True)), Score())
        assert capsys.readouterr().out.splitlines()[1].split()[:9] == counts(total)
        assert total.exact == exact


def counts(total: Score) -> list[str]:
    """A row of the table without its times."""
    numbers = (total.recordings, total.exact, total.words, total.substitutions, total.deletions, total.insertions)
    return ["all", *map(str, numbers), f"{total.wer:.2%}", f"{total.cer:.2%}"]


def test_segments_are_joined(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A recording longer than a segment has one text; paths start at the manifest's folder."""
    (tmp_path / "dialogue.wav").write_bytes(media_file("dialogue.wav").read_bytes())
    path = manifest(tmp_path, {"audio": "dialogue.wav", "text": "nothing", "set": "several"})
    written = tmp_path / "figures.json"
    options = ["--model", "demo", "--dtype", "float32", "--prompt", SHORT, "--max-segment", "5", "--json", str(written)]
    assert main(["eval", "wer", str(path), *options]) == 0
    capsys.readouterr()
    assert main(["transcribe", str(tmp_path / "dialogue.wav"), *options[:-2]]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 2
    told = json.loads(written.read_text())
    assert told["recordings"][0]["heard"].split() == " ".join(lines).split()
    assert list(told["sets"]) == ["several"]


# manifests and their errors


def test_a_manifest(tmp_path: Path) -> None:
    """With a byte order mark, empty lines, other keys, a list, and U+2028 inside a text."""
    path = tmp_path / "manifest.jsonl"
    first = '{"audio": "a.wav", "text": "x\u2028y", "voice": 3}'
    second = '{"audio": "/b", "text": ["p", "q r"], "set": "s"}'
    path.write_bytes(f"\ufeff{first}\r\n\n{second}".encode())
    assert read_manifest(path) == [
        Recording("a.wav", tmp_path / "a.wav", "x\u2028y"),
        Recording("/b", Path("/b"), "p q r", "s"),
    ]


def test_no_such_manifest(tmp_path: Path, refused: Refused) -> None:
    for path in (tmp_path / "absent.jsonl", tmp_path):
        assert refused(path, "--model", "nowhere") == f"There is no manifest of JSON lines at {path}"


def test_an_empty_manifest(tmp_path: Path, refused: Refused) -> None:
    path = manifest(tmp_path, "", " ")
    assert refused(path) == f"There are no recordings in {path}: it has no lines"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{audio}", "Line 3 of {path} is not valid JSON: Expecting property name"),
        ([1], "Line 3 of {path} is not a JSON object but a list"),
        ({"text": "a"}, "Line 3 of {path} has no key 'audio'; its keys: text"),
        ({}, "Line 3 of {path} has no key 'audio'; its keys: none"),
        ({"audio": "a.wav", "seconds": 1}, "Line 3 of {path} has no key 'text'; its keys: audio, seconds"),
        ({"audio": 7, "text": "a"}, "Line 3 of {path} needs a string for 'audio', got 7"),
        ({"audio": "a.wav", "text": None}, "Line 3 of {path} needs a string for 'text', got None"),
        ({"audio": "a.wav", "text": ["a", 1]}, "Line 3 of {path} needs a string for 'text', got ['a', 1]"),
        ({"audio": "a.wav", "text": "a", "set": 1}, "Line 3 of {path} needs a string for 'set', got 1"),
    ],
)
def test_a_bad_line_is_named_by_its_number(tmp_path: Path, refused: Refused, line: Any, message: str) -> None:
    """Empty lines count."""
    path = manifest(tmp_path, {"audio": "a.wav", "text": "a"}, "", line)
    assert refused(path, "--model", "nowhere").startswith(message.format(path=path))


def test_a_manifest_that_is_no_text(tmp_path: Path, refused: Refused) -> None:
    path = tmp_path / "manifest.jsonl"
    path.write_bytes(b"\xff\xfe\x00")
    assert refused(path).startswith(f"{path} is not JSON lines: 'utf-8' codec can't decode")


def test_missing_recordings_are_reported_before_any_work(tmp_path: Path, refused: Refused) -> None:
    """The first one and their number, before the model is read."""
    sound_file(tmp_path / "a.wav")
    lines = [{"audio": name, "text": ""} for name in ("a.wav", "b.wav", "c.wav")]
    path = manifest(tmp_path, *lines)
    message = f"There is no audio file at {tmp_path / 'b.wav'}"
    assert refused(path, "--model", "nowhere") == f"{message} (2 are missing)"
    assert refused(path, "--model", "nowhere", "--limit", "2") == message


def test_bad_options(tmp_path: Path, refused: Refused) -> None:
    sound_file(tmp_path / "a.wav")
    path = manifest(tmp_path, {"audio": "a.wav", "text": "a"})
    assert refused(path, "--limit", "0") == "--limit must be 1 or more, got 0"
    message = f"--json needs a file, but {tmp_path} is a folder"
    assert refused(path, "--json", tmp_path, "--model", "nowhere") == message


@pytest.mark.parametrize("module", ["jiwer", "whisper_normalizer"])
def test_a_missing_extra_is_named(
    tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    """Before the model is read, with every normalizer, and in Python."""
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    sound_file(tmp_path / "a.wav")
    path = manifest(tmp_path, {"audio": "a.wav", "text": "a"})
    assert refused(path, "--normalizer", "none", "--model", "nowhere") == EXTRA
    for call in (normalizer, lambda: score("a", "b", str)):
        with pytest.raises(ImportError, match=f"^{re.escape(EXTRA)}$"):
            call()


def test_live_and_offline_stand_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same utterances and texts in two tables, and the delays."""
    told = [(name, " ".join(utterances(name, "short"))) for name in ("dialogue.wav", "pico-00.wav")]
    words, count = (
        sum(map(len, each)) for each in ([text.split() for _, text in told], [spans(name) for name, _ in told])
    )
    manifest, report = tmp_path / "manifest.jsonl", tmp_path / "report.json"
    manifest.write_text("".join(json.dumps({"audio": str(media_file(a)), "text": t}) + "\n" for a, t in told))
    options = ["--model", "demo", "--dtype", "float32", "--prompt", SHORT, "--normalizer", "basic"]
    assert main(["eval", "wer", str(manifest), "--live", "--json", str(report), *options]) == 0
    out = capsys.readouterr().out
    live, offline = out.split("\n\noffline, the same utterances\n")
    assert live.startswith("live\nset")
    assert [line.split()[:7] for line in (live + "\n" + offline).splitlines() if line.startswith("all")] == [
        ["all", "2", "2", str(words), "0", "0", "0"]
    ] * 2
    assert f"0 of {count} utterances differ between live and offline" in out
    figures = json.loads(report.read_text())
    assert figures["live"]["all"]["wer"] == figures["offline"]["all"]["wer"] == 0
    assert figures["work"]["audio_computed"] == figures["work"]["speech_frames"] > 100
    after_decision, after_speech = figures["delays"]["after_decision"], figures["delays"]["after_speech"]
    assert len(after_decision) == len(after_speech) == figures["utterances"] == count
    assert all(long > short for long, short in zip(after_speech, after_decision, strict=True))


def two_of_three(folder: Path) -> Path:
    """A manifest whose second recording holds no sound."""
    soundfile.write(folder / "zero.wav", np.zeros(0), 16_000)
    names = [str(media_file("pico-04.wav")), "zero.wav", str(media_file("hibari-03.wav"))]
    truths = [said(Path(name).name, "short") if name != "zero.wav" else "never heard" for name in names]
    return manifest(folder, *({"audio": name, "text": text} for name, text in zip(names, truths, strict=True)))


@pytest.mark.parametrize("mode", [[], ["--live"]])
def test_an_unreadable_recording_does_not_cost_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: list[str]
) -> None:
    """It is reported, counted, and named in the JSON file; the exit code is 2."""
    written = tmp_path / "figures.json"
    options = ["--model", "demo", "--dtype", "float32", "--prompt", SHORT, "--json", str(written), *mode]
    assert main(["eval", "wer", str(two_of_three(tmp_path)), *options]) == 2
    out, err = capsys.readouterr()
    rows = [line.split()[:3] for line in out.splitlines() if line.startswith("all")]
    assert rows == [["all", "2", "2"]] * (1 + len(mode))
    lines = err.splitlines()
    problem = f"{tmp_path / 'zero.wav'} holds no sound: 0 samples"
    assert lines[1] == f"zero.wav: {problem}" and lines[2].startswith("3/3 ")
    assert lines[-1] == (
        "mlx_gemma4: error: 1 of 3 recordings could not be read (zero.wav): the rates are those of the others"
    )
    told = json.loads(written.read_text())
    assert (told["unreadable"], told["complete"]) == ([{"audio": "zero.wav", "problem": problem}], True)


def test_an_interruption_keeps_what_was_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlx_gemma4.programs import segments

    def transcribe_each(*arguments: Any) -> Iterator[list[Segment]]:
        yield next(whole(*arguments))
        raise KeyboardInterrupt

    whole = segments.transcribe_each
    monkeypatch.setattr(segments, "transcribe_each", transcribe_each)
    written = tmp_path / "figures.json"
    options = ["--model", "demo", "--dtype", "float32", "--prompt", SHORT, "--json", str(written)]
    assert main(["eval", "wer", str(two_of_three(tmp_path)), *options]) == 130
    out, err = capsys.readouterr()
    assert out.splitlines()[1].split()[:3] == ["all", "1", "1"]
    assert err.splitlines()[-1] == "Stopped after 1 of 3 recordings: the rates are those of these."
    told = json.loads(written.read_text())
    assert (told["all"]["recordings"], told["complete"]) == (1, False)


def test_endpointing_has_options(tmp_path: Path, capsys: pytest.CaptureFixture[str], refused: Refused) -> None:
    """At a level of 0 dBFS nothing is speech."""
    path = manifest(tmp_path, {"audio": str(media_file("pico-04.wav")), "text": "go back"})
    assert main(["eval", "wer", str(path), "--model", "demo", "--level", "0"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:7] == ["all", "1", "0", "2", "0", "2", "0"]
    message = "Expected silence in seconds, got -1"
    assert refused(path, "--silence", "-1", "--model", "nowhere").startswith(message)


def test_a_language_code_is_its_language(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For the instruction and for the normalizer: the same table."""
    path = manifest(tmp_path, {"audio": str(media_file("pico-04.wav")), "text": said("pico-04.wav")})
    tables = []
    for language in ("English", "en", "EN-us"):
        assert main(["eval", "wer", str(path), "--model", "demo", "--dtype", "float32", "--language", language]) == 0
        tables.append(capsys.readouterr().out.splitlines()[1].split()[:9])
    assert tables[0] == tables[1] == tables[2] and tables[0][2] == "1"

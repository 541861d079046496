"""Word and character error rates over a manifest of recordings.

Knows no model: what transcribes is a function, so a live transcriber is measured like any other.

- Rates are those of the whole corpus: all errors divided by all words (characters) of the true texts, not a mean of
  the recordings' rates.
- Where the true text is empty (silence), each transcribed word is an insertion: it adds to the errors, but not to the
  words. If all true texts are empty, there is no rate (None); read the insertions.
- Words are compared after Whisper's normalizer, as is usual. The English one writes number words as digits and joins
  neighbours: "eight eight zero four" becomes "8804", **one** word, and so does "8804", but "8 8 0 4" stays four.
  One wrong digit is then a wrong number, and a missing one a substitution. Where digits are spoken one by one, the
  word error rate counts numbers; with ``basic`` it counts digits. Both texts must group digits alike and use the same
  apostrophe: "it's" becomes "it is", but "it’s" becomes "it s".
- Words are separated by spaces: for languages written without spaces, read the character error rate.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mlx_gemma4.inputs.audio.recording import SAMPLE_RATE, load_audio
from mlx_gemma4.programs.languages import find_language

Normalizer = Callable[[str], str]
NORMALIZERS = ("whisper", "basic", "none")


@dataclass(frozen=True)
class Recording:
    """A line of a manifest."""

    name: str
    """As the manifest writes it."""
    path: Path
    text: str
    """The true text."""
    group: str = ""
    """The manifest's "set"; empty where it has none."""


@dataclass(frozen=True)
class Score:
    """Counts of one recording or of many: scores can be added."""

    recordings: int = 0
    exact: int = 0
    """Recordings without an error."""
    words: int = 0
    """Words of the true text; ``characters``: its characters, including spaces between words."""
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    characters: int = 0
    character_errors: int = 0
    sound_seconds: float = 0.0
    work_seconds: float = 0.0

    def __add__(self, other: Score) -> Score:
        return Score(*(count + more for count, more in zip(astuple(self), astuple(other), strict=True)))

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def wer(self) -> float | None:
        """Errors per word of the true text; None without words."""
        return _ratio(self.errors, self.words)

    @property
    def cer(self) -> float | None:
        """The same for characters."""
        return _ratio(self.character_errors, self.characters)

    @property
    def real_time_factor(self) -> float | None:
        """Seconds of work per second of sound; None without sound."""
        return _ratio(self.work_seconds, self.sound_seconds)


@dataclass(frozen=True)
class Result:
    """A recording, its transcript, and the score."""

    recording: Recording
    heard: str
    score: Score


def read_manifest(path: str | os.PathLike[str]) -> list[Recording]:
    """Read JSON lines ``{"audio": path, "text": true text, "set": group}``.

    "set" may be missing; other keys are ignored. Paths are relative to the manifest's folder. A text that is a list is
    joined by spaces. ``check_files`` checks whether the recordings exist.

    Raises:
        ValueError: No such manifest, a line that is not as above (named by its number), or no lines at all.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"There is no manifest of JSON lines at {path}")
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # not splitlines: a JSON string may hold U+2028
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not JSON lines: {error}") from error
    recordings = [
        _recording(line, f"Line {number} of {path}", path.parent)
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    if not recordings:
        raise ValueError(f"There are no recordings in {path}: it has no lines")
    return recordings


def check_files(recordings: Iterable[Recording]) -> None:
    """Raise a ValueError that names the first recording without a file and counts the others."""
    missing = [recording.path for recording in recordings if not recording.path.is_file()]
    if missing:
        others = f" ({len(missing)} are missing)" if len(missing) > 1 else ""
        raise ValueError(f"There is no audio file at {missing[0]}{others}")


def check_extra() -> None:
    """Raise an ImportError that says what to install, unless the [eval] extra is installed."""
    try:
        import jiwer  # noqa: F401
        import whisper_normalizer.english  # noqa: F401
    except ImportError as error:
        raise ImportError("Error rates need two packages: pip install jiwer whisper-normalizer") from error


def normalizer(name: str = "whisper", language: str = "English") -> Normalizer:
    """One of NORMALIZERS: Whisper's for the language, its basic one, or none.

    ``whisper`` is the English one for English, and the basic one otherwise. The basic one lowers the case and removes
    punctuation, including the vowel signs of Indic scripts.
    """
    if name not in NORMALIZERS:
        raise ValueError(f"Expected a normalizer of {', '.join(NORMALIZERS)}, got {name!r}")
    if name == "none":
        return str
    check_extra()
    from whisper_normalizer.basic import BasicTextNormalizer
    from whisper_normalizer.english import EnglishTextNormalizer

    if name == "whisper" and find_language(language) == "English":
        return EnglishTextNormalizer()
    return BasicTextNormalizer()


def score(truth: str, heard: str, normalize: Normalizer) -> Score:
    """Count the errors of a transcript, after ``normalize`` and with single spaces."""
    check_extra()
    import jiwer

    truth, heard = (" ".join(normalize(text).split()) for text in (truth, heard))
    counted = Score(recordings=1, exact=int(truth == heard), words=len(truth.split()), characters=len(truth))
    if not truth:  # older releases of jiwer refuse it
        return replace(counted, insertions=len(heard.split()), character_errors=len(heard))
    words, characters = jiwer.process_words(truth, heard), jiwer.process_characters(truth, heard)
    return replace(
        counted,
        substitutions=words.substitutions,
        deletions=words.deletions,
        insertions=words.insertions,
        character_errors=characters.substitutions + characters.deletions + characters.insertions,
    )


Transcribe = Callable[[Iterable[np.ndarray]], Iterator[str]]
"""Recordings, samples [n] at 16 kHz each, to the text of each, in order. It may read ahead."""


def evaluate(
    recordings: Iterable[Recording],
    transcribe: Transcribe,
    normalize: Normalizer,
    *,
    unreadable: Callable[[Recording, Exception], None] | None = None,
) -> Iterator[Result]:
    """Transcribe recordings and score the texts, in order.

    The work of a recording is the time since the result before, without reading files. If recordings are transcribed
    side by side, only the sum over many has a meaning.

    Args:
        unreadable: Takes a recording that cannot be read, and why; it has no result. Without it, the error is raised.
    """
    waiting: deque[tuple[Recording, float | Exception]] = deque()
    """Recordings whose text is not known: seconds of sound, or why they cannot be read."""
    reading = 0.0

    def sounds() -> Iterator[np.ndarray]:
        nonlocal reading
        for recording in recordings:
            start = time.perf_counter()
            try:
                samples = load_audio(recording.path)
            except (ValueError, OSError) as problem:
                if unreadable is None:
                    raise
                waiting.append((recording, problem))
                continue
            finally:
                reading += time.perf_counter() - start
            waiting.append((recording, len(samples) / SAMPLE_RATE))
            yield samples

    texts = transcribe(sounds())
    while True:
        start, before = time.perf_counter(), reading
        heard = next(texts, None)
        work = time.perf_counter() - start - (reading - before)
        while waiting and isinstance(problem := waiting[0][1], Exception) and unreadable is not None:
            unreadable(waiting.popleft()[0], problem)
        if heard is None:
            return
        recording, seconds = waiting.popleft()
        assert isinstance(seconds, float)
        counted = score(recording.text, heard, normalize)
        counted = replace(counted, sound_seconds=seconds, work_seconds=work)
        yield Result(recording, heard, counted)


def totals(results: Iterable[Result]) -> dict[str, Score]:
    """The score of each group, in the order of their first recordings."""
    groups: dict[str, Score] = {}
    for result in results:
        group = result.recording.group
        groups[group] = groups.get(group, Score()) + result.score
    return groups


def _ratio(count: float, of: float) -> float | None:
    return count / of if of else None


def _recording(line: str, where: str, folder: Path) -> Recording:
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where} is not valid JSON: {error}") from error
    if not isinstance(entry, dict):
        raise ValueError(f"{where} is not a JSON object but a {type(entry).__name__}")
    audio, text, group = (_value(entry, key, where) for key in ("audio", "text", "set"))
    if isinstance(text, list) and all(isinstance(part, str) for part in text):
        text = " ".join(text)
    for key, value in (("audio", audio), ("text", text), ("set", group)):
        if not isinstance(value, str):
            raise ValueError(f"{where} needs a string for {key!r}, got {value!r}")
    return Recording(audio, folder / audio, text, group)


def _value(entry: dict[str, Any], key: str, where: str) -> Any:
    if key == "set":
        return entry.get(key, "")
    if key not in entry:
        raise ValueError(f"{where} has no key {key!r}; its keys: {', '.join(entry) or 'none'}")
    return entry[key]

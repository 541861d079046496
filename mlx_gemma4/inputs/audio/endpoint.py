"""Finds utterances: where one begins, when it ends, and which of its frames are worth a forward pass.

No clock and no model: the same frames give the same utterances, however they are grouped. numpy only.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from mlx_gemma4.inputs.audio.frames import cut_point

LONGEST = 30.0
"""Seconds of sound that the model takes at once."""
MAX_FRAMES = 375
"""Frames of the longest utterance by default: 15 s of 40 ms each."""


@dataclass(frozen=True)
class Endpointing:
    """What counts as speech, and what ends it. Times are rounded to whole frames."""

    threshold: float = 0.5
    """Probability at which speech begins."""
    release: float = 0.35
    """Probability at which it goes on: lower, so that a soft syllable does not end it."""
    level: float = -math.inf
    """dBFS (RMS) below which a frame is silence, whatever the detector says. By default the detector alone decides."""
    silence: float = 0.5
    """Seconds of silence that end an utterance."""
    pre_roll: float = 0.5
    """Seconds from before the first speech that belong to the utterance: a soft first sound is not lost."""
    tail: float = 0.2
    """Seconds of a silence that are returned at once, as part of the utterance; also the gaps that ``min_speech`` may
    have."""
    min_speech: float = 0.08
    """Seconds of speech, within ``min_speech + tail``, that make an utterance; less is a click, which is silence."""

    def __post_init__(self) -> None:
        if not 0 <= self.release <= self.threshold <= 1:
            raise ValueError(
                f"Expected 0 ≤ release ≤ threshold ≤ 1, got a release of {self.release:g} "
                f"and a threshold of {self.threshold:g}"
            )
        if not self.level <= 0:
            raise ValueError(f"Expected a level of at most 0 dBFS, got {self.level:g}")
        for name in ("silence", "pre_roll", "tail", "min_speech"):
            seconds = getattr(self, name)
            if not (math.isfinite(seconds) and seconds >= 0):
                raise ValueError(f"Expected {name} in seconds, got {seconds:g}")
        if self.silence == 0:
            raise ValueError("silence must be more than 0 seconds, got 0")
        if self.tail > self.silence:
            raise ValueError(f"Expected a tail of at most the silence, {self.silence:g} s, got {self.tail:g}")

    def check_longest(self, seconds: float, rounding: float = 0.0) -> None:
        """Raise a ValueError unless an utterance of at most so many seconds has room for its beginning.

        Args:
            rounding: How much shorter ``seconds`` may be than what was asked for: half a frame, once it is in frames.
        """
        beginning = self.pre_roll + self.min_speech + self.tail
        if beginning > seconds + rounding + 1e-9:  # 1e-9: a sum of decimals
            raise ValueError(
                f"pre_roll + min_speech + tail take {beginning:g} s, but an utterance may have only {seconds:g} s; "
                "shorten pre_roll, or allow longer utterances"
            )


DEFAULT = Endpointing()


@dataclass(frozen=True)
class Begin:
    """An utterance begins."""

    start: int
    """Its first frame, pre-roll included, counted from the beginning of the sound."""
    pre_roll: int = field(default=0, compare=False)
    """Frames before the first speech."""


@dataclass(frozen=True, eq=False)
class Speech:
    """It goes on."""

    frames: np.ndarray
    """[F, frame_samples], to be fed to the model now."""


@dataclass(frozen=True)
class End:
    """It is over: its first ``length`` frames are the utterance.

    If the reason is "length", more frames were returned; they will be judged again, for the next utterance.
    """

    length: int
    reason: Literal["silence", "length", "end of sound"]
    speech: tuple[tuple[int, int], ...] = field(default=(), compare=False)
    """Where in these frames the detector heard speech: first frames, and those after the last."""


EndpointerEvent = Begin | Speech | End


class _Frame(NamedTuple):
    samples: np.ndarray
    speech: bool
    digital: bool
    """Exact zeros: what files are padded with, and what muted or gated devices deliver."""


class Endpointer:
    """Frames in, utterances out, as they come: ``Begin``, ``Speech``, …, ``End``, and nothing while nobody speaks.

    Each frame is judged once, in order. Between utterances, frames wait as long as they may become a pre-roll. Within
    one, speech is returned at once, and so is the short tail of a silence. The rest is held back. If speech
    goes on, it is returned first, so that an utterance's frames are contiguous; otherwise it is never computed.

        sound      0000~~~~SSSSS~~~~SSSSS~~~~~~~~~0000   S speech, ~ noise, 0 digital silence
        waits      ^^^^^^^^^                             may become the pre-roll
        returned       ^^^^^^^^^^^^^^^^^^^^              pre-roll, speech with its pauses, tail
        held back                 ^^       ^^^^^         returned if speech goes on, else dropped
        events              Begin              End       enough speech; enough silence

    Digital silence is never the beginning of a pre-roll nor part of a tail, so zeros around a recording change nothing.

    An utterance that becomes too long is cut at a pause (``cut_point``) after the place where its speech was confirmed,
    so that no part is empty. The frames after the cut are taken again as if they were new: they begin the next
    utterance, at the cut if the pre-roll reaches back to it, but only if they, or what follows them, are speech.

    Args:
        voice: Frame [frame_samples] → probability of speech (``Voice``). Called once per frame, in order.
        frame_seconds: How long a frame is.
        max_frames: Frames after which an utterance is cut; 15 s of the 12B's frames by default. The transcriber, which
            needs room for them, sets it when the two are joined (``limit``).

    Raises:
        ValueError: ``max_frames`` has no room for the beginning of an utterance, or is more than the model takes.
    """

    def __init__(
        self,
        voice: Callable[[np.ndarray], float],
        settings: Endpointing = DEFAULT,
        *,
        frame_seconds: float = 0.04,
        max_frames: int = MAX_FRAMES,
    ) -> None:
        self.speaking = False
        """Is an utterance open?"""
        self.level = -math.inf
        """dBFS of the last frame."""
        self.probability = 0.0
        """Of speech, in the last frame."""
        self.silent = 0
        """Frames of silence. Those that may still become a pre-roll are counted by ``finish``."""
        self.gated = 0
        """Frames that the detector took for speech, but that are below ``level``."""
        self.spoken = 0
        """Frames returned. One that was returned twice, because of a cut, counts once."""
        self.settings = settings
        self.frame_seconds = frame_seconds
        self._voice = voice
        self._silence = self._count(settings.silence, least=1)
        self._tail = self._count(settings.tail)
        self._min_speech = self._count(settings.min_speech, least=1)
        self.limit(max_frames)

        self._was_speech = False
        self._todo: deque[_Frame] = deque()  # judged, not yet taken (again)
        self._position = 0  # of the next frame to be taken
        self._returned = 0  # the position after the last frame returned
        self._waiting: list[_Frame] = []  # up to the position, of no utterance yet
        self._utterance: list[_Frame] = []  # returned, from _start on
        self._start = 0
        self._confirmed = 0  # how many of them there were when speech was confirmed
        self._held: list[_Frame] = []  # silent, after the utterance's
        self._quiet = 0  # silent frames since the last speech
        self._events: list[EndpointerEvent] = []
        self._speech: list[np.ndarray] = []  # the last event, while it grows

    @property
    def pause(self) -> int:
        """Frames of silence since the last speech of an open utterance."""
        return self._quiet if self.speaking else 0

    @property
    def until_complete(self) -> int | None:
        """Frames of silence until an open utterance is complete: if it ended then, all its frames would have been
        returned. 0 from then on; None while somebody speaks, or nobody does."""
        if not self.pause:
            return None
        return 0 if self._held else max(0, self._tail - self._quiet)

    def limit(self, max_frames: int) -> None:
        """Cut utterances after this many frames.

        Raises:
            ValueError: It has no room for the beginning of an utterance, is more than the model takes, or an utterance
                is open.
        """
        most = round(LONGEST / self.frame_seconds)
        if not 1 <= max_frames <= most:
            raise ValueError(f"Expected utterances of 1 to {most} frames ({LONGEST:g} s), got {max_frames}")
        if self.speaking:
            raise ValueError("An utterance is open; set the longest utterance before it begins, or after finish()")
        self.settings.check_longest(max_frames * self.frame_seconds, rounding=self.frame_seconds / 2)
        self.max_frames = max_frames
        # each rounded up to whole frames, the parts of a beginning could exceed the longest utterance by a frame
        self._window = min(self._min_speech + self._tail, max_frames)
        self._pre_roll = min(self._count(self.settings.pre_roll), max_frames - self._window)

    def _count(self, seconds: float, least: int = 0) -> int:
        """Whole frames of so many seconds."""
        return max(least, round(seconds / self.frame_seconds))

    def push(self, frames: np.ndarray) -> list[EndpointerEvent]:
        """Take the next frames [F, frame_samples], any number; return what happened."""
        if frames.ndim != 2:
            raise ValueError(f"Expected frames [F, frame_samples], got {list(frames.shape)}")
        for samples in np.array(frames, dtype=np.float32):
            self._todo.append(self._judge(samples))
            while self._todo:
                self._take(self._todo.popleft())
        return self._happened()

    def finish(self) -> list[EndpointerEvent]:
        """The sound has ended: end the open utterance, drop what waits. Frames pushed later are numbered on."""
        if self.speaking:
            self._end("end of sound")
        self._pass_over(len(self._waiting))
        self._was_speech = False
        return self._happened()

    def _judge(self, samples: np.ndarray) -> _Frame:
        power = float(np.mean(np.square(samples, dtype=np.float64)))
        self.level = 10 * math.log10(power) if power > 0 else -math.inf
        self.probability = self._voice(samples)
        digital = power == 0
        needed = self.settings.release if self._was_speech else self.settings.threshold
        probable = self.probability >= needed and not digital
        self._was_speech = probable and self.level >= self.settings.level
        self.gated += probable and not self._was_speech
        return _Frame(samples, self._was_speech, digital)

    def _take(self, frame: _Frame) -> None:
        self._position += 1
        if not self.speaking:
            self._wait(frame)
        elif frame.speech:
            held, self._held = self._held, []
            self._quiet = 0
            self._give([*held, frame])
        else:
            self._quiet += 1
            is_tail = self._quiet <= self._tail and not frame.digital and not self._held
            if is_tail and len(self._utterance) < self.max_frames:
                self._give([frame])
            else:
                self._held.append(frame)
            if self._quiet == self._silence:
                self._end("silence")

    def _wait(self, frame: _Frame) -> None:
        self._waiting.append(frame)
        recent = [frame.speech for frame in self._waiting[-self._window :]]
        if frame.speech and sum(recent) >= self._min_speech:
            self._begin(before=len(self._waiting) - len(recent) + recent.index(True))
        else:
            self._pass_over(len(self._waiting) - self._window - self._pre_roll)

    def _begin(self, before: int) -> None:
        """Begin an utterance with the waiting frames; the first ``before`` of them are not speech yet."""
        self._pass_over(before - self._pre_roll)
        self._pass_over(next(number for number, frame in enumerate(self._waiting) if not frame.digital))
        frames, self._waiting = self._waiting, []
        self.speaking = True
        self._start = self._position - len(frames)
        self._confirmed = len(frames)
        self._quiet = 0
        pre_roll = next(number for number, frame in enumerate(frames) if frame.speech)
        self._emit(Begin(self._start, pre_roll))
        self._give(frames)

    def _give(self, frames: list[_Frame]) -> None:
        fitting = frames[: self.max_frames - len(self._utterance)]
        self._utterance += fitting
        self._speech += [frame.samples for frame in fitting]
        end = self._start + len(self._utterance)
        self.spoken += max(0, end - max(self._returned, end - len(fitting)))
        self._returned = max(self._returned, end)
        if len(fitting) < len(frames):
            self._cut(frames[len(fitting) :])

    def _cut(self, more: list[_Frame]) -> None:
        speech = np.stack([frame.samples for frame in self._utterance])
        length = self._confirmed + cut_point(speech[self._confirmed :])
        again = self._utterance[length:] + more
        self._close(length, "length")
        self._position = self._start + length
        self._todo.extendleft(reversed(again))

    def _end(self, reason: Literal["silence", "end of sound"]) -> None:
        self._close(len(self._utterance), reason)
        self._waiting, self._held = self._held, []

    def _close(self, length: int, reason: Literal["silence", "length", "end of sound"]) -> None:
        self._emit(End(length, reason, _runs(frame.speech for frame in self._utterance[:length])))
        self._utterance = []
        self.speaking = False

    def _pass_over(self, count: int) -> None:
        """Drop the first ``count`` waiting frames as silence, unless they were in an utterance before a cut."""
        count = max(0, count)
        first = self._position - len(self._waiting)
        self.silent += max(0, first + count - max(self._returned, first))
        del self._waiting[:count]

    def _emit(self, event: EndpointerEvent) -> None:
        self._events = [*self._happened(), event]

    def _happened(self) -> list[EndpointerEvent]:
        events, self._events = self._events, []
        if self._speech:
            events.append(Speech(np.stack(self._speech)))
            self._speech = []
        return events


def _runs(flags: Iterable[bool]) -> tuple[tuple[int, int], ...]:
    """Where they are true: first positions, and those after the last."""
    edges: list[int] = []
    for position, flag in enumerate([*flags, False]):
        if flag != bool(len(edges) % 2):
            edges.append(position)
    return tuple(zip(edges[::2], edges[1::2], strict=True))

"""The engine of live watching: pictures in, answers out. No devices, no display; the clock only measures.

A question is asked when the scene has changed and is still for a moment, when it has kept changing for long, when it
has not changed for long, or at regular times. A picture that is not asked about costs no forward.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mlx_gemma4.decoder.model import Model
from mlx_gemma4.inputs.processor import Processor
from mlx_gemma4.live.see.camera import Shot
from mlx_gemma4.live.see.scene import THRESHOLD, Scene
from mlx_gemma4.live.see.settling import MAX_WAIT, SAME_MOMENT, SETTLE, Settling
from mlx_gemma4.live.see.views import Asking, Glance, Memory, View
from mlx_gemma4.outputs.answer import text_of
from mlx_gemma4.outputs.drafter import Drafter

Reason = Literal["change", "heartbeat", "every"]


@dataclass(frozen=True)
class Sighting:
    """What the model says about a picture."""

    time: float
    """When the picture was taken, in seconds since the camera's first."""
    reason: Reason
    """Why it was asked."""
    text: str
    begun: float
    """Seconds from the picture's arrival to the first forward."""
    age: float
    """Seconds from the picture's arrival to the complete answer."""
    tokens: int
    """Including the one that ended the answer."""
    forwards: int
    """One for the picture and the question, then one for each further token. Fewer if the last answer still holds, more
    if a memory was computed again."""
    dropped: int
    """Pictures so far that were never read."""
    complete: bool
    """False where the answer was cut: at ``max_tokens``, or in a loop."""


@dataclass
class Looks:
    """What a watcher has done."""

    shots: int = 0
    changes: int = 0
    """Changes that were asked about or remembered."""
    asked: int = 0
    told: int = 0
    """Answers that were reported; fewer with ``only_new``."""


@dataclass(frozen=True)
class Watching:
    """A standing question, and when it is asked. All seconds are those of the pictures."""

    question: str = "Describe the image."
    system: str | None = None
    """A system message."""
    every: float | None = None
    """Ask every so many seconds, instead of on changes."""
    heartbeat: float = 60.0
    """Ask again after so many seconds without a change; 0 never does."""
    threshold: float = THRESHOLD
    """What counts as a change (``Scene``)."""
    settle: float = SETTLE
    """Ask about a change when nothing has moved for so many seconds; 0 asks at once. A scene that then looks as before,
    as after a flash, has not changed."""
    max_wait: float = MAX_WAIT
    """Ask about a scene that keeps changing at most so many seconds after the change began."""
    memory: int = 0
    """Show the model the last changes, at most so many pictures, as a video with their times. Each is computed once. A
    question without a change adds the current picture. 0 shows the newest picture alone."""
    only_new: bool = False
    """Do not report an answer that equals the one before."""
    image_tokens: int | None = None
    """Budget of each picture: 70, 140, 280, 560 or 1120. By default the checkpoint's for images, or with ``memory``
    that for video frames."""
    max_tokens: int = 100
    """Tokens of an answer."""

    def __post_init__(self) -> None:
        if self.every is not None and not self.every > 0:
            raise ValueError(f"Expected more than 0 seconds between two questions, got {self.every:g}")
        if not self.heartbeat >= 0:
            raise ValueError(f"Expected a heartbeat of 0 seconds (none) or more, got {self.heartbeat:g}")


DEFAULT = Watching()


class Watcher:
    """Answers a standing question about what a camera sees.

    Args:
        drafter: As for ``stream_generate``.

    Raises:
        ValueError: A setting is out of bounds, or the checkpoint takes no pictures, or no video.
    """

    def __init__(
        self,
        model: Model,
        processor: Processor,
        settings: Watching = DEFAULT,
        *,
        drafter: Drafter | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.looks = Looks()
        self._processor = processor
        self._clock = clock
        self._scene = Scene(settings.threshold)
        self._settling = Settling(settle=settings.settle, max_wait=settings.max_wait, threshold=settings.threshold)
        self._remembers = settings.memory != 0
        asking = Asking(
            model,
            processor,
            question=settings.question,
            system=settings.system,
            max_tokens=settings.max_tokens,
            drafter=drafter,
        )
        self._view: View = (
            Memory(asking, size=settings.memory, image_tokens=settings.image_tokens)
            if self._remembers
            else Glance(asking, image_tokens=settings.image_tokens)
        )
        self._asked: float | None = None
        self._last: Shot | None = None
        self._draft: list[int] = []
        self._text: str | None = None

    @property
    def forwards(self) -> int:
        """Forward passes so far."""
        return self._view.session.forwards

    def see(self, shot: Shot) -> Sighting | None:
        """Take a picture. Returns what the model says about it, if it was asked and there is something to report."""
        self.looks.shots += 1
        self._last = shot
        changed, is_due = self._look(shot)
        reason = self._reason(shot.time, is_due)
        if is_due or reason is not None:
            self._take(shot, changed)
        return None if reason is None else self._ask(shot, reason)

    def finish(self) -> Sighting | None:
        """The pictures have ended. Returns what the model says about a change that has not settled."""
        shot, self._last = self._last, None
        if shot is None or self.settings.every is not None or not self._settling.waits:
            return None
        self._take(shot, True)
        return self._ask(shot, "change")

    def _look(self, shot: Shot) -> tuple[bool, bool]:
        """Whether the scene has changed, and whether to ask about that now."""
        if self.settings.every is not None and not self._remembers:
            return False, False
        changed = self._scene.changed(shot.pixels)
        settled = self._settling.is_due(self._scene.seen, changed, shot.time)
        return changed, settled or self._scene.is_new

    def _take(self, shot: Shot, changed: bool) -> None:
        self.looks.changes += changed
        self._view.take(shot.pixels, shot.time, passing=self._remembers and not changed)
        if changed or not self._remembers:  # a passing picture is not compared with later ones
            self._scene.accept()
        self._settling.asked()

    def _reason(self, now: float, changed: bool) -> Reason | None:
        passed = float("inf") if self._asked is None else now - self._asked + SAME_MOMENT
        if self.settings.every is not None:
            return "every" if passed >= self.settings.every else None
        if changed:
            return "change"
        return "heartbeat" if 0 < self.settings.heartbeat <= passed else None

    def _ask(self, shot: Shot, reason: Reason) -> Sighting | None:
        before, begun = self.forwards, self._clock()
        tokens = self._view.ask(self._draft)
        self._asked, self._draft = shot.time, tokens
        self.looks.asked += 1
        text, known = text_of(tokens, self._processor, self._view.tail), self._text
        self._text = text
        if self.settings.only_new and text == known:
            return None
        self.looks.told += 1
        return Sighting(
            time=shot.time,
            reason=reason,
            text=text,
            begun=begun - shot.arrived,
            age=self._clock() - shot.arrived,
            tokens=len(tokens),
            forwards=self.forwards - before,
            dropped=shot.dropped,
            complete=tokens[-1] in self._processor.stop_ids,
        )

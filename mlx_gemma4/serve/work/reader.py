"""Reads a recording in a thread of its own: decoding and the search for speech do not hold up the engine."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import BinaryIO

import numpy as np

from mlx_gemma4.inputs.audio.endpoint import Endpointer
from mlx_gemma4.inputs.audio.recording import SAMPLE_RATE, stream_audio
from mlx_gemma4.programs.segments import Utterance, utterances
from mlx_gemma4.serve.protocols.failure import Failure

AHEAD = 16
"""Utterances that are read before they are needed, at most."""


class Recording:
    """A file of a request, for ``stream_audio``. Messages call it what it is, without a name."""

    name = "the file"

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, count: int = -1) -> bytes:
        return self._file.read(count)


class Reader:
    """Finds the utterances of a recording.

    Args:
        make_endpointer: Makes what finds them. Called in the thread: it loads a detector.
        longest: Seconds that are read, at most.
        arrived: Called in the thread when there is something new.

    Attributes:
        seconds: How much was read.
    """

    def __init__(
        self,
        file: BinaryIO,
        make_endpointer: Callable[[], Endpointer],
        frame_samples: int,
        longest: float,
        arrived: Callable[[], None],
    ) -> None:
        self._file, self._make_endpointer, self._frame_samples = file, make_endpointer, frame_samples
        self._longest, self._arrived = longest, arrived
        self._found: deque[Utterance] = deque()
        self._changed = threading.Condition()
        self._has_ended = self._is_stopped = False
        self._problem: Exception | None = None
        self.seconds = 0.0
        # no daemon, as the engine is: the program would end while the detector, which is not Python, runs in it
        threading.Thread(target=self._run, name="reader", daemon=False).start()

    def take(self) -> Iterator[Utterance | None]:
        """The utterances; None where the next one is not found yet.

        Raises:
            Failure: The recording cannot be read, or not to its end.
        """
        while True:
            with self._changed:
                has_ended = self._has_ended
                utterance = self._found.popleft() if self._found else None
                self._changed.notify()
            if utterance is None and has_ended:
                break
            yield utterance
        if isinstance(self._problem, ValueError):
            raise Failure(400, str(self._problem), param="file", code="invalid_audio") from self._problem
        if self._problem is not None:
            raise self._problem

    def stop(self) -> None:
        """Read no further. The file may be closed."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify()

    def _run(self) -> None:
        try:
            for utterance in utterances(self._blocks(), self._make_endpointer(), self._frame_samples):
                with self._changed:
                    self._changed.wait_for(lambda: len(self._found) < AHEAD or self._is_stopped)
                    if self._is_stopped:
                        return
                    self._found.append(utterance)
                self._arrived()
        except Exception as error:
            self._problem = error
        finally:
            with self._changed:
                self._has_ended = True
            self._arrived()

    def _blocks(self) -> Iterator[np.ndarray]:
        with stream_audio(Recording(self._file)) as stream:  # type: ignore[arg-type]
            for block in stream:
                if self._is_stopped:
                    return
                self.seconds += len(block) / SAMPLE_RATE
                if self.seconds > self._longest:
                    raise ValueError(f"{stream.name} is longer than {self._longest:g} s; cut it first")
                yield block

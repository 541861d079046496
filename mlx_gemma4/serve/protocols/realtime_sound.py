"""``input_audio_buffer``: base64 to sound at 16 kHz, as one stream, however it is cut; and events that tell of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mlx_gemma4.inputs.audio.pcm import SampleStream
from mlx_gemma4.inputs.audio.recording import Resampler
from mlx_gemma4.serve.protocols.data_url import decode_base64
from mlx_gemma4.serve.protocols.failure import Failure
from mlx_gemma4.serve.protocols.realtime_request import ENCODINGS

Event = dict[str, Any]

SHORTEST = 0.1
"""Seconds of sound that can be committed, at least."""
LONGEST_APPEND = 15 * 1024 * 1024
"""Bytes of base64 in one append."""
EMPTY_COMMIT = "input_audio_buffer_commit_empty"
TRANSCRIPTION = "conversation.item.input_audio_transcription"
"""The types of events that tell words begin so."""


class SoundStream:
    """The sound of a connection.

    Attributes:
        seconds: Of sound since the last commit.
        has_begun: Whether any sound has come.
    """

    def __init__(self) -> None:
        self._resampler = Resampler()
        self._samples = SampleStream()
        self.seconds = 0.0
        self.has_begun = False

    def append(self, audio: str, encoding: str, rate: int) -> np.ndarray:
        """Take base64; return the samples [n] float32 at 16 kHz that are complete, perhaps none.

        Raises:
            Failure: It is too long, or not base64. Nothing was taken.
        """
        if len(audio) > LONGEST_APPEND:
            raise Failure(400, "An append may have at most 15 MiB of base64", param="audio", code="invalid_value")
        samples = self._samples.push(decode_base64(audio, "audio") if audio else b"", ENCODINGS[encoding])[:, 0]
        if not len(samples):
            return samples
        self.has_begun = True
        self.seconds += len(samples) / rate
        return self._resampler.push(samples, rate)

    def commit(self) -> tuple[np.ndarray, float]:
        """End the buffer; return its last samples, and its seconds.

        Raises:
            Failure: It is too short. It goes on.
        """
        if self.seconds < SHORTEST:
            raise Failure(
                400,
                f"The buffer has {1000 * self.seconds:.0f} ms of audio, and a commit needs "
                f"{1000 * SHORTEST:.0f} ms at least",
                code=EMPTY_COMMIT,
            )
        seconds, self.seconds = self.seconds, 0.0
        self._samples.clear()
        return self._resampler.finish(), seconds

    def finish(self) -> np.ndarray:
        """The last samples: nothing follows."""
        return self._resampler.finish()

    def clear(self) -> None:
        """Forget what is not complete."""
        self.seconds, self._resampler = 0.0, Resampler()
        self._samples.clear()

    def change_format(self) -> None:
        """What follows is of another format: half a sample cannot go on."""
        self._samples.clear()


def committed(
    event: Callable[..., dict[str, Any]], item: Mapping[str, Any], previous: str | None
) -> list[dict[str, Any]]:
    """The events that tell that sound has become an item.

    Args:
        event: Makes an event of a type and its fields.
        item: Its record.
        previous: The id of the item before it.
    """
    return [
        event("input_audio_buffer.committed", item_id=item["id"], previous_item_id=previous),
        event("conversation.item.added", item=item, previous_item_id=previous),
        event("conversation.item.done", item=item, previous_item_id=previous),
    ]


def ms(seconds: float) -> int:
    """Milliseconds, as events count time."""
    return round(1000 * seconds)

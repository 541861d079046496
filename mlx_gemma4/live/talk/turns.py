"""What a checkpoint's template writes around the turns of a conversation, so that each part can enter when it arrives.

A template renders whole chats. What it writes between the turns is always the same, so a chat of slots is rendered once
and cut at the slots:

    opening  ▒slot▒  closing | resumed  ▒slot▒  bridge  ▒slot▒ …
             user                       model           user

numpy only; knows no session.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlx_gemma4.inputs.processor import Processor
from mlx_gemma4.inputs.prompt import AUDIO, Prompt, join
from mlx_gemma4.inputs.vision.image import Patches


class Turns:
    """The parts of a conversation as prompts.

    Attributes:
        opening: The system's turn and the beginning of the first user turn.
        closing: From the end of a user's message to where the answer begins.
        resumed: The same in a finished turn, where a template may write it differently.
        bridge: From the end of an answer to the beginning of the next user turn.
        sound_begin: Before the frames of an utterance; ``sound_end`` comes after them.

    Raises:
        ValueError: The template refuses such a chat, or writes the same turn in several ways.
    """

    def __init__(
        self, processor: Processor, *, system: str | None = None, tools: Sequence[Mapping[str, Any]] | None = None
    ) -> None:
        self._processor = processor
        system_turn: list[Mapping[str, Any]] = [] if system is None else [{"role": "system", "content": system}]
        self._slot = slot = processor.tokenizer.markup.slot
        user = {"role": "user", "content": [{"type": "text", "text": slot}]}
        chat = [
            *system_turn,
            user,
            {"role": "assistant", "content": slot},
            user,
            {"role": "assistant", "content": slot},
        ]
        opening, resumed, bridge, resumed_again, _ = self._around(processor.render(chat, tools=tools), 4)
        *_, closing = self._around(processor.render([*system_turn, user], tools=tools), 1)
        if resumed != resumed_again:
            raise ValueError("The chat template does not write all turns alike; live needs one that does")
        self.opening, self.closing, self.resumed, self.bridge = map(
            processor.markup, (opening, closing, resumed, bridge)
        )
        self._image = self._markup("image")
        self._sound = self._markup("audio")
        silence = np.zeros(processor.frame_samples, np.float32)
        sound = processor.expand(self._sound, audios=[silence])
        frame = int((sound.token_types == AUDIO).argmax())
        self.sound_begin, self.sound_end = sound[:frame], sound[frame + 1 :]
        self._frame_id = int(sound.token_ids[frame])

    def picture(self, patches: Patches) -> Prompt:
        """A picture with its markers."""
        return self._processor.expand(self._image, images=[patches])

    def sound(self, frames: np.ndarray) -> Prompt:
        """Frames [F, frame_samples] between ``sound_begin`` and ``sound_end``."""
        return Prompt.from_frames(frames, self._frame_id)

    def typed(self, text: str) -> Prompt:
        """What a user typed."""
        return self._processor.text(text.strip())

    def result(self, name: str, text: str, media: Sequence[Prompt] = ()) -> Prompt:
        """The result of a function, as it stands in the model's turn after the call: media stand behind their response.

        Args:
            media: From ``medium``.
        """
        quote = self._processor.quote
        response = f'<|tool_response>response:{quote(name)}{{value:<|"|>{quote(text)}<|"|>}}<tool_response|>'
        return join([self._processor.markup(response), *media])

    def medium(self, part: Mapping[str, Any], image_tokens: int) -> Prompt:
        """A picture or sound of a result with its markers.

        Raises:
            ValueError: The sound is too long for a prompt.
        """
        if part["type"] == "image":
            return self.picture(self._processor.patches(part["image"], image_tokens=image_tokens))
        return self._processor.expand(self._sound, audios=[part["audio"]])

    def finished(self, content: Prompt, answer: Prompt) -> Prompt:
        """A finished turn and the beginning of the next: ``content``, resumed, the answer, bridge."""
        return join([content, self.resumed, answer, self.bridge])

    def _markup(self, kind: str) -> str:
        """How the template writes a picture or sound into a user turn."""
        content = [
            {"type": "text", "text": self._slot},
            {"type": kind, kind: None},
            {"type": "text", "text": self._slot},
        ]
        _, markup, _ = self._around(self._processor.render([{"role": "user", "content": content}]), 2)
        return markup

    def _around(self, rendered: str, slots: int) -> list[str]:
        """The text around the slots."""
        parts = rendered.split(self._slot)
        if len(parts) != slots + 1:
            raise ValueError("The chat template does not write every message once; live needs one that does")
        return parts

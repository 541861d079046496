"""Answers of the reference implementation: greedy, one prompt at a time, with the masks of the training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from PIL import Image
from transformers import DynamicCache
from transformers.models.gemma4_unified.modeling_gemma4_unified import Gemma4UnifiedForConditionalGeneration

from . import pictures
from .lessons import Lesson, Teacher
from .network import collate, logits_of, masks, rows_of
from .sound import FRAME
from .tokenizer import load_tokenizer

LONGEST = 80
"""Tokens of an answer, at most."""


class Reference:
    """A checkpoint, loaded by transformers in float32."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = load_tokenizer(folder)
        self._teacher = Teacher(self._tokenizer)
        self._model = Gemma4UnifiedForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()

    def answer(self, content: list[dict[str, Any]], folder: Path) -> str:
        """The answer to a user's turn.

        Args:
            content: ``{"text": …}``, ``{"audio": FILE}``, ``{"image": FILE}`` and ``{"video": FILES}``, in order.
            folder: The folder of these files.
        """
        lesson = Lesson()
        self._teacher.text(lesson, "<bos><|turn>user\n")
        for part in content:
            self._add(lesson, part, folder)
        self._teacher.text(lesson, "<turn|>\n<|turn>model\n")
        return str(self._tokenizer.decode(self._greedy(lesson))).strip()

    def _add(self, lesson: Lesson, part: dict[str, Any], folder: Path) -> None:
        if "text" in part:
            self._teacher.text(lesson, part["text"])
        elif "audio" in part:
            samples, _ = soundfile.read(folder / part["audio"], dtype="float32")
            frames = np.pad(samples, (0, -len(samples) % FRAME)).reshape(-1, FRAME)
            self._teacher.sound(lesson, frames, np.zeros((len(frames), 2), np.int64), "")
        elif "image" in part:
            self._teacher.image(lesson, _patches(folder / part["image"]))
        else:
            for second, path in enumerate(part["video"]):
                self._teacher.text(lesson, f"{' ' * (second > 0)}00:{second:02d} ")
                self._teacher.image(lesson, _patches(folder / path), video=True)

    @torch.no_grad()
    def _greedy(self, lesson: Lesson) -> list[int]:
        end = self._tokenizer.convert_tokens_to_ids("<turn|>")
        text, cache = self._model.model.language_model, DynamicCache()
        batch = collate([lesson], 0)
        kinds, rows, tokens = batch.kinds, rows_of(self._model, batch), list[int]()
        visible = masks(kinds, torch.float32)
        while len(tokens) < LONGEST:
            hidden = text(inputs_embeds=rows, attention_mask=visible, past_key_values=cache, use_cache=True)
            token = int(logits_of(self._model, hidden.last_hidden_state[:, -1]).argmax())
            if token == end:
                break
            tokens.append(token)
            kinds = torch.cat([kinds, torch.zeros(1, 1, dtype=kinds.dtype)], 1)
            visible = {name: mask[:, :, -1:] for name, mask in masks(kinds, torch.float32).items()}
            rows = text.embed_tokens(torch.tensor([[token]]))
        return tokens


def _patches(path: Path) -> np.ndarray:
    return pictures.patches(np.asarray(Image.open(path)))

"""The prompts that the reference implementation was run on, and its numbers. Imports neither mlx nor torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlx_gemma4.checkpoint.hub import demo_folder
from mlx_gemma4.inputs.audio.endpoint import Begin, End, Endpointer
from mlx_gemma4.inputs.audio.frames import to_frames
from mlx_gemma4.inputs.audio.voice import Voice
from mlx_gemma4.inputs.processor import Processor
from mlx_gemma4.inputs.prompt import Prompt
from mlx_gemma4.inputs.vision.image import load_image

DATA = Path(__file__).parent / "data"
REFERENCE = DATA / "reference"
CHECKPOINTS = ("released", "resaved")
CASES = ("text", "image", "two-images", "audio", "video", "mixed")

SHORT, DESCRIBE = "Transcribe the audio.", "Describe the image."
GOOGLE = (
    "Transcribe the following speech segment in English into English text.\n\n"
    "Follow these specific instructions for formatting the answer:\n"
    "*   Only output the transcription, with no newlines.\n"
    "*   When transcribing numbers, write the digits, i.e. write 1.7 and not one point seven, and write 3 instead of "
    "three."
)
"""As published for Gemma 4."""
PROMPTS = {"short": SHORT, "google": GOOGLE}
FRAME = 640
"""Samples."""
LONGEST = 200
"""Tokens of an answer: one that has not ended by then does not end."""


def _lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / "demo" / name).read_text(encoding="utf-8").splitlines()]


RECORDINGS, PICTURES = _lines("speech.jsonl"), _lines("pictures.jsonl")
"""What was said and drawn for the demo: files, and what is true of them."""
TURNS = {told["name"]: told["content"] for told in _lines("turns.jsonl")}
"""Spoken questions about a picture, in either order, and questions about two frames of a video."""

TEXTS = (
    "<bos><|turn>user\nHello, what is this?<turn|>\n<|turn>model\n",
    "<|image><|image|><|image|><image|> a <|audio><|audio|><audio|>",
    "日本語 🙂 é",
)
"""What tokenizers are tried on."""
CHAT = [
    {"role": "system", "content": "Be brief."},
    {
        "role": "user",
        "content": [{"type": "image", "image": "x.png"}, {"type": "text", "text": " What is <this> & that? "}],
    },
    {"role": "assistant", "content": "A cat – <b>"},
    {"role": "user", "content": "stop"},
]
"""What templates are tried on."""


@dataclass(frozen=True)
class Case:
    """A prompt and what the reference implementation computes for it, in float32."""

    checkpoint: str
    name: str
    prompt: Prompt
    logits: np.ndarray
    """[L, V]."""
    greedy: list[int]
    """The next tokens, special ones left out."""
    text: str
    """The rendered prompt, placeholders not expanded."""
    messages: list[tuple[str, list[tuple[str, Any]]]]
    """(role, [(type, text or index of a medium)])."""

    @property
    def folder(self) -> Path:
        return REFERENCE / self.checkpoint


def reference_case(checkpoint: str, name: str) -> Case:
    folder = REFERENCE / checkpoint
    arrays = np.load(folder / f"{name}.npz")
    told = json.loads((folder / "cases.json").read_text())[name]
    nothing = Prompt.from_tokens([])
    frames, patches, positions = nothing.frames, [], []
    if "input_features" in arrays:
        frames = arrays["input_features"][arrays["input_features_mask"].astype(bool)]
    for pixels, places in (("pixel_values", "image_position_ids"), ("pixel_values_videos", "video_position_ids")):
        if pixels in arrays:
            real = (arrays[places] != -1).all(axis=-1)
            patches.append(arrays[pixels][real].astype(np.float32) * np.float32(1 / 255))
            positions.append(arrays[places][real])
    prompt = Prompt(
        token_ids=arrays["input_ids"][0].astype(np.int32),
        token_types=arrays["mm_token_type_ids"][0].astype(np.uint8),
        frames=frames.astype(np.float32),
        patches=np.concatenate(patches) if patches else nothing.patches,
        patch_xy=np.concatenate(positions).astype(np.int32) if patches else nothing.patch_xy,
    )
    logits = arrays["logits"].reshape(len(prompt), -1)
    return Case(
        checkpoint, name, prompt, logits, arrays["greedy"].reshape(-1).tolist(), told["prompt"], told["messages"]
    )


def media_file(name: str) -> Path:
    """A recording or picture of the demo: some are in the package, the others here."""
    packaged = demo_folder() / "media" / name
    return packaged if packaged.exists() else DATA / "demo" / name


def utterances(samples: np.ndarray) -> list[tuple[int, int]]:
    """Where people speak in a recording, by the default endpointing: first frames and the frames behind the last."""
    endpointer = Endpointer(Voice())
    events = endpointer.push(to_frames(samples, FRAME)) + endpointer.finish()
    begins = [event.start for event in events if isinstance(event, Begin)]
    lengths = [event.length for event in events if isinstance(event, End)]
    return [(start, start + length) for start, length in zip(begins, lengths, strict=True)]


def speech_prompt(processor: Processor, sound: Any, text: str = SHORT) -> Prompt:
    content = [{"type": "text", "text": text}, {"type": "audio", "audio": sound}]
    return processor.prompt([{"role": "user", "content": content}])


def picture_prompt(processor: Processor, name: str, text: str = DESCRIBE) -> Prompt:
    content = [{"type": "image", "image": media_file(name)}, {"type": "text", "text": text}]
    return processor.prompt([{"role": "user", "content": content}])


def turn_content(name: str) -> list[dict[str, Any]]:
    """The content of a turn as the processor takes it; a video shows one frame a second."""
    parts = []
    for part in TURNS[name]:
        for kind, value in part.items():
            if kind == "video":
                value = np.stack([load_image(media_file(frame)) for frame in value]), 1.0
            elif kind != "text":
                value = media_file(value)
            parts.append({"type": kind, kind: value})
    return parts


def demo_prompts(processor: Processor) -> dict[str, Prompt]:
    """Prompts for the demo checkpoint: sound, a picture, and both in one turn."""
    image = {"type": "image", "image": media_file("picture-01.png")}
    audio = {"type": "audio", "audio": media_file("hibari-03.wav")}
    describe, transcribe = ({"type": "text", "text": text} for text in ("Describe the image.", "Transcribe the audio."))
    contents = {"audio": [transcribe, audio], "image": [image, describe], "both": [image, describe, audio, image]}
    return {name: processor.prompt([{"role": "user", "content": parts}]) for name, parts in contents.items()}

"""The sequences that are scored: text, transcripts of recordings and descriptions of pictures. Knows no model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_gemma4.checkpoint.hub import demo_folder
from mlx_gemma4.inputs.audio.recording import load_audio
from mlx_gemma4.inputs.processor import Processor
from mlx_gemma4.inputs.prompt import Prompt
from mlx_gemma4.measure.wer import Recording
from mlx_gemma4.programs.transcribe import instruction

CHUNK = 512
"""Tokens of a chunk of text, at most, including BOS."""

PAGE_CHUNKS = 2
"""Chunks of the packaged page, at most: the whole page, unless a small vocabulary needs a token for each letter."""

SPOKEN = {
    "pico-04.wav": "go back seven meters",
    "hibari-03.wav": "five three six zero zero eight",
    "espeak-00.wav": "nine",
}
SHOWN = {"picture-01.png": "green circle on the top", "picture-02.png": "red circle in the center"}
"""The texts of the packaged recordings and pictures."""

QUESTION = "Describe the image."


@dataclass(frozen=True)
class Probe:
    """A sequence whose last tokens are scored: each is predicted from all tokens before it (teacher forcing)."""

    kind: str
    """text, audio or image."""
    prompt: Prompt
    scored: int
    """Number of tokens at the end that are scored."""


def packaged_recordings() -> list[Recording]:
    """The recordings of the demo."""
    return [Recording(name, demo_folder() / "media" / name, text) for name, text in SPOKEN.items()]


def page_probes(processor: Processor) -> list[Probe]:
    """The packaged page: prose in five languages, code and numbers."""
    page = Path(__file__).with_name("text.txt").read_text(encoding="utf-8")
    return text_probes(processor, page)[:PAGE_CHUNKS]


def text_probes(processor: Processor, text: str) -> list[Probe]:
    """A text, cut into chunks; every token of it is scored.

    Raises:
        ValueError: The text is empty, or the checkpoint has no BOS token.
    """
    bos = processor.bos_id
    if bos is None:
        raise ValueError("The checkpoint has no BOS token, neither in its tokenizer nor in its config")
    ids = processor.tokenizer.encode(text.strip())
    if not ids:
        raise ValueError(f"There is no text to score in {text!r}")
    chunks = (ids[start : start + CHUNK - 1] for start in range(0, len(ids), CHUNK - 1))
    return [Probe("text", Prompt.from_tokens([bos, *chunk]), len(chunk)) for chunk in chunks]


def audio_probes(
    processor: Processor, recordings: Sequence[Recording], language: str, progress: Callable[[str], None]
) -> list[Probe]:
    """The transcription prompt with each recording; the true text is scored as the answer.

    A recording that is too long for one prompt is left out, with a note to ``progress``.
    """
    return list(_audio_probes(processor, recordings, instruction(language), progress))


def image_probes(processor: Processor) -> list[Probe]:
    """A question about each picture of the demo; its description is scored as the answer."""
    media = demo_folder() / "media"
    return [
        _probe(processor, "image", [_part("image", media / name), _part("text", QUESTION)], answer)
        for name, answer in SHOWN.items()
    ]


def _audio_probes(
    processor: Processor, recordings: Sequence[Recording], text: str, progress: Callable[[str], None]
) -> Iterator[Probe]:
    for recording in recordings:
        samples = load_audio(recording.path)
        if len(samples) > processor.limits.audio_tokens * processor.frame_samples:
            progress(f"{recording.name} is too long for one prompt; its tokens are not scored")
        else:
            yield _probe(processor, "audio", [_part("text", text), _part("audio", samples)], recording.text)


def _part(kind: str, value: Any) -> Mapping[str, Any]:
    return {"type": kind, kind: value}


def _probe(processor: Processor, kind: str, content: Sequence[Mapping[str, Any]], answer: str) -> Probe:
    question = {"role": "user", "content": content}
    # not a rendered chat: templates may write something between the beginning of the model's turn and its answer
    prompt = processor.prompt([question])
    ids = [*processor.tokenizer.encode(answer.strip()), _end(processor)]
    return Probe(kind, prompt + Prompt.from_tokens(ids), len(ids))


def _end(processor: Processor) -> int:
    """The token that ends an answer, in a chat that the template writes."""
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    rendered = processor.prompt(chat, add_generation_prompt=False).token_ids.tolist()
    turn = len(processor.prompt(chat[:1], add_generation_prompt=False))
    for token in rendered[turn:]:
        if token in processor.stop_ids:
            return int(token)
    raise ValueError("The chat template does not end an answer with a stop token; eval quality needs one that does")

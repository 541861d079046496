"""Turns chats and media into Prompts, in three steps:

    messages   {"role": "user", "content": [{"type": "image", "image": "cat.png"}, {"type": "text", "text": "Who?"}]}
    render     <bos><|turn>user⏎<|image|>Who?<turn|>⏎<|turn>model⏎          the template writes markup; texts are quoted
    expand     …user⏎<|image><|image|><|image|><|image|><image|>Who?…       a placeholder for each patch, in markers
    encode              6        7        7        7       8    …           token ids, and the type of each
    Prompt     └─── text ───┘└───────── image ─────────┘└─── text ──┘       spans; the image has a patch for each 7

numpy only: a processor knows the checkpoint's sizes and ids, and nothing of its weights.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mlx_gemma4.checkpoint.files import has_file
from mlx_gemma4.checkpoint.json_file import read_json, table, whole
from mlx_gemma4.decoder.config import Config, GenerationConfig
from mlx_gemma4.inputs.audio.frames import to_frames
from mlx_gemma4.inputs.audio.recording import SAMPLE_RATE, check_samples, load_audio
from mlx_gemma4.inputs.messages import MEDIA, Message, check_messages, check_tools, parts
from mlx_gemma4.inputs.prompt import AUDIO, IMAGE, TEXT, VIDEO, Prompt
from mlx_gemma4.inputs.text.special_tokens import SpecialTokens, named_tokens
from mlx_gemma4.inputs.text.template import ChatTemplate
from mlx_gemma4.inputs.text.tokenizer import Tokenizer, decode, load_tokenizer
from mlx_gemma4.inputs.text.tool_types import with_types
from mlx_gemma4.inputs.vision import clip, image, video
from mlx_gemma4.inputs.vision.video import Film
from mlx_gemma4.inputs.vision.video_file import VideoFile

AudioSource = str | os.PathLike[str] | np.ndarray
VideoSource = str | os.PathLike[str] | VideoFile | tuple[np.ndarray, float] | Film

MOST_IMAGE_TOKENS, MOST_VIDEO_FRAMES, MOST_AUDIO_TOKENS = 1120, 256, 15_000
"""The most that a checkpoint's limits may be, to bound memory: small pictures are enlarged to fill their budget."""


@dataclass(frozen=True)
class Limits:
    """How much of each medium fits into one prompt. The defaults are those of transformers."""

    image_tokens: int = 280
    """Soft tokens of an image, at most; 70, 140, 280, 560 or 1120."""
    video_tokens: int = 70
    """Soft tokens of a video frame, at most."""
    video_frames: int = video.MAX_FRAMES
    audio_tokens: int = 750
    """Frames of one audio segment, at most: 30 s."""

    @classmethod
    def from_file(cls, path: Path) -> Limits:
        """Read ``processor_config.json``. What is missing stays at its default: MLX conversions drop many values.

        Raises:
            ValueError: A value is not a whole number in its bounds; the message names it.
        """
        if not has_file(path):
            return cls()
        raw = read_json(path)
        images = table(raw.get("image_processor") or {}, f"'image_processor' in {path}")
        videos = table(raw.get("video_processor") or {}, f"'video_processor' in {path}")
        fields = {
            "image_tokens": ("max_soft_tokens", images, MOST_IMAGE_TOKENS),
            "video_tokens": ("max_soft_tokens", videos, MOST_IMAGE_TOKENS),
            "video_frames": ("num_frames", videos, MOST_VIDEO_FRAMES),
            "audio_tokens": ("audio_seq_length", raw, MOST_AUDIO_TOKENS),
        }
        return cls(
            **{
                name: whole(source[key], f"{key!r} in {path}", most=most)
                for name, (key, source, most) in fields.items()
                if source.get(key) is not None
            }
        )


class Processor:
    """Prepares text, chats and media for one checkpoint.

    Attributes:
        tokenizer: Text to ids and back.
        generation: ``generation_config.json``.
        limits: The checkpoint's budgets for media.
        bos_id: The first token of every prompt; None where the checkpoint has no such token.
        stop_ids: The tokens that end an answer.
        suppressed_ids: The tokens that are never sampled: those that ``generation_config.json`` lists, and all
            placeholders and markers of media.
    """

    def __init__(
        self,
        config: Config,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        *,
        generation: GenerationConfig | None = None,
        limits: Limits | None = None,
        tokens: SpecialTokens | None = None,
    ) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self.template = template
        self.generation = generation or GenerationConfig()
        self.limits = limits or Limits()
        tokens = tokens or SpecialTokens.of(config, tokenizer, generation=generation)
        tokenizer.reserve(tokens.control(tokenizer))
        self.bos_id = tokens.bos_id
        self.stop_ids = tokens.stop_ids
        self.suppressed_ids = tuple(sorted(tokens.media_ids.union(self.generation.suppress_tokens)))

    @classmethod
    def from_folder(cls, folder: Path, config: Config | None = None) -> Processor:
        """Read all but the weights of a checkpoint folder.

        Args:
            config: The folder's config, if it has been read.

        Raises:
            ValueError: A file is missing or broken; the message names it.
        """
        config = config or Config.from_file(folder / "config.json")
        tokenizer = load_tokenizer(folder)
        generation = GenerationConfig.from_file(folder / "generation_config.json")
        tokens = SpecialTokens.of(config, tokenizer, generation=generation, named=named_tokens(folder))
        return cls(
            config,
            tokenizer,
            ChatTemplate.from_folder(folder, tokens.written, begin=tokens.bos),
            generation=generation,
            limits=Limits.from_file(folder / "processor_config.json"),
            tokens=tokens,
        )

    @property
    def frame_samples(self) -> int:
        """Samples in one audio frame (640 in the 12B: 40 ms)."""
        if self.config.audio_config is None:
            raise _cannot("audio")
        return self.config.audio_config.audio_embed_dim

    def prompt(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        enable_thinking: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        image_tokens: int | None = None,
    ) -> Prompt:
        """Make a Prompt of a chat: render it with the checkpoint's template, and put the media in.

        Args:
            messages: ``[{"role": "user", "content": …}]``; content is text or a list of ``{"type": "text",
                "text": …}``, ``{"type": "image", "image": …}``, ``{"type": "audio", "audio": …}``, ``{"type":
                "video", "video": …}``. An image is a path, a PIL image, uint8 [H, W, 3] or Patches; audio a path or
                float [n] at 16 kHz; video a path, (frames [T, H, W, 3] uint8, frames per second), or a Film.
            tools: JSON schemas of functions that the model may call.
            image_tokens: Budget of each image, instead of the checkpoint's.

        No text in messages and tools becomes a control token (``inputs.text.markup``), not even in earlier answers:
        pass thoughts and calls in their own fields, such as ``tool_calls``.

        Raises:
            ValueError: The messages have another form, a medium cannot be read, a recording is too long, or the
                template drops media.
        """
        markup = self.render(
            messages, add_generation_prompt=add_generation_prompt, enable_thinking=enable_thinking, tools=tools
        )
        media = {kind: list[Any]() for kind in MEDIA}
        for message in messages:
            for part in parts(message):
                media[part["type"]].append(part[part["type"]])
        limits = self.limits if image_tokens is None else replace(self.limits, image_tokens=image_tokens)
        return self.expand(markup, images=media["image"], audios=media["audio"], videos=media["video"], limits=limits)

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        enable_thinking: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        """Render a chat with the checkpoint's template, as markup in which all text is quoted.

        A template that refuses tools gets them with a type at each argument (``inputs.text.tool_types``).

        Raises:
            ValueError: Messages or tools have another form, or the template refuses them.
        """
        check_messages(messages)
        check_tools(tools)
        markup = self.tokenizer.markup

        def rendered(tools: Sequence[Mapping[str, Any]] | None) -> str:
            return self.template.render(
                markup.quote(list(messages)),
                add_generation_prompt=add_generation_prompt,
                enable_thinking=enable_thinking,
                tools=markup.quote(tools),
                markup=markup,
            )

        try:
            return rendered(tools)
        except ValueError:
            if not tools or (typed := with_types(tools)) == list(tools):
                raise
            return rendered(typed)

    def expand(
        self,
        markup: str,
        *,
        images: Sequence[Any] = (),
        audios: Sequence[AudioSource] = (),
        videos: Sequence[VideoSource] = (),
        limits: Limits | None = None,
    ) -> Prompt:
        """Replace the placeholders of a rendered prompt (``render``) by media, in order.

        As transformers' ``Gemma4UnifiedProcessor`` does.

        Raises:
            ValueError: There are more or fewer placeholders than media, or a medium cannot be read.
        """
        limits = limits or self.limits
        ids = self.config.token_ids
        frames = [self._frames(source, limits) for source in audios]
        patches = [self._image(source, limits.image_tokens) for source in images]
        films = [self._film(source, limits) for source in videos]

        for kind, token_id, count in (
            ("image", ids.image, len(images)),
            ("audio", ids.audio, len(audios)),
            ("video", ids.video, len(videos)),
        ):
            placeholders = markup.count(self._token(token_id, kind)) if token_id is not None else 0
            if placeholders != count:
                raise ValueError(
                    f"The rendered prompt has {placeholders} {kind} placeholders for {count} {kind} inputs; "
                    "each input needs one of its own"
                )
        markup = self._write_out(markup, "image", ids.image, [self._image_text(len(each)) for each in patches])
        markup = self._write_out(markup, "audio", ids.audio, [self._audio_text(len(each)) for each in frames])
        markup = self._write_out(markup, "video", ids.video, [self._video_text(film) for film in films])
        return self._assemble(markup, frames, patches, films)

    def text(self, text: str) -> Prompt:
        """A Prompt of text, without BOS. No part of it becomes a control token."""
        return Prompt.from_tokens(self.tokenizer.encode(text))

    def markup(self, markup: str) -> Prompt:
        """A Prompt of markup, without BOS: control tokens become their ids. ``quote`` the text that goes into it."""
        return Prompt.from_tokens(self.tokenizer.encode_markup(markup))

    def quote(self, text: str) -> str:
        """Quote text, so that it stays text inside markup."""
        return self.tokenizer.markup.quote(text)

    def completion(self, text: str) -> Prompt:
        """Text for the model to continue, without a chat template: BOS and the tokens of the text."""
        begin = [] if self.bos_id is None else [self.bos_id]
        return Prompt.from_tokens([*begin, *self.tokenizer.encode(text)])

    def frames(self, samples: np.ndarray) -> np.ndarray:
        """Samples [n] at 16 kHz → frames [ceil(n / frame_samples), frame_samples], as a session takes them."""
        return to_frames(check_samples(samples, "the samples"), self.frame_samples)

    def patches(self, source: Any, *, image_tokens: int | None = None) -> image.Patches:
        """An image (path, PIL image or uint8 [H, W, 3]) → patches, as a session takes them."""
        return self._image(source, image_tokens or self.limits.image_tokens)

    def film(
        self, source: VideoSource, selection: video.Selection | None = None, *, image_tokens: int | None = None
    ) -> Film:
        """A video → the selected frames as the model takes them; evenly sampled ones by default.

        Args:
            image_tokens: Budget of each frame, instead of the checkpoint's.
        """
        limits = self.limits if image_tokens is None else replace(self.limits, video_tokens=image_tokens)
        return self._film(source, limits, selection)

    def stretches(
        self,
        source: str | os.PathLike[str] | VideoFile,
        seconds: float,
        selection: video.Selection | None = None,
        *,
        image_tokens: int | None = None,
        sound: bool = True,
    ) -> Iterator[clip.Stretch]:
        """A video file, cut into stretches of ``seconds``, each with its frames and its sound (``clip.stretches``).

        Raises:
            ValueError: A file that cannot be read or has no sound, or stretches with more sound than fits.
        """
        longest = self._seconds(self.limits.audio_tokens) if sound else math.inf
        if seconds > longest:
            raise ValueError(f"Expected segments of at most {longest:g} s, the longest sound, got {seconds:g}")
        budget = image_tokens or self.limits.video_tokens
        return clip.stretches(
            source if isinstance(source, VideoFile) else VideoFile(source, sound=sound),
            seconds,
            selection or video.Selection(self.limits.video_frames),
            lambda pixels: self._patches(pixels, budget),
            sound=sound,
        )

    def decode(self, token_ids: Sequence[int] | np.ndarray) -> str:
        """Text of token ids without special tokens, as it is streamed."""
        return decode(self.tokenizer, [int(token_id) for token_id in token_ids])

    def read_media(self, content: str | Sequence[Mapping[str, Any]]) -> str | list[Mapping[str, Any]]:
        """The content of a message, with its media as the model takes them: files may change later, or be removed.

        Raises:
            ValueError: The content has another form, or a medium cannot be read.
        """
        check_messages([{"role": "user", "content": content}])
        if isinstance(content, str):
            return content
        return [self._read_part(part) for part in content]

    def _read_part(self, part: Mapping[str, Any]) -> Mapping[str, Any]:
        if part["type"] == "image":
            return {**part, "image": self.patches(part["image"])}
        if part["type"] == "audio":
            return {**part, "audio": self._samples(part["audio"], self.limits)}
        return {**part, "video": self.film(part["video"])} if part["type"] == "video" else part

    def _image(self, source: Any, budget: int) -> image.Patches:
        return source if isinstance(source, image.Patches) else self._patches(image.load_image(source), budget)

    def _patches(self, pixels: np.ndarray, budget: int) -> image.Patches:
        if self.config.vision_config is None:
            raise _cannot("image")
        return image.to_patches(pixels, budget, self.config.vision_config.model_patch_size)

    def _film(self, source: VideoSource, limits: Limits, selection: video.Selection | None = None) -> Film:
        if isinstance(source, Film):
            return source
        video_frames = video.video_frames(source, selection or video.Selection(limits.video_frames))
        timed = [(seconds, self._patches(pixels, limits.video_tokens)) for seconds, pixels in video_frames]
        return Film(tuple(patches for _, patches in timed), tuple(seconds for seconds, _ in timed))

    def _frames(self, source: AudioSource, limits: Limits) -> np.ndarray:
        return to_frames(self._samples(source, limits), self.frame_samples)

    def _samples(self, source: AudioSource, limits: Limits) -> np.ndarray:
        longest = self._seconds(limits.audio_tokens)
        samples = load_audio(source, limit=longest)
        if len(samples) > limits.audio_tokens * self.frame_samples:
            raise ValueError(
                f"A prompt takes at most {longest:g} s of sound; "
                "cut it with mlx_gemma4.split_audio, or use mlx_gemma4 transcribe, which does"
            )
        return samples

    def _seconds(self, frames: int) -> float:
        return frames * self.frame_samples / SAMPLE_RATE

    def _token(self, token_id: int | None, kind: str) -> str:
        token = None if token_id is None else self.tokenizer.token(token_id)
        if token is None:
            raise _cannot(kind)
        return token

    def _write_out(self, markup: str, kind: str, token_id: int | None, replacements: Sequence[str]) -> str:
        if not replacements:
            return markup
        parts = markup.split(self._token(token_id, kind))
        pairs = zip(parts[:-1], replacements, strict=True)
        return "".join(before + medium for before, medium in pairs) + parts[-1]

    def _image_text(self, count: int) -> str:
        ids = self.config.token_ids
        return self._block(ids.image_begin, self._token(ids.image, "image") * count, ids.image_end, "image")

    def _audio_text(self, count: int) -> str:
        ids = self.config.token_ids
        return self._block(ids.audio_begin, self._token(ids.audio, "audio") * count, ids.audio_end, "audio")

    def _video_text(self, film: Film) -> str:
        ids = self.config.token_ids
        token = self._token(ids.video, "video")
        return " ".join(
            f"{video.timestamp(seconds)} {self._block(ids.image_begin, token * len(patches), ids.image_end, 'video')}"
            for seconds, patches in zip(film.seconds, film.video_frames, strict=True)
        )

    def _block(self, begin: int | None, inside: str, end: int | None, kind: str) -> str:
        return self._token(begin, kind) + inside + self._token(end, kind)

    def _assemble(
        self,
        markup: str,
        frames: Sequence[np.ndarray],
        patches: Sequence[image.Patches],
        films: Sequence[Film],
    ) -> Prompt:
        ids = self.config.token_ids
        token_ids = np.asarray(self.tokenizer.encode_markup(markup), dtype=np.int32)
        types = np.full(len(token_ids), TEXT, np.uint8)
        for token_id, kind in ((ids.image, IMAGE), (ids.video, VIDEO), (ids.audio, AUDIO)):
            if token_id is not None:
                types[token_ids == token_id] = kind
        prompt = replace(Prompt.from_tokens(token_ids), token_types=types)
        if frames:
            prompt = replace(prompt, frames=np.concatenate(frames))
        pictures = _in_order(types, list(patches), [frame for film in films for frame in film.video_frames])
        if pictures:
            prompt = replace(
                prompt,
                patches=np.concatenate([picture.pixels for picture in pictures]),
                patch_xy=np.concatenate([picture.patch_xy for picture in pictures]),
            )
        return prompt


def _in_order(types: np.ndarray, images: list[image.Patches], video_frames: list[image.Patches]) -> list[image.Patches]:
    """Images and video frames in the order of their placeholders."""
    starts = np.flatnonzero(np.diff(types, prepend=TEXT) != 0)
    waiting = {IMAGE: iter(images), VIDEO: iter(video_frames)}
    shown = [next(waiting[int(types[start])], None) for start in starts if int(types[start]) in waiting]
    patches = [each for each in shown if each is not None]
    if len(patches) < len(shown):
        raise ValueError("The checkpoint's config.json gives a medium the token id of another token: fetch it again")
    return patches


def _cannot(kind: str) -> ValueError:
    return ValueError(f"The checkpoint takes no {kind} input; use one that is not text-only")

"""Small whole files to damage: pictures, sound and video of each format, and checkpoints."""

from __future__ import annotations

import json
import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile
from PIL import Image

DATA = Path(__file__).parent / "data"
CHECKPOINT = DATA / "reference" / "released" / "checkpoint"
SOUNDS = {
    "pcm.wav": ("WAV", "PCM_16"),
    "float.wav": ("WAV", "FLOAT"),
    "law.wav": ("WAV", "ULAW"),
    "big.aiff": ("AIFF", "PCM_16"),
    "sound.flac": ("FLAC", "PCM_16"),
    "sound.ogg": ("OGG", "VORBIS"),
    "sound.mp3": ("MP3", "MPEG_LAYER_III"),
    "sound.au": ("AU", "PCM_16"),
    "sound.caf": ("CAF", "PCM_16"),
}
VIDEOS = {"film.mp4": "mpeg4", "film.mkv": "mpeg4", "film.avi": "mpeg4", "film.ts": "mpeg2video", "film.mov": "mjpeg"}


def make_seeds(folder: Path) -> None:
    """Write all of them into ``folder``, in a folder for each kind."""
    for name, make in (
        ("checkpoints", _checkpoints),
        ("headers", _headers),
        ("pictures", _pictures),
        ("sound", _sound),
        ("video", _video),
    ):
        (folder / name).mkdir(parents=True)
        make(folder / name)


def _checkpoints(folder: Path) -> None:
    """One that was converted, so that it has a record, and an index."""
    from mlx_gemma4.convert import convert

    convert(CHECKPOINT, folder / "checkpoint", recipe="8bit", note=lambda _: None)
    tokens = {"bos_token": "<bos>", "eos_token": {"content": "<eos>", "special": True}}
    (folder / "checkpoint" / "special_tokens_map.json").write_text(json.dumps(tokens))
    (folder / "checkpoint" / "README.md").unlink()


def _headers(folder: Path) -> None:
    for name in ("released", "resaved"):
        shutil.copytree(DATA / "reference" / name / "checkpoint", folder / name)
    shutil.copytree(DATA / "formats" / "compressed-tensors", folder / "packed")
    shutil.copytree(DATA / "formats" / "assistant-plain", folder / "drafter")


def _pictures(folder: Path) -> None:
    random = np.random.default_rng(0)
    image = Image.fromarray(random.integers(0, 255, (40, 56, 3), np.uint8))
    frames = [Image.fromarray(random.integers(0, 255, (40, 56, 3), np.uint8)) for _ in range(3)]
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(folder / "plain.png")
    image.convert("RGBA").save(folder / "clear.png")
    image.convert("P").save(folder / "palette.png")
    image.save(folder / "photo.jpg", exif=exif)
    image.save(folder / "progressive.jpg", progressive=True)
    image.save(folder / "photo.webp", exif=exif)
    frames[0].save(folder / "moving.webp", save_all=True, append_images=frames[1:])
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    frames[0].save(folder / "moving.png", save_all=True, append_images=frames[1:])
    image.save(folder / "plain.bmp")
    image.save(folder / "plain.tiff")
    Image.fromarray(random.integers(0, 65535, (20, 30), np.uint16)).save(folder / "deep.png")


def _sound(folder: Path) -> None:
    sound = np.sin(np.arange(8000) / 10)[:, None].astype(np.float32) * [[0.5, 0.3]]
    for name, (kind, encoding) in SOUNDS.items():
        soundfile.write(folder / name, sound, 16_000, format=kind, subtype=encoding)
    with av.open(str(folder / "sound.m4a"), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16_000, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound.T, np.float32), format="fltp", layout="stereo")
        frame.sample_rate, frame.time_base, frame.pts = 16_000, Fraction(1, 16_000), 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _video(folder: Path) -> None:
    random = np.random.default_rng(0)
    frames = [random.integers(0, 255, (48, 64, 3), np.uint8) for _ in range(8)]
    for name, codec in VIDEOS.items():
        with av.open(str(folder / name), "w") as container:
            stream = container.add_stream(codec, rate=8)
            stream.width, stream.height = 64, 48
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            for pixels in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())

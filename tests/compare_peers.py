"""Compare the logits of a converted checkpoint with those of mlx-vlm and mlx-lm, for a text and a text with sound.

python tests/compare_peers.py CHECKPOINT --peer PYTHON

PYTHON is the interpreter of an environment with mlx-vlm and mlx-lm, which this project does not depend on. Everything
runs in float32 on the CPU, so that no difference comes from rounding activations to bfloat16.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mlx_gemma4.inputs.prompt import Prompt

os.environ["MLX_ENABLE_TF32"] = "0"

TEXT = "Transcribe the audio."
PEER = """
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np

mx.set_default_device(mx.cpu)
which, folder, inputs, output = sys.argv[1:]
arrays = np.load(inputs)
ids = mx.array(arrays["ids"])[None]
if which == "mlx-vlm":
    from mlx_vlm.utils import load_model

    model = load_model(Path(folder))
    model.set_dtype(mx.float32)
    media = {}
    if len(arrays["frames"]):
        frames = mx.array(arrays["frames"])[None]
        media = {"input_features": frames, "input_features_mask": mx.ones(frames.shape[:2], dtype=mx.bool_)}
        media["mm_token_type_ids"] = mx.array(arrays["types"])[None]
    logits = model(ids, **media).logits[0]
else:
    from mlx_lm.utils import load_model

    model, _ = load_model(Path(folder))
    model.set_dtype(mx.float32)
    logits = model(ids)[0]
np.save(output, np.array(logits.astype(mx.float32)))
"""


def prompts_of(folder: Path) -> dict[str, Prompt]:
    """A text, and a text with sound, in the checkpoint's own template."""
    from mlx_gemma4 import Processor, demo_folder

    processor = Processor.from_folder(folder)
    audio = {"type": "audio", "audio": demo_folder() / "media" / "pico-04.wav"}
    contents = {name: [{"type": "text", "text": TEXT}, *media] for name, media in (("text", []), ("audio", [audio]))}
    return {name: processor.prompt([{"role": "user", "content": content}]) for name, content in contents.items()}


def ours(folder: Path, prompts: dict[str, Prompt]) -> dict[str, np.ndarray]:
    """[L, V] logits of each prompt."""
    from mlx_gemma4 import Session, load

    model, _ = load(folder, dtype="float32")
    return {name: np.array(Session(model).extend(prompt, logits_from=0)) for name, prompt in prompts.items()}


def theirs(peer: str, which: str, folder: Path, prompt: Prompt) -> np.ndarray:
    """[L, V] logits, computed in the peer's environment."""
    with tempfile.TemporaryDirectory() as place:
        inputs, output = Path(place) / "inputs.npz", Path(place) / "logits.npy"
        np.savez(inputs, ids=prompt.token_ids, types=prompt.token_types, frames=prompt.frames)
        command = [peer, "-c", PEER, which, str(folder), str(inputs), str(output)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return np.load(output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--peer", required=True)
    arguments = parser.parse_args()
    prompts = prompts_of(arguments.checkpoint)
    own = ours(arguments.checkpoint, prompts)
    print(f"{'prompt':<8}{'peer':<10}{'max |difference|':>18}{'max |logit|':>13}{'same top-1':>12}")
    for name, prompt in prompts.items():
        for which in ("mlx-vlm", "mlx-lm") if name == "text" else ("mlx-vlm",):
            logits = theirs(arguments.peer, which, arguments.checkpoint, prompt)
            difference = np.abs(own[name] - logits).max()
            same = (own[name].argmax(-1) == logits.argmax(-1)).mean()
            print(f"{name:<8}{which:<10}{difference:>18.2e}{np.abs(logits).max():>13.2f}{same:>12.1%}")


if __name__ == "__main__":
    main()

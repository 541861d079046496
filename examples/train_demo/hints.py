"""Auxiliary losses, for training only: the word in each frame, the number of words so far, mel bands, what a picture
shows, and where to look for each word of an answer. Not exported.

With the loss of the answers alone, a model of this size learns nothing from sound for a long time, and hardly any
shapes.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .align import next_words, words_so_far
from .lessons import AUDIO_KIND, IMAGE_KIND, STAGES, VIDEO_KIND
from .network import HIDDEN, Batch
from .sound import SILENCE, UNKNOWN, WORD_IDS
from .texts import COLOURS, PLACES, SHAPES

BANDS_LAYER, INSIDE, COUNTS_LAYER = 1, 3, 4
"""Layers whose hidden states predict bands; words and pictures; counts of words."""
POINTERS = 2
"""Heads of the last layer that look for the next word of an answer."""
_BANDS, _WINDOW, _HOP, _FFT = 24, 320, 160, 512
_SEEN = (len(COLOURS), len(SHAPES), len(PLACES))


class Hints(nn.Module):
    """Linear heads on hidden states inside the model."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.words = nn.Linear(HIDDEN, len(WORD_IDS) + 1)
        self.counts = nn.Linear(HIDDEN, 1 + max(stage.max_words for stage in STAGES))
        self.bands = nn.Linear(HIDDEN, _BANDS * (640 // _HOP))
        self.pictures = nn.Linear(HIDDEN, sum(_SEEN))
        self.register_buffer("mean", torch.zeros(self.bands.out_features))
        self.register_buffer("deviation", torch.ones(self.bands.out_features))
        weight = torch.ones(len(WORD_IDS) + 1)
        weight[SILENCE] = 0.25
        self.register_buffer("weight", weight)
        self._inside: dict[int, torch.Tensor] = {}
        self._looks: torch.Tensor | None = None
        layers = model.model.language_model.layers
        for index in (BANDS_LAYER, INSIDE, COUNTS_LAYER):
            layers[index].register_forward_hook(self._keep(index))
        layers[-1].self_attn.register_forward_hook(self._keep_looks)

    def measure(self, frames: torch.Tensor) -> None:
        """Take mean and deviation of each band from frames [n, 640]."""
        bands = log_bands(frames)
        self.mean.copy_(bands.mean(0))
        self.deviation.copy_(bands.std(0) + 1e-3)

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Mean losses by name.

        Of sound: word sequences (CTC), the word in each frame, counts of words, and bands. Of pictures: colour, shape
        and place. Of answers: where their attention looks. Counts and looks only if these layers were run.
        """
        losses = {}
        if len(batch.frames):
            logits = self.words(_normed(self._inside[INSIDE][batch.kinds == AUDIO_KIND])).float()
            losses |= self._sound(batch, logits)
            if COUNTS_LAYER in self._inside:
                so_far = _words_so_far(batch, logits)
                losses["counts"] = self._counts(batch, so_far)
                losses["looks"] = self._pointers(batch, so_far)
        if len(batch.images):
            losses["pictures"] = self._pictures(batch)
        self._inside.clear()
        self._looks = None
        return losses

    def _sound(self, batch: Batch, logits: torch.Tensor) -> dict[str, torch.Tensor]:
        frame = _where_known(logits, batch.labels[:, 0], self.weight)
        target = (log_bands(batch.frames) - self.mean) / self.deviation
        inside = self._inside[BANDS_LAYER][batch.kinds == AUDIO_KIND]
        bands = F.mse_loss(self.bands(_normed(inside)).float(), target)
        return {"sequences": self._sequences(logits, batch), "words": frame, "bands": bands}

    def _counts(self, batch: Batch, so_far: torch.Tensor) -> torch.Tensor:
        """An answer needs the count to find its next word. Without it, words that occur twice are lost."""
        inside = self._inside[COUNTS_LAYER][batch.kinds == AUDIO_KIND]
        return _where_known(self.counts(_normed(inside)).float(), so_far)

    def _pointers(self, batch: Batch, so_far: torch.Tensor) -> torch.Tensor:
        """The position that predicts the k-th word looks at the frames up to which k words were said.

        Guided attention (Tachibana et al., 2018, for speech synthesis), on the most likely path instead of a diagonal.
        """
        assert self._looks is not None
        counts = torch.full(batch.kinds.shape, UNKNOWN).masked_scatter(batch.kinds == AUDIO_KIND, so_far)
        seen = (batch.kinds == IMAGE_KIND) | (batch.kinds == VIDEO_KIND)
        writes = batch.scored & ~seen.any(1, keepdim=True)
        rows, columns, there = map(torch.from_numpy, next_words(counts.numpy(), writes.numpy()))
        share = (self._looks[rows, :POINTERS, columns - 1].float() * there[:, None]).sum(-1)
        return -torch.log(share + 1e-3).mean() if len(share) else self._looks.sum() * 0

    def _pictures(self, batch: Batch) -> torch.Tensor:
        """Colour, shape and place, from the mean over a picture's patches."""
        vision = (batch.kinds == IMAGE_KIND) | (batch.kinds == VIDEO_KIND)
        inside = _normed(self._inside[INSIDE][vision]).view(*batch.images.shape[:2], -1).mean(1)
        logits = self.pictures(inside).float().split(_SEEN, dim=-1)
        losses = [F.cross_entropy(each, batch.seen[:, number]) for number, each in enumerate(logits)]
        return torch.stack(losses).mean()

    def _sequences(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        likely = nn.utils.rnn.pad_sequence(list(logits.log_softmax(-1).split(batch.lengths)))
        said = _numbers(batch.said)
        counts = torch.tensor([len(words) for words in said])
        loss = F.ctc_loss(
            likely,
            torch.tensor([word for words in said for word in words]),
            torch.tensor(batch.lengths),
            counts,
            zero_infinity=True,
            reduction="none",
        )
        return (loss / counts.clamp(min=1)).mean()

    def _keep(self, index: int) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            self._inside[index] = output[0] if isinstance(output, tuple) else output

        return hook

    def _keep_looks(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        self._looks = output[1]


def _words_so_far(batch: Batch, words: torch.Tensor) -> torch.Tensor:
    """How many words were said up to each frame. Inside a text that was recorded whole, from the CTC path."""
    counts = words_so_far(words.detach().log_softmax(-1).numpy(), batch.lengths, _numbers(batch.said))
    return torch.where(batch.labels[:, 1] == UNKNOWN, torch.from_numpy(counts), batch.labels[:, 1])


def _numbers(said: list[str]) -> list[list[int]]:
    return [[WORD_IDS[word] for word in text.split()] for text in said]


def log_bands(frames: torch.Tensor) -> torch.Tensor:
    """[n, 640] → [n, 96]: log energies of 24 mel bands in four windows of each frame, which is scaled to power 1."""
    loud = frames * torch.rsqrt(frames.square().mean(-1, keepdim=True) + 1e-6)
    windows = F.pad(loud, (80, 80)).unfold(-1, _WINDOW, _HOP) * torch.hann_window(_WINDOW)
    power = torch.view_as_real(torch.fft.rfft(windows, n=_FFT)).square().sum(-1)
    return torch.log(power @ _filters().T + 0.01).flatten(-2)


def _filters() -> torch.Tensor:
    low, high = (2595 * math.log10(1 + hertz / 700) for hertz in (80, 7600))
    edges = 700 * (10 ** (torch.linspace(low, high, _BANDS + 2) / 2595) - 1)
    hertz = torch.linspace(0, 8000, _FFT // 2 + 1)
    rising = (hertz - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - hertz) / (edges[2:] - edges[1:-1])[:, None]
    filters = torch.minimum(rising, falling).clamp(min=0)
    return filters / filters.sum(1, keepdim=True).clamp(min=1e-3)


def _where_known(logits: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
    if (labels == UNKNOWN).all():
        return logits.sum() * 0
    return F.cross_entropy(logits, labels, weight=weight, ignore_index=UNKNOWN)


def _normed(hidden: torch.Tensor) -> torch.Tensor:
    return hidden * torch.rsqrt(hidden.float().square().mean(-1, keepdim=True) + 1e-6)

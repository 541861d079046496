"""Where the words of an utterance are: the most likely CTC path, for many utterances at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .sound import SILENCE, UNKNOWN


def words_so_far(likely: np.ndarray, lengths: Sequence[int], said: Sequence[Sequence[int]]) -> np.ndarray:
    """How many words had begun up to each frame [n]; UNKNOWN where there is no path.

    Graves et al., "Connectionist temporal classification", 2006, with the most likely path instead of the sum of all.

        states    silence  one  silence  two  silence     a step stays, goes to the next state, or skips a silence
        path      0 0 0 0  1 1  1 1      2 2  2 2         its words so far

    Args:
        likely: Log-probabilities [n, words + 1] of the frames of all utterances, one after the other.
        lengths: Frames of each utterance.
        said: The ids of its words; SILENCE may stand between them.
    """
    states = np.full((len(said), 2 * max(map(len, said), default=0) + 1), SILENCE)
    for row, words in zip(states, said, strict=True):
        row[1 : 2 * len(words) : 2] = words
    best, steps = _forward(_emissions(likely, lengths, states), _may_skip(states))
    path = _backward(best, steps, np.asarray(lengths), np.array([2 * len(words) for words in said]))
    return np.concatenate([column[:length] for column, length in zip(path.T, lengths, strict=True)])


def next_words(counts: np.ndarray, writes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where in the sound each word of the answers is: its row and column [n], and its positions in the row [n, L].

    Args:
        counts: How many words were said up to each position [B, L], UNKNOWN where there is no sound.
        writes: Which positions of a row are its answer [B, L]; the k-th of them is the k-th word. Words that are
            nowhere in the sound are left out, and so is the end of the answer.
    """
    rows, columns = writes.nonzero()
    there = counts[rows] == writes.cumsum(1)[rows, columns][:, None]
    heard = there.any(1)
    return rows[heard], columns[heard], there[heard]


def _emissions(likely: np.ndarray, lengths: Sequence[int], states: np.ndarray) -> np.ndarray:
    """[frames, utterances, states]; 0 after the end of an utterance."""
    emissions = np.zeros((max(lengths), *states.shape), np.float32)
    for number, piece in enumerate(np.split(likely, np.cumsum(lengths)[:-1])):
        emissions[: len(piece), number] = piece[:, states[number]]
    return emissions


def _may_skip(states: np.ndarray) -> np.ndarray:
    """Where the silence before a word may be skipped: not between two equal words."""
    skip = np.zeros(states.shape, bool)
    skip[:, 3::2] = states[:, 3::2] != states[:, 1:-2:2]
    return skip


def _forward(emissions: np.ndarray, skip: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The score of the best path to each state, and how many states its last step advanced."""
    scores = np.full((len(emissions), *skip.shape, 3), -np.inf, np.float32)
    best = np.full(emissions.shape, -np.inf, np.float32)
    best[0, :, :2] = emissions[0, :, :2]
    for frame in range(1, len(emissions)):
        before, now = best[frame - 1], scores[frame]
        now[..., 0] = before
        now[:, 1:, 1] = before[:, :-1]
        now[:, 2:, 2] = np.where(skip[:, 2:], before[:, :-2], -np.inf)
        best[frame] = now.max(-1) + emissions[frame]
    return best, scores.argmax(-1)


def _backward(best: np.ndarray, steps: np.ndarray, lengths: np.ndarray, silent: np.ndarray) -> np.ndarray:
    """Words so far [frames, utterances], from the last state (silence, or the last word) to the first."""
    every = np.arange(len(lengths))
    last = best[lengths - 1, every, silent]
    word = np.where(silent > 0, best[lengths - 1, every, silent - 1], -np.inf)
    state = np.where(word > last, silent - 1, silent)
    known = np.isfinite(np.maximum(last, word))
    counts = np.full(best.shape[:2], UNKNOWN)
    for frame in reversed(range(len(best))):
        inside = known & (frame < lengths)
        counts[frame, inside] = (state[inside] + 1) // 2
        state = np.where(inside, state - steps[frame, every, state], state)
    return counts

"""Logits to tokens, on literal logits."""

from __future__ import annotations

import os
import subprocess
import sys

import mlx.core as mx
import numpy as np
import pytest
from graphs import VIEWS, primitives

from mlx_gemma4 import Sampling
from mlx_gemma4.decoder.config import GenerationConfig
from mlx_gemma4.outputs.sample import Sampler, finite_sum

LOGITS = [1.0, 3.0, -2.0, 2.5, 0.0, 2.0]
EVEN = [0.0] * 6


def draw(sampling: Sampling, logits: list[float] = LOGITS, count: int = 1, suppress: tuple[int, ...] = ()) -> list[int]:
    sampler = Sampler(sampling, len(logits), suppress=suppress)
    return [int(sampler(mx.array(logits)).item()) for _ in range(count)]


def test_greedy_is_argmax() -> None:
    """The default takes the most likely token, the first of equal ones."""
    rows = np.random.default_rng(0).normal(size=(20, 50)).astype(np.float32)
    sampler = Sampler(Sampling(), 50)
    assert [int(sampler(mx.array(row)).item()) for row in rows] == rows.argmax(axis=1).tolist()
    assert draw(Sampling(), EVEN) == [0]


def test_greedy_in_half_precision() -> None:
    """Logits of any precision give a token id without a dimension."""
    token = Sampler(Sampling(), 6)(mx.array(LOGITS, dtype=mx.bfloat16))
    assert (token.shape, token.item()) == ((), 1)


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16, mx.float32])
def test_greedy_takes_the_first_of_equal_logits(dtype: mx.Dtype) -> None:
    """In every type, as after a cast to float32, which is exact; suppressed ids do not shift the choice."""
    random = np.random.default_rng(0)
    logits = mx.array(random.integers(-3, 3, (50, 40)).astype(np.float32)).astype(dtype)
    for suppress in ((), (0, 7, 39)):
        expected = np.array(logits.astype(mx.float32))
        expected[:, suppress] = -np.inf
        sampler = Sampler(Sampling(), 40, suppress=suppress)
        assert sampler.greedy(logits) == sampler.choose(logits).tolist() == expected.argmax(axis=1).tolist()
        assert [sampler(row).item() for row in logits] == expected.argmax(axis=1).tolist()


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float32])
def test_greedy_makes_no_float32_copy(dtype: mx.Dtype) -> None:
    """Of 262,144 logits: one pass masks, one chooses, one checks; without suppressed ids, two."""
    logits = mx.zeros((1, 100), dtype)
    mx.eval(logits)
    masked, plain = Sampler(Sampling(), 100, suppress=(3,)), Sampler(Sampling(), 100)
    for sampler, expected in ((masked, {"Select": 1, "ArgReduce": 1}), (plain, {"ArgReduce": 1})):
        counts = primitives([sampler.choose(logits)])
        assert {name: count for name, count in counts.items() if name not in VIEWS} == expected
    counts = primitives([finite_sum(logits)])
    assert {name: count for name, count in counts.items() if name not in VIEWS} == {"Sum": 1}


def test_suppressed_tokens() -> None:
    """A suppressed token is never chosen, however likely."""
    assert draw(Sampling(), suppress=(1,)) == [3]
    assert draw(Sampling(), suppress=(1, 3)) == [5]
    assert set(draw(Sampling(temperature=1.0, seed=0), EVEN, 200, suppress=(0, 2, 5))) == {1, 3, 4}


def test_suppressed_beyond_the_vocabulary() -> None:
    """Ids that the vocabulary does not hold cannot be chosen anyway."""
    assert draw(Sampling(), suppress=(1, 6, 258883, -1)) == [3]


def test_suppressed_in_top_k() -> None:
    """A suppressed token takes no place among the k."""
    assert set(draw(Sampling(temperature=10.0, top_k=2, seed=0), count=100, suppress=(1,))) == {3, 5}


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_temperature(temperature: float) -> None:
    """Tokens come as often as softmax(logits / temperature) says."""
    counts = np.bincount(draw(Sampling(temperature=temperature, seed=0), count=2000), minlength=6) / 2000
    weights = np.exp(np.array(LOGITS) / temperature)
    np.testing.assert_allclose(counts, weights / weights.sum(), atol=0.04)


def test_same_seed_same_tokens() -> None:
    """A seed makes sampling repeatable, and another seed another."""
    first = draw(Sampling(temperature=1.0, seed=7), EVEN, 40)
    assert draw(Sampling(temperature=1.0, seed=7), EVEN, 40) == first
    assert draw(Sampling(temperature=1.0, seed=8), EVEN, 40) != first


def test_temperature_zero_ignores_the_rest() -> None:
    """Without temperature there is nothing to choose from: the most likely token."""
    assert set(draw(Sampling(top_k=3, top_p=0.5, min_p=0.1), count=20)) == {1}


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(temperature=9.0, top_k=1, seed=0), {1}),
        (Sampling(temperature=9.0, top_k=3, seed=0), {1, 3, 5}),
        (Sampling(temperature=9.0, top_k=6, seed=0), {0, 1, 2, 3, 4, 5}),
        (Sampling(temperature=9.0, top_k=64, seed=0), {0, 1, 2, 3, 4, 5}),
        # softmax(LOGITS) = 0.06, 0.44, 0.00, 0.27, 0.02, 0.16
        (Sampling(temperature=9.0, top_p=0.4, seed=0), {1}),
        (Sampling(temperature=9.0, top_p=0.6, seed=0), {1, 3}),
        (Sampling(temperature=9.0, top_p=0.0, seed=0), {0, 1, 2, 3, 4, 5}),
        (Sampling(temperature=9.0, min_p=0.5, seed=0), {1, 3}),
        (Sampling(temperature=9.0, min_p=0.1, seed=0), {0, 1, 3, 5}),
    ],
    ids=str,
)
def test_what_is_sampled_from(sampling: Sampling, expected: set[int]) -> None:
    """top_k, top_p and min_p leave these tokens, all of which are drawn at a high temperature."""
    assert set(draw(sampling, count=200)) == expected


def test_repetition_penalty() -> None:
    """Tokens of the history have positive logits divided and negative ones multiplied, once each."""
    for penalty, history, expected in [
        (1.1, [1], 1),  # 3.0 / 1.1 = 2.73 > 2.5
        (1.3, [1, 1], 3),  # 3.0 / 1.3 = 2.31 < 2.5
        (1.3, [1, 3], 1),  # 2.31 > 2.5 / 1.3 = 1.92 and 2.0
        (2.0, [1, 3], 5),  # 1.5, 1.25 < 2.0
        (0.5, [5], 5),  # 2.0 / 0.5 = 4.0
    ]:
        sampler = Sampler(Sampling(repetition_penalty=penalty), 6, history=history)
        assert sampler(mx.array(LOGITS)).item() == expected
    below = Sampler(Sampling(repetition_penalty=3.0), 2, history=[1])
    assert below(mx.array([-2.0, -1.0])).item() == 0  # -1.0 * 3.0 < -2.0


def test_repetition_penalty_remembers() -> None:
    """Tokens that were chosen are penalized from then on; the logits handed in stay as they are."""
    logits = mx.array(LOGITS)
    sampler = Sampler(Sampling(repetition_penalty=2.0), 6)
    assert [int(sampler(logits).item()) for _ in range(5)] == [1, 3, 5, 1, 1]
    assert logits.tolist() == LOGITS


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, "Expected temperature of 0 or more, got -0.1"),
        ({"temperature": float("nan")}, "Expected temperature of 0 or more, got nan"),
        ({"top_k": -1}, "Expected top_k of 0 or more, got -1"),
        ({"top_p": 1.5}, "Expected top_p of 0 or more, at most 1, got 1.5"),
        ({"top_p": -0.5}, "Expected top_p of 0 or more, at most 1, got -0.5"),
        ({"min_p": 2}, "Expected min_p of 0 or more, at most 1, got 2"),
        ({"repetition_penalty": 0.0}, "Expected a repetition_penalty above 0, got 0.0"),
    ],
)
def test_bounds(options: dict[str, float], message: str) -> None:
    """A number out of bounds is refused, with the bounds."""
    with pytest.raises(ValueError, match=f"^{message}$"):
        Sampling(**options)  # type: ignore[arg-type]


def test_from_generation_config() -> None:
    """The checkpoint's own way to sample."""
    config = GenerationConfig(temperature=0.7, top_k=64, top_p=0.95)
    assert Sampling.from_config(config) == Sampling(temperature=0.7, top_k=64, top_p=0.95)
    assert Sampling.from_config(GenerationConfig()) == Sampling()


def test_greedy_needs_no_mlx_lm() -> None:
    """mlx-lm and transformers, slow to import, stay out of greedy decoding."""
    program = (
        "import sys, mlx.core as mx; from mlx_gemma4.outputs.sample import Sampler, Sampling, finite_sum; "
        "token = Sampler(Sampling(), 3, suppress=[2])(mx.array([0.0, 1.0, 2.0])).item(); "
        "print(token, [name for name in ('mlx_lm', 'transformers') if name in sys.modules])"
    )
    path = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=path)
    assert ran.stdout == "1 []\n"


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_that_mlx_cannot_hold_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match=f"Expected a seed from 0 to 18446744073709551615, got {seed}"):
        Sampling(temperature=1.0, seed=seed)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(repetition_penalty=2.0),
        Sampling(temperature=1.0, seed=3),
        Sampling(temperature=1.5, top_k=5, top_p=0.9, min_p=0.01, repetition_penalty=1.3, seed=4),
    ],
    ids=str,
)
def test_rows_behind_a_draft_are_chosen_as_one_by_one(sampling: Sampling) -> None:
    """Where the draft is what is chosen, the answer is the same as without it, seed and penalty included."""
    rows = mx.array(np.random.default_rng(1).normal(size=(12, 8)).astype(np.float32))
    single = Sampler(sampling, 8, suppress=[2], history=[1])
    expected = [int(single(row).item()) for row in rows]
    for sizes in ([12], [5, 7], [1, 3, 1, 7]):
        sampler, taken = Sampler(sampling, 8, suppress=[2], history=[1]), 0
        for size in sizes:
            draft = mx.array(expected[taken : taken + size - 1]) if size > 1 else None
            tokens = sampler.choose(rows[taken : taken + size], draft)
            assert tokens.tolist() == expected[taken : taken + size]
            sampler.take(tokens)
            taken += size


def test_seeds_next_to_each_other_share_nothing() -> None:
    """The second token of one seed is not the first of the next."""
    drawn = [draw(Sampling(temperature=1.0, seed=seed), [0.0] * 1000, 30) for seed in (7, 8)]
    assert len(set(drawn[0]) & set(drawn[1])) < 10 and drawn[0][1:] != drawn[1][:-1]


def test_without_a_seed_the_state_of_mlx_decides() -> None:
    """As with every other function of mlx.random."""
    drawn = []
    for seed in (5, 5, 6):
        mx.random.seed(seed)
        drawn.append(draw(Sampling(temperature=1.0), EVEN, 30))
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("size", [6, 32, 70])
def test_choices_among_allowed_ids(size: int) -> None:
    """A bit for each id, 32 in a word; suppressed ids stay so, greedy and sampled."""
    logits = np.random.default_rng(size).normal(size=(3, size)).astype(np.float32)
    may = np.random.default_rng(1).random((3, size)) < 0.4
    may[:, 2] = may[:, size - 1] = True
    words = np.zeros((3, -(-size // 32)), dtype=np.uint32)
    for row, token_id in zip(*np.nonzero(may), strict=True):
        words[row, token_id // 32] |= np.uint32(1 << (token_id % 32))
    expected = np.where(may, logits, -np.inf)
    expected[:, 2] = -np.inf
    greedy = Sampler(Sampling(), size, suppress=[2])
    assert greedy.choose(mx.array(logits), allowed=mx.array(words)).tolist() == expected.argmax(axis=1).tolist()
    for seed in range(20):
        hot = Sampler(Sampling(temperature=5.0, seed=seed), size, suppress=[2])
        chosen = hot.choose(mx.array(logits), mx.array([0, 1]), allowed=mx.array(words)).tolist()
        assert all(np.isfinite(expected[row, token_id]) for row, token_id in enumerate(chosen))

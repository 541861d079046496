"""What a forward computes, and what it leaves out because nobody reads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from conftest import loaded
from graphs import chunk_graphs, kernels, like_a_gpu, primitives
from mlx.utils import tree_map

from mlx_gemma4 import Model, Sampling, Session
from mlx_gemma4.decoder.embedders import PROJECTION_BLOCKS
from mlx_gemma4.decoder.masks import Mask, full_mask, mask_from, sliding_mask
from mlx_gemma4.decoder.model import geglu, scaled_sum, softcap
from mlx_gemma4.outputs import steps
from mlx_gemma4.outputs.sample import Sampler


@pytest.mark.parametrize(
    ("piece", "kernels"),
    [(lambda x: geglu(x, x), 2), (lambda x: softcap(x, 30.0), 1), (lambda x: scaled_sum(x, x, x), 1)],
    ids=["geglu", "softcap", "scaled_sum"],
)
def test_pointwise_pieces_are_compiled_on_a_gpu(
    piece: Callable[[mx.array], mx.array], kernels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of any backend, as the default device is when they run; on the CPU a compiler would have to be called first."""
    x = mx.zeros((4, 4))
    mx.eval(x)
    assert primitives([piece(x)])["Compiled"] == 0
    monkeypatch.setattr(mx, "default_device", lambda: mx.Device(mx.gpu))
    monkeypatch.setattr(mx.metal, "is_available", lambda: False)
    assert primitives([piece(x)]) == {"Compiled": kernels}
    monkeypatch.setattr(mx, "default_device", lambda: mx.Device(mx.cpu))
    monkeypatch.setattr(mx.metal, "is_available", lambda: True)
    assert primitives([piece(x)])["Compiled"] == 0


def random_model(layers: int) -> Model:
    """A model with the sizes of "released" and its first layers only: the last of 11 is a sliding one."""
    config = loaded("released")[0].config
    model = Model(replace(config, text_config=replace(config.text_config, layers=config.text_config.layers[:layers])))
    mx.random.seed(0)
    model.update(tree_map(lambda weight: mx.random.normal(weight.shape) * 0.1, model.parameters()))
    mx.eval(model.parameters())
    return model


@pytest.mark.parametrize("layers", [11, 12])
@pytest.mark.parametrize("cached", [0, 3, 40])
def test_only_rows_that_are_read(layers: int, cached: int) -> None:
    """Their hidden states are those of a forward that returns all: with an image, and whatever type the layer has."""
    model = random_model(layers)
    rows = mx.random.normal((1, cached + 24, model.config.text_config.hidden_size))
    image_ids = np.array([-1] * 3 + [0] * 10 + [-1] * 2 + [1] * 5 + [-1] * 4)
    for images in (None, image_ids):
        whole = model.make_cache()
        if cached:
            model(rows[:, :cached], whole)
        expected = np.array(model(rows[:, cached:], whole, images))
        for first in (0, 1, 7, 16, 23):
            cache = model.make_cache()
            if cached:
                model(rows[:, :cached], cache)
            actual = np.array(model(rows[:, cached:], cache, images, read_from=first))
            assert actual.shape[1] == 24 - first
            np.testing.assert_allclose(actual, expected[:, first:], atol=1e-4)
            for array, other in zip(cache.arrays, whole.arrays, strict=True):
                np.testing.assert_array_equal(np.array(array), np.array(other))


@pytest.mark.parametrize(
    "mask", [None, "causal", sliding_mask(6, 9, window=4), sliding_mask(6, 6, 4, np.zeros(6, int))]
)
def test_the_mask_of_the_last_queries(mask: Mask) -> None:
    """Its last rows; of several causal queries the last one sees everything."""
    for row in range(6):
        cut = mask_from(mask, row, 6)
        if isinstance(mask, mx.array):
            np.testing.assert_array_equal(np.array(cut), np.array(mask)[row:])
        else:
            assert cut == (None if mask is None else full_mask(6 - row))


class Rows:
    """Stands for a module and notes how many rows it is given."""

    def __init__(self, module: object, seen: list[int]) -> None:
        self.module, self.seen = module, seen

    def __call__(self, x: mx.array) -> mx.array:
        self.seen.append(x.shape[1])
        return self.module(x)  # type: ignore[operator,no-any-return]


def test_rows_of_the_last_layer_and_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """600 rows in two forwards: the last layer's keys of all rows, everything else of those whose logits return."""
    model = random_model(12)
    last = model.language_model.model.layers[-1]
    seen: dict[str, list[int]] = {}
    for module, name in ((last.self_attn, "k_proj"), (last.self_attn, "q_proj"), (last, "mlp")):
        monkeypatch.setitem(module, name, Rows(module[name], seen.setdefault(name, [])))
    head, heads = model.language_model.model.embed_tokens.as_linear, seen.setdefault("head", [])
    monkeypatch.setattr(
        type(model.language_model.model.embed_tokens), "as_linear", lambda _, x: heads.append(x.shape[1]) or head(x)
    )
    ids = np.arange(23, 323).repeat(2)
    for logits_from, read in ((None, [1]), (598, [2]), (500, [12, 88]), (0, [512, 88])):
        session = Session(model)
        for counts in seen.values():
            counts.clear()
        mx.eval(session.extend(ids, logits_from=logits_from))
        assert seen["k_proj"] == [512, 88]
        assert seen["q_proj"][-len(read) :] == seen["mlp"][-len(read) :] == read
        assert seen["head"] == [sum(read)]


@pytest.mark.parametrize("piece", [np.zeros((1, 640), np.float32), np.full(512, 30)], ids=["a frame", "a chunk"])
def test_of_what_nobody_reads_the_last_layer_computes_keys_only(
    piece: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The logits that ``extend`` returns are lazy, and so is all that only they need."""
    session = Session(random_model(12))
    [graph] = chunk_graphs(session, piece, monkeypatch)
    layers = session.model.config.text_config.layers
    # four projections, three of the MLP, two of the attention; or three, three, and two for each part of a full layer
    products = {True: 9, False: 10}
    embedding = PROJECTION_BLOCKS if piece.ndim == 2 else 0
    expected = embedding + sum(products[layer.is_sliding] for layer in layers[:-1]) + 1
    assert graph["Matmul"] + graph["AddMM"] == expected


def test_unread_logits_hold_no_copy_of_the_cache() -> None:
    """A lazy hidden state keeps the keys that it needs; while it is there, writing the next ones would copy them."""
    session = Session(random_model(12))
    session.extend([30] * 300)
    session.extend([30])
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    session.extend([30])
    _, largest, _ = session._cache.layers[-1].arrays
    assert mx.get_peak_memory() - before < largest.nbytes


def test_primitives_of_a_decoding_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a GPU runs it: 23 kernels a layer, 29 where values are keys, and 5 around them.

    A layer: 4 norms, 4 of the attention's projections, 3 norms and 2 rotations of heads, 2 writes into the cache,
    1 attention, 2 sums with the residual, 3 projections of the MLP and 2 pointwise kernels between them. Where values
    are keys: a projection less, 3 writes, and an attention of 4 products, a softmax, a weight of the query and a
    concatenation.
    """
    session = Session(random_model(12), room=2)
    session.extend(np.full(40, 30))
    token = mx.array(30)
    mx.eval(token)
    like_a_gpu(monkeypatch)
    counts = primitives([session.step(token)])
    assert kernels(counts) == 10 * 23 + 2 * 29 + 5
    assert counts["SliceUpdate"] == 26 and counts["Compiled"] == 3 * 12 + 1 and counts["Gather"] == 1
    assert counts["Concatenate"] == 2 and not counts["AsType"] and not counts["Copy"]


@pytest.mark.parametrize(("room", "more"), [(2, (0, 30)), (600, (10, 10))])
def test_primitives_of_a_chunk(room: int, more: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """As a step's, without head and without the last layer's queries and MLP; a write into the cache is a move.

    A buffer that moves to one with spare positions needs zeros as well. With little room, the ten sliding layers move
    again behind the last chunk, which was longer than what they hold.
    """
    session = Session(random_model(12), room=room)
    session.extend(np.full(512, 30))
    like_a_gpu(monkeypatch)
    first, second = chunk_graphs(session, np.full(1024, 30), monkeypatch)
    last = 1 + 1 + 2 + 1 + 3  # norm, projection, two norms, rotation, three writes
    chunk = 2 + 6 + 10 * 23 + 29 + 4 + last  # embedding and scale, masks of sliding layers, layers, a full layer's mask
    assert (kernels(first), kernels(second)) == (chunk + more[0], chunk + more[1])


def test_the_host_waits_once_for_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """And then the next one is queued already. A prompt is waited for once a chunk."""
    model, events = random_model(12), list[str]()

    def noted(event: str, function: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: object) -> None:
            events.append(event)
            function(*arguments)

        return call

    for name in ("eval", "async_eval"):
        monkeypatch.setattr(mx, name, noted(name, getattr(mx, name)))
    monkeypatch.setattr(steps, "check_finite", noted("read", steps.check_finite))
    session = Session(model, room=2)
    logits = session.extend(np.full(600, 30))
    assert events == ["eval"] * 2
    events.clear()
    tokens = list(steps.generate_step(session, logits, Sampler(Sampling(), 371, suppress=(30,)), max_tokens=5))
    assert len(tokens) == 5
    assert events == ["async_eval", *["async_eval", "read"] * 4, "read"]

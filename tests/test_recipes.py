"""Recipes: which module is stored how, how the user changes that, and what comes of it, in bytes and in files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import prod
from typing import Any

import mlx.core as mx
import pytest

from mlx_gemma4.checkpoint.recipes import RECIPES, Recipe, Rule, find_recipe, uniform_recipe, with_rules
from mlx_gemma4.checkpoint.setting import Setting
from mlx_gemma4.convert.plan import Plan, make_plan
from mlx_gemma4.convert.sizes import Shape, plan_of_12b, recipe_table

FOUR, SIX, EIGHT = (Setting(bits, 64) for bits in (4, 6, 8))
MXFP4, MXFP8, NVFP4 = Setting(4, 32, "mxfp4"), Setting(8, 32, "mxfp8"), Setting(4, 16, "nvfp4")
MODEL = "language_model.model"


def modules_of(layers: int, full: Sequence[int]) -> list[str]:
    """The modules of a model whose full layers are these."""
    modules = [f"{MODEL}.embed_tokens", "embed_audio.embedding_projection", "embed_vision.embedding_projection"]
    for index in range(layers):
        parts = ["q_proj", "k_proj", "o_proj"] + ["v_proj"] * (index not in full)
        modules += [f"{MODEL}.layers.{index}.self_attn.{part}" for part in parts]
        modules += [f"{MODEL}.layers.{index}.mlp.{part}" for part in ("gate_proj", "up_proj", "down_proj")]
    return [*modules, "vision_embedder.patch_dense"]


MODULES = modules_of(48, range(5, 48, 6))
DRAFTER = ["model.embed_tokens", "model.layers.0.mlp.down_proj", "pre_projection", "post_projection"]


@pytest.mark.parametrize(
    ("name", "decoder", "embedding"),
    [
        ("4bit", FOUR, SIX),
        ("8bit", EIGHT, EIGHT),
        ("bf16", None, None),
        ("mxfp4", MXFP4, SIX),
        ("mxfp8", MXFP8, EIGHT),
        ("nvfp4", NVFP4, SIX),
        ("qat", EIGHT, EIGHT),
    ],
)
def test_recipes(name: str, decoder: Setting | None, embedding: Setting | None) -> None:
    """Attention and MLP have one setting, the embedding another, and what takes media in stays as it is."""
    recipe = find_recipe(name, MODULES)
    assert recipe.name == name
    for module in MODULES:
        expected = decoder if ".layers." in module else embedding if "embed_tokens" in module else None
        assert recipe.choose(module) == expected, module
    assert [recipe.choose(module) for module in DRAFTER] == [embedding, decoder, None, None]


def sensitive(layers: int, full: Sequence[int]) -> dict[str, Setting | None]:
    """What ``mixed`` stores otherwise than ``4bit`` does."""
    modules = modules_of(layers, full)
    recipe, plain = find_recipe("mixed", modules), find_recipe("4bit", modules)
    return {
        module.removeprefix(f"{MODEL}.layers."): recipe.choose(module)
        for module in modules
        if recipe.choose(module) != plain.choose(module)
    }


def test_mixed_in_a_small_model() -> None:
    """Of eight layers the first, the last, and every third between; a full layer's keys are its values."""
    parts = ["0.self_attn.v_proj", "0.mlp.down_proj", "3.self_attn.k_proj", "3.mlp.down_proj"]
    parts += ["6.self_attn.v_proj", "6.mlp.down_proj", "7.self_attn.k_proj", "7.mlp.down_proj"]
    assert sensitive(8, [3, 7]) == dict.fromkeys(parts, SIX)


def test_mixed_in_the_12b() -> None:
    """The first six and the last six layers, and every third between, which takes in every full one."""
    layers = [*range(6), 8, 11, 14, 17, 20, 23, 26, 29, 32, 35, 38, 41, *range(42, 48)]
    full = [5, 11, 17, 23, 29, 35, 41, 47]
    values = {f"{index}.self_attn.{'k' if index in full else 'v'}_proj": SIX for index in layers}
    assert sensitive(48, full) == {**values, **{f"{index}.mlp.down_proj": SIX for index in layers}}


def test_mixed_for_a_drafter() -> None:
    """Its layers have neither keys nor values of their own: only MLP outputs are stored otherwise."""
    modules = [
        f"model.layers.{index}.{part}"
        for index in range(4)
        for part in ("self_attn.q_proj", "mlp.up_proj", "mlp.down_proj")
    ]
    recipe = find_recipe("mixed", modules)
    assert [module for module in modules if recipe.choose(module) != FOUR] == ["model.layers.2.mlp.down_proj"]


@pytest.mark.parametrize("name", ["5bit", "auto", "4BIT", ""])
def test_no_such_recipe(name: str) -> None:
    """The recipes that there are are named."""
    message = (
        f"Expected a recipe of 4bit, mixed, 8bit, bf16, mxfp4, mxfp8, nvfp4, qat, got {name!r}; "
        "--list-recipes describes them"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        find_recipe(name, MODULES)


@pytest.mark.parametrize(
    ("setting", "name", "embedding", "description"),
    [
        (Setting(2, 64), "2bit", SIX, "attention and MLP at 2 bits, group 64, embedding at 6 bits"),
        (Setting(5, 32), "5bit", SIX, "attention and MLP at 5 bits, group 32, embedding at 6 bits"),
        (Setting(6, 128), "6bit", SIX, "attention and MLP at 6 bits, group 128, embedding at 6 bits"),
        (Setting(8, 32), "8bit", EIGHT, "attention and MLP at 8 bits, group 32, embedding at 8 bits"),
        (MXFP8, "mxfp8", EIGHT, "attention and MLP at mxfp8, embedding at 8 bits"),
        (NVFP4, "nvfp4", SIX, "attention and MLP at nvfp4, embedding at 6 bits"),
    ],
)
def test_a_setting_of_ones_own(setting: Setting, name: str, embedding: Setting, description: str) -> None:
    """It is that of attention and MLP; the embedding has no fewer bits."""
    recipe = uniform_recipe(setting)
    assert (recipe.name, recipe.description) == (name, description)
    chosen = [recipe.choose(module) for module in (MODULES[0], MODULES[4], MODULES[1])]
    assert chosen == [embedding, setting, None]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], [FOUR, FOUR, SIX]),
        (["*.v_proj=8"], [EIGHT, FOUR, SIX]),
        (["*.v_proj=8", "*=none"], [None, None, None]),
        (["*=none", "*.v_proj=8"], [EIGHT, None, None]),
        (["*=3/128", "*layers.0.*=mxfp4", "*up_proj=none"], [MXFP4, None, Setting(3, 128)]),
        (["*layers.[01].*_proj=6/32"], [Setting(6, 32), FOUR, SIX]),
        (["*embed_tokens=nvfp4"], [FOUR, FOUR, NVFP4]),
    ],
)
def test_the_users_rules(texts: list[str], expected: list[Setting | None]) -> None:
    """They go before the recipe's, and the last that fits decides."""
    recipe = with_rules(RECIPES["4bit"], texts)
    names = [f"{MODEL}.layers.0.self_attn.v_proj", f"{MODEL}.layers.2.mlp.up_proj", f"{MODEL}.embed_tokens"]
    assert [recipe.choose(name) for name in names] == expected
    assert recipe.rules[len(texts) :] == RECIPES["4bit"].rules


def test_a_pattern_with_an_equals_sign() -> None:
    """The last one parts the pattern from the format."""
    assert with_rules(RECIPES["bf16"], ["a=b=8"]).rules == (Rule("a=b", EIGHT, is_firm=True),)


@pytest.mark.parametrize("text", ["", "*.v_proj", "=8", "*.v_proj=", "="])
def test_rules_of_another_form(text: str) -> None:
    """The form is shown by an example."""
    with pytest.raises(ValueError, match=rf"^Expected PATTERN=FORMAT \('\*\.v_proj=8'\), got {re.escape(repr(text))}$"):
        with_rules(RECIPES["4bit"], [text])


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        ("4", FOUR),
        ("8/32", Setting(8, 32)),
        ("3/128", Setting(3, 128)),
        ("mxfp4", MXFP4),
        ("mxfp8", MXFP8),
        ("nvfp4", NVFP4),
        ("none", None),
    ],
)
def test_formats(text: str, setting: Setting | None) -> None:
    """Bits, bits and group size, a mode, or none."""
    assert Setting.parse(text) == setting


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *(
            (text, f"Expected a format of BITS, BITS/GROUP, mxfp4, mxfp8, nvfp4 or none, got {text!r}")
            for text in ("", "four", "4/", "/32", "4/32/1", "-4", "4.5", "affine", "NONE", "8 bits")
        ),
        ("7", "Expected bits of 2, 3, 4, 5, 6, 8 for mode affine, got 7"),
        ("16", "Expected bits of 2, 3, 4, 5, 6, 8 for mode affine, got 16"),
        ("4/16", "Expected group size of 32, 64, 128 for mode affine, got 16"),
    ],
)
def test_formats_that_there_are_not(text: str, message: str) -> None:
    """What is possible is named."""
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Setting.parse(text)


@pytest.mark.parametrize(
    ("asked", "setting"),
    [
        ((), FOUR),
        (("affine", 8), EIGHT),
        (("affine", None, 32), Setting(4, 32)),
        (("mxfp4", 4, 32), MXFP4),
        (("mxfp8",), MXFP8),
        (("nvfp4",), NVFP4),
    ],
)
def test_settings(asked: tuple[str, int, int], setting: Setting) -> None:
    """A mode has its usual bits and groups unless others are named."""
    assert Setting.of(*asked) == setting
    assert setting.block == {"group_size": setting.group_size, "bits": setting.bits, "mode": setting.mode}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("int4",), "Expected a quantization mode of affine, mxfp4, mxfp8, nvfp4, got 'int4'"),
        (("affine", 1), "Expected bits of 2, 3, 4, 5, 6, 8 for mode affine, got 1"),
        (("mxfp4", 8), "Expected bits of 4 for mode mxfp4, got 8"),
        (("nvfp4", 4, 32), "Expected group size of 16 for mode nvfp4, got 32"),
        (("affine", 4, 0), "Expected group size of 32, 64, 128 for mode affine, got 0"),
    ],
)
def test_settings_that_there_are_not(asked: tuple[str, int, int], message: str) -> None:
    """What the mode has is named."""
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Setting.of(*asked)


@pytest.mark.parametrize(("setting", "text"), [(FOUR, "4 bits, group 64"), (MXFP4, "mxfp4"), (NVFP4, "nvfp4")])
def test_settings_in_words(setting: Setting, text: str) -> None:
    """As tables and the model card name them."""
    assert str(setting) == text


def plan_of(recipe: Recipe, shapes: dict[str, tuple[int, ...]], exact: Setting | None = None) -> Plan:
    return make_plan([Shape(name, shape, exact) for name, shape in shapes.items()], recipe)


def test_a_pattern_that_fits_nothing() -> None:
    """A slip of the pen is told, with the names that there are; the recipe's own patterns may fit nothing."""
    shapes = {"a.weight": (64, 64), "b.norm.weight": (64,), "c.table": (2, 3, 4), "d.layers.0.x.weight": (64, 64)}
    message = "No module matches 'layers'; modules are a, d.layers.0.x, …"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        plan_of(with_rules(RECIPES["4bit"], ["a=8", "layers=8"]), shapes)
    assert plan_of(RECIPES["4bit"], shapes).modules == {"bfloat16": 1, "4 bits, group 64": 1}


@pytest.mark.parametrize(
    ("columns", "text", "message"),
    [
        (96, "4", "the 96 inputs of m.layers.0.x, got 64; 32 would (--q-group-size)"),
        (64, "4/128", "the 64 inputs of m.layers.0.x, got 128; 32, 64 would (--q-group-size)"),
        (48, "4/32", "the 48 inputs of m.layers.0.x, got 32; none that affine has would"),
        (48, "mxfp4", "the 48 inputs of m.layers.0.x, got 32; none that mxfp4 has would"),
        (24, "nvfp4", "the 24 inputs of m.layers.0.x, got 16; none that nvfp4 has would"),
    ],
)
def test_groups_that_do_not_divide_a_width(columns: int, text: str, message: str) -> None:
    """The module is named, with what would do."""
    expected = f"Expected a group size that divides {message}; --q-module 'm.layers.0.x=none' leaves it as it is"
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        plan_of(with_rules(RECIPES["bf16"], [f"*={text}"]), {"m.layers.0.x.weight": (64, columns)})


@pytest.mark.parametrize(
    ("setting", "outputs"),
    [
        (None, [("m.weight", mx.bfloat16, (12, 256))]),
        (
            Setting(6, 64),
            [
                ("m.weight", mx.uint32, (12, 48)),
                ("m.scales", mx.bfloat16, (12, 4)),
                ("m.biases", mx.bfloat16, (12, 4)),
            ],
        ),
        (NVFP4, [("m.weight", mx.uint32, (12, 32)), ("m.scales", mx.uint8, (12, 16))]),
        (MXFP8, [("m.weight", mx.uint32, (12, 64)), ("m.scales", mx.uint8, (12, 8))]),
    ],
)
def test_what_a_module_is_stored_in(
    setting: Setting | None, outputs: list[tuple[str, mx.Dtype, tuple[int, int]]]
) -> None:
    """Packed codes, scales, and in affine mode biases, as ``mx.quantize`` makes them."""
    (step,) = plan_of(Recipe("own", "", (Rule("m", setting),)), {"m.weight": (12, 256)}).steps
    assert [(output.name, output.dtype, output.shape) for output in step.outputs] == outputs
    if setting is not None:
        values = mx.zeros((12, 256), mx.bfloat16)
        made = mx.quantize(values, group_size=setting.group_size, bits=setting.bits, mode=setting.mode)
        assert [(part.dtype, part.shape) for part in made] == [(dtype, shape) for _, dtype, shape in outputs]
        assert step.nbytes == sum(part.nbytes for part in made)


@pytest.mark.parametrize(
    ("keeps", "firm", "expected"), [(False, False, EIGHT), (True, False, FOUR), (True, True, EIGHT)]
)
def test_exact_forms(keeps: bool, firm: bool, expected: Setting) -> None:
    """They go before the rules of a recipe that keeps them, but not before the user's."""
    recipe = Recipe("own", "", (Rule("*", EIGHT, is_firm=firm),), keeps_exact=keeps)
    (step,) = plan_of(recipe, {"m.weight": (12, 256)}, exact=FOUR).steps
    assert (step.setting, step.is_exact) == (expected, expected == FOUR)


def test_the_block_of_the_config() -> None:
    """The commonest setting, and an entry that stands alone for each module of another."""
    shapes = {f"layers.{index}.weight": (64, 64) for index in range(4)} | {"norm.weight": (64,), "c.weight": (2, 64)}
    plan = plan_of(with_rules(RECIPES["bf16"], ["layers.*=4", "layers.2=mxfp4"]), shapes)
    assert plan.quantization == {
        "group_size": 64,
        "bits": 4,
        "mode": "affine",
        "layers.2": {"group_size": 32, "bits": 4, "mode": "mxfp4"},
    }
    assert plan.modules == {"4 bits, group 64": 3, "mxfp4": 1, "bfloat16": 1}
    assert plan_of(RECIPES["bf16"], shapes).quantization is None


def test_shards() -> None:
    """No file is larger than the limit, unless one tensor is, which then is alone; the order is kept."""
    widths = [10, 20, 40, 200, 10, 70, 20, 10]
    plan = plan_of(RECIPES["bf16"], {f"{index}.weight": (width, 1) for index, width in enumerate(widths)})
    files = [[step.tensor.shape[0] for step in steps] for steps in plan.shards(200)]
    assert files == [[10, 20, 40], [200], [10, 70, 20], [10]]
    assert plan.shards(plan.nbytes) == [list(plan.steps)]


def test_vectors_come_last() -> None:
    """After all matrices, in the source's order."""
    shapes = {"a": (1,), "b.weight": (4, 4), "c.weight": (4,), "d": (2, 2, 2)}
    names = [step.tensor.name for step in plan_of(RECIPES["bf16"], shapes).steps]
    assert names == ["b.weight", "d", "a", "c.weight"]


# The 12B, by arithmetic

SLIDING, FULL = 40, 8
D, MLP, VOCAB = 3840, 15360, 262144
PATCH, POSITIONS, FRAME = 48 * 48 * 3, 1120, 640
DECODER_MATRICES = (
    SLIDING * (2 * D * 16 * 256 + 2 * D * 8 * 256)  # q and o, k and v
    + FULL * (2 * D * 16 * 512 + D * 512)  # q and o, k
    + (SLIDING + FULL) * 3 * D * MLP
)
VECTORS = SLIDING * 2 * 256 + FULL * 2 * 512 + (SLIDING + FULL) * (4 * D + 1) + D
MEDIA = 2 * PATCH + (D * PATCH + D) + 2 * D + POSITIONS * 2 * D + 2 * D + D * D + D * FRAME
PARAMETERS = VOCAB * D + DECODER_MATRICES + VECTORS + MEDIA


def test_parameters_of_the_12b() -> None:
    """The shapes in the published description add up to as many."""
    assert plan_of_12b("bf16").parameters == PARAMETERS == 11_959_730_224
    assert plan_of_12b("bf16").nbytes == 2 * PARAMETERS


@pytest.mark.parametrize(
    ("recipe", "decoder_bits", "embedding_bits", "per_weight"),
    [
        ("bf16", 16, 16, "16.00"),
        ("4bit", 4.5, 6.5, "4.72"),
        ("8bit", 8.5, 8.5, "8.53"),
        ("mxfp4", 4.25, 6.5, "4.49"),
        ("mxfp8", 8.25, 8.5, "8.31"),
        ("nvfp4", 4.5, 6.5, "4.72"),
        ("qat", 5, 8.5, "5.34"),
    ],
)
def test_sizes_of_the_12b(recipe: str, decoder_bits: float, embedding_bits: float, per_weight: str) -> None:
    """Codes, and a scale and bias of 16 bits each for 64 weights (32 on the grid); modes have 8 bits for a group."""
    plan = plan_of_12b(recipe)
    bits = DECODER_MATRICES * decoder_bits + VOCAB * D * embedding_bits + 16 * (VECTORS + MEDIA)
    assert plan.nbytes == bits / 8
    assert f"{plan.bits_per_weight:.2f}" == per_weight


def test_mixed_is_between() -> None:
    """24 of 48 layers have two matrices at 6.5 bits instead of 4.5."""
    more = 24 * D * MLP + 16 * D * 8 * 256 + 8 * D * 512
    assert plan_of_12b("mixed").nbytes - plan_of_12b("4bit").nbytes == more * 2 / 8


@pytest.mark.parametrize("recipe", RECIPES)
def test_files_of_the_12b(recipe: str) -> None:
    """None is larger than 2 GB unless one tensor is, every tensor is in one of them, and numbers are aligned."""
    plan = plan_of_12b(recipe)
    shards = plan.shards()
    assert [step for steps in shards for step in steps] == list(plan.steps)
    for steps in shards:
        assert len(steps) == 1 or sum(step.nbytes for step in steps) <= 2_000_000_000
        end = 0
        for output in (output for step in steps for output in step.outputs):
            assert end % output.dtype.size == 0
            assert output.nbytes == prod(output.shape) * output.dtype.size
            end += output.nbytes
    assert (
        plan.modules
        == {
            "bf16": {"bfloat16": 332},
            "4bit": {"4 bits, group 64": 328, "bfloat16": 3, "6 bits, group 64": 1},
            "mixed": {"4 bits, group 64": 280, "6 bits, group 64": 49, "bfloat16": 3},
            "8bit": {"8 bits, group 64": 329, "bfloat16": 3},
            "mxfp4": {"mxfp4": 328, "bfloat16": 3, "6 bits, group 64": 1},
            "mxfp8": {"mxfp8": 328, "bfloat16": 3, "8 bits, group 64": 1},
            "nvfp4": {"nvfp4": 328, "bfloat16": 3, "6 bits, group 64": 1},
            "qat": {"4 bits, group 32": 328, "bfloat16": 3, "8 bits, group 64": 1},
        }[recipe]
    )


def test_the_table_of_recipes() -> None:
    """One line each, in columns: gigabytes, bits per weight, and what it does."""
    head, *lines, empty, foot = recipe_table().splitlines()
    assert head.split(maxsplit=3) == ["recipe", "GB", "bits", "what is stored how"]
    assert empty == ""
    assert foot == "Sizes are those of Gemma 4 12B. auto takes qat where weights were trained for it, or 4bit."
    found = [line.split(maxsplit=3) for line in lines]
    expected = []
    for name, recipe in RECIPES.items():
        plan = plan_of_12b(name)
        expected.append([name, f"{plan.nbytes / 1e9:.2f}", f"{plan.bits_per_weight:.2f}", recipe.description])
    assert found == expected
    assert found[0][1:3] == ["7.06", "4.72"]
    assert len({line.index(recipe.description) for line, recipe in zip(lines, RECIPES.values(), strict=True)}) == 1


@pytest.mark.parametrize(("mode", "bits"), [(["affine"], 4), ("affine", [4]), ("affine", 4.0), ("affine", True)])
def test_a_setting_of_other_types(mode: Any, bits: Any) -> None:
    """As a stranger's config.json may have them."""
    with pytest.raises(ValueError, match=r"^Expected (a quantization mode|bits) of "):
        Setting.of(mode, bits, 64)

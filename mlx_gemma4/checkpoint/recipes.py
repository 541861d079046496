"""Recipes: how each module is stored. The first pattern of a recipe that matches a module decides."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from math import prod

from mlx_gemma4.checkpoint.setting import Setting

AUTO = "auto"
"""``qat`` if the weights were trained for it, otherwise ``4bit``."""
DECODER = "*layers.*"
EMBEDDING = "*embed_tokens"

# the embedding is the head too, so rounding it blurs every logit; tests/compare_recipes.py shows by how much
_EMBEDDING = Setting(bits=6, group_size=64)
Q4_0 = Setting(bits=4, group_size=32)
"""The form in which MLX holds weights that were trained for Q4_0, bit for bit."""


@dataclass(frozen=True)
class Rule:
    """How modules whose path matches the pattern are stored; None: unquantized."""

    pattern: str
    setting: Setting | None
    is_firm: bool = False
    """Set by the user or needed by the model: it must match a module, and it overrides exact quantized forms."""


@dataclass(frozen=True)
class Recipe:
    """A way to store a model. Modules that no rule matches, norms and scalars are not quantized."""

    name: str
    description: str
    rules: tuple[Rule, ...]
    keeps_exact: bool = False
    """Modules that have an exact quantized form keep it, unless a firm rule matches them."""

    def choose(self, module: str, exact: Setting | None = None) -> Setting | None:
        """How a module is stored.

        Args:
            exact: Its exact quantized form, if it has one.
        """
        rule = next((rule for rule in self.rules if fnmatchcase(module, rule.pattern)), None)
        if self.keeps_exact and exact is not None and not (rule is not None and rule.is_firm):
            return exact
        return None if rule is None else rule.setting


def _uniform(name: str, description: str, setting: Setting, embedding: Setting = _EMBEDDING) -> Recipe:
    return Recipe(name, description, (Rule(EMBEDDING, embedding), Rule(DECODER, setting)))


RECIPES = {
    recipe.name: recipe
    for recipe in (
        _uniform(
            "4bit",
            "attention and MLP at 4 bits, embedding at 6, sound and picture projections as they are",
            Setting.of(),
        ),
        Recipe(
            "mixed",
            "4bit, with values and MLP outputs at 6 bits in the first and last eighth of layers and every third else",
            (),
        ),
        _uniform("8bit", "attention, MLP and embedding at 8 bits", Setting.of(bits=8), Setting.of(bits=8)),
        Recipe("bf16", "nothing is quantized, and what was is dequantized", ()),
        _uniform("mxfp4", "attention and MLP in MXFP4, embedding at 6 bits", Setting.of("mxfp4")),
        _uniform("mxfp8", "attention and MLP in MXFP8, embedding at 8 bits", Setting.of("mxfp8"), Setting.of(bits=8)),
        _uniform("nvfp4", "attention and MLP in NVFP4, embedding at 6 bits", Setting.of("nvfp4")),
        Recipe(
            "qat",
            "weights trained for Q4_0 or exported in W4A16 keep their 4 bits exactly; other modules at 8 bits",
            (Rule(EMBEDDING, Setting.of(bits=8)), Rule(DECODER, Setting.of(bits=8))),
            keeps_exact=True,
        ),
    )
}


def find_recipe(name: str, modules: Collection[str]) -> Recipe:
    """A recipe by name, for a model of these modules.

    Raises:
        ValueError: There is none of that name.
    """
    if name not in RECIPES:
        raise ValueError(f"Expected a recipe of {', '.join(RECIPES)}, got {name!r}; --list-recipes describes them")
    recipe = RECIPES[name]
    if name == "mixed":
        return replace(recipe, rules=(*_sensitive_rules(modules), *RECIPES["4bit"].rules))
    return recipe


def recipe_settings(name: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Setting]:
    """How a recipe stores each module that it quantizes; of ``qat``, as in a checkpoint that was trained for Q4_0.

    Args:
        shapes: The shapes of all tensors by name, as if nothing were quantized.
    """
    modules = [tensor.removesuffix(".weight") for tensor, shape in shapes.items() if is_matrix(tensor, shape)]
    recipe = find_recipe(name, modules)
    exact = {module: Q4_0 for module in modules if name == "qat" and ".layers." in module}
    chosen = {module: recipe.choose(module, exact.get(module)) for module in modules}
    return {module: setting for module, setting in chosen.items() if setting is not None}


def stored_bytes(shapes: Mapping[str, tuple[int, ...]], settings: Mapping[str, Setting]) -> int:
    """Bytes of all tensors. Scales, biases and what is not quantized are in bfloat16.

    Args:
        shapes: As for ``recipe_settings``.
        settings: How each quantized module is stored.
    """
    total = 0
    for name, shape in shapes.items():
        setting, count = settings.get(name.removesuffix(".weight")), prod(shape)
        if setting is None:
            total += 2 * count
        else:
            group_bytes = 4 if setting.mode == "affine" else 1  # a scale and a bias, or a byte
            total += count * setting.bits // 8 + count // setting.group_size * group_bytes
    return total


def is_matrix(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is a module's matrix."""
    return name.endswith(".weight") and len(shape) == 2


def uniform_recipe(setting: Setting) -> Recipe:
    """The recipe of ``-q`` with other bits, group size or mode."""
    embedding = Setting.of(bits=8) if setting.bits > _EMBEDDING.bits else _EMBEDDING
    text = f"attention and MLP at {setting}, embedding at {embedding.bits} bits"
    return _uniform(f"{setting.bits}bit" if setting.mode == "affine" else setting.mode, text, setting, embedding)


def with_rules(recipe: Recipe, texts: Sequence[str]) -> Recipe:
    """The recipe with changes for single modules: texts are ``PATTERN=FORMAT``; the last that matches decides.

    Raises:
        ValueError: A text is not of this form.
    """
    rules = []
    for text in texts:
        pattern, equals, form = text.rpartition("=")
        if not (pattern and equals and form):
            raise ValueError(f"Expected PATTERN=FORMAT ('*.v_proj=8'), got {text!r}")
        rules.append(Rule(pattern, Setting.parse(form), is_firm=True))
    return replace(recipe, rules=(*reversed(rules), *recipe.rules))


def _sensitive_rules(modules: Collection[str]) -> list[Rule]:
    """MLP outputs and values, in the layers to which llama.cpp's Q4_K_M and mlx-lm's mixed recipes give more bits."""
    layers = sorted(
        {int(module.partition("layers.")[2].partition(".")[0]) for module in modules if "layers." in module}
    )
    eighth = len(layers) // 8
    rules = []
    for index in layers:
        if index < eighth or index >= len(layers) - eighth or (index - eighth) % 3 == 2:
            # full layers have no v_proj: their keys are their values
            own = any(module.endswith(f"layers.{index}.self_attn.v_proj") for module in modules)
            for part in ("self_attn.v_proj" if own else "self_attn.k_proj", "mlp.down_proj"):
                rules.append(Rule(f"*layers.{index}.{part}", Setting.of(bits=6)))
    return rules

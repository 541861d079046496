"""Pictures of one shape, drawn with numpy, and their patches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

import numpy as np

from . import texts

SIDE, PATCH = 384, 48
POSITIONS = np.array([[x, y] for y in range(SIDE // PATCH) for x in range(SIDE // PATCH)])
"""[64, 2]: (x, y) of each patch."""
_COLOURS = {
    "red": (0.9, 0.1, 0.1),
    "green": (0.1, 0.7, 0.2),
    "blue": (0.1, 0.2, 0.9),
    "yellow": (0.95, 0.9, 0.1),
    "purple": (0.55, 0.1, 0.65),
    "orange": (1.0, 0.55, 0.05),
}
_GREYS = (1.0, 0.95, 0.85, 0.0, 0.12)
_CENTERS = {"left": (85, 192), "right": (299, 192), "top": (192, 85), "bottom": (192, 299), "center": (192, 192)}
_Y, _X = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)


@dataclass(frozen=True)
class Picture:
    """What is in a picture, and how it is drawn."""

    colour: str
    shape: str
    place: str
    hue: tuple[float, ...]
    grey: float
    shift: tuple[float, float]
    radius: float
    noise: float
    seed: int

    @property
    def name(self) -> str:
        return texts.named(self.colour, self.shape, self.place)

    @property
    def numbers(self) -> tuple[int, int, int]:
        """Colour, shape and place, as indices into ``texts.COLOURS``, ``SHAPES`` and ``PLACES``."""
        return texts.COLOURS.index(self.colour), texts.SHAPES.index(self.shape), texts.PLACES.index(self.place)

    def about(self, what: str) -> str:
        """The answer to a question about it (a key of ``texts.QUESTIONS``)."""
        answers = {"what": self.name, "colour": self.colour, "shape": self.shape, "place": texts.where(self.place)}
        return answers[what]


def random_picture(random: Random) -> Picture:
    """Any colour, shape and place, on one of five greys, half of them grainy."""
    return Picture(
        colour=random.choice(texts.COLOURS),
        shape=random.choice(texts.SHAPES),
        place=random.choice(texts.PLACES),
        hue=tuple(random.uniform(-0.06, 0.06) for _ in range(3)),
        grey=random.choice(_GREYS),
        shift=(random.uniform(-14, 14), random.uniform(-14, 14)),
        radius=random.uniform(42, 78),
        noise=random.uniform(0.003, 0.04) if random.random() < 0.5 else 0.0,
        seed=random.randrange(1 << 30),
    )


def changed(picture: Picture, random: Random) -> tuple[Picture, str]:
    """A second frame, and what changed in it: one thing or nothing."""
    grain = replace(picture, seed=random.randrange(1 << 30))
    kind = random.choice(("colour", "shape", "place", "nothing"))
    if kind == "nothing":
        return grain, "nothing changed"
    options = {"colour": texts.COLOURS, "shape": texts.SHAPES, "place": texts.PLACES}[kind]
    new = random.choice([each for each in options if each != getattr(picture, kind)])
    said = {"colour": f"it turned {new}", "shape": f"it became a {new}", "place": f"it moved to the {new}"}[kind]
    return replace(grain, **{kind: new}), said


def draw(picture: Picture) -> np.ndarray:
    """[384, 384, 3] uint8."""
    colour = np.clip(np.array(_COLOURS[picture.colour]) + picture.hue, 0, 1)
    x, y = (center + shift for center, shift in zip(_CENTERS[picture.place], picture.shift, strict=True))
    radius = picture.radius
    if picture.shape == "circle":
        inside = (_X - x) ** 2 + (_Y - y) ** 2 < radius**2
    elif picture.shape == "square":
        inside = (abs(_X - x) < 0.9 * radius) & (abs(_Y - y) < 0.9 * radius)
    else:
        inside = (y + 0.85 * radius > _Y) & (_Y - (y - radius) > 1.85 * abs(_X - x))
    image = np.where(inside[..., None], colour, picture.grey).astype(np.float32)
    if picture.noise:
        image += np.random.default_rng(picture.seed).normal(0, picture.noise, image.shape).astype(np.float32)
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)


def patches(image: np.ndarray) -> np.ndarray:
    """[64, 6912] in [0, 1]: row by row, inside a patch height, width, channel."""
    side = SIDE // PATCH
    tiles = image.reshape(side, PATCH, side, PATCH, 3).transpose(0, 2, 1, 3, 4)
    return tiles.reshape(side * side, -1).astype(np.float32) * np.float32(1 / 255)

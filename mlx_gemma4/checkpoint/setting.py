"""How one module is stored: a mode of MLX's quantization with its bits and group size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mlx_gemma4.checkpoint.json_file import shown

MODES = {
    "affine": ((2, 3, 4, 5, 6, 8), (32, 64, 128)),
    "mxfp4": ((4,), (32,)),
    "mxfp8": ((8,), (32,)),
    "nvfp4": ((4,), (16,)),
}
"""Bits and group sizes that each mode of ``mx.quantize`` has."""
DEFAULTS = {"affine": (4, 64), "mxfp4": (4, 32), "mxfp8": (8, 32), "nvfp4": (4, 16)}
"""Bits and group size where only the mode is named: mlx-lm's."""


@dataclass(frozen=True)
class Setting:
    """Bits, group size and mode, as ``mx.quantize`` takes them."""

    bits: int
    group_size: int
    mode: str = "affine"

    @classmethod
    def of(cls, mode: str = "affine", bits: int | None = None, group_size: int | None = None) -> Setting:
        """A mode with its usual bits and group size, unless others are named.

        Raises:
            ValueError: There is no such mode, or it has no such bits or groups.
        """
        if not isinstance(mode, str) or mode not in MODES:
            raise ValueError(f"Expected a quantization mode of {', '.join(MODES)}, got {shown(mode)}")
        usual_bits, usual_group = DEFAULTS[mode]
        setting = cls(usual_bits if bits is None else bits, usual_group if group_size is None else group_size, mode)
        all_bits, all_groups = MODES[mode]
        for name, value, known in (("bits", setting.bits, all_bits), ("group size", setting.group_size, all_groups)):
            if type(value) is not int or value not in known:
                raise ValueError(f"Expected {name} of {', '.join(map(str, known))} for mode {mode}, got {shown(value)}")
        return setting

    @classmethod
    def parse(cls, text: str) -> Setting | None:
        """``8``, ``8/32`` (bits/group size), a mode's name, or ``none`` for weights as they are.

        Raises:
            ValueError: It is none of these.
        """
        if text == "none":
            return None
        if text in MODES and text != "affine":
            return cls.of(text)
        bits, slash, group = text.partition("/")
        if not bits.isdecimal() or (slash and not group.isdecimal()):
            modes = ", ".join(mode for mode in MODES if mode != "affine")
            raise ValueError(f"Expected a format of BITS, BITS/GROUP, {modes} or none, got {text!r}")
        return cls.of("affine", int(bits), int(group) if slash else None)

    @property
    def block(self) -> dict[str, Any]:
        """As config.json's ``quantization`` has it."""
        return {"group_size": self.group_size, "bits": self.bits, "mode": self.mode}

    def __str__(self) -> str:
        return f"{self.bits} bits, group {self.group_size}" if self.mode == "affine" else self.mode

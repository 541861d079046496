"""Which files of a checkpoint hold its weights: those that an index names, or else one complete set in the folder.

Folders contain more: files that macOS leaves on other disks (``._model.safetensors``), adapters, optimizers, a second
copy in other shards.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from mlx_gemma4.checkpoint.files import has_file, is_plain_name
from mlx_gemma4.checkpoint.json_file import read_json, shown, text

INDEX = "model.safetensors.index.json"
MOST_INDEX = 32 * 2**20

_SUFFIX = ".safetensors"
_SHARD = re.compile(r"(?P<stem>.+?)[-_.](?P<number>\d{1,6})[-_]of[-_](?P<count>\d{1,6})(\.safetensors)?")
"""``model-00001-of-00002.safetensors``, and ``model.safetensors-00001-of-00002.safetensors``."""
_SIDECAR = re.compile(r"(^|.*[-_.])(adapters?|lora|optimizer|mtp|consolidated|imatrix)([-_.].*|$)", re.IGNORECASE)
"""Adapters, optimizers, further heads, and the format of another program."""
_STEMS = ("model", "weights")
"""Names of weights without their number; old MLX conversions use the second."""


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint folder.

    Raises:
        ValueError: There are none, some are missing, or there are two sets; the message names them.
    """
    lying = [path.name for path in sorted(folder.iterdir())]
    named = _indexed(folder / INDEX)
    if "model.safetensors" in lying and not set(lying) & set(named):
        named = []  # a single file was saved over shards, of which only the index is left
    if not named:
        return [folder / name for name in weight_names(lying, str(folder))]
    absent = [name for name in named if not has_file(folder / name)]
    if absent:
        raise ValueError(f"Some shards that {folder / INDEX} names are missing: {_few(absent)}")
    others = [each for each in _complete(_candidates(lying)) if not set(each) & set(named)]
    if others:
        raise _two_sets([named, *others], str(folder))
    return [folder / name for name in named]


def weight_names(names: Collection[str], where: str) -> list[str]:
    """The files with the weights, of a folder without an index.

    Args:
        where: The name of the folder in messages.

    Raises:
        ValueError: There are none, some are missing, or there are two sets; the message names them.
    """
    chosen = _candidates(names)
    if not chosen:
        found = [name for name in sorted(names) if name.endswith(_SUFFIX) and not name.startswith(".")]
        only = f"; it has only {_few(found)}" if found else ""
        way = ": merge the adapter into its model first (mlx_lm.fuse)" if "adapter" in only else ""
        raise ValueError(f"There are no weights (model*.safetensors) in {where}{only}{way}")
    complete = _complete(chosen)
    if len(complete) > 1:
        raise _two_sets(complete, where)
    shards = _shards(chosen)
    if shards and not complete:
        raise ValueError(f"Some shards are missing in {where}, found only {_few(chosen)}; fetch the others")
    partial = {name for group in shards for name in group.values()} - {name for each in complete for name in each}
    return [name for name in chosen if name not in partial]


def downloaded_names(names: Collection[str], where: str) -> list[str]:
    """The files of a repo that hold the weights of a checkpoint, and their index.

    The index is not read yet. Shards are preferred to a single file, which is then a copy of them.

    Raises:
        ValueError: As ``weight_names``.
    """
    if INDEX not in names:
        return weight_names(names, where)
    in_shards = [name for shards in _complete(_candidates(names)) if len(shards) > 1 for name in shards]
    return [INDEX, *(in_shards or _candidates(names))]


def _indexed(index: Path) -> list[str]:
    """The files beside an index that it names; none without an index."""
    if not has_file(index):
        return []
    weight_map = read_json(index, most=MOST_INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"Expected a weight_map in {index}, got {shown(weight_map)}")
    names = sorted({text(name, f"a file in the weight_map of {index}") for name in weight_map.values()})
    for name in names:
        if not is_plain_name(name) or not name.endswith(_SUFFIX):
            raise ValueError(f"{index} names {shown(name)}, which is not a safetensors file in the same folder")
    return names


def _candidates(names: Collection[str]) -> list[str]:
    """Files whose names are those of weights: the usual ones, or all that are nothing else."""
    found = [
        name
        for name in sorted(names)
        if name.endswith(_SUFFIX) and not name.startswith(".") and not _SIDECAR.fullmatch(name.removesuffix(_SUFFIX))
    ]
    for stem in _STEMS:
        usual = [name for name in found if name.startswith(stem)]
        if usual:
            return usual
    return found


def _shards(names: Collection[str]) -> list[dict[int, str]]:
    """The shards of each set by number, complete or not."""
    groups: dict[tuple[str, str], dict[int, str]] = {}
    for name in names:
        if match := _SHARD.fullmatch(name.removesuffix(_SUFFIX)):
            groups.setdefault((match["stem"], match["count"]), {})[int(match["number"])] = name
    return list(groups.values())


def _complete(names: Collection[str]) -> list[list[str]]:
    """Each complete set of shards, and ``model.safetensors``."""
    single = [[name] for name in names if name == "model.safetensors"]
    return [*single, *(sorted(shards.values()) for shards in _shards(names) if _is_complete(shards))]


def _is_complete(shards: dict[int, str]) -> bool:
    match = _SHARD.fullmatch(next(iter(shards.values())).removesuffix(_SUFFIX))
    assert match is not None
    count = int(match["count"])
    return len(shards) == count and sorted(shards) in (list(range(count)), list(range(1, count + 1)))


def _two_sets(sets: list[list[str]], where: str) -> ValueError:
    names = " and ".join(each[0] + (f" to {each[-1]}" if len(each) > 1 else "") for each in sets[:2])
    return ValueError(f"There are two sets of weights in {where}: {names}; move one of them to another folder")


def _few(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")

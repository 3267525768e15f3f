"""Spaces as Minari describes them in JSON: their shapes, their parts by path, and whether data lie in them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iq_offline.data.observations import INDEX, Leaves

Space = dict[str, Any]
WHOLE = frozenset({"Discrete", "MultiDiscrete", "MultiBinary"})


def leaf_spaces(space: Space) -> dict[str, Space]:
    """The spaces of a Dict or Tuple by path; any other has the path ''."""
    parts = _parts(space)
    if parts is None:
        return {"": space}
    return {_below(name, path): leaf for name, item in parts.items() for path, leaf in leaf_spaces(item).items()}


def _parts(space: Space) -> dict[str, Space] | None:
    """The spaces directly in a Dict or Tuple, by name; None for any other space."""
    inner: Any = space.get("subspaces")
    return {f"{INDEX}{number}": item for number, item in enumerate(inner)} if isinstance(inner, list) else inner


def _below(path: str, name: str) -> str:
    return f"{path}/{name}" if path and name else path or name


def without(space: Space, paths: frozenset[str], prefix: str = "") -> Space:
    """The space without the parts at some paths; its other parts as they are, under the same paths.

    A Tuple that loses an entry becomes a Dict, as the paths of the others are their numbers in it.
    """
    parts = _parts(space)
    if parts is None:
        return space
    kept = {
        name: without(item, paths, f"{prefix}{name}/")
        for name, item in parts.items()
        if f"{prefix}{name}" not in paths and not _is_empty(item, paths, f"{prefix}{name}/")
    }
    if isinstance(space["subspaces"], list) and len(kept) == len(parts):
        return space | {"subspaces": list(kept.values())}
    return {"type": "Dict", "subspaces": kept}


def _is_empty(space: Space, paths: frozenset[str], prefix: str) -> bool:
    inside = leaf_spaces(space)
    return "" not in inside and all(prefix + path in paths for path in inside)


def shape_of(space: Space) -> tuple[int, ...] | None:
    """The shape of one element; None for a space without a fixed one."""
    kind = space.get("type")
    if kind == "Discrete":
        return ()
    if kind == "MultiBinary":
        counts = space["n"]
        return tuple(map(int, counts)) if isinstance(counts, list) else (int(counts),)
    if kind == "MultiDiscrete":
        return np.shape(space["nvec"])
    return tuple(map(int, space["shape"])) if space.get("shape") is not None else None


def with_dtypes(space: Space, arrays: Leaves) -> Space:
    """The space with each Box of the type that the data have: it may be another after a conversion."""
    return _with_dtypes(space, {path: str(array.dtype) for path, array in arrays.items()}, "")


def _with_dtypes(space: Space, dtypes: Mapping[str, str], path: str) -> Space:
    parts = _parts(space)
    if parts is None:
        told = dtypes.get(path)
        return space | {"dtype": told} if told and space.get("type") == "Box" else space
    typed = {name: _with_dtypes(item, dtypes, _below(path, name)) for name, item in parts.items()}
    return space | {"subspaces": list(typed.values()) if isinstance(space["subspaces"], list) else typed}


def misfit(space: Space, arrays: Leaves) -> str | None:
    """How one step's arrays have another structure than the space declares: other parts, shapes, or numbers for whole.

    None where they fit.
    """
    declared = leaf_spaces(space)
    if declared.keys() != arrays.keys():
        return f"has the arrays {_listed(arrays)}, the declared space {_listed(declared)}"
    for path, leaf in declared.items():
        array, shape = arrays[path], shape_of(leaf)
        what = f"'{path}' " if path else ""
        if shape is not None and array.shape != shape:
            return f"{what}has shape {array.shape}, the declared space {shape}"
        if leaf.get("type") in WHOLE and array.dtype.kind not in "biu":
            return f"{what}holds {array.dtype}, the declared space is {leaf['type']}"
    return None


def is_inside(space: Space, arrays: Leaves) -> bool:
    """Whether the numbers of one step, which fit by structure, lie within the declared bounds."""
    return all(_inside(leaf, arrays[path]) for path, leaf in leaf_spaces(space).items())


def _inside(space: Space, values: NDArray[Any]) -> bool:
    kind = space.get("type")
    if kind == "Box":
        low, high = (np.asarray(space[side], dtype=np.float64) for side in ("low", "high"))
    elif kind == "Discrete":
        low = np.asarray(space.get("start", 0))
        high = low + int(space["n"]) - 1
    elif kind == "MultiDiscrete":
        low = np.asarray(space.get("start", 0))
        high = low + np.asarray(space["nvec"]) - 1
    elif kind == "MultiBinary":
        low, high = np.asarray(0), np.asarray(1)
    else:
        return True
    return bool(((values >= low) & (values <= high)).all())


def _listed(paths: Mapping[str, Any]) -> str:
    return ", ".join(path or "(one)" for path in sorted(paths))

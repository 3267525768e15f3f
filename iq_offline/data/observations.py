"""Observations of any space as named arrays: a plain array, or a nested dictionary of them (Dict and Tuple spaces)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
T = TypeVar("T")
Observations = Array | dict[str, Any]
"""An array with one entry a step, or a dictionary of such, nested as its space is."""
Leaves = dict[str, Array]
"""The arrays by path: 'achieved_goal', 'camera/left'; one plain array has the path ''."""


INDEX = "_index_"
"""Begins the name of an entry of a tuple: '_index_0', as Minari has it."""


def leaves(observations: Observations | tuple[Any, ...]) -> Leaves:
    """The arrays of an observation by path, in the order of `in_order`; entries of a tuple as '_index_0' and so on."""
    return in_order(dict(_walk(observations)))


def in_order(arrays: dict[str, T]) -> dict[str, T]:
    """By the names along their paths, as Gymnasium orders Dict spaces; entries of a tuple by their number.

    Tables and simulation both have observations in this order.
    """
    return {path: arrays[path] for path in sorted(arrays, key=_place)}


@lru_cache(maxsize=4096)
def _place(path: str) -> list[tuple[str, int]]:
    names = [(name, name.removeprefix(INDEX)) for name in path.split("/")]
    return [(INDEX, int(rest)) if rest != name and rest.isdecimal() else (name, -1) for name, rest in names]


def _walk(observations: Observations | tuple[Any, ...]) -> Iterator[tuple[str, Array]]:
    if isinstance(observations, tuple):
        observations = {f"{INDEX}{number}": inner for number, inner in enumerate(observations)}
    if not isinstance(observations, Mapping):
        yield "", np.asarray(observations)
        return
    for name, inner in observations.items():
        for path, array in _walk(inner):
            yield f"{name}/{path}" if path else name, array


def from_leaves(arrays: Leaves) -> Observations:
    """What `leaves` took apart, put together again."""
    if list(arrays) == [""]:
        return arrays[""]
    tree: dict[str, Any] = {}
    for path, array in arrays.items():
        *folders, name = path.split("/")
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})
        place[name] = array
    return tree


def joined(observation: Observations) -> NDArray[np.float32]:
    """One observation, of any space but pictures, as the vector that the training table has for it."""
    return np.concatenate([np.ravel(array).astype(np.float32) for array in _numbers(observation)])


def flattened(observation: Observations, offset: Sequence[float] | NDArray[np.float64] = ()) -> NDArray[np.float32]:
    """One observation as networks take it: what `joined` would give of its other arrays, then its pictures' bytes.

    `offset`: what is taken off each number before it is narrowed to 32 bits; nothing if empty.
    """
    arrays = _numbers(observation)
    pictures = [is_picture(array) for array in arrays]
    order = sorted(range(len(arrays)), key=lambda i: pictures[i])
    flat = [np.ravel(arrays[i]) for i in order]
    if len(offset) == 0:
        return np.concatenate([array.astype(np.float32) for array in flat])
    padded = np.zeros(max(len(offset), sum(map(len, flat))))
    padded[: len(offset)] = offset
    cuts = np.cumsum([len(array) for array in flat])[:-1]
    return np.concatenate([less(*pair) for pair in zip(flat, np.split(padded, cuts), strict=True)])


def less(values: Array, offset: NDArray[np.float64]) -> NDArray[np.float32]:
    """Values less their column's offset, computed in 64 bits, then narrowed to 32. Shapes: (..., D), (D,)."""
    if values.dtype.kind in "iu" and values.dtype.itemsize == 8:
        return np.asarray(values - offset.astype(values.dtype)).astype(np.float32)
    return np.asarray(values.astype(np.float64) - offset).astype(np.float32)


def _numbers(observation: Observations) -> list[Array]:
    """The arrays of one observation without its texts, which no table has."""
    return [array for array in leaves(observation).values() if array.dtype.kind not in "US"]


def map_leaves(function: Callable[[Array], Array], arrays: Leaves) -> Leaves:
    """The function on each array."""
    return {path: function(array) for path, array in arrays.items()}


def flat(values: Array) -> Array:
    """Values of shape (n, ...) as (n, D)."""
    return values if values.ndim == 2 else values.reshape(len(values), -1)


def is_picture(array: Array) -> bool:
    """Whether one observation's array is a picture: bytes with at least two dimensions."""
    return array.dtype == np.uint8 and array.ndim >= 2


def is_image(array: Array) -> bool:
    """Whether an array, one entry a step, holds pictures: bytes with at least two dimensions a step."""
    return array.dtype == np.uint8 and array.ndim >= 3

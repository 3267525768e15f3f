"""Observations of any space as named arrays: a plain array, or a nested dictionary of them (Dict and Tuple spaces)."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Observations = Array | dict[str, Any]
"""An array with one entry a step, or a dictionary of such, nested as its space is."""
Leaves = dict[str, Array]
"""The arrays by path: 'achieved_goal', 'camera/left'; one plain array has the path ''."""


def leaves(observations: Observations) -> Leaves:
    """The arrays of an observation by path, in the order of their names, as Gymnasium orders a Dict space."""
    if not isinstance(observations, Mapping):
        return {"": np.asarray(observations)}
    found: Leaves = {}
    for name, inner in sorted(observations.items()):
        for path, array in leaves(inner).items():
            found[f"{name}/{path}" if path else name] = array
    return found


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
    return np.concatenate([np.ravel(array).astype(np.float32) for array in leaves(observation).values()])


def flattened(observation: Observations) -> NDArray[np.float32]:
    """One observation as networks take it: what `joined` would give of its other arrays, then its pictures' bytes."""
    arrays = [np.asarray(array) for array in leaves(observation).values()]
    pictures = [array.dtype == np.uint8 and array.ndim >= 2 for array in arrays]
    order = sorted(range(len(arrays)), key=lambda i: pictures[i])
    return np.concatenate([np.ravel(arrays[i]).astype(np.float32) for i in order])


def map_leaves(function: Callable[[Array], Array], arrays: Leaves) -> Leaves:
    """The function on each array."""
    return {path: function(array) for path, array in arrays.items()}


def is_image(array: Array) -> bool:
    """Whether an array, one entry a step, holds pictures: bytes with at least two dimensions a step."""
    return array.dtype == np.uint8 and array.ndim >= 3

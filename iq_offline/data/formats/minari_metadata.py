"""Minari's `metadata.json`: spaces, reference scores, and which observations are kept as JPEG."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iq_offline.data.formats.images import is_encoded
from iq_offline.data.spaces import ActionSpace, ContinuousActions, DiscreteActions
from iq_offline.errors import DatasetUnreadable, NotYet


def read_metadata(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DatasetUnreadable(f"{path} is not JSON ({error})", "fetch or copy the dataset again, whole") from None
    if not isinstance(content, dict):
        raise DatasetUnreadable(f"{path} is not a JSON object", "fetch or copy the dataset again, whole")
    return content


def json_field(metadata: dict[str, Any], key: str, path: Path) -> dict[str, Any] | None:
    """A field that holds JSON text, or None where it is absent."""
    try:
        content = json.loads(metadata.get(key) or "null")
    except (json.JSONDecodeError, TypeError):
        content = ""
    if content is not None and not isinstance(content, dict):
        raise DatasetUnreadable(
            f"{path}: {key} in metadata.json is not a JSON object", "fetch the dataset again, whole"
        )
    return content


def action_space(metadata: dict[str, Any], path: Path) -> ActionSpace | None:
    space = json_field(metadata, "action_space", path)
    if space is None:
        return None
    if space["type"] == "Discrete" and space.get("start", 0) == 0:
        return DiscreteActions(int(space["n"]))
    if space["type"] == "Box" and len(space["shape"]) == 1:
        low, high = np.array(space["low"], dtype=float), np.array(space["high"], dtype=float)
        bounded = bool(np.isfinite(low).all() and np.isfinite(high).all())
        return ContinuousActions(tuple(low.tolist()), tuple(high.tolist()), "dataset") if bounded else None
    raise NotYet(f"{path}: action space {space} is not supported", "use Discrete from 0, or a Box of one dimension")


def reference(metadata: dict[str, Any]) -> tuple[str, float, float] | None:
    low, high = metadata.get("ref_min_score"), metadata.get("ref_max_score")
    return None if low is None or high is None else ("minari", float(low), float(high))


def jpeg_images(metadata: dict[str, Any], path: Path) -> frozenset[str]:
    """Paths of the observations that are stored as JPEG: pictures of at least 32 by 32 bytes, unless switched off."""
    space = json_field(metadata, "observation_space", path)
    if space is None or not metadata.get("jpeg_encoding", False):
        return frozenset()
    return frozenset(leaf for leaf, inner in _leaf_spaces(space).items() if is_encoded(inner))


def _leaf_spaces(space: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The spaces of a Dict or Tuple by path; any other has the path ''."""
    inner = space.get("subspaces")
    if isinstance(inner, list):
        inner = {f"_index_{number}": item for number, item in enumerate(inner)}
    if inner is None:
        return {"": space}
    return {
        f"{name}/{path}" if path else name: leaf
        for name, item in inner.items()
        for path, leaf in _leaf_spaces(item).items()
    }


def observation_space(observations: Any) -> dict[str, Any]:
    """A space that any such observation lies in: boxes without bounds, or 0 to 255 for bytes."""
    if isinstance(observations, dict):
        return {"type": "Dict", "subspaces": {name: observation_space(inner) for name, inner in observations.items()}}
    shape, dtype = observations.shape[1:], observations.dtype
    if dtype.kind in "iu":
        bounds = np.iinfo(dtype)
        return _box(str(dtype), np.full(shape, bounds.min), np.full(shape, bounds.max))
    return _box(str(dtype), np.full(shape, -np.inf), np.full(shape, np.inf))


def space_json(space: ActionSpace, actions: NDArray[Any]) -> dict[str, Any]:
    if isinstance(space, DiscreteActions):
        return {"type": "Discrete", "dtype": "int64", "start": 0, "n": space.count}
    return _box(str(actions.dtype), np.array(space.low), np.array(space.high))


def _box(dtype: str, low: NDArray[Any], high: NDArray[Any]) -> dict[str, Any]:
    return {"type": "Box", "dtype": dtype, "shape": list(low.shape), "low": low.tolist(), "high": high.tolist()}

"""Minari's `metadata.json`: spaces, reference scores, and which observations are kept as JPEG, its default."""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from iq_offline.data.declared import leaf_spaces
from iq_offline.data.formats.hdf5 import unreadable
from iq_offline.data.spaces import ActionSpace, DiscreteActions, declared_box
from iq_offline.errors import DatasetUnreadable, NotYet

LEAST_SIDE = 32
FRAME_STACK = "frame_stack"
"""Our own key: how many frames an observation has, where the dataset holds them singly."""
MOST_FRAMES = 1024


def damaged(problem: str) -> DatasetUnreadable:
    """The error for a dataset that is not whole."""
    return DatasetUnreadable(problem, "fetch or copy the dataset again, whole")


def read_metadata(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise damaged(f"{path} is missing, or no file")
    try:
        content = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, too many digits or levels
        raise damaged(f"{path} is not JSON ({str(error)[:200]})") from None
    if not isinstance(content, dict):
        raise damaged(f"{path} is not a JSON object")
    return content


def attributes(file: h5py.File, path: Path) -> dict[str, Any]:
    """The metadata of Minari up to 0.4, which are attributes of its HDF5 file. Raises DatasetUnreadable."""
    try:
        found = {key: value.item() if isinstance(value, np.generic) else value for key, value in file.attrs.items()}
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise unreadable(path, error) from None
    if not {"total_episodes", "action_space", "observation_space"} <= found.keys():
        raise damaged(
            f"{path} is not a Minari dataset: it has no metadata.json, and its HDF5 file no attributes as Minari 0.4's"
        )
    return found


def json_field(metadata: dict[str, Any], key: str, path: Path) -> dict[str, Any] | None:
    """A field that holds JSON text, or None where it is absent."""
    try:
        content = json.loads(metadata.get(key) or "null")
    except (ValueError, TypeError, RecursionError):
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
        return declared_box(low, high, "dataset")
    raise NotYet(f"{path}: action space {space} is not supported", "use Discrete from 0, or a Box of one dimension")


def environment_spec(metadata: dict[str, Any], path: Path) -> dict[str, Any]:
    """Gymnasium's description of the environment: of the one to evaluate in, where the dataset has one."""
    return json_field(metadata, "eval_env_spec", path) or json_field(metadata, "env_spec", path) or {}


def reference(metadata: dict[str, Any]) -> tuple[str, float, float] | None:
    """The returns that score 0 and 100; None where they are absent, or equal and so measure nothing."""
    low, high = metadata.get("ref_min_score"), metadata.get("ref_max_score")
    return None if low is None or high is None or low == high else ("minari", float(low), float(high))


LONGEST_QUOTED = 60
"""Characters of an observed text that a note shows."""


def frame_stack(metadata: dict[str, Any], path: Path) -> int:
    """Frames of an observation that the dataset holds singly; 1 where it says nothing. Raises DatasetUnreadable."""
    stack = metadata.get(FRAME_STACK, 1)
    if type(stack) is not int or not 1 <= stack <= MOST_FRAMES:
        raise damaged(f"{path}: {FRAME_STACK} in metadata.json is no number of frames")
    return stack


@dataclass(frozen=True)
class Unusual:
    """Paths of a dataset's arrays that are not read as they lie there."""

    images: frozenset[str]
    """Observations that are stored as JPEG."""
    texts: frozenset[str]
    """Observations that are texts, which are left out."""
    infos: frozenset[str] = frozenset()
    """Infos that are left out."""
    instructions: tuple[str, ...] = ()
    """Two different texts that episodes begin with, if there are such: the task may be told in words."""

    def notes(self) -> tuple[str, ...]:
        """What is left out."""
        texts = ", ".join(f"observations/{path}" for path in sorted(self.texts))
        infos = ", ".join(f"infos/{path}" for path in sorted(self.infos))
        if self.instructions:
            one, other = (repr(text[:LONGEST_QUOTED]) for text in self.instructions)
            texts += (
                f", which differ between episodes ({one}, {other}): where they tell the task, "
                "a policy does not see which one it is asked for"
            )
        told = {"texts": texts, "no step's data": infos}
        return tuple(f"left out, being {what}: {names}" for what, names in told.items() if names)


def text_observations(metadata: dict[str, Any], path: Path) -> frozenset[str]:
    """Paths of the observations that are texts. Raises DatasetUnreadable where there are no others."""
    space = json_field(metadata, "observation_space", path)
    kinds = {} if space is None else {leaf: inner.get("type") for leaf, inner in leaf_spaces(space).items()}
    texts = frozenset(leaf for leaf, kind in kinds.items() if kind == "Text")
    if texts and len(texts) == len(kinds):
        raise DatasetUnreadable(f"{path}: its observations are texts alone", "use a dataset with numbers or pictures")
    return texts


def jpeg_images(metadata: dict[str, Any], path: Path) -> frozenset[str]:
    """Paths of the observations that are stored as JPEG: pictures of at least 32 by 32 bytes, unless switched off."""
    space = json_field(metadata, "observation_space", path)
    if space is None or not metadata.get("jpeg_encoding", False):
        return frozenset()
    return frozenset(leaf for leaf, inner in leaf_spaces(space).items() if _is_encoded(inner))


def _is_encoded(space: dict[str, Any]) -> bool:
    """Whether Minari stores a space's values as JPEG: bytes from 0 to 255, at least 32 by 32."""
    shape = space.get("shape", [])
    return (
        space.get("type") == "Box"
        and space.get("dtype") == "uint8"
        and len(shape) in (2, 3)
        and min(shape[:2]) >= LEAST_SIDE
        and np.min(space.get("low", 0)) == 0
        and np.max(space.get("high", 0)) == 255
    )


def decode_jpeg(encoded: Sequence[bytes]) -> NDArray[np.uint8]:
    """Pictures, shape (n, height, width[, channels]). Raises DatasetUnreadable for what is no JPEG, or too large."""
    from PIL import Image

    pictures = []
    for data in encoded:
        try:
            with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
                pictures.append(np.asarray(image, dtype=np.uint8))
        except (OSError, Image.DecompressionBombError) as error:
            raise DatasetUnreadable(f"a stored picture is not a JPEG ({error})", "fetch the dataset again") from None
    return np.stack(pictures)


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

"""Opening HDF5 with errors that name the file and the remedy. Shared by the formats that are HDF5 inside."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from iq_offline.errors import DatasetUnreadable


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """The file, open for reading. Raises DatasetUnreadable where it is not HDF5, or ends too early."""
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise _unreadable(path, error) from None
    with file:
        yield file


def read_array(group: h5py.Group, key: str, path: Path) -> NDArray[Any]:
    """The whole array under `key`. Raises DatasetUnreadable where it is missing, linked elsewhere or damaged."""
    try:
        return _read(group, key, path)
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise _unreadable(path, error) from None


def _read(group: h5py.Group, key: str, path: Path) -> NDArray[Any]:
    if key not in group:
        raise DatasetUnreadable(
            f"{path}: the key '{key}' is missing{_inside(group)} (it has: {', '.join(sorted(group)) or 'nothing'})",
            f"add '{key}', or name the layout with --input-format",
        )
    if not isinstance(group.get(key, getlink=True), h5py.HardLink):
        raise DatasetUnreadable(f"{path}: '{key}' is a link, not data of this file", "copy the data into the file")
    item = group[key]
    if not isinstance(item, h5py.Dataset):
        raise DatasetUnreadable(f"{path}: '{key}'{_inside(group)} is a group, not an array", "flatten it to one array")
    array: NDArray[Any] = item[()]
    if array.dtype.kind not in "biuf":
        raise DatasetUnreadable(f"{path}: '{key}' holds {array.dtype}, not numbers", "store numbers")
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def write_json_attribute(group: h5py.Group, name: str, content: object) -> None:
    """An attribute that holds `content` as JSON text."""
    import json

    group.attrs[name] = json.dumps(content, sort_keys=True)


def column(array: NDArray[Any], key: str, path: Path) -> NDArray[Any]:
    """An array of shape (N,) or (N, 1) as (N,). Raises DatasetUnreadable for another shape."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DatasetUnreadable(f"{path}: '{key}' has shape {array.shape}, not (N,)", "store one number a step")
    return array


def matrix(array: NDArray[Any], key: str, path: Path) -> NDArray[Any]:
    """An array of shape (N, D) or (N,) as (N, D). Raises DatasetUnreadable for another shape."""
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2:
        raise DatasetUnreadable(f"{path}: '{key}' has shape {array.shape}, not (N, D)", "flatten each step to a vector")
    return array


def action_array(array: NDArray[Any], path: Path) -> NDArray[Any]:
    """Actions as (N,) integers (discrete) or (N, A) real numbers."""
    if np.issubdtype(array.dtype, np.integer):
        return column(array, "actions", path)
    return matrix(array, "actions", path)


def _inside(group: h5py.Group) -> str:
    return "" if group.name == "/" else f" in {group.name}"


def _unreadable(path: Path, error: Exception) -> DatasetUnreadable:
    reason = str(error).replace("\n", " ")
    what = "is a truncated HDF5 file" if "truncated" in reason else "is not a readable HDF5 file"
    return DatasetUnreadable(f"{path} {what} ({reason})", "fetch or copy the file again, whole")

"""Opening HDF5 with errors that name the file and the remedy. Shared by the formats that are HDF5 inside.

A file is data from elsewhere: links that leave the file or run in circles, arrays kept in other files, sizes that
the file cannot hold and chunks that unpack into far more than they take are refused before anything is read.
"""

import json
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from iq_offline.errors import DatasetUnreadable

CHUNK_CACHE_BYTES = 1 << 25
"""Holds a row of chunks of a wide array, so that reading in slices unpacks each chunk once."""
METADATA_CACHE_BYTES = 4 << 20
"""HDF5 lets it grow to 32 MiB by its own count, which is half a gigabyte of memory in a file of many episodes."""
SMALL_BYTES = 64 << 20
LONGEST_SHOWN = 300
LONGEST_NAME = 255
BOMB_FACTOR = 300
BOMB_BYTES = 512 << 20
"""More than this many bytes, and this many times those of its file, is no recording but a decompression bomb."""

DAMAGED = re.compile(r"(Unable to|Can't) synchronously (?!write|create|extend)")
"""How HDF5's library says that it cannot read what a file holds."""


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """The file, open for reading. Raises DatasetUnreadable where it is not HDF5, or ends too early."""
    try:
        file = h5py.File(path, "r", rdcc_nbytes=CHUNK_CACHE_BYTES)
    except OSError as error:
        raise unreadable(path, error) from None
    with file:
        config = file.id.get_mdc_config()
        config.max_size = METADATA_CACHE_BYTES
        file.id.set_mdc_config(config)
        try:
            yield file
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            if not DAMAGED.match(str(error).strip("'\"")):
                raise
            raise unreadable(path, error) from None


def open_array(group: h5py.Group, key: str, path: Path) -> h5py.Dataset:
    """The array of numbers under `key`, not yet read. Raises DatasetUnreadable where it is missing or not safe."""
    try:
        return _open(group, key, path)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise unreadable(path, error) from None


def read_rows(array: h5py.Dataset, rows: slice, path: Path) -> NDArray[Any]:
    """Those rows of an array, in the machine's byte order. Raises DatasetUnreadable where the file is damaged."""
    try:
        values: NDArray[Any] = array[rows]
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise unreadable(path, error) from None
    return values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))


class RowReader:
    """Rows of an array on demand. An array that lies in the file as it is in memory is read past HDF5's library.

    With `reuse`, an answer holds only until the next one: it is a view of one buffer.
    """

    def __init__(self, array: h5py.Dataset, path: Path, *, reuse: bool) -> None:
        self.array = array
        self._path = path
        self._row_bytes = array.dtype.itemsize * int(np.prod(array.shape[1:]))
        plain = array.ndim > 0 and array.chunks is None and array.dtype.isnative
        self._offset: int | None = array.id.get_offset() if plain else None
        self._descriptor: int = array.file.id.get_vfd_handle() if self._offset is not None else -1
        self._reuse = reuse
        self._buffer: NDArray[Any] = np.empty((0, *array.shape[1:]), dtype=array.dtype)

    def __call__(self, rows: slice) -> NDArray[Any]:
        """Those rows, fewer where the array ends, in the machine's byte order. Raises DatasetUnreadable."""
        if self._offset is None:
            return read_rows(self.array, rows, self._path)
        count = min(rows.stop, len(self.array)) - rows.start
        if not self._reuse or len(self._buffer) < count:
            self._buffer = np.empty((count, *self.array.shape[1:]), dtype=self.array.dtype)
        values = self._buffer[:count]
        view, position = values.reshape(-1).view(np.uint8).data, self._offset + rows.start * self._row_bytes
        while view:
            taken = os.preadv(self._descriptor, [view], position)
            if taken == 0:
                raise unreadable(self._path, OSError(f"truncated file: '{self.array.name}' ends early"))
            view, position = view[taken:], position + taken
        return values


def read_small_array(group: h5py.Group, key: str, path: Path) -> NDArray[Any]:
    """The whole array under `key`, as `read_array` gives it, at a third of its cost."""
    found = small_array(group, key, path)
    return read_array(group, key, path) if found is None else found


def small_array(group: h5py.Group, key: str, path: Path) -> NDArray[Any] | None:
    """The whole array under `key` if it is small and plain, else None: missing, a group, a link, or too large.

    One of many small arrays costs more to look up than to read, so this goes through HDF5's own calls.
    """
    name = key.encode()
    try:
        if group.id.links.get_info(name).type != h5py.h5l.TYPE_HARD:
            return None
        found = h5py.h5o.open(group.id, name)
        if not isinstance(found, h5py.h5d.DatasetID):
            return None
        kind, shape = found.get_type(), found.shape
        dtype = kind.dtype
        if dtype.kind not in "biuf" or not dtype.isnative or not shape:
            return None
        if dtype.itemsize * math.prod(shape) > SMALL_BYTES or not _lies_in_file(found, dtype.itemsize):
            return None
        values: NDArray[Any] = np.empty(shape, dtype=dtype)
        if values.size:
            found.read(h5py.h5s.ALL, h5py.h5s.ALL, values, kind)
    except KeyError:
        return None
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise unreadable(path, error) from None
    return values


def _lies_in_file(found: h5py.h5d.DatasetID, itemsize: int) -> bool:
    """Whether an array lies in its file, in one piece or in chunks of reasonable size."""
    if found.get_offset() is not None:
        return True
    layout = found.get_create_plist()
    return bool(layout.get_layout() == h5py.h5d.CHUNKED and itemsize * math.prod(layout.get_chunk()) <= SMALL_BYTES)


def write_small_array(group: h5py.Group, key: str, values: NDArray[Any]) -> None:
    """A new array under `key`, without the cost of h5py's own look at each argument."""
    if values.size == 0 or "/" in key:
        group[key] = values
        return
    kind, space = h5py.h5t.py_create(values.dtype, logical=True), h5py.h5s.create_simple(values.shape)
    created = h5py.h5d.create(group.id, key.encode(), kind, space)
    created.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ascontiguousarray(values))


def read_array(group: h5py.Group, key: str, path: Path) -> NDArray[Any]:
    """The whole array under `key`. Raises DatasetUnreadable where it is missing, linked elsewhere or damaged."""
    array = open_array(group, key, path)
    if array.ndim == 0:
        return np.asarray(array[()])
    return read_rows(array, slice(None), path)


def members(group: h5py.Group, path: Path) -> dict[str, h5py.Group | h5py.Dataset]:
    """What a group holds, in the order of the names. Raises DatasetUnreadable for a link that is not plain."""
    for name in group:
        if isinstance(name, bytes) or len(os.fsencode(name)) > LONGEST_NAME or not name.isprintable():
            raise DatasetUnreadable(
                f"{path}: '{shown(name)[:80]}' is no name for an array (printable UTF-8, at most {LONGEST_NAME} bytes)",
                "rename it in the file",
            )
    return {name: member(group, name, path) for name in sorted(group)}


def member(group: h5py.Group, name: str, path: Path) -> h5py.Group | h5py.Dataset:
    """What a group holds under a name. Raises DatasetUnreadable for a link that is not plain, or leads in a circle."""
    try:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise DatasetUnreadable(f"{path}: '{name}' is a link, not data of this file", "copy the data into the file")
        item = group[name]
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise unreadable(path, error) from None
    if isinstance(item, h5py.Group) and len(item.name.split("/")) > 16:
        raise DatasetUnreadable(f"{path}: groups inside groups without end at {item.name[:80]}", "use another file")
    return item


def write_json_attribute(group: h5py.Group, name: str, content: object) -> None:
    """An attribute that holds `content` as JSON text."""
    group.attrs[name] = json.dumps(content, sort_keys=True)


def column(array: NDArray[Any], key: str, path: Path) -> NDArray[Any]:
    """An array of shape (N,) or (N, 1) as (N,). Raises DatasetUnreadable for another shape."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DatasetUnreadable(f"{path}: '{key}' has shape {array.shape}, not (N,)", "store one number a step")
    return array


def flags(values: NDArray[Any], key: str, source: Path | str, first: int = 0, unit: str = "step") -> NDArray[np.bool_]:
    """Flags, one a step or episode, the first at `first`. Raises DatasetUnreadable for another value than 0 and 1."""
    place = odd_flag(values)
    if place is not None:
        raise DatasetUnreadable(
            f"{source}: {key} holds other values than 0 and 1: {values[place]} at {unit} {first + place}",
            "store flags",
        )
    return values.astype(bool, copy=False)


def odd_flag(values: NDArray[Any]) -> int | None:
    """Where the first value lies that is neither 0 nor 1."""
    if values.dtype.kind == "b":
        return None
    odd = np.flatnonzero(~((values == 0) | (values == 1)))
    return int(odd[0]) if len(odd) else None


def matrix(array: NDArray[Any], key: str, path: Path) -> NDArray[Any]:
    """An array of shape (N, D) or (N,) as (N, D). Raises DatasetUnreadable for another shape."""
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2:
        raise DatasetUnreadable(f"{path}: '{key}' has shape {array.shape}, not (N, D)", "flatten each step to a vector")
    return array


def action_array(array: NDArray[Any], path: Path, discrete: bool | None = None) -> NDArray[Any]:
    """Actions as (N,) integers (discrete) or (N, A) real numbers.

    `discrete`: which of the two the dataset itself declares; else the type decides. Raises DatasetUnreadable.
    """
    whole = array.dtype.kind in "biu"
    if discrete is False or (discrete is None and not whole):
        return matrix(array.astype(np.float64) if whole else array, "actions", path)
    if array.ndim > 2 or (array.ndim == 2 and array.shape[1] != 1):
        problem = f"{path}: 'actions' are {'integers' if whole else 'declared discrete'}, {array.shape[1:]} a step"
        remedy = "store real numbers if they are continuous; MultiDiscrete and MultiBinary actions are not supported"
        raise DatasetUnreadable(problem, remedy)
    numbers = column(array, "actions", path)
    if not whole:
        _check_whole(numbers, path)
    return numbers.astype(np.int64) if not whole or numbers.dtype.kind == "b" else numbers


def _check_whole(numbers: NDArray[Any], path: Path) -> None:
    odd = numbers[(numbers != np.floor(numbers)) | ~(np.abs(numbers) < 2**31)]
    if len(odd):
        raise DatasetUnreadable(
            f"{path}: the dataset declares discrete actions, but an action is {odd[0]}",
            "store integer actions, or mend what the dataset declares (discrete_action)",
        )


def _open(group: h5py.Group, key: str, path: Path) -> h5py.Dataset:
    if key not in group and not isinstance(group.get(key, getlink=True), h5py.SoftLink | h5py.ExternalLink):
        has = ", ".join(map(shown, list(group)[:20])) or "nothing"
        raise DatasetUnreadable(
            f"{path}: the key '{key}' is missing{_inside(group)} (it has: {has})",
            f"add '{key}'; for another layout: iq-offline convert {path} --to {path.stem}-v0 --input-format FORMAT",
        )
    item = member(group, key, path)
    if not isinstance(item, h5py.Dataset):
        raise DatasetUnreadable(f"{path}: '{key}'{_inside(group)} is a group, not an array", "flatten it to one array")
    if item.dtype.kind not in "biuf":
        raise DatasetUnreadable(f"{path}: '{key}' holds {item.dtype}, not numbers", "store numbers")
    check_storage(item, path)
    return item


def check_storage(array: h5py.Dataset, path: Path) -> None:
    """Raises DatasetUnreadable for an array that is kept outside the file, or claims more than the file can hold."""
    if array.is_virtual or array.external:
        raise DatasetUnreadable(f"{path}: '{array.name}' is kept in other files", "copy the data into the file")
    if array.shape is None:
        raise DatasetUnreadable(f"{path}: '{array.name}' is empty", "store one entry a step")
    size = int(np.prod(array.shape, dtype=object)) * array.dtype.itemsize
    held = path.stat().st_size
    if size > BOMB_BYTES and size > BOMB_FACTOR * held:
        raise DatasetUnreadable(
            f"{path}: '{array.name}' claims {size / 1e9:,.1f} GB in a file of {held / 1e6:,.1f} MB",
            "use the publisher's file: this one unpacks into far more than a recording would",
        )
    chunk = int(np.prod(array.chunks, dtype=object)) * array.dtype.itemsize if array.chunks else 0
    if chunk > BOMB_BYTES:
        raise DatasetUnreadable(
            f"{path}: '{array.name}' is stored in chunks of {chunk / 1e9:,.1f} GB", "write it with smaller chunks"
        )


def _inside(group: h5py.Group) -> str:
    return "" if group.name == "/" else f" in {group.name}"


def shown(name: str | bytes) -> str:
    """A name of the file for a message: printable, and not long. HDF5's library gives bytes where it is not UTF-8."""
    name = name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else name
    text = name if name.isprintable() else name.encode("unicode_escape", "backslashreplace").decode()
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def unreadable(path: Path, error: Exception) -> DatasetUnreadable:
    """The error for what HDF5's library says of a file that it cannot read."""
    reason = shown(str(error).replace("\n", " "))
    if "unable to lock" in reason or "already open for write" in reason:
        return DatasetUnreadable(
            f"{path}: another process is writing it ({reason})",
            "close it there, or wait until it is written; if no process has it open, run: h5clear -s FILE",
        )
    what = "is a truncated HDF5 file" if "truncated" in reason else "is not a readable HDF5 file"
    return DatasetUnreadable(f"{path} {what} ({reason})", "fetch or copy the file again, whole")

"""NumPy's .npy and .npz, read without trust: sizes are checked before anything is allocated or unpacked.

Nothing is unpacked to disk, objects go through the machine of `pickles`, and the arrays of an .npz are read row by
row, so that a large one needs no more memory than the rows that are asked for.
"""

import math
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tokenize import TokenError
from typing import IO, Any, Self

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from iq_offline.data.formats import pickles
from iq_offline.data.formats.plain_numbers import brief, checked_dtype, checked_shape, is_bomb
from iq_offline.errors import DatasetUnreadable

Array = NDArray[Any]
PIECE_BYTES = 1 << 20
WHOLE = "fetch or copy the file again, whole"
MEMBER_NAME = re.compile(r"[A-Za-z0-9_][\w .()/-]*\.npy")
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OSError,
    struct.error,
)
HEADER_DAMAGE = (ValueError, TypeError, SyntaxError, RecursionError, MemoryError, TokenError, EOFError)


@dataclass(frozen=True)
class Layout:
    """What an .npy header tells, checked: the array takes exactly the bytes that follow it."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one entry."""
        return self.shape[1:]


def read_npy(path: Path) -> object:
    """The array of an .npy file, or the objects in it. Raises DatasetUnreadable, before a byte is allocated."""
    with path.open("rb") as file:
        layout = _layout(file, path.stat().st_size, str(path))
        if layout.dtype.hasobject:
            return _objects(file.read(), layout, str(path))
        return _read(file, layout, math.prod(layout.shape), str(path)).reshape(
            layout.shape, order="F" if layout.fortran else "C"
        )


class Rows:
    """An array of an archive, its rows given in order as they are asked for."""

    def __init__(self, stream: IO[bytes], layout: Layout, name: str) -> None:
        self._stream, self._name, self.layout, self._next = stream, name, layout, 0
        self._whole: Array | None = None

    def take(self, count: int) -> Array:
        """The next rows. An array in Fortran's order has no rows together, and is read whole."""
        assert count <= self.layout.shape[0] - self._next
        self._next += count
        if not self.layout.fortran:
            values = _read(self._stream, self.layout, count * math.prod(self.layout.row_shape), self._name)
            return values.reshape(count, *self.layout.row_shape)
        if self._whole is None:
            size = math.prod(self.layout.shape)
            self._whole = _read(self._stream, self.layout, size, self._name).reshape(self.layout.shape, order="F")
        return np.ascontiguousarray(self._whole[self._next - count : self._next])


class Archive:
    """An .npz file whose members were checked by name and size; use it as a context. Raises DatasetUnreadable."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with _reporting(path):
            self._zip = zipfile.ZipFile(path)
        try:
            _check_members(self._zip.infolist(), path)
        except DatasetUnreadable:
            self._zip.close()
            raise
        self._members = {item.filename.removesuffix(".npy"): item for item in self._zip.infolist()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def __contains__(self, name: str) -> bool:
        return name in self._members

    @property
    def names(self) -> tuple[str, ...]:
        """Of the arrays, in the file's order."""
        return tuple(self._members)

    def layout(self, name: str) -> Layout:
        """What an array's header tells."""
        stream, layout, _ = self._open(name)
        stream.close()
        return layout

    def rows(self, name: str) -> Rows:
        """An array's rows, to be read in order, beside those of others."""
        stream, layout, described = self._open(name)
        if layout.dtype.hasobject:
            raise DatasetUnreadable(f"{described} holds objects, not numbers", "store numbers")
        if not layout.shape:
            raise DatasetUnreadable(f"{described} is one value, not an array", "store one entry a step")
        return Rows(stream, layout, described)

    def read(self, name: str) -> Array:
        """A whole array."""
        rows = self.rows(name)
        return rows.take(rows.layout.shape[0])

    def read_objects(self, name: str) -> object:
        """A whole array, or the objects in it."""
        stream, layout, described = self._open(name)
        with _reporting(described), stream:
            if layout.dtype.hasobject:
                return _objects(stream.read(), layout, described)
        return self.read(name)

    def _open(self, name: str) -> tuple[IO[bytes], Layout, str]:
        """An array's bytes after its header, the header, and what to call the array in messages."""
        item, described = self._members[name], f"{self._path}: '{name}'"
        with _reporting(described):
            stream = self._zip.open(item)
            return stream, _layout(stream, item.file_size, described), described


@contextmanager
def _reporting(what: object) -> Iterator[None]:
    try:
        yield
    except DAMAGE as error:
        raise DatasetUnreadable(f"{what} is damaged or no .npz file ({str(error)[:200]})", WHOLE) from None


def _check_members(members: list[zipfile.ZipInfo], path: Path) -> None:
    held, seen = path.stat().st_size, set()
    for item in members:
        name = brief(item.filename)
        if not MEMBER_NAME.fullmatch(item.filename) or ".." in PurePosixPath(item.filename).parts:
            raise DatasetUnreadable(f"{path} has a member {name}, which is no array's name", "use another file")
        if item.filename in seen:
            raise DatasetUnreadable(f"{path} has two members {name}", "use another file")
        if item.flag_bits & 1:
            raise DatasetUnreadable(f"{path}: {name} is encrypted", "decrypt it first")
        if item.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DatasetUnreadable(f"{path}: {name} is packed in another way than NumPy does", "write it with NumPy")
        if is_bomb(item.file_size, item.compress_size):
            raise _bomb(path, name, item.file_size, item.compress_size)
        seen.add(item.filename)
    packed, unpacked = sum(item.compress_size for item in members), sum(item.file_size for item in members)
    if packed > held:
        raise DatasetUnreadable(f"{path} of {held} bytes claims {packed} bytes of packed members", WHOLE)
    if is_bomb(unpacked, held):
        raise _bomb(path, "its content", unpacked, held)


def _bomb(path: Path, name: str, size: int, held: int) -> DatasetUnreadable:
    return DatasetUnreadable(
        f"{path}: {name} claims {size / 1e9:,.2f} GB, packed in {held / 1e6:,.2f} MB",
        "use the publisher's file: this one unpacks into far more than a recording would",
    )


def _layout(stream: IO[bytes], size: int, name: str) -> Layout:
    """Read a header. Raises DatasetUnreadable where it does not fit the `size` of the whole."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Reading .*Python 2", UserWarning)
            version = npy.read_magic(stream)
            read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
            shape, fortran, dtype = read_header(stream)
    except KeyError:
        raise DatasetUnreadable(f"{name} is an .npy of a version for named columns", "store plain arrays") from None
    except HEADER_DAMAGE as error:
        raise DatasetUnreadable(f"{name} is no .npy array ({str(error)[:200]})", WHOLE) from None
    try:
        checked = checked_dtype("O" if dtype.hasobject and dtype.names is None else dtype.str)
        held = size - stream.tell()
        if not checked.hasobject:
            shape = checked_shape(shape, held, checked.itemsize)
    except ValueError as error:
        raise DatasetUnreadable(f"{name} is not what its header tells: {error}", WHOLE) from None
    return Layout(shape, checked, bool(fortran))


def _objects(data: bytes, layout: Layout, name: str) -> object:
    content = pickles.loads(data, name)
    if not isinstance(content, np.ndarray) or content.shape != layout.shape or not content.dtype.hasobject:
        raise DatasetUnreadable(f"{name} holds something else than its header tells", WHOLE)
    return content


def _read(stream: IO[bytes], layout: Layout, count: int, name: str) -> Array:
    """The next `count` numbers, in the machine's byte order."""
    values = np.empty(count, dtype=layout.dtype)
    view = values.view(np.uint8).data if values.nbytes else memoryview(b"")
    while view:
        with _reporting(name):
            piece = stream.read(min(len(view), PIECE_BYTES))
        if not piece:
            raise DatasetUnreadable(f"{name} ends {len(view)} bytes early", WHOLE)
        view[: len(piece)] = piece
        view = view[len(piece) :]
    return values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))

"""A file that is written once, large, front to back: past the page cache and on the disk when it is closed.

A table vouches for its rows after a power cut too, so they must be on the disk before it is named. Writing them past
the cache (O_DIRECT) waits for the disk as a sync would, at a fraction of the processor time, and does not push
other data out of memory. Where the file system knows no such writes, a plain write and a sync do.
"""

import errno
import fcntl
import mmap
import os
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

BLOCK_BYTES = 4096
"""Addresses, sizes and places of direct writes are multiples of it."""
STAGE_BYTES = 1 << 20
AHEAD_BYTES = 64 << 20


def aligned(rows: int, width: int) -> NDArray[np.float32]:
    """Zeros, shape (rows, width), at a page's start, so that they can be written directly."""
    return np.frombuffer(mmap.mmap(-1, 4 * rows * width), dtype=np.float32).reshape(rows, width)


class DirectFile:
    """A new file at `path`; use it as a context. Space is claimed ahead, so that a full disk shows early."""

    def __init__(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        try:
            self._descriptor = os.open(path, flags | getattr(os, "O_DIRECT", 0), 0o666)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._descriptor = os.open(path, flags & ~os.O_EXCL, 0o666)
        self._stage = np.frombuffer(mmap.mmap(-1, STAGE_BYTES), dtype=np.uint8)
        self._staged = self._written = self._claimed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._cached()
            self._write(self._stage[: self._staged])
            os.ftruncate(self._descriptor, self._written)
            os.fsync(self._descriptor)
        finally:
            os.close(self._descriptor)

    def append(self, values: NDArray[Any]) -> None:
        """All bytes of an array, at the end."""
        data = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        if self._staged == 0 and data.ctypes.data % BLOCK_BYTES == 0:
            whole = data.size - data.size % BLOCK_BYTES
            self._write(data[:whole])
            data = data[whole:]
        while data.size:
            taken = min(data.size, STAGE_BYTES - self._staged)
            self._stage[self._staged : self._staged + taken] = data[:taken]
            self._staged += taken
            data = data[taken:]
            if self._staged == STAGE_BYTES:
                self._write(self._stage)
                self._staged = 0

    def _write(self, data: NDArray[np.uint8]) -> None:
        if self._written + data.size > self._claimed and hasattr(os, "posix_fallocate"):
            claim = max(AHEAD_BYTES, data.size)
            os.posix_fallocate(self._descriptor, self._written, claim)
            self._claimed = self._written + claim
        while data.size:
            try:
                count = os.pwrite(self._descriptor, data.data, self._written)
            except OSError as error:
                if error.errno != errno.EINVAL or not self._cached():
                    raise
                continue
            self._written += count
            data = data[count:]

    def _cached(self) -> bool:
        """From here on write through the page cache. False if that is so already."""
        flags, direct = fcntl.fcntl(self._descriptor, fcntl.F_GETFL), getattr(os, "O_DIRECT", 0)
        fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags & ~direct)
        return bool(flags & direct)

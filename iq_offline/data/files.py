"""Files that are whole or absent: hashes, and writing under a temporary name that is renamed at the end."""

import errno
import glob
import hashlib
import os
import re
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from iq_offline.errors import ConfigError

CHUNK_BYTES = 1 << 20
TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<host>[^/]{1,40})-(?P<process>\d+)-[^-.]+\.(?:part|old)", re.DOTALL)
"""Names of temporary files: of the destination, the machine and the process."""
LONGEST_PREFIX = 80
"""So many bytes of a name go into that of its temporary file; 255 are the most that file systems allow."""
NO_PLACE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.EROFS})
"""How a system says that nothing can be made somewhere, permissions and space apart."""


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_of_path(path: Path) -> str:
    """SHA-256 of a file; of a folder, that of its files' relative names and hashes in sorted order."""
    if path.is_file():
        return sha256_of_file(path)
    digest = hashlib.sha256()
    for file in data_files(path):
        digest.update(f"{file.relative_to(path).as_posix()}\0{sha256_of_file(file)}\n".encode())
    return digest.hexdigest()


def data_path(path: Path) -> Path:
    """What of a dataset's path holds its data: the file itself, or the folder `data` of a Minari dataset."""
    return path / "data" if (path / "data").is_dir() else path


def data_files(path: Path) -> list[Path]:
    """The file itself; of a folder, all files in it, sorted."""
    return [path] if path.is_file() else sorted(item for item in path.rglob("*") if item.is_file())


def check_folder(folder: Path) -> None:
    """Raises ConfigError where a folder to write into is a file, or would lie below one."""
    there = next((place for place in (folder, *folder.parents) if place.exists()), None)
    if there is not None and not there.is_dir():
        below = "" if there == folder else f", and {folder} would lie below it"
        raise ConfigError(f"{there} is a file{below}", "name another place")


def make_folder(folder: Path) -> None:
    """Make a folder to write into, unless it is there. Raises ConfigError where there can be none."""
    check_folder(folder)
    with _making_in(folder.parent):
        folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def _making_in(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in NO_PLACE:
            raise
        raise ConfigError(f"nothing can be made in {folder} ({error.strerror})", "name another place") from None


@contextmanager
def whole_file(destination: Path) -> Iterator[Path]:
    """A temporary path beside `destination` that takes its name once the block has ended without an error.

    Raises ConfigError, before the block, where there can be no such file.
    """
    if destination.is_dir():
        raise ConfigError(f"{destination} is a folder", "name a file")
    make_folder(destination.parent)
    _clear_dead(destination)
    temporary = _temporary_path(destination)
    with _making_in(destination.parent):
        temporary.touch(exist_ok=False)
    try:
        yield temporary
        temporary.replace(destination)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(destination: Path) -> Iterator[Path]:
    """A temporary folder beside `destination` that replaces it once the block has ended without an error.

    Raises ConfigError, before the block, where there can be no such folder.
    """
    check_folder(destination)
    make_folder(destination.parent)
    _clear_dead(destination)
    temporary = _temporary_path(destination)
    with _making_in(destination.parent):
        temporary.mkdir()
    try:
        yield temporary
        if destination.exists():
            discarded = Path(tempfile.mkdtemp(dir=destination.parent, prefix=_prefix(destination), suffix=".old"))
            destination.rename(discarded / destination.name)
            temporary.rename(destination)
            shutil.rmtree(discarded)
        else:
            temporary.rename(destination)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _prefix(destination: Path) -> str:
    """Names the destination, the machine and the process, so that what a dead one left can be told and removed.

    The temporary file of a temporary file is named after the destination of both.
    """
    nested = TEMPORARY.fullmatch(destination.name)
    name = nested["name"] if nested else os.fsencode(destination.name)[:LONGEST_PREFIX].decode(errors="ignore")
    return f".{name}.{socket.gethostname()[:40]}-{os.getpid()}-"


def _temporary_path(destination: Path) -> Path:
    """A new name beside `destination`. What is made there gets the permissions that the umask leaves."""
    return destination.with_name(f"{_prefix(destination)}{secrets.token_hex(8)}.part")


def is_leftover(name: str, host: str) -> bool:
    """Whether a file of that name is the temporary file of a dead process of this machine."""
    found = TEMPORARY.fullmatch(name)
    return found is not None and found["host"] == host[:40] and not _alive(int(found["process"]))


def _clear_dead(destination: Path) -> None:
    start = _prefix(destination).rsplit(f"{os.getpid()}-", 1)[0]
    for left in destination.parent.glob(f"{glob.escape(start)}*"):
        process = left.name.removeprefix(start).split("-")[0]
        if process.isdigit() and left.suffix in {".part", ".old"} and not _alive(int(process)):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True

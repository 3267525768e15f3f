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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from iq_offline.errors import ConfigError

TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<host>[^/]{1,40})-(?P<process>\d+)-[^-.]+\.(?:part|old)", re.DOTALL)
"""Names of temporary files: of the destination, the machine and the process."""
LONGEST_PREFIX = 80
"""So many bytes of a name go into that of its temporary file; 255 are the most that file systems allow."""
NO_PLACE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.EROFS})
"""How a system says that nothing can be made somewhere, permissions and space apart."""


def digest_of_file(path: Path, digest: Callable[[], Any]) -> str:
    """A hash of a file's bytes, as hex; `digest` makes an empty one."""
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, digest).hexdigest()


def digest_of(path: Path, digest: Callable[[], Any]) -> str:
    """A hash of a file; of a folder, that of its files' relative names and hashes in sorted order."""
    if path.is_file():
        return digest_of_file(path, digest)
    whole = digest()
    for file in data_files(path):
        whole.update(f"{file.relative_to(path).as_posix()}\0{digest_of_file(file, digest)}\n".encode())
    found: str = whole.hexdigest()
    return found


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    return digest_of_file(path, hashlib.sha256)


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
    temporary = _temporary(destination, lambda path: path.touch(exist_ok=False))
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
    temporary = _temporary(destination, Path.mkdir)
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


def _temporary(destination: Path, make: Callable[[Path], None]) -> Path:
    """A new file or folder beside `destination`, with the permissions that the umask leaves.

    What dead processes left for the same destination is removed.
    """
    make_folder(destination.parent)
    prefix = _prefix(destination)
    for left in destination.parent.glob(f"{glob.escape(prefix.removesuffix(f'{os.getpid()}-'))}*"):
        if not is_leftover(left.name, socket.gethostname()):
            continue
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
    temporary = destination.with_name(f"{prefix}{secrets.token_hex(8)}.part")
    with _making_in(destination.parent):
        make(temporary)
    return temporary


def _prefix(destination: Path) -> str:
    """Names the destination, the machine and the process, so that what a dead one left can be told and removed.

    The temporary file of a temporary file is named after the destination of both.
    """
    nested = TEMPORARY.fullmatch(destination.name)
    name = nested["name"] if nested else os.fsencode(destination.name)[:LONGEST_PREFIX].decode(errors="ignore")
    return f".{name}.{socket.gethostname()[:40]}-{os.getpid()}-"


def is_leftover(name: str, host: str) -> bool:
    """Whether a file of that name is the temporary file of a dead process of this machine."""
    found = TEMPORARY.fullmatch(name)
    if found is None or found["host"] != host[:40]:
        return False
    try:
        os.kill(int(found["process"]), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass
    return False

"""What a remote says of a Minari dataset: its files, at one revision, with what proves each of them."""

import base64
import binascii
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from iq_offline.data.files import digest_of_file
from iq_offline.errors import DatasetUnreadable

LONGEST_NAME_BYTES = 200
"""File systems have 255; the rest is for what is added while a file is under way."""


@dataclass(frozen=True)
class RemoteFile:
    """One file of a remote dataset. `path`: below the dataset's folder."""

    path: str
    url: str
    bytes: int
    sha256: str | None = None
    git_sha1: str | None = None
    """Of git's blob: the header `blob SIZE`, a zero byte, the content."""
    md5: str | None = None
    """In base 64, as Google Cloud Storage gives it."""

    def fault(self, file: Path) -> str | None:
        """What is wrong with a downloaded file, or None."""
        size = file.stat().st_size
        if size != self.bytes:
            return f"it has {size:,} bytes, not {self.bytes:,}"
        checks: tuple[tuple[str | None, str, Callable[[], hashlib._Hash]], ...] = (
            (self.sha256, "SHA-256", hashlib.sha256),
            (self.git_sha1, "git's SHA-1", lambda: hashlib.sha1(f"blob {size}\0".encode())),
            (_hex(self.md5), "MD5", hashlib.md5),
        )
        for expected, name, digest in checks:
            if expected is not None and expected != (found := digest_of_file(file, digest)):
                return f"its {name} is {found}, the remote's {expected}"
        return None


@dataclass(frozen=True)
class Listing:
    """The files of a dataset at one revision of its remote. Raises DatasetUnreadable for names that cannot be used."""

    place: str
    revision: str
    files: tuple[RemoteFile, ...]
    headers: dict[str, str] = field(default_factory=dict)
    """To send with each request for a file."""

    def __post_init__(self) -> None:
        if not self.files:
            raise DatasetUnreadable(f"{self.place} has no files", "check the id, or name another remote")
        seen: set[str] = set()
        for file in self.files:
            if type(file.bytes) is not int or file.bytes < 0:
                self._refuse(file, f"of {file.bytes!r} bytes")
            if not _stays_inside(file.path):
                self._refuse(file, "outside the dataset, or no name of a file")
            if file.path in seen:
                self._refuse(file, "more than once")
            seen.add(file.path)
        for file in self.files:
            if any(str(parent) in seen for parent in PurePosixPath(file.path).parents):
                self._refuse(file, "in a folder that is a file too")

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(file.bytes for file in self.files)

    def _refuse(self, file: RemoteFile, why: str) -> None:
        raise DatasetUnreadable(f"{self.place} lists a file named {file.path!r}, {why}", "do not use this remote")


def below(folder: str, path: str) -> str:
    """A remote's path as seen from a folder of it; what is not in the folder keeps a name that Listing refuses."""
    return path.removeprefix(f"{folder}/") if path.startswith(f"{folder}/") else f"../{path}"


def _stays_inside(path: str) -> bool:
    plain = PurePosixPath(path)
    return (
        path == str(plain)
        and plain.parts not in {(), (".",)}
        and not plain.is_absolute()
        and not {"..", "."} & set(plain.parts)
        and path.isprintable()
        and "\\" not in path
        and all(len(part.encode()) <= LONGEST_NAME_BYTES for part in plain.parts)
    )


def _hex(md5: str | None) -> str | None:
    """Of base 64; what is not that is no file's hash, and is kept as it is."""
    try:
        return None if md5 is None else base64.b64decode(md5, validate=True).hex()
    except (binascii.Error, ValueError):
        return md5

"""What a remote says of a Minari dataset: its files, at one revision, with what proves each of them."""

import base64
import hashlib
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from iq_offline.data.files import CHUNK_BYTES
from iq_offline.errors import DatasetUnreadable


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
        digests = [
            (self.sha256, "SHA-256", _digest(file, hashlib.sha256())),
            (self.git_sha1, "git's SHA-1", _digest(file, hashlib.sha1(f"blob {size}\0".encode()))),
            (self.md5 and base64.b64decode(self.md5).hex(), "MD5", _digest(file, hashlib.md5())),
        ]
        for expected, name, found in digests:
            if expected and expected != found:
                return f"its {name} is {found}, the remote's {expected}"
        return None


@dataclass(frozen=True)
class Listing:
    """The files of a dataset at one revision of its remote. Raises DatasetUnreadable for a name that leaves it."""

    place: str
    revision: str
    files: tuple[RemoteFile, ...]
    headers: dict[str, str] = field(default_factory=dict)
    """To send with each request for a file."""

    def __post_init__(self) -> None:
        for file in self.files:
            parts = PurePosixPath(file.path).parts
            if not parts or ".." in parts or PurePosixPath(file.path).is_absolute() or "\\" in file.path:
                raise DatasetUnreadable(
                    f"{self.place} lists a file named '{file.path}', outside the dataset", "do not use this remote"
                )
        if not self.files:
            raise DatasetUnreadable(f"{self.place} has no files", "check the id, or name another remote")


def _digest(file: Path, digest: "hashlib._Hash") -> str:
    with file.open("rb") as content:
        while chunk := content.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()

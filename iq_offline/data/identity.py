"""What a source is, by its content: two hashes, kept with the files' state so that unchanged data are hashed once.

`content_key` (XXH3, 128 bits) finds the packed table of a source again; it is several times faster than SHA-256, which
`sha256_of` gives where data are verified and runs are recorded. A remembered hash counts only while size, times and
inode of every file are as they were.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from iq_offline import paths
from iq_offline.data.files import data_files, digest_of, make_folder, whole_file
from iq_offline.data.strict_json import read_json

SETTLED_SECONDS = 0.1
"""A file changed this shortly before it was hashed might change again within one tick of the file system's clock."""


class Digest(Protocol):
    """A running hash."""

    def update(self, data: Any, /) -> object: ...
    def hexdigest(self) -> str: ...


def new_digest() -> Digest:
    """An empty XXH3 hash of 128 bits."""
    import xxhash

    return xxhash.xxh3_128()


def content_key(path: Path) -> str:
    """XXH3 of a file's content, or of a folder's names and contents; 32 hex digits."""
    return _hash(path, "xxh3_128", new_digest)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file; of a folder, that of its files' relative names and hashes in sorted order."""
    return _hash(path, "sha256", hashlib.sha256)


def state_of(path: Path) -> str:
    """Size, times and inode of a file, or of all files of a folder, in one string that changes when any does."""
    lines = []
    for file in data_files(path):
        found = file.stat()
        name = file.relative_to(path).as_posix()
        lines.append(f"{name} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}")
    return lines[0] if path.is_file() else hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _hash(path: Path, name: str, digest: Callable[[], Digest]) -> str:
    state, started = state_of(path), time.time()
    record = paths.writable_home() / "hashes" / f"{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:24]}.json"
    known = _recall(record, state)
    if name in known:
        return known[name]
    value = digest_of(path, digest)
    if state_of(path) == state and _changed_at(path) < started - SETTLED_SECONDS:
        make_folder(record.parent)
        content = {"path": str(path), "state": state, "hashes": known | {name: value}}
        with whole_file(record) as temporary:
            temporary.write_text(json.dumps(content))
    return value


def _recall(record: Path, state: str) -> dict[str, str]:
    """Hashes that are remembered of a source in that state, by their names."""
    try:
        content = read_json(record)
        hashes = dict(content["hashes"]) if content["state"] == state else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    sound = all(isinstance(value, str) and re.fullmatch("[0-9a-f]{32,64}", value) for value in hashes.values())
    return hashes if sound else {}


def _changed_at(path: Path) -> float:
    """When the newest of the files changed. A clock of whole seconds counts as two seconds later."""
    newest = max(file.stat().st_ctime_ns for file in data_files(path))
    return newest / 1e9 + (2 if newest % 1_000_000_000 == 0 else 0)

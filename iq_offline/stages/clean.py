"""clean: remove caches that nothing uses any more, and what dead processes have left behind."""

import json
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from iq_offline import paths
from iq_offline.data.files import is_leftover
from iq_offline.data.identity import content_key
from iq_offline.data.table import TABLE_VERSION
from iq_offline.training.compile.aot_cache import code_digest, made_by
from iq_offline.training.run_folder import MANIFEST

TABLE_NAME = re.compile(r"([0-9a-f]{32})-.*-v(\d+)")
RESUME = re.compile(r"\.(.+)\.resume")


@dataclass(frozen=True)
class Removable:
    """A file or folder of the store that nothing needs, and why; `lock`: held by a process that uses it."""

    path: Path
    kind: str
    why: str
    lock: Path | None = None


def clean(*, dry_run: bool) -> list[dict[str, object]]:
    """Remove what nothing uses from the store, or only list it; returns one row for each, with its size in bytes.

    Datasets, finished runs, snapshots that a run can be resumed from, and what a living process holds stay.
    """
    rows: list[dict[str, object]] = []
    for found in (*_tables(), *_hashes(), *_compiled(), *_snapshots(), *_leftovers()):
        files = [file for file in found.path.rglob("*") if file.is_file()] if found.path.is_dir() else [found.path]
        size = sum(file.lstat().st_size for file in files)
        if dry_run or _removed(found):
            rows.append({"path": str(found.path), "kind": found.kind, "why": found.why, "bytes": size})
    return rows


def _removed(found: Removable) -> bool:
    """Whether it is gone now; it stays where another process holds its lock."""
    try:
        with FileLock(found.lock, timeout=0) if found.lock else nullcontext():
            if found.path.is_dir() and not found.path.is_symlink():
                shutil.rmtree(found.path)
            else:
                found.path.unlink(missing_ok=True)
        if found.lock:
            found.lock.unlink(missing_ok=True)
    except (Timeout, PermissionError):
        return False
    return True


def _tables() -> Iterator[Removable]:
    for folder in _inside("tables"):
        named = TABLE_NAME.fullmatch(folder.name)
        if named is None or not folder.is_dir():
            continue
        why = "made by an older version" if int(named[2]) < TABLE_VERSION else _without_source(folder, named[1])
        if why:
            yield Removable(folder, "packed table", why, folder.with_suffix(".lock"))


def _without_source(table: Path, key: str) -> str | None:
    """Why a packed table is not used: its dataset is gone, or has other content by now."""
    try:
        source = json.loads((table / "table.json").read_text()).get("source")
    except (OSError, ValueError, AttributeError):
        return "damaged"
    if not isinstance(source, str):
        return None
    if not Path(source).exists():
        return f"{source} is gone"
    return None if content_key(Path(source)) == key else f"{source} has changed"


def _hashes() -> Iterator[Removable]:
    for record in _inside("hashes"):
        try:
            source = json.loads(record.read_text())["path"]
        except (OSError, ValueError, KeyError, TypeError):
            yield Removable(record, "remembered hash", "damaged")
            continue
        if not Path(source).exists():
            yield Removable(record, "remembered hash", f"{source} is gone")


def _compiled() -> Iterator[Removable]:
    for folder in _inside("compiled"):
        if folder.is_dir() and not folder.name.startswith(".") and made_by(folder) != code_digest():
            why = "made by another version of the code, of PyTorch or for another processor"
            yield Removable(folder, "compiled updates", why, folder.with_suffix(".lock"))


def _snapshots() -> Iterator[Removable]:
    for folder in _inside("runs"):
        named = RESUME.fullmatch(folder.name)
        if named and (folder.with_name(named[1]) / MANIFEST).is_file():
            yield Removable(folder, "snapshots", f"{named[1]} is finished", folder / "lock")


def _leftovers() -> Iterator[Removable]:
    """Temporary files and folders of processes of this machine that are dead."""
    for folder, names, files in os.walk(paths.home()):
        for name in (*names, *files):
            if is_leftover(name, socket.gethostname()):
                yield Removable(Path(folder) / name, "temporary file", "its process is dead")
        names[:] = [name for name in names if not is_leftover(name, socket.gethostname())]


def _inside(name: str) -> list[Path]:
    folder = paths.home() / name
    return sorted(folder.iterdir()) if folder.is_dir() else []

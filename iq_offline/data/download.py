"""Fetching: a dataset's data verified and in the store, or nothing there at all.

A dataset without a published hash is pinned at its first fetch: its hash is kept in `pins.json`, and a later fetch
must bring the same bytes. What is verified already is answered without a look at the network.
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from iq_offline import paths
from iq_offline.data.catalogue import CatalogueEntry, Kind, Located, locate
from iq_offline.data.files import data_files, data_path, sha256_of_file, sha256_of_path, whole_file, whole_folder
from iq_offline.data.identity import state_of
from iq_offline.data.remotes import http
from iq_offline.errors import ConfigError, DatasetUnreadable, DownloadFailed, UnknownDataset

DEFAULT_MINARI_REMOTE = "hf://farama-minari"


@dataclass(frozen=True)
class FetchOptions:
    """How to fetch, and whom to tell."""

    source: str | None = None
    """A path or URL to take a catalogue file from instead of its own places."""
    revision: str | None = None
    """Of a Minari remote; None for the pinned one, else the newest."""
    repin: bool = False
    """Accept other bytes than those of the first fetch."""
    tell: Callable[[str], None] = lambda _: None
    advance: http.Advance = lambda _, __: None


@dataclass(frozen=True)
class _Fetched:
    """What a fetch found out, for `fetched.json`."""

    sha256: str
    source: str
    revision: str | None = None
    files: dict[str, str] = field(default_factory=dict)


def fetch(dataset: str, options: FetchOptions | None = None) -> Located:
    """The dataset on this machine, verified against the published hash, else against that of the first fetch.

    Raises UnknownDataset, DownloadFailed, DatasetUnreadable where the bytes are not the dataset's, ConfigError for
    options that do not fit it.
    """
    options = options or FetchOptions()
    located = locate(dataset)
    if isinstance(located, Located):
        if options.source or options.revision:
            raise ConfigError(f"{dataset} is a path already", "leave out --from and --revision")
        return located
    _check_options(located, options)
    located.record_path.parent.mkdir(parents=True, exist_ok=True)
    with _Alone(located, options):
        if located.kind is Kind.MINARI:
            _fetch_minari(located, options)
        elif options.source or options.repin or not located.verified:
            _fetch_file(located, options)
    return Located(name=located.id, path=located.stored_path, entry=located)


def _check_options(entry: CatalogueEntry, options: FetchOptions) -> None:
    if entry.kind is Kind.MINARI and options.source:
        raise ConfigError(
            f"{entry.id} is a Minari dataset, a folder", f"put a local copy at {entry.stored_path}, or use its path"
        )
    if entry.kind is not Kind.MINARI and options.revision:
        raise ConfigError(f"{entry.id} has no revisions", "leave out --revision")


class _Alone:
    """Only one process at a time fetches a dataset; others wait, and find it there."""

    def __init__(self, entry: CatalogueEntry, options: FetchOptions) -> None:
        self._lock = FileLock(entry.record_path.with_name("fetch.lock"))
        self._entry, self._tell = entry, options.tell

    def __enter__(self) -> None:
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            self._tell(f"another process is fetching {self._entry.id}: waiting for it")
            self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _fetch_file(entry: CatalogueEntry, options: FetchOptions) -> None:
    target = entry.stored_path
    expected = entry.sha256 or (None if options.repin else _pins().get(entry.id, {}).get("sha256"))
    if target.is_file() and not options.source and not options.repin:
        if expected in (None, found := sha256_of_file(target)):
            return _record(entry, _Fetched(found, str(target)), options)
        options.tell(f"{target} is not {entry.id}, whose SHA-256 is {expected}: fetching it again")
    partial = paths.home() / "downloads" / entry.id / target.name
    source = _bring(entry, expected, partial, options)
    found = sha256_of_file(partial)
    _pin(entry, _Fetched(found, source), options)
    with whole_file(target) as temporary:
        _move(partial, temporary)
    http.discard(partial)
    _record(entry, _Fetched(found, source), options)
    return None


def _bring(entry: CatalogueEntry, expected: str | None, partial: Path, options: FetchOptions) -> str:
    """The verified bytes at `partial`, from wherever they are to be had; returns from where."""

    def fault(file: Path) -> str | None:
        found = sha256_of_file(file)
        return None if expected in (None, found) else f"its SHA-256 is {found}, not {expected}"

    partial.parent.mkdir(parents=True, exist_ok=True)
    local = _local_source(entry, options)
    if local is None:
        urls = (options.source,) if options.source else entry.urls
        return http.download(http.Wanted(entry.id, urls, entry.bytes), partial, fault, options.advance)
    if not local.is_file():
        raise UnknownDataset(f"{entry.id}: no file at {local}", "name its file with --from PATH")
    shutil.copyfile(local, partial)
    if wrong := fault(partial):
        partial.unlink()
        hint = "; or accept it with --repin" if entry.sha256 is None else ""
        raise DatasetUnreadable(
            f"{local} is not {entry.id}: {wrong}",
            f"take the file from its publisher again, or use it under its own path{hint}",
        )
    return str(local)


def _local_source(entry: CatalogueEntry, options: FetchOptions) -> Path | None:
    """A file to copy: the one that is asked for, the one that ships, or one that D4RL has downloaded before."""
    if options.source:
        return None if "://" in options.source else Path(options.source).expanduser()
    if entry.kind is Kind.BUNDLED:
        return paths.shipped("datasets") / str(entry.file)
    folder = os.environ.get("D4RL_DATASET_DIR")
    cached = (Path(folder) if folder else Path.home() / ".d4rl" / "datasets") / entry.stored_path.name
    known = entry.sha256 and cached.is_file() and cached.stat().st_size == entry.bytes
    return cached if known and sha256_of_file(cached) == entry.sha256 else None


def _fetch_minari(entry: CatalogueEntry, options: FetchOptions) -> None:
    if entry.verified and not options.repin and options.revision in (None, (entry.record or {}).get("revision")):
        return None
    if entry.on_disk and not options.repin and options.revision is None and _still_the_same(entry):
        last = entry.last_record
        return _record(entry, _Fetched(last["sha256"], last["source"], last["revision"], last["files"]), options)
    if entry.on_disk and not entry.last_record:
        if _is_whole(entry.stored_path):
            return options.tell(f"{entry.stored_path} was there already: used as it is, not verified")
        options.tell(f"{entry.stored_path} is not whole: fetching it again")
    pin = {} if options.repin else _pins().get(entry.id, {})
    listing = _list(entry, options.revision or pin.get("revision"))
    partial = paths.home() / "downloads" / entry.id / listing.revision
    total, done, sums = sum(file.bytes for file in listing.files), 0, {}
    for file in listing.files:
        wanted = http.Wanted(f"{entry.id}: {file.path}", (file.url,), file.bytes, listing.headers)
        place = partial / file.path
        if not place.is_file() or file.fault(place):
            http.download(wanted, place, file.fault, _offset(options.advance, done, total))
        http.forget(place)
        done += file.bytes
    if not _is_whole(partial):
        raise DatasetUnreadable(f"{listing.place} is no whole Minari dataset", "check the id, or name another remote")
    sums = {file.path: sha256_of_file(partial / file.path) for file in listing.files}
    fetched = _Fetched(sha256_of_path(data_path(partial)), listing.place, listing.revision, sums)
    if pin.get("sha256") not in (None, fetched.sha256) and options.revision is None:
        raise DownloadFailed(
            f"{entry.id} has other bytes than at its first fetch (SHA-256 {fetched.sha256}, not {pin['sha256']})",
            "accept them with --repin",
        )
    _pin(entry, fetched, options)
    with whole_folder(entry.stored_path) as temporary:
        for file in listing.files:
            (temporary / file.path).parent.mkdir(parents=True, exist_ok=True)
            _move(partial / file.path, temporary / file.path)
    shutil.rmtree(partial)
    _mark_namespaces(entry.stored_path)
    return _record(entry, fetched, options)


def _offset(advance: http.Advance, done: int, total: int) -> http.Advance:
    """Progress of one file as progress of all."""
    return lambda size, _: advance(done + size, total)


def _still_the_same(entry: CatalogueEntry) -> bool:
    """Whether a folder that was moved or touched since its fetch has the content that it had then."""
    return entry.last_record.get("sha256") == sha256_of_path(data_path(entry.stored_path))


def _list(entry: CatalogueEntry, revision: str | None) -> Any:
    from iq_offline.data.remotes import gcs, huggingface

    remote = entry.urls[0] if entry.urls else os.environ.get("MINARI_REMOTE", DEFAULT_MINARI_REMOTE)
    scheme, _, place = remote.removesuffix(f"/{entry.id}").partition("://")
    if scheme == "hf":
        return huggingface.list_dataset(place, entry.id, revision)
    if scheme in {"gcp", "gs"}:
        return gcs.list_dataset(place, entry.id)
    raise ConfigError(
        f"MINARI_REMOTE={remote} is no remote of Minari's", "write it as hf://ORGANISATION or gcp://BUCKET"
    )


def _is_whole(folder: Path) -> bool:
    """Whether a folder holds a Minari dataset whose files open and whose episodes are all there."""
    from iq_offline.data.formats import minari

    try:
        return minari.is_minari(folder) and minari.read(folder, folder.name) is not None
    except DatasetUnreadable:
        return False


def _mark_namespaces(folder: Path) -> None:
    from iq_offline.data.formats import minari

    minari.mark_namespaces(folder)


def _move(source: Path, destination: Path) -> None:
    """Move onto a name that may exist, across file systems too, and on the disk when it is done."""
    try:
        source.replace(destination)
    except OSError:
        shutil.copyfile(source, destination)
        source.unlink()
    with destination.open("rb") as file:
        os.fsync(file.fileno())


def _pins() -> dict[str, dict[str, Any]]:
    try:
        content: dict[str, dict[str, Any]] = json.loads(_pins_path().read_text())
    except FileNotFoundError:
        return {}
    except ValueError:
        raise ConfigError(f"{_pins_path()} is not JSON", "mend it, or remove it to pin anew") from None
    return content


def _pins_path() -> Path:
    return paths.home() / "pins.json"


def _pin(entry: CatalogueEntry, fetched: _Fetched, options: FetchOptions) -> None:
    """Keep the hash of a dataset that has no published one."""
    if entry.sha256:
        return
    with FileLock(_pins_path().with_suffix(".lock")):
        pins = _pins()
        if pins.get(entry.id, {}).get("sha256") == fetched.sha256:
            return
        pins[entry.id] = {"sha256": fetched.sha256, "revision": fetched.revision, "source": fetched.source}
        with whole_file(_pins_path()) as temporary:
            temporary.write_text(json.dumps(pins, indent=1, sort_keys=True))
    at = f" at revision {fetched.revision}" if fetched.revision else ""
    options.tell(f"no hash is published for {entry.id}: pinned to SHA-256 {fetched.sha256}{at}")


def _record(entry: CatalogueEntry, fetched: _Fetched, options: FetchOptions) -> None:
    _pin(entry, fetched, options)
    content = {
        "sha256": fetched.sha256,
        "bytes": sum(file.stat().st_size for file in data_files(entry.stored_path)),
        "state": state_of(entry.stored_path),
        "source": fetched.source,
        "revision": fetched.revision,
        "pinned": entry.sha256 is None,
        "files": fetched.files,
        "fetched": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with whole_file(entry.record_path) as temporary:
        temporary.write_text(json.dumps(content, indent=1))

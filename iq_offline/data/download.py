"""Fetching: a dataset's data verified and in the store, or nothing there at all.

A dataset without a published hash is pinned at its first fetch: its hash is kept in `pins.json`, and a later fetch
must bring the same bytes. What is verified already is answered without a look at the network.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from filelock import FileLock, Timeout

from iq_offline import paths
from iq_offline.credentials import public_url
from iq_offline.data.catalogue import CatalogueEntry, Kind, Located, locate
from iq_offline.data.fetched import Fetched, pin, pin_of, record
from iq_offline.data.files import data_files, data_path, digest_of, sha256_of_file, whole_file, whole_folder
from iq_offline.data.remotes import http
from iq_offline.data.remotes.listing import Listing
from iq_offline.errors import ConfigError, DatasetUnreadable, DownloadFailed, UnknownDataset

HDF5_SUFFIXES = {".hdf5", ".h5"}
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
    if not _is_settled(located, options):
        located.record_path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(located, options):
            if not _is_settled(located, options):
                (_fetch_minari if located.kind is Kind.MINARI else _fetch_file)(located, options)
    return Located(name=located.id, path=located.stored_path, entry=located)


def _check_options(entry: CatalogueEntry, options: FetchOptions) -> None:
    if entry.kind is Kind.MINARI and options.source:
        raise ConfigError(
            f"{entry.id} is a Minari dataset, a folder", f"put a local copy at {entry.stored_path}, or use its path"
        )
    if entry.kind is not Kind.MINARI and options.revision:
        raise ConfigError(f"{entry.id} has no revisions", "leave out --revision")


def _is_settled(entry: CatalogueEntry, options: FetchOptions) -> bool:
    """Whether what is asked for is here and verified: then neither the network nor a writable store is needed."""
    known = entry.record
    if known is None or options.source or options.repin:
        return False
    if entry.kind is Kind.MINARI and entry.urls and known.get("source") != _remote(entry):
        return False
    return options.revision in (None, known.get("revision"))


@contextmanager
def _alone(entry: CatalogueEntry, options: FetchOptions) -> Iterator[None]:
    """Only one process at a time fetches a dataset; others wait, and find it there."""
    lock = FileLock(entry.record_path.with_name("fetch.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        options.tell(f"another process is fetching {entry.id}: waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


class _Check:
    """Says what is wrong with a file, for one that should have a hash; `found` is the hash that it has.

    Without a hash to hold it to, an `hdf5` file must at least be one, and whole.
    """

    def __init__(self, expected: str | None, *, hdf5: bool = False) -> None:
        self._expected, self._hdf5 = expected, hdf5
        self.found = ""

    def __call__(self, file: Path) -> str | None:
        self.found = sha256_of_file(file)
        if self._expected is None:
            with file.open("rb") as content:  # sites that want a log-in first answer with HTML or XML
                if content.read(64).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<"):
                    return "it is a web page, not data"
            return _fault_of_hdf5(file) if self._hdf5 else None
        return None if self._expected == self.found else f"its SHA-256 is {self.found}, not {self._expected}"


def _fault_of_hdf5(file: Path) -> str | None:
    """What keeps a file from being opened as HDF5: another content, or an end that is missing."""
    from iq_offline.data.formats.hdf5 import open_hdf5

    try:
        with open_hdf5(file):
            return None
    except DatasetUnreadable as error:
        return f"it is no whole HDF5 file: {error.problem}"


def _fetch_file(entry: CatalogueEntry, options: FetchOptions) -> None:
    target = entry.stored_path
    expected = entry.sha256 or (None if options.repin else pin_of(entry).get("sha256"))
    check = _Check(expected, hdf5=target.suffix in HDF5_SUFFIXES)
    if target.is_file() and not options.source and not options.repin:
        wrong = check(target)
        if wrong is None:
            return _settle(entry, Fetched(check.found, str(target)), options)
        options.tell(f"{target} is not {entry.id} ({wrong}): fetching it again")
    partial = _partial(entry) / target.name
    source = _bring(entry, check, partial, options)
    fetched = Fetched(check.found, source)
    pin(entry, fetched, partial.stat().st_size, options.tell)
    with whole_file(target) as temporary:
        _move(partial, temporary)
    shutil.rmtree(_partial(entry))
    return record(entry, fetched)


def _bring(entry: CatalogueEntry, check: _Check, partial: Path, options: FetchOptions) -> str:
    """The verified bytes at `partial`, from wherever they are to be had; returns from where."""
    partial.parent.mkdir(parents=True, exist_ok=True)
    local = _local_source(entry, options)
    if local is None:
        urls = (options.source,) if options.source else entry.urls
        with http.connect() as session:
            wanted = http.Wanted(entry.id, urls, entry.bytes, tell=options.tell)
            return public_url(http.download(session, wanted, partial, check, options.advance))
    if not local.is_file():
        raise UnknownDataset(
            f"{entry.id}: no file at {local}", f"name its file: iq-offline fetch {entry.id} --from PATH"
        )
    http.check_space(partial.parent, local.stat().st_size, entry.id)
    shutil.copyfile(local, partial)
    if wrong := check(partial):
        partial.unlink()
        hint = f"; or accept it: iq-offline fetch {entry.id} --from {local} --repin" if entry.sha256 is None else ""
        raise DatasetUnreadable(
            f"{local} is not {entry.id}: {wrong}",
            f"take the file from its publisher again, or use it under its own path{hint}",
        )
    return str(local)


def _partial(entry: CatalogueEntry) -> Path:
    """Where a dataset lies while it comes; nothing else lies there."""
    return paths.home() / "downloads" / quote(entry.id, safe="")


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
    from iq_offline.data.formats import minari

    where = _remote(entry)
    if entry.on_disk and _is_kept(entry, options, where):
        return None
    pinned = {} if options.repin else pin_of(entry)
    listing = _list(entry, where, options, pinned.get("revision") if pinned.get("source") == where else None)
    if (entry.record or {}).get("revision") == listing.revision:
        return None
    partial = _partial(entry) / listing.revision
    _bring_files(entry, listing, partial, options)
    if not _is_whole(partial):
        raise DatasetUnreadable(f"{listing.place} is no whole Minari dataset", "check the id, or name another remote")
    sums = {file.path: file.sha256 or sha256_of_file(partial / file.path) for file in listing.files}
    fetched = Fetched(digest_of(data_path(partial), hashlib.sha256), listing.place, listing.revision, sums)
    if pinned.get("sha256") not in (None, fetched.sha256) and options.revision is None:
        raise DownloadFailed(
            f"{entry.id} has other bytes than at its first fetch (SHA-256 {fetched.sha256}, not {pinned['sha256']})",
            f"accept them: iq-offline fetch {entry.id} --repin",
        )
    pin(entry, fetched, listing.bytes, options.tell)
    with whole_folder(entry.stored_path) as temporary:
        for file in listing.files:
            (temporary / file.path).parent.mkdir(parents=True, exist_ok=True)
            _move(partial / file.path, temporary / file.path)
    shutil.rmtree(_partial(entry))
    minari.mark_namespaces(entry.stored_path)
    return record(entry, fetched)


def _is_kept(entry: CatalogueEntry, options: FetchOptions, where: str) -> bool:
    """Whether the folder in Minari's store stays: what a fetch left there, or a whole dataset of the user's own.

    Raises ConfigError where something else is asked for than what is there, so that nothing is lost or mixed up.
    """
    path, known = entry.stored_path, entry.last_record or pin_of(entry)
    asked = options.repin or options.revision is not None
    if entry.urls and not options.repin and known.get("source", where) != where:
        raise ConfigError(
            f"{entry.id} is here already, from {known['source']}",
            f"use it by its id, or replace it: iq-offline fetch {public_url(entry.urls[0])} --repin",
        )
    if not asked and known.get("sha256") == digest_of(data_path(path), hashlib.sha256):
        sums = {file.relative_to(path).as_posix(): sha256_of_file(file) for file in data_files(path)}
        _settle(entry, Fetched(known["sha256"], known["source"], known.get("revision"), sums), options)
        return True
    if entry.last_record:
        if not asked:
            options.tell(f"{path} is not as it was fetched: fetching it again")
        return False
    if not _is_whole(path):
        options.tell(f"{path} is not whole: fetching it again")
        return False
    if asked:
        raise ConfigError(f"{path} was there before any fetch", "move or remove it, so that it is not lost")
    options.tell(f"{path} was there already: used as it is, not verified")
    return True


def _bring_files(entry: CatalogueEntry, listing: Listing, partial: Path, options: FetchOptions) -> None:
    partial.mkdir(parents=True, exist_ok=True)
    here = sum(file.stat().st_size for file in data_files(partial))
    http.check_space(partial, listing.bytes - here, entry.id)
    done = 0
    with http.connect() as session:
        for file in listing.files:
            wanted = http.Wanted(f"{entry.id}: {file.path}", (file.url,), file.bytes, listing.headers, options.tell)
            place, advance = partial / file.path, _offset(options.advance, done, listing.bytes)
            if not place.is_file() or file.fault(place):
                http.download(session, wanted, place, file.fault, advance)
            http.forget(place)
            done += file.bytes


def _offset(advance: http.Advance, done: int, total: int) -> http.Advance:
    return lambda size, _: advance(done + size, total)


def _remote(entry: CatalogueEntry) -> str:
    """Where Minari's own rules look for a dataset, as SCHEME://PLACE/ID. Raises ConfigError."""
    remote = os.environ.get("MINARI_REMOTE") or DEFAULT_MINARI_REMOTE
    address = public_url(entry.urls[0] if entry.urls else f"{remote.rstrip('/')}/{entry.id}")
    scheme, _, place = address.strip("/").partition("://")
    scheme = "gcp" if scheme == "gs" else scheme
    if scheme not in {"hf", "gcp"}:
        raise ConfigError(
            f"MINARI_REMOTE={remote} is no remote of Minari's", "write it as hf://ORGANISATION or gcp://BUCKET"
        )
    return f"{scheme}://{place}"


def _list(entry: CatalogueEntry, where: str, options: FetchOptions, pinned: str | None) -> Listing:
    """The remote's files at the revision that is asked for, else at the pinned one, else now."""
    from iq_offline.data.remotes import gcs, huggingface

    scheme, _, place = where.removesuffix(f"/{entry.id}").partition("://")
    if scheme == "hf":
        return huggingface.list_dataset(place, entry.id, options.revision or pinned)
    listing = gcs.list_dataset(place, entry.id)
    if options.revision not in (None, listing.revision):
        raise ConfigError(f"{where} is at {listing.revision}, and keeps no other revision", "leave out --revision")
    return listing


def _is_whole(folder: Path) -> bool:
    """Whether a folder holds a Minari dataset whose files open and whose episodes are all there."""
    from iq_offline.data.formats import minari

    try:
        return minari.is_minari(folder) and minari.read(folder, folder.name) is not None
    except DatasetUnreadable:
        return False


def _move(source: Path, destination: Path) -> None:
    """Move onto a name that may exist, across file systems too, and on the disk when it is done."""
    try:
        source.replace(destination)
    except OSError:
        shutil.copyfile(source, destination)
        source.unlink()
    with destination.open("rb") as file:
        os.fsync(file.fileno())


def _settle(entry: CatalogueEntry, fetched: Fetched, options: FetchOptions) -> None:
    """What lies under its final name already is what it should be."""
    pin(entry, fetched, sum(file.stat().st_size for file in data_files(entry.stored_path)), options.tell)
    record(entry, fetched)

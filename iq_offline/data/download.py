"""Fetching: a dataset's data verified and in the store, or nothing there at all."""

import shutil
from pathlib import Path

from filelock import FileLock

from iq_offline import paths
from iq_offline.data.catalogue import CatalogueEntry, Located, is_url, locate
from iq_offline.data.files import sha256_of_file, whole_file
from iq_offline.errors import ConfigError, DatasetUnreadable, NotYet, UnknownDataset


def fetch(dataset: str, source: str | None = None) -> Located:
    """The dataset on this machine, verified by its SHA-256 where the catalogue has one.

    `source`: a path to take a catalogue dataset from instead of its own place. Raises UnknownDataset, NotYet
    for what is remote, DatasetUnreadable where the bytes are not the catalogue's.
    """
    if source and is_url(source):
        raise NotYet("fetching from a URL is not built yet", "download the file by other means: --from PATH")
    if is_url(dataset):
        raise NotYet("fetching from a URL is not built yet", "download the file by other means and use its path")
    located = locate(dataset)
    if isinstance(located, Located):
        if source:
            raise ConfigError(f"{dataset} is a path already", "leave out --from, or name a catalogue dataset")
        return located
    return _fetch_entry(located, Path(source).expanduser() if source else None)


def _fetch_entry(entry: CatalogueEntry, source: Path | None) -> Located:
    origin = source or paths.shipped("datasets") / entry.file
    target = entry.stored_path
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_suffix(".lock")):
        if source or not entry.verified:
            _copy_verified(entry, origin, target)
    return Located(name=entry.id, path=target, entry=entry)


def _copy_verified(entry: CatalogueEntry, origin: Path, target: Path) -> None:
    if not origin.is_file():
        raise UnknownDataset(f"{entry.id}: no file at {origin}", "name its file with --from PATH")
    with whole_file(target) as temporary:
        shutil.copyfile(origin, temporary)
        found = sha256_of_file(temporary)
        if found != entry.sha256:
            raise DatasetUnreadable(
                f"{origin} is not {entry.id}: its SHA-256 is {found}, the catalogue's {entry.sha256}",
                "take the file from its publisher again, or use it under its own path",
            )
    entry.verification_path.write_text(entry.sha256 + "\n")

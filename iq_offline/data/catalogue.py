"""The catalogue of datasets that the project knows by name, and where each name's data lie on this machine."""

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import Field

from iq_offline import paths
from iq_offline.config import FrozenModel
from iq_offline.errors import NotYet, UnknownDataset, nearest

D4RL_NAME = re.compile(r"(halfcheetah|hopper|walker2d|ant|pen|door|hammer|relocate|antmaze|kitchen|maze2d)-[\w-]+-v\d+")
MINARI_ID = re.compile(r"[\w-]+(/[\w-]+)+-v\d+")


class Reference(FrozenModel):
    """Returns that score 0 and 100, and the table that they come from."""

    name: str
    random: float
    expert: float


class CatalogueEntry(FrozenModel):
    """One dataset that can be fetched by its id."""

    id: str
    file: str
    """Where it ships, relative to the folder of the catalogue."""
    bytes: int = Field(ge=1)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    licence: str
    env_id: str
    env_kwargs: dict[str, Any] = {}
    max_episode_steps: int | None = None
    episodes: int
    steps: int
    description: str
    reference: Reference

    @property
    def stored_path(self) -> Path:
        """Where `fetch` puts it."""
        return paths.home() / "datasets" / self.id / Path(self.file).name

    @property
    def on_disk(self) -> bool:
        """Whether it has been fetched."""
        return self.stored_path.is_file()

    @property
    def verified(self) -> bool:
        """Whether what lies on disk was verified against the catalogue's hash, and still has its size."""
        record = self.verification_path
        return (
            self.on_disk
            and record.is_file()
            and record.read_text().strip() == self.sha256
            and self.stored_path.stat().st_size == self.bytes
        )

    @property
    def verification_path(self) -> Path:
        """The file that records the hash which the stored data were found to have."""
        return self.stored_path.with_suffix(".sha256")


@dataclass(frozen=True)
class Located:
    """A dataset's data on this machine: a file, or the folder of a Minari dataset."""

    name: str
    path: Path
    entry: CatalogueEntry | None = None


@cache
def catalogue() -> dict[str, CatalogueEntry]:
    """All entries by id, from `datasets/catalogue.toml`."""
    content = tomllib.loads((paths.shipped("datasets") / "catalogue.toml").read_text())
    entries = [CatalogueEntry.model_validate(item) for item in content["dataset"]]
    return {entry.id: entry for entry in entries}


def locate(dataset: str) -> Located | CatalogueEntry:
    """Where a dataset's data lie: a catalogue entry (fetched or not), a path, or a local Minari dataset.

    Raises NotYet for a name that only a remote store has, and UnknownDataset for anything else.
    """
    if dataset in catalogue():
        return catalogue()[dataset]
    if not dataset.strip():
        raise UnknownDataset("the dataset's name is empty", "give an id or a path; all ids: iq-offline datasets")
    path = Path(dataset).expanduser()
    if path.exists():
        return Located(name=_name_of(path), path=path.resolve())
    in_minari = paths.minari_home() / dataset
    if (in_minari / "data").is_dir():
        return Located(name=dataset, path=in_minari)
    if path.suffix or dataset.startswith((".", "/", "~")):
        raise UnknownDataset(f"no file or folder at {dataset}", "check the path")
    if is_url(dataset) or D4RL_NAME.fullmatch(dataset) or MINARI_ID.fullmatch(dataset):
        raise NotYet(
            f"{dataset} is not on this machine, and remote fetching is not built yet",
            "download it by other means and give the path of the HDF5 file or the Minari folder; "
            f"or use one of: {', '.join(catalogue())}",
        )
    raise UnknownDataset(
        f"unknown dataset '{dataset}'", f"nearest: {nearest(dataset, catalogue())}; all: iq-offline datasets"
    )


def is_url(text: str) -> bool:
    """Whether a source is remote."""
    return "://" in text


def _name_of(path: Path) -> str:
    resolved = path.resolve()
    return resolved.stem if resolved.is_file() else resolved.name

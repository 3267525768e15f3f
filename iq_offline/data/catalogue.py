"""The catalogue of datasets that the project knows by name, and where each name's data lie on this machine.

A family is one TOML file of `datasets/catalogue`: what its datasets share under `[family]`, then one table a dataset,
which may override what is shared.
"""

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from iq_offline import paths
from iq_offline.config.base import FrozenModel
from iq_offline.credentials import public_url
from iq_offline.data.identity import state_of
from iq_offline.data.strict_json import read_json
from iq_offline.errors import UnknownDataset, did_you_mean

LIST_DATASETS = "iq-offline datasets"
D4RL_NAME = re.compile(r"(halfcheetah|hopper|walker2d|ant|pen|door|hammer|relocate|antmaze|kitchen|maze2d)-[\w-]+-v\d+")
MINARI_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)+-v\d+")
REMOTE_SCHEMES = {"hf", "gcp", "gs"}
"""Schemes of Minari's remotes; what follows them ends with a Minari id."""


class Kind(StrEnum):
    """How a dataset is fetched."""

    BUNDLED = "bundled"
    """It ships with the project."""
    FILE = "file"
    """One file, over HTTP(S)."""
    MINARI = "minari"
    """A folder, from Minari's remote."""


class Reference(FrozenModel):
    """Returns that score 0 and 100, and the table that they come from."""

    name: str
    random: float
    expert: float


class Defect(FrozenModel):
    """Something wrong with a dataset that is known, and what is done about it here."""

    what: str
    handling: str


class FetchRecord(BaseModel):
    """What `fetched.json` must hold; more is allowed."""

    model_config = ConfigDict(strict=True)

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)
    state: str
    source: str
    revision: str | None = None
    pinned: bool = False
    files: dict[str, str] = Field(default_factory=dict)


class CatalogueEntry(FrozenModel):
    """One dataset that can be fetched by its id."""

    id: str
    family: str
    kind: Kind
    file: str | None = None
    """Its name in the store; for a bundled one, where it ships, relative to the folder `datasets`."""
    urls: tuple[str, ...] = ()
    """Where to get a file, first host first, then mirrors."""
    bytes: int | None = Field(None, ge=1)
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    """As published; None where no one did, and the first fetch pins it."""
    licence: str = "unknown"
    card: str | None = None
    """The family's page, relative to the folder `datasets`."""
    env_id: str | None = None
    """The environment to evaluate in, in today's Gymnasium."""
    env_kwargs: Mapping[str, Any] = Field(default_factory=dict)
    env_note: str = ""
    """Where that environment differs from the one that made the data."""
    max_episode_steps: int | None = Field(None, ge=1)
    """The task's step limit in the data."""
    episodes: int | None = None
    steps: int | None = None
    description: str = ""
    reference: Reference | None = None
    reference_note: str = ""
    defects: tuple[Defect, ...] = ()

    @property
    def known_defects(self) -> tuple[str, ...]:
        """What is wrong with the recording, and what is done about it, in a phrase each."""
        return tuple(f"known defect: {defect.what} ({defect.handling})" for defect in self.defects)

    @property
    def stored_path(self) -> Path:
        """Where `fetch` puts it: a file in the project's store, or a folder in Minari's."""
        if self.kind is Kind.MINARI:
            return paths.minari_home() / self.id
        return paths.home() / "datasets" / self.id / Path(self.file or "data").name

    @property
    def record_path(self) -> Path:
        """The record of a verified fetch."""
        return paths.home() / "datasets" / self.id / "fetched.json"

    @property
    def on_disk(self) -> bool:
        """Whether something lies where `fetch` puts it."""
        return self.stored_path.exists()

    @property
    def record(self) -> dict[str, Any] | None:
        """What the last fetch found out, if the data are still in the state in which it left them."""
        content = self.last_record
        try:
            if not content or not self.on_disk or content["state"] != state_of(self.stored_path):
                return None
        except OSError:
            return None
        return content if self.sha256 in (None, content["sha256"]) else None

    @property
    def last_record(self) -> dict[str, Any]:
        """What the last fetch found out, whatever has become of the data since; empty if that cannot be read."""
        try:
            content = read_json(self.record_path)
            FetchRecord.model_validate(content)
        except (OSError, ValueError, ValidationError):
            return {}
        return content

    @property
    def verified(self) -> bool:
        """Whether what lies on disk was verified, against the published hash or the pinned one, and is unchanged."""
        return self.record is not None


@dataclass(frozen=True)
class Located:
    """A dataset's data on this machine: a file, or the folder of a Minari dataset."""

    name: str
    path: Path
    entry: CatalogueEntry | None = None


@cache
def catalogue() -> dict[str, CatalogueEntry]:
    """All entries by id, from the families in `datasets/catalogue`, in the order of the files' names."""
    entries: dict[str, CatalogueEntry] = {}
    for file in sorted((paths.shipped("datasets") / "catalogue").glob("*.toml")):
        content = tomllib.loads(file.read_text())
        family = dict(content["family"])
        shared = {"family": family.pop("id"), **family}
        for item in content["dataset"]:
            entry = CatalogueEntry.model_validate(shared | item)
            assert entry.id not in entries, f"{entry.id} stands in the catalogue twice"
            entries[entry.id] = entry
    return entries


BUNDLED = "demo/"
"""How the ids of the datasets begin that are part of the package."""


def locate(dataset: str) -> Located | CatalogueEntry:
    """Where a dataset's data lie: a catalogue entry (fetched or not), a path, or a local Minari dataset.

    A URL, and a Minari id that the catalogue does not list, give an entry without a hash. Raises UnknownDataset.
    """
    if dataset in catalogue():
        return catalogue()[dataset]
    if not dataset.strip():
        raise UnknownDataset("the dataset's name is empty", "give an id or a path; all ids: iq-offline datasets")
    if "://" in dataset:
        return _of_url(dataset)
    path = Path(dataset).expanduser()
    if path.exists():
        path = path.resolve()
        return Located(name=path.stem if path.is_file() else path.name, path=path)
    if is_like_a_path(dataset):
        raise UnknownDataset(f"no file or folder at {dataset}", "check the path")
    if D4RL_NAME.fullmatch(dataset):
        raise UnknownDataset(f"unknown dataset '{dataset}'", _nearest_d4rl(dataset))
    if dataset.startswith(BUNDLED):
        bundled = [name for name in catalogue() if name.startswith(BUNDLED)]
        raise UnknownDataset(f"unknown dataset '{dataset}'", did_you_mean(dataset, bundled, LIST_DATASETS))
    if MINARI_ID.fullmatch(dataset) and ".." not in dataset:
        return CatalogueEntry(id=dataset, family="unlisted", kind=Kind.MINARI, description="not in the catalogue")
    raise UnknownDataset(f"unknown dataset '{dataset}'", did_you_mean(dataset, catalogue(), LIST_DATASETS))


def is_like_a_path(dataset: str) -> bool:
    """Whether what is no dataset's id must be the path of a file or folder, there or not."""
    return "://" not in dataset and (bool(Path(dataset).suffix) or dataset.startswith((".", "/", "~")))


def find_entries(pattern: str = "", family: str = "", environment: str = "") -> list[CatalogueEntry]:
    """Entries whose id, family and environment hold these texts, whatever their case; `*` stands for anything.

    Raises UnknownDataset where there are none.
    """
    found = [
        entry
        for entry in catalogue().values()
        if _holds(entry.id, pattern) and _holds(entry.family, family) and _holds(entry.env_id or "", environment)
    ]
    if not found:
        families = sorted({entry.family for entry in catalogue().values()})
        asked = " ".join(filter(None, (pattern, family, environment)))
        raise UnknownDataset(
            f"no dataset matches '{asked}'",
            f"{did_you_mean(pattern, catalogue(), LIST_DATASETS)}; families: {', '.join(families)}",
        )
    return found


def _of_url(url: str) -> CatalogueEntry:
    """An entry for data at a URL. Raises UnknownDataset for a scheme or a name that cannot be used.

    `urls` has the credentials that the URL gives, all else is the same without them.
    """
    public = public_url(url)
    try:
        parts = urlsplit(public)
        _ = parts.port
    except ValueError as error:
        raise UnknownDataset(f"{public} is no URL: {error}", "check the part between // and the next /") from None
    if parts.scheme in REMOTE_SCHEMES:
        name = parts.path.strip("/")
        if MINARI_ID.fullmatch(name) and ".." not in name and parts.netloc:
            return CatalogueEntry(id=name, family="unlisted", kind=Kind.MINARI, urls=(public,), description=public)
        raise UnknownDataset(
            f"{public} names no Minari dataset", f"write it as {parts.scheme}://PLACE/namespace/name-v0"
        )
    file = Path(unquote(parts.path)).name
    if parts.scheme not in {"http", "https"} or not parts.netloc or not re.fullmatch(r"\w[\w.-]*\.\w+", file):
        raise UnknownDataset(
            f"{public} is no place to fetch a file from",
            "give an http(s) URL that ends with a file's name, or hf://, gcp://",
        )
    place = re.sub(r"[^\w.-]+", "-", f"{parts.hostname}{parts.path}").strip("-.")
    place += f"-{hashlib.sha256(public.encode(errors='surrogateescape')).hexdigest()[:8]}"  # one place a URL
    return CatalogueEntry(
        id=f"url/{place}", family="unlisted", kind=Kind.FILE, file=file, urls=(url,), description=public
    )


def _holds(text: str, wanted: str) -> bool:
    pattern = ".*".join(re.escape(part) for part in wanted.split("*"))
    return re.search(pattern, text, re.IGNORECASE) is not None


def _nearest_d4rl(dataset: str) -> str:
    near = did_you_mean(dataset, [name for name in catalogue() if D4RL_NAME.fullmatch(name)], LIST_DATASETS)
    older = dataset.endswith(("-v0", "-v1")) and dataset.startswith(("halfcheetah", "hopper", "walker2d", "ant"))
    reason = "; v0 and v1 have wrong terminations and time-outs, v2 mends them" if older else ""
    return near + reason

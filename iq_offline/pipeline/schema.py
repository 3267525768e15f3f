"""What a results table's YAML file may say, checked when it is read."""

import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, Field, StringConstraints, ValidationError, model_validator

from iq_offline.config.base import FrozenModel
from iq_offline.config.train import Device, SubsampleFrom
from iq_offline.errors import ConfigError, did_you_mean

MOST_RUNS = 100_000
"""Of one table: Snakemake keeps all of them in memory."""
DATA = "{data}"
"""Stands, in a dataset's path, for a folder that is named when the table is run."""


def _several(value: Any) -> Any:
    """One value is a list of one."""
    return value if isinstance(value, list | tuple) else (value,)


def _seeds(value: Any) -> Any:
    """`0-4` is 0, 1, 2, 3, 4."""
    if isinstance(value, str) and (bounds := re.fullmatch(r"(\d{1,18})-(\d{1,18})", value)):
        first, last = int(bounds[1]), int(bounds[2])
        if last - first >= MOST_RUNS:
            raise ValueError(f"{value} are {last - first + 1:,} seeds, a table has at most {MOST_RUNS:,} runs")
        return tuple(range(first, last + 1))
    return _several(value)


def _rows(value: Any) -> Any:
    """Names alone are rows with nothing of their own."""
    return value if isinstance(value, dict) else {name: {} for name in _several(value)}


def _options(value: Any) -> Any:
    """A list of datasets is one option without a name."""
    return value if isinstance(value, dict) else {"": _several(value)}


def _entries(value: Any) -> Any:
    """A dataset's name alone is an entry with nothing of its own."""
    if not isinstance(value, dict):
        return value
    return {label: {"dataset": entry} if isinstance(entry, str) else entry for label, entry in value.items()}


Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
OptionLabel = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9][A-Za-z0-9_.-]*)?$")]
Positive = Annotated[int, Field(ge=1, le=10**9, strict=True)]
Demos = Literal["all"] | Positive
ManyDemos = Annotated[tuple[Demos, ...], BeforeValidator(_several), Field(min_length=1)]
ManySubsamples = Annotated[tuple[Positive, ...], BeforeValidator(_several), Field(min_length=1)]
ManySeeds = Annotated[
    tuple[Annotated[int, Field(ge=0, lt=2**32, strict=True)], ...], BeforeValidator(_seeds), Field(min_length=1)
]
Names = Annotated[tuple[str, ...], BeforeValidator(_several)]
Supplementary = Annotated[dict[OptionLabel, Names], BeforeValidator(_options), Field(min_length=1)]


class End(StrEnum):
    """What a table ends in. OUTCOMES only trains, and tells what became of each run: finished, or stopped."""

    REPORT = "report"
    OUTCOMES = "outcomes"


class Settings(FrozenModel):
    """How to train. What is nearer to a run counts: the table's, its method's, its override's, that of `per_run`."""

    preset: str | None = None
    updates: Positive | None = None
    set: dict[str, Any] = Field(default_factory=dict)
    """Settings of the method, as `train --set` takes them."""


class DatasetEntry(FrozenModel):
    """A dataset of the table; an axis that it leaves out is the table's."""

    dataset: str
    demos: ManyDemos | None = None
    subsample: ManySubsamples | None = None
    supplementary: Supplementary | None = None
    reward_on: Names = ()
    """Recorded data beside this dataset on which the recovered reward is judged."""


class MethodEntry(Settings):
    """A method with settings, under its own name or another."""

    method: str | None = None


class Where(FrozenModel):
    """Which runs: those that have one of the values under every key given."""

    dataset: Names | None = None
    method: Names | None = None
    demos: ManyDemos | None = None
    subsample: ManySubsamples | None = None
    supplementary: Names | None = None
    override: Names | None = None
    seed: ManySeeds | None = None

    @model_validator(mode="before")
    @classmethod
    def _name_something(cls, values: Any) -> Any:
        empty = [key for key, value in values.items() if value is None] if isinstance(values, dict) else []
        if empty:
            raise ValueError(f"'{empty[0]}' names nothing; leave it out to mean every run, or name a label")
        return values


class PerRun(Settings):
    """What some runs have of their own."""

    where: Where
    skip: bool = False


class ResultsTable(Settings):
    """A table as its file describes it."""

    name: Label
    datasets: Annotated[dict[Label, DatasetEntry], BeforeValidator(_entries), Field(min_length=1)]
    methods: Annotated[dict[Label, MethodEntry], BeforeValidator(_rows), Field(min_length=1)]
    demos: ManyDemos = ("all",)
    subsample: ManySubsamples = (1,)
    subsample_from: SubsampleFrom = SubsampleFrom.FIRST
    """Of all its runs."""
    supplementary: Supplementary = {"": ()}  # noqa: RUF012 - pydantic copies it
    overrides: dict[OptionLabel, Settings] = Field(default_factory=lambda: {"": Settings()}, min_length=1)
    seeds: ManySeeds = (0,)
    per_run: tuple[PerRun, ...] = ()
    episodes: Positive = 20
    """Simulated episodes a run."""
    device: Device = Device.AUTO
    ends_in: End = End.REPORT
    may_diverge: tuple[Label, ...] = ()
    """Methods whose runs the divergence alarm may stop, where a table ends in outcomes; any other's is a failure."""
    data: str | None = None
    """The folder that `{data}` stands for."""

    @classmethod
    def parse(cls, content: Mapping[str, Any], base: Path) -> Self:
        """A table from its file's content; a path that is there, seen from `base`, is made absolute.

        Raises ConfigError for what does not fit, with the key.
        """
        try:
            return cls.model_validate(dict(content))._placed(base)
        except ValidationError as error:
            raise _misfit(error) from None

    def supplementary_of(self, entry: DatasetEntry) -> dict[str, tuple[str, ...]]:
        """A dataset's own supplementary options, else the table's."""
        return self.supplementary if entry.supplementary is None else entry.supplementary

    def _placed(self, base: Path) -> Self:
        def place(dataset: str) -> str:
            if DATA in dataset and self.data is None:
                raise ConfigError(f"{dataset} of table {self.name} names no folder yet", "name it: --data FOLDER")
            named = dataset.replace(DATA, self.data or "")
            path = base / Path(named).expanduser()
            return str(path.resolve()) if path.exists() else named

        def place_options(options: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
            return {label: tuple(map(place, datasets)) for label, datasets in options.items()}

        entries = {}
        for label, entry in self.datasets.items():
            options = None if entry.supplementary is None else place_options(entry.supplementary)
            placed = {"dataset": place(entry.dataset), "reward_on": tuple(map(place, entry.reward_on))}
            entries[label] = entry.model_copy(update=placed | {"supplementary": options})
        return self.model_copy(update={"datasets": entries, "supplementary": place_options(self.supplementary)})


def load_table(file: Path, data: Path | None = None) -> ResultsTable:
    """The table that a YAML file describes, `{data}` being that folder. Raises ConfigError."""
    from iq_offline.pipeline.strict_yaml import load_yaml

    content = load_yaml(file)
    if not isinstance(content, dict):
        raise ConfigError(f"{file} describes no table", "docs/reference/results-table.md shows one")
    return ResultsTable.parse(content | ({"data": str(data)} if data else {}), file.resolve().parent)


def _misfit(error: ValidationError) -> ConfigError:
    """The first misfit, by its key; an unknown key with the valid ones of its place."""
    first = error.errors()[0]
    path = [part for part in first["loc"] if part != "[key]"]
    place = ".".join(map(str, path))
    if first["type"] == "extra_forbidden":
        return ConfigError(
            f"unknown key '{place}' in the table", did_you_mean(str(path[-1]), _model_at(path).model_fields)
        )
    problem = f"'{place}' of the table does not fit: {first['msg']}"
    return ConfigError(problem, "docs/reference/results-table.md lists the keys")


def _model_at(path: list[Any]) -> type[BaseModel]:
    """Whose key the last part of a path is."""
    if len(path) == 1:
        return ResultsTable
    if path[0] == "per_run":
        return Where if "where" in path else PerRun
    models: dict[str, type[BaseModel]] = {"datasets": DatasetEntry, "methods": MethodEntry}
    return models.get(path[0], Settings)

"""The runs that a results table asks for.

datasets x methods x demonstrations x subsampling x supplementary x overrides x seeds; `per_run` changes some of them or
leaves them out. A run's name holds every coordinate, so that a longer table keeps the runs of a shorter one.
"""

import hashlib
import itertools
import json
import math
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from iq_offline.config.train import SubsampleFrom, algorithm_class, updates_key, valid_keys
from iq_offline.credentials import public_name
from iq_offline.errors import ConfigError, did_you_mean
from iq_offline.methods import METHODS
from iq_offline.pipeline.schema import MOST_RUNS, DatasetEntry, Demos, End, PerRun, ResultsTable, Settings, Where


@dataclass(frozen=True)
class PlannedRun:
    """One run of a table: its coordinates, by their labels, and its settings."""

    dataset: str
    method: str
    demos: Demos
    subsample: int
    subsample_from: SubsampleFrom
    supplementary: str
    override: str
    seed: int
    trained_by: str
    supplementary_datasets: tuple[str, ...]
    preset: str | None = None
    updates: int | None = None
    settings: tuple[str, ...] = ()
    """`key=value`, in the order in which they count."""

    @property
    def name(self) -> str:
        """Of the run's folder."""
        parts = (self.dataset, self.method, f"{self.demos}x{self.subsample}", self.supplementary, self.override)
        return "-".join(part for part in (*parts, f"seed{self.seed}") if part)

    @property
    def recovers_reward(self) -> bool:
        """Whether there is a reward to recover: the method is IQ-Learn of some kind."""
        return algorithm_class(self.trained_by, discrete=False).learns_reward

    @property
    def options(self) -> list[str]:
        """Arguments of `iq-offline train`: all but the data, the device, the folder and the group."""
        options = ["--method", self.trained_by, "--seed", str(self.seed), "--subsample", str(self.subsample)]
        options += [] if self.subsample_from is SubsampleFrom.FIRST else ["--subsample-from", self.subsample_from]
        options += [] if self.demos == "all" else ["--demos", str(self.demos)]
        options += ["--preset", self.preset] if self.preset else []
        options += ["--updates", str(self.updates)] if self.updates else []
        return options + [part for setting in self.settings for part in ("--set", setting)]


@dataclass(frozen=True)
class Plan:
    """A table's runs, and the datasets that they read."""

    table: ResultsTable
    runs: dict[str, PlannedRun]
    """By name, in the order of the file."""
    sources: dict[str, str]
    """Every dataset that is read, by a name of its own: expert, supplementary, and to judge rewards on."""

    @classmethod
    def of(cls, table: ResultsTable) -> "Plan":
        """Raises ConfigError for what fits each by itself, and not together."""
        _check_methods(table)
        _check_size(table)
        runs: dict[str, PlannedRun] = {}
        met: set[int] = set()
        for planned in _matrix(table):
            special = [number for number, change in enumerate(table.per_run) if _meets(planned, change.where)]
            met |= set(special)
            changes = [table.per_run[number] for number in special]
            if any(change.skip for change in changes):
                continue
            run = _with_settings(planned, table, changes)
            _check_settings(run)
            if run.name in runs:
                raise ConfigError(f"two runs of table {table.name} are called {run.name}", "rename one of their labels")
            runs[run.name] = run
        for number, change in enumerate(table.per_run):
            if number not in met:
                where = change.where.model_dump(mode="json", exclude_none=True)
                raise ConfigError(f"per_run of table {table.name} meets no run: where {where}", "mend its `where`")
        if not runs:
            raise ConfigError(f"table {table.name} has no run left", "skip fewer of them")
        return cls(table, runs, _sources(table))

    @property
    def jobs(self) -> dict[str, int]:
        """The number of jobs by stage where nothing has been made yet."""
        runs = self.runs.values()
        read = {name for run in runs for name in self.sources_of(run)}
        if self.table.ends_in is End.OUTCOMES:
            return {"fetch": len(read), "convert": len(read), "outcome": len(runs), "outcomes": 1}
        measured = [run for run in runs if run.recovers_reward]
        judged = {self.source_of(dataset) for run in measured for dataset in self.rewards_on(run)}
        counts = {"fetch": len(read | judged), "convert": len(read), "train": len(runs), "eval": len(runs)}
        return counts | ({"reward": len(measured)} if measured else {}) | {"report": 1}

    def sources_of(self, run: PlannedRun) -> list[str]:
        """The names under `sources` of what a run learns from: the expert's data, then supplementary ones."""
        return [run.dataset, *map(self.source_of, run.supplementary_datasets)]

    def source_of(self, dataset: str) -> str:
        """The name under `sources` of a dataset."""
        return next(name for name, found in self.sources.items() if found == dataset)

    def rewards_on(self, run: PlannedRun) -> tuple[str, ...]:
        """The datasets on which a run's recovered reward is judged: its own, then those named beside it."""
        entry = self.table.datasets[run.dataset]
        return (entry.dataset, *entry.reward_on)


def _axes(table: ResultsTable, entry: DatasetEntry) -> tuple[Collection[Any], ...]:
    """Of one dataset: methods, demonstrations, subsampling, supplementary data, overrides and seeds."""
    own = entry.demos or table.demos, entry.subsample or table.subsample, table.supplementary_of(entry)
    return table.methods, *own, table.overrides, table.seeds


def _matrix(table: ResultsTable) -> Iterator[PlannedRun]:
    """The whole product, without settings."""
    for label, entry in table.datasets.items():
        options = table.supplementary_of(entry)
        for method, count, every, option, override, seed in itertools.product(*_axes(table, entry)):
            trained_by = table.methods[method].method or method
            yield PlannedRun(
                dataset=label,
                method=method,
                demos=count,
                subsample=every,
                subsample_from=table.subsample_from,
                supplementary=option,
                override=override,
                seed=seed,
                trained_by=trained_by,
                supplementary_datasets=options[option],
            )


def _meets(run: PlannedRun, where: Where) -> bool:
    return all(getattr(run, key) in values for key, values in where if values is not None)


def _with_settings(run: PlannedRun, table: ResultsTable, changes: Sequence[PerRun]) -> PlannedRun:
    """The run with its settings; what is nearer to it counts, `updates` and the setting that it stands for alike."""
    layers: list[Settings] = [table, table.methods[run.method], table.overrides[run.override], *changes]
    keys = {updates_key(algorithm_class(run.trained_by, discrete=discrete)) for discrete in (True, False)}
    settings: dict[str, Any] = {}
    for layer in layers:
        twice = keys & layer.set.keys() if layer.updates else set()
        if twice:
            problem = f"{run.name}: `updates` and `set: {twice.pop()}` stand side by side, and say the same"
            raise ConfigError(problem, "leave one of them out")
        dropped = keys if layer.updates else set()
        settings = {key: value for key, value in settings.items() if key not in dropped} | layer.set
    return replace(
        run,
        preset=next((layer.preset for layer in reversed(layers) if layer.preset), None),
        updates=next((layer.updates for layer in reversed(layers) if layer.updates), None),
        settings=tuple(
            f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in settings.items()
        ),
    )


def _check_size(table: ResultsTable) -> None:
    """Raises ConfigError for more runs than can be planned, before any of them is written out."""
    count = sum(math.prod(map(len, _axes(table, entry))) for entry in table.datasets.values())
    if count > MOST_RUNS:
        raise ConfigError(f"table {table.name} asks for {count:,} runs", f"ask for at most {MOST_RUNS:,}")


def _check_methods(table: ResultsTable) -> None:
    for label, entry in table.methods.items():
        if entry.method is None and label not in METHODS:
            raise ConfigError(
                f"unknown method '{label}' in table {table.name}",
                f"{did_you_mean(label, METHODS, 'iq-offline methods')}; a name of your own needs `method:` under it",
            )


@cache
def _setting_keys(method: str) -> frozenset[str]:
    """Of a method, for discrete or for continuous actions."""
    return frozenset(
        key for discrete in (True, False) for key in valid_keys(algorithm_class(method, discrete=discrete))
    )


def _check_settings(run: PlannedRun) -> None:
    """Raises ConfigError for a setting that the method has neither for discrete nor for continuous actions."""
    keys = _setting_keys(run.trained_by)
    for setting in run.settings:
        key = setting.partition("=")[0]
        if key not in keys:
            raise ConfigError(
                f"{run.name}: method {run.trained_by} has no setting '{key}'",
                f"{did_you_mean(key, keys, f'iq-offline methods {run.trained_by}')}; "
                "a setting of one method belongs under `methods` or `per_run`",
            )


def _sources(table: ResultsTable) -> dict[str, str]:
    found = {label: entry.dataset for label, entry in table.datasets.items()}
    for entry in table.datasets.values():
        for dataset in (*itertools.chain(*table.supplementary_of(entry).values()), *entry.reward_on):
            if dataset not in found.values():
                found[_source_name(dataset)] = dataset
    return found


def _source_name(dataset: str) -> str:
    """A file's name for an id or a path; the hash keeps apart two that differ in their signs alone."""
    dataset = public_name(dataset)
    last = Path(dataset).name if Path(dataset).is_absolute() else dataset
    plain = re.sub(r"[^A-Za-z0-9]+", "-", last).strip("-")
    return f"{plain[-40:].strip('-')}-{hashlib.sha256(dataset.encode()).hexdigest()[:6]}"

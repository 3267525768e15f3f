"""Run folders, read for a report.

A folder or file that cannot be used is a failure that the report lists; it never costs the others their report.
"""

import json
import math
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import polars as pl

from iq_offline.data.catalogue import catalogue
from iq_offline.data.strict_json import first_line, read_toml
from iq_offline.errors import RunError
from iq_offline.methods import METHODS
from iq_offline.training.run_folder import (
    ACTIONS,
    CONFIG,
    EVALUATION,
    MANIFEST,
    METRICS,
    NUMBERS,
    REWARD,
    RunFolder,
    folders_below,
    holds_run_files,
    with_listed,
)
from iq_offline.training.tensor_files import AGAIN

WRITTEN_BY_TRAIN = "name folders that `iq-offline train` has written"


@dataclass(frozen=True)
class Failure:
    """A run folder, or a file in one, that the report cannot use or that shows that the run went wrong."""

    folder: Path
    problem: str
    remedy: str


@dataclass(frozen=True, kw_only=True)
class RunRecords:
    """The JSON records of one run's stages. What a stage has not written yet, or wrote in vain, is None."""

    manifest: Mapping[str, Any]
    evaluation: Mapping[str, Any] | None = None
    reward: Mapping[str, Any] | None = None

    @property
    def in_own_environment(self) -> bool:
        """Whether the run was evaluated where its data were recorded; true of a run that was not evaluated."""
        return self.evaluation is None or environment(self.evaluation) == environment(self.manifest["dataset"])

    @property
    def percent_of_data(self) -> float | None:
        """Mean return in percent of the dataset's own.

        None where that is not positive, or the return is from another environment than the data, or there is none.
        """
        of_data = self.manifest["dataset"].get("return_mean")
        if self.evaluation is None or of_data is None or of_data <= 0 or not self.in_own_environment:
            return None
        return float(100 * self.evaluation["return_mean"] / of_data)


@dataclass(frozen=True, kw_only=True)
class RunResult(RunRecords):
    """One run folder."""

    folder: Path
    dataset: str
    """The dataset's name, with its hash's first digits where the name alone would mean two datasets."""
    config: Mapping[str, Any]
    failures: tuple[Failure, ...] = ()
    """What went wrong in a folder that has a place in the tables all the same."""
    unreadable: frozenset[str] = frozenset()
    """Names of tables that are there and cannot be read."""

    @property
    def run(self) -> str:
        """The run's own name."""
        return str(self.manifest["run"])

    @property
    def method(self) -> str:
        """The name of the method that trained it; not always one that this version knows."""
        return str(self.manifest["method"])

    @property
    def seed(self) -> int:
        """The training seed."""
        return int(self.manifest["seed"])

    @property
    def learns_reward(self) -> bool:
        """Whether the reward stage has anything to recover: the methods with a learner, all of IQ-Learn's family."""
        return self.method in METHODS and METHODS[self.method].learns_reward

    def has(self, table: str) -> bool:
        """Whether a table of that file name is there and can be read."""
        return table not in self.unreadable and (self.folder / table).is_file()

    @cached_property
    def actions(self) -> pl.DataFrame | None:
        """ACTIONS (a row an observation), a small table that each comparison reads."""
        return self.table(ACTIONS)

    def table(self, name: str) -> pl.DataFrame | None:
        """METRICS (a row an update), RETURNS (a row an episode) or REWARDS (a row a transition); None without it."""
        return pl.read_parquet(self.folder / name, glob=False) if self.has(name) else None


def environment(described: Mapping[str, Any]) -> str:
    """The environment's id, with its arguments if it has any, of a manifest's dataset or an evaluation."""
    arguments = sorted((described.get("env_kwargs") or {}).items())
    shown = ", ".join(f"{key}={json.dumps(value)}" for key, value in arguments)
    return f"{described.get('env_id') or 'none named'}{f' ({shown})' if shown else ''}"


def shell_path(folder: Path) -> str:
    """The path as one would type it here: relative below the working folder, else as it is; quoted for a shell."""
    here, there = Path.cwd(), folder.resolve()
    return shlex.quote(os.path.relpath(there, here) if there.is_relative_to(here) else str(folder))


def load_runs(folders: Sequence[Path]) -> tuple[list[RunResult], list[Failure]]:
    """The results of run folders, in the order given, each folder once; and the folders that are no results.

    A folder that holds runs, at any depth, stands for them, and for what is left there of interrupted runs.
    Raises RunError for a path that is no folder, and where no run is left to report on.
    """
    loaded = [_load(folder) for folder in _run_folders(folders)]
    results = [one for one in loaded if isinstance(one, RunResult)]
    failures = [one for one in loaded if isinstance(one, Failure)]
    if not results:
        problem = f"no finished run to report on: {failures[0].folder}: {failures[0].problem}" if failures else None
        raise RunError(problem or "no run folders to report on", WRITTEN_BY_TRAIN)
    return _datasets_told_apart(results), failures


def _run_folders(folders: Sequence[Path]) -> list[Path]:
    found: dict[Path, None] = {}
    for folder in with_listed(folders):
        if not folder.is_dir():
            what = "is a file" if folder.exists() else "does not exist"
            raise RunError(f"{folder} {what}", WRITTEN_BY_TRAIN)
        found |= dict.fromkeys(one.resolve() for one in folders_below(folder, _was_run) or [folder])
    return list(found)


def _was_run(folder: Path) -> bool:
    """Whether it is a run's folder, or one that a run began and did not end."""
    if not folder.is_dir():
        return False
    return _interrupted_run(folder) is not None or holds_run_files(folder)


def _interrupted_run(folder: Path) -> str | None:
    """The run that a temporary folder, `.RUN.HOST-PROCESS-RANDOM.part`, was to become; None for any other folder."""
    if folder.suffix != ".part" or not folder.name.startswith("."):
        return None
    return folder.stem[1:].rpartition(".")[0] or None


def _load(folder: Path) -> RunResult | Failure:
    interrupted = _interrupted_run(folder)
    if interrupted is not None:
        return Failure(folder, f"training of {interrupted} was cut off, or still goes on", "train the run again")
    if not holds_run_files(folder):
        return Failure(folder, "holds no run", WRITTEN_BY_TRAIN)
    if not (folder / MANIFEST).exists():
        return Failure(folder, f"no {MANIFEST}: training did not end", AGAIN)
    try:
        return _result(RunFolder.open(folder))
    except RunError as error:
        return _failure(folder, error)


def _failure(folder: Path, error: RunError) -> Failure:
    """With the files named as they are named inside the folder."""
    return Failure(folder, error.problem.replace(f"{folder}/", "", 1), error.remedy)


def _result(run: RunFolder) -> RunResult:
    folder, failures = run.path, dict[Failure, None]()

    def attempt(read: Callable[[], Any]) -> Any:
        try:
            return read()
        except RunError as error:
            failures[_failure(folder, error)] = None
            return None

    there = [name for name in NUMBERS if os.path.lexists(folder / name)]
    tables = {name: attempt(partial(run.table, name)) for name in there}
    result = RunResult(
        folder=folder,
        dataset=_dataset_name(run.manifest["dataset"]),
        manifest=run.manifest,
        evaluation=attempt(partial(run.read_optional, EVALUATION)),
        reward=attempt(partial(run.read_optional, REWARD)),
        config=attempt(partial(_config, run)) or {},
        unreadable=frozenset(name for name, table in tables.items() if table is None),
    )
    if divergence := _divergence(tables.get(METRICS)):
        failures[Failure(folder, f"diverged: {divergence}", "see the method's page on what holds it")] = None
    return replace(result, failures=tuple(failures))


def _dataset_name(data: Mapping[str, Any]) -> str:
    """The catalogue's id of the same episodes, which a pipeline converts under another name; else the recorded name."""
    size = data.get("episodes"), data.get("steps")
    for entry in catalogue().values():
        if (
            entry.sha256 is not None
            and entry.sha256 == data.get("origin_sha256")
            and size == (entry.episodes, entry.steps)
        ):
            return entry.id
    return str(data["name"])


def _config(run: RunFolder) -> dict[str, Any]:
    """The settings as they were written: a report also compares runs whose settings this version no longer has."""
    if not (run.path / CONFIG).exists():
        return {}
    run.check_file(CONFIG)
    try:
        return read_toml(run.path / CONFIG)
    except (OSError, ValueError) as error:
        raise RunError(f"{CONFIG} is damaged: {first_line(error)}", AGAIN) from None


def _divergence(metrics: pl.DataFrame | None) -> str | None:
    """The first metric whose last logged value is not finite."""
    if metrics is None:
        return None
    for name in metrics.drop("step").columns:
        logged = metrics.select("step", name).drop_nulls()
        if len(logged) and not math.isfinite(float(logged[name][-1])):
            return f"{name} is {logged[name][-1]} at update {logged['step'][-1]}"
    return None


def _datasets_told_apart(results: list[RunResult]) -> list[RunResult]:
    """Datasets that share a name but not their bytes never share a row."""
    hashes: dict[str, set[str]] = {}
    for result in results:
        hashes.setdefault(result.dataset, set()).add(str(result.manifest["dataset"].get("sha256")))
    return [
        replace(result, dataset=f"{result.dataset}@{str(result.manifest['dataset'].get('sha256'))[:8]}")
        if len(hashes[result.dataset]) > 1
        else result
        for result in results
    ]

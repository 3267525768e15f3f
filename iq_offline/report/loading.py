"""Finds run folders and reads them.

A folder or file that cannot be used is a failure that the report lists; it never costs the others their report.
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from iq_offline.data.strict_json import first_line, read_toml
from iq_offline.errors import RunError
from iq_offline.report.results import Failure, RunResult
from iq_offline.training.run_folder import (
    CONFIG,
    EVALUATION,
    MANIFEST,
    NUMBERS,
    REWARD,
    RunFolder,
)
from iq_offline.training.tensor_files import AGAIN


def load_runs(folders: Sequence[Path]) -> tuple[list[RunResult], list[Failure]]:
    """The results of run folders, in the order given, each folder once; and the folders that are no results.

    A folder that holds runs stands for them, and for what is left there of runs that were cut off.
    Raises RunError for a path that is no folder, and where no run is left to report on.
    """
    loaded = [_load(folder) for folder in _found(folders)]
    results = [one for one in loaded if isinstance(one, RunResult)]
    failures = [one for one in loaded if isinstance(one, Failure)]
    if not results:
        problem = f"no finished run to report on: {failures[0].folder}: {failures[0].problem}" if failures else None
        raise RunError(problem or "no run folders to report on", "name folders that `iq-offline train` has written")
    return _told_apart(results), failures


def _found(folders: Sequence[Path]) -> list[Path]:
    found: dict[Path, None] = {}
    for folder in folders:
        if not folder.is_dir():
            what = "is a file" if folder.exists() else "does not exist"
            raise RunError(f"{folder} {what}", "name a folder that `iq-offline train` has written")
        inside = [] if (folder / MANIFEST).is_file() else [one for one in sorted(folder.iterdir()) if _was_run(one)]
        found |= dict.fromkeys(one.resolve() for one in inside or [folder])
    return list(found)


def _was_run(folder: Path) -> bool:
    """Whether it is a run's folder, or one that a run began and did not end."""
    if not folder.is_dir():
        return False
    files = (MANIFEST, "config.toml", *NUMBERS)
    return _cut_off_name(folder) is not None or any((folder / name).is_file() for name in files)


def _cut_off_name(folder: Path) -> str | None:
    """The run that a temporary folder, `.RUN.HOST-PROCESS-RANDOM.part`, was to become; None for any other folder."""
    if folder.suffix != ".part" or not folder.name.startswith("."):
        return None
    return folder.stem[1:].rpartition(".")[0] or None


def _load(folder: Path) -> RunResult | Failure:
    cut_off = _cut_off_name(folder)
    if cut_off is not None:
        return Failure(folder, f"training of {cut_off} was cut off, or still goes on", "train the run again")
    if not (folder / MANIFEST).exists():
        return Failure(folder, "no manifest.json: training did not end", AGAIN)
    try:
        return _result(RunFolder.open(folder))
    except RunError as error:
        return Failure(folder, _within(folder, error), error.remedy)


def _result(run: RunFolder) -> RunResult:
    folder, failures = run.path, list[Failure]()

    def attempt(read: Callable[[], Any]) -> Any:
        try:
            return read()
        except RunError as error:
            failure = Failure(folder, _within(folder, error), error.remedy)
            failures.extend([failure] if failure not in failures else [])
            return None

    evaluation, reward = (attempt(partial(run.read_optional, name)) for name in (EVALUATION, REWARD))
    config = attempt(lambda: _config(run)) or {}
    unreadable = [name for name in NUMBERS if attempt(partial(_check_table, run, name)) is None]
    result = RunResult(folder, str(run.manifest["dataset"]["name"]), run.manifest, config, evaluation, reward)
    result = replace(result, unreadable=frozenset(unreadable))
    divergence = _divergence(result.metrics())
    if divergence:
        failures.append(Failure(folder, f"diverged: {divergence}", "see the method's page on what holds it"))
    return replace(result, failures=tuple(failures))


def _within(folder: Path, error: RunError) -> str:
    """The problem, its files named as they are named inside the folder."""
    return error.problem.replace(f"{folder}/", "", 1)


def _config(run: RunFolder) -> dict[str, Any]:
    """The settings as they were written: a report also compares runs whose settings this version no longer has."""
    if not (run.path / CONFIG).exists():
        return {}
    run.check_file(CONFIG)
    try:
        return read_toml(run.path / CONFIG)
    except (OSError, ValueError) as error:
        raise RunError(f"{CONFIG} is damaged: {first_line(error)}", AGAIN) from None


def _check_table(run: RunFolder, name: str) -> bool:
    """True where the table is sound or not there. Raises RunError otherwise."""
    if not os.path.lexists(run.path / name):
        return True
    run.table(name)
    return True


def _divergence(metrics: pl.DataFrame | None) -> str | None:
    """The first metric whose last logged value is not finite."""
    if metrics is None:
        return None
    for name in metrics.columns:
        logged = metrics.select("step", name).drop_nulls() if name != "step" else metrics.head(0)
        if len(logged) and not math.isfinite(float(logged[name][-1])):
            return f"{name} is {logged[name][-1]} at update {logged['step'][-1]}"
    return None


def _told_apart(results: list[RunResult]) -> list[RunResult]:
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

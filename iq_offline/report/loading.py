"""Finds run folders and reads them.

A folder or file that cannot be used is a failure that the report lists; it never costs the others their report.
"""

import json
import math
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from iq_offline.errors import RunError
from iq_offline.report.results import TABLES, Failure, RunResult, typed

MANIFEST = "manifest.json"
NEEDED = ("run", "method", "seed", "demos", "subsample", "dataset")
"""Keys of a manifest without which a run has no place in a table."""


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
    files = (MANIFEST, "config.toml", *TABLES)
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
    try:
        manifest = _json(folder / MANIFEST)
    except RunError as error:
        return Failure(folder, error.problem, error.remedy)
    if manifest is None:
        return Failure(folder, "no manifest.json: training did not end", "train the run again")
    lacking = [key for key in NEEDED if key not in manifest]
    if lacking or not isinstance(manifest["dataset"], dict) or "name" not in manifest["dataset"]:
        return Failure(folder, f"manifest.json lacks {', '.join(lacking) or 'dataset.name'}", "train the run again")
    return _result(folder, manifest)


def _result(folder: Path, manifest: dict[str, Any]) -> RunResult:
    failures: list[Failure] = []

    def attempt(read: Callable[[], Any], remedy: str) -> Any:
        try:
            return read()
        except RunError as error:
            failures.append(Failure(folder, error.problem, remedy))
            return None

    evaluation = attempt(lambda: _evaluation(folder), f"run: iq-offline eval {typed(folder)}")
    reward = attempt(lambda: _json(folder / "reward.json"), f"run: iq-offline reward {typed(folder)}")
    config = attempt(lambda: _toml(folder / "config.toml"), "train the run again") or {}
    unreadable = []
    for name in TABLES:
        before = len(failures)
        attempt(lambda: _check_table(folder / name), "run the stage that writes it again")  # noqa: B023
        if len(failures) > before:
            unreadable.append(name)
    result = RunResult(folder, str(manifest["dataset"]["name"]), manifest, config, evaluation, reward)
    result = replace(result, unreadable=frozenset(unreadable))
    divergence = _divergence(result.metrics())
    if divergence:
        failures.append(Failure(folder, f"diverged: {divergence}", "see the method's page on what holds it"))
    return replace(result, failures=tuple(failures))


def _evaluation(folder: Path) -> dict[str, Any] | None:
    """Raises RunError for an evaluation that lacks what a table needs, or whose mean return is no finite number."""
    evaluation = _json(folder / "evaluation.json")
    if evaluation is None:
        return None
    for key in ("return_mean", "episodes"):
        if not isinstance(evaluation.get(key), int | float) or not math.isfinite(evaluation[key]):
            raise RunError(f"evaluation.json: {key} is {evaluation.get(key)}, not a finite number", "")
    return evaluation


def _check_table(path: Path) -> None:
    if not path.is_file():
        return
    try:
        table = pl.read_parquet(path, glob=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise RunError(f"{path.name} cannot be read: {_first_line(error)}", "") from None
    lacking = [column for column in TABLES[path.name] if column not in table.columns]
    if lacking:
        raise RunError(f"{path.name} has no column {', '.join(lacking)}", "")


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


def _json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RunError(f"{path.name} cannot be read: {_first_line(error)}", "train the run again") from None
    if not isinstance(content, dict):
        raise RunError(f"{path.name} holds no JSON object", "train the run again")
    return content


def _toml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RunError(f"{path.name} cannot be read: {_first_line(error)}", "train the run again") from None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)

"""What finished run folders say: their manifests and the results of later stages, read through their files alone."""

import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from iq_offline.errors import RunError

MANIFEST = "manifest.json"
NEEDED = ("run", "method", "seed", "demos", "subsample", "dataset")
"""Keys of a manifest without which a run has no place in a table."""


@dataclass(frozen=True)
class RunResult:
    """One run folder. What a stage has not written yet is None."""

    folder: Path
    dataset: str
    """The dataset's name, with its hash's first digits where the name alone would mean two datasets."""
    manifest: dict[str, Any]
    config: dict[str, Any]
    evaluation: dict[str, Any] | None
    reward: dict[str, Any] | None

    @property
    def run(self) -> str:
        """The run's own name."""
        return str(self.manifest["run"])

    @property
    def method(self) -> str:
        """What it was trained by: bc or iq."""
        return str(self.manifest["method"])

    @property
    def seed(self) -> int:
        """The training seed."""
        return int(self.manifest["seed"])

    @property
    def learns_reward(self) -> bool:
        """Whether the reward stage has anything to recover."""
        return self.method != "bc"

    def metrics(self) -> pl.DataFrame | None:
        """Training metrics: `step`, then one float column a metric, null where not logged. Raises RunError."""
        return self._table("metrics.parquet", ("step",))

    def returns(self) -> pl.DataFrame | None:
        """Simulated episodes: episode, seed, length (steps), return. Raises RunError."""
        return self._table("returns.parquet", ("return",))

    def rewards(self) -> pl.DataFrame | None:
        """One row a recorded transition: source, episode, true, recovered. Raises RunError."""
        return self._table("rewards.parquet", ("source", "episode", "true", "recovered"))

    def _table(self, name: str, columns: Sequence[str]) -> pl.DataFrame | None:
        path = self.folder / name
        if not path.is_file():
            return None
        try:
            table = pl.read_parquet(path)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise RunError(f"{path} cannot be read: {error}", "run the stage that writes it again") from None
        lacking = [column for column in columns if column not in table.columns]
        if lacking:
            raise RunError(f"{path} has no column {', '.join(lacking)}", "run the stage that writes it again")
        return table


def load_results(folders: Sequence[Path]) -> list[RunResult]:
    """The results of run folders, in the order given, each folder once.

    Raises RunError for a folder without manifest.json, for JSON or TOML that cannot be read, and for no folders.
    """
    if not folders:
        raise RunError("no run folders to report on", "name folders that `iq-offline train` has written")
    unique = {folder.resolve(): folder for folder in folders}.values()
    return _told_apart([_load(folder) for folder in unique])


def _load(folder: Path) -> RunResult:
    manifest = _json(folder / MANIFEST, "train the run again")
    if manifest is None:
        what = "is not a run folder (no manifest.json)" if folder.is_dir() else "does not exist"
        raise RunError(f"{folder} {what}", "name a folder that `iq-offline train` has written")
    lacking = [key for key in NEEDED if key not in manifest]
    if lacking:
        raise RunError(f"{folder / MANIFEST} lacks {', '.join(lacking)}", "train the run again")
    return RunResult(
        folder,
        str(manifest["dataset"]["name"]),
        manifest,
        _toml(folder / "config.toml"),
        _json(folder / "evaluation.json", f"run: iq-offline eval {folder}"),
        _json(folder / "reward.json", f"run: iq-offline reward {folder}"),
    )


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


def _json(path: Path, remedy: str) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}", remedy) from None
    if not isinstance(content, dict):
        raise RunError(f"{path} holds no JSON object", remedy)
    return content


def _toml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}", "train the run again") from None

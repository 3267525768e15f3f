"""What run folders say: their manifests and the results of later stages, read through their files alone."""

import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from iq_offline.methods import METHODS


@dataclass(frozen=True)
class Failure:
    """A run folder, or a file in one, that the report cannot use or that tells of a run gone wrong."""

    folder: Path
    problem: str
    remedy: str


@dataclass(frozen=True)
class RunResult:
    """One run folder. What a stage has not written yet, or wrote in vain, is None."""

    folder: Path
    dataset: str
    """The dataset's name, with its hash's first digits where the name alone would mean two datasets."""
    manifest: dict[str, Any]
    config: dict[str, Any]
    evaluation: dict[str, Any] | None
    reward: dict[str, Any] | None
    failures: tuple[Failure, ...] = ()
    """What went wrong in a folder that has a place in the tables all the same."""
    unreadable: frozenset[str] = field(default_factory=frozenset)
    """Names of tables that are there and cannot be read."""

    @property
    def run(self) -> str:
        """The run's own name."""
        return str(self.manifest["run"])

    @property
    def method(self) -> str:
        """What it was trained by."""
        return str(self.manifest["method"])

    @property
    def seed(self) -> int:
        """The training seed."""
        return int(self.manifest["seed"])

    @property
    def learns_reward(self) -> bool:
        """Whether the reward stage has anything to recover: the methods of IQ-Learn's family."""
        return self.method in METHODS and bool(METHODS[self.method].config_class(discrete=False).learns_reward)

    def metrics(self) -> pl.DataFrame | None:
        """Training metrics: `step`, then one float column a metric, null where not logged."""
        return self._table("metrics.parquet")

    def returns(self) -> pl.DataFrame | None:
        """Simulated episodes: episode, seed, length (steps), return."""
        return self._table("returns.parquet")

    def rewards(self) -> pl.DataFrame | None:
        """One row a recorded transition: source, episode, true, recovered."""
        return self._table("rewards.parquet")

    def has(self, name: str) -> bool:
        """Whether a table of that name is there and can be read."""
        return name not in self.unreadable and (self.folder / name).is_file()

    def _table(self, name: str) -> pl.DataFrame | None:
        return pl.read_parquet(self.folder / name, glob=False) if self.has(name) else None


def typed(folder: Path) -> str:
    """The path as one would type it here: relative below the working folder, else as it is; quoted for a shell."""
    here, there = Path.cwd(), folder.resolve()
    return shlex.quote(os.path.relpath(there, here) if there.is_relative_to(here) else str(folder))

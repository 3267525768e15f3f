"""run --dry-run: the jobs of a table by stage, and about how long they take."""

import json
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iq_offline.config.cloning import BCConfig
from iq_offline.config.train import algorithm_class, algorithm_config, updates_key
from iq_offline.errors import ConfigError
from iq_offline.pipeline.plan import Plan, PlannedRun
from iq_offline.stages.presets import read_preset

SECONDS = {"fetch": 2.0, "convert": 4.0, "eval": 15.0, "reward": 15.0, "report": 15.0, "outcomes": 0.1}
"""A job's typical time on one core, with demonstrations of some 10,000 steps."""
CLONING_SPEED, METHOD_SPEED = 1000.0, 150.0
"""Typical updates a second on one core, in networks of the default sizes."""
TRAINING = ("train", "outcome")
ORDER = ("fetch", "convert", *TRAINING, "eval", "reward", "report", "outcomes")
ENDS = ("report", "outcomes")
"""Stages with one job, whatever the number of files that it writes."""
PENDING = "update pending"


@dataclass(frozen=True)
class StageJobs:
    """A stage, how many jobs it has to do, and the seconds that they take one after another."""

    stage: str
    jobs: int
    seconds: float


def planned_jobs(command: Sequence[str], plan: Plan, folder: Path, finished: Iterable[Path]) -> list[StageJobs]:
    """The stages with jobs to do, in their order. `command`: Snakemake's; `finished`: run folders, of any table.

    In a folder without results these are all jobs of the plan; else Snakemake says which are left. Where there are
    finished runs of a method, their speed is taken, else a typical one. Raises ConfigError where Snakemake cannot
    plan the table.
    """
    begun = any(not path.name.startswith(".") for path in folder.glob("*"))
    counts = _jobs_left(command) if begun else plan.jobs
    speeds = _speeds(finished)
    trained = [_training_seconds(run, speeds) for run in plan.runs.values()]
    each = SECONDS | dict.fromkeys(TRAINING, sum(trained) / len(trained))
    return [StageJobs(rule, counts[rule], counts[rule] * each[rule]) for rule in ORDER if rule in counts]


def _jobs_left(command: Sequence[str]) -> dict[str, int]:
    """The number of jobs by stage that Snakemake would run. It lists files, which takes it half as long as jobs."""
    listed = subprocess.run([*command, "--summary"], capture_output=True, text=True, check=False)
    if listed.returncode:
        said = (listed.stderr or listed.stdout).strip().splitlines() or ["no reason"]
        raise ConfigError(f"Snakemake cannot plan this table: {said[-1]}", "mend the table, or its folder")
    files = (line.split("\t") for line in listed.stdout.splitlines())
    counts = Counter(columns[2] for columns in files if columns[-1] == PENDING)
    return {rule: min(count, 1) if rule in ENDS else count for rule, count in counts.items()}


def _speeds(finished: Iterable[Path]) -> dict[str, float]:
    """Updates a second by method, over the finished runs of each."""
    found: dict[str, tuple[float, float]] = {}
    for folder in finished:
        try:
            manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
            method, made, spent = str(manifest["method"]), float(manifest["updates"]), float(manifest["seconds"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        updates, seconds = found.get(method, (0.0, 0.0))
        found[method] = updates + made, seconds + spent
    return {method: updates / seconds for method, (updates, seconds) in found.items() if updates and seconds}


def _training_seconds(run: PlannedRun, speeds: Mapping[str, float]) -> float:
    cloning, own = _updates(run)
    if run.trained_by in speeds:
        return (cloning + own) / speeds[run.trained_by]
    return cloning / CLONING_SPEED + own / METHOD_SPEED


def _updates(run: PlannedRun) -> tuple[int, int]:
    """A run's updates of cloning, and of the method itself, as for continuous actions where it has both kinds."""
    presets = [] if run.preset in (None, run.trained_by) else read_preset(str(run.preset))
    for discrete in (False, True):
        length = f"{updates_key(algorithm_class(run.trained_by, discrete=discrete))}={run.updates}"
        overrides = [*([length] if run.updates else []), *run.settings]
        try:
            config = algorithm_config(run.trained_by, discrete=discrete, presets=presets, overrides=overrides)
        except ConfigError:  # a setting of the other kind of actions
            continue
        if isinstance(config, BCConfig):
            return config.fewest_updates, 0
        clone = getattr(config, "prior", None) or getattr(config, "cloning", None)
        return (clone.fewest_updates if clone else 0), int(getattr(config, "updates", 0))
    return 0, 0

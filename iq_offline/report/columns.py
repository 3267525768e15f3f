"""The registry of columns: name, header, meaning, format and value of each column of every table.

The tables of the terminal and of the page, the page's legend, the CSV and Markdown files and the names of MLflow's
metrics are made from `COLUMNS`, in its order. A column that is added here appears in all of them.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from iq_offline.report.groups import Group, short_names
from iq_offline.report.loading import RunRecords

if TYPE_CHECKING:
    from iq_offline.report.comparison import MethodRow, TaskRow

IMPROVEMENT, CORRELATION, INTERACTION = "improvement", "correlation", "interaction"
"""Families: people are not shown their columns where no row has any of them."""


@dataclass(frozen=True)
class ReportRow:
    """A row of the table by task as its runs in MLflow show it."""

    name: str
    figures: Mapping[str, float]
    """Metrics in MLflow."""


@dataclass(frozen=True)
class Column:
    """A column. It stands in each table for which it has a function of a row; None stands for what is not known."""

    name: str
    """Its name in CSV files and, behind a prefix, in MLflow."""
    header: str
    meaning: str
    dtype: Any = pl.Float64
    decimals: int | None = None
    """Digits after the point; None for text and counts."""
    null: str = "-"
    run: Callable[[RunRecords], Any] | None = None
    """Its value in the table with one row a run."""
    by_task: Callable[["TaskRow"], Any] | None = None
    """Its value in the table with one row a method and task, over seeds."""
    overall: Callable[["MethodRow"], Any] | None = None
    """Its value in the table with one row a method, over all tasks."""
    key: bool = False
    """Whether it names its row. Such a column stands in the table of runs too, with the value of its row by task."""
    mlflow: tuple[str, ...] = ()
    """Prefixes of its metrics in MLflow: `eval` or `reward` for a run's own, `summary` for those of its row by task."""
    family: str | None = None
    bounds: tuple[str, str] | None = None
    """The names of two columns in whose place the page shows this one, as an interval."""

    @property
    def numeric(self) -> bool:
        """Whether its values are numbers, which stand at the right."""
        return bool(self.dtype != pl.String)


def _of_manifest(key: str) -> Callable[[RunRecords], Any]:
    return lambda run: run.manifest.get(key)


def _steps_taken(run: RunRecords) -> int | None:
    """Environment steps of a run that acted; None for one that learnt from data alone."""
    return int(run.manifest.get("environment_steps") or 0) or None


def _of_evaluation(key: str) -> Callable[[RunRecords], Any]:
    return lambda run: (run.evaluation or {}).get(key)


def _of_reward(*path: str) -> Callable[[RunRecords], Any]:
    def value(run: RunRecords) -> Any:
        found: Any = run.reward
        for key in path:
            found = None if found is None else found.get(key)
        return found

    return value


def _of_estimate(estimate: str, part: str) -> Callable[[Any], Any]:
    """A part (value, low, high) of one of a row's estimates; None where the row has none."""
    found = attrgetter(estimate)
    return lambda row: getattr(found(row), part, None)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _improvement(name: str, header: str, meaning: str, part: str) -> Column:
    value = _of_estimate("improvement", part)
    shown: dict[str, Any] = {"decimals": 2, "mlflow": ("summary",), "family": IMPROVEMENT}
    return Column(name, header, meaning, by_task=value, overall=value, **shown)


def _correlation(name: str, header: str, meaning: str, *path: str) -> Column:
    """Pearson's r at that path of reward.json; over seeds, the mean."""
    value = _of_reward(*path, "pearson")
    shown: dict[str, Any] = {"decimals": 2, "mlflow": ("reward",) if len(path) == 1 else (), "family": CORRELATION}

    def by_task(row: "TaskRow") -> float | None:
        return _mean([value(run) for run in row.group.rewarded_runs])

    return Column(name, header, meaning, run=value, by_task=by_task, **shown)


# A column: what people see, then how it is written and computed.
# fmt: off
COLUMNS: tuple[Column, ...] = (
    Column("run", "run", "the run folder's name", pl.String, key=True, run=_of_manifest("run")),
    Column("variant", "method", "the method, and the settings that tell it apart",
           pl.String, key=True, overall=lambda row: row.variant.name),
    Column("aggregate_mean", "mean", "mean over all runs of all tasks", decimals=1, overall=lambda row: row.mean),
    Column("aggregate_iqm", "IQM", "mean of the middle half of all runs of all tasks",
           decimals=1, overall=_of_estimate("iqm", "value")),
    Column("aggregate_low", "95 % low",
           "lower end of the IQM's 95 % bootstrap interval, runs drawn anew within each task",
           decimals=1, overall=_of_estimate("iqm", "low")),
    Column("aggregate_high", "high", "upper end of that interval", decimals=1, overall=_of_estimate("iqm", "high")),
    Column("scale", "scale", "reference of the scores; % data: mean return in percent of the dataset's own",
           pl.String, overall=lambda row: row.scale),
    Column("dataset", "dataset", "what was learnt from",
           pl.String, key=True, by_task=lambda row: row.group.dataset),
    Column("method", "method", "the method that trained the policy",
           pl.String, key=True, by_task=lambda row: row.group.method),
    Column("demos", "demos", "expert episodes learnt from",
           pl.Int64, null="all", key=True, by_task=lambda row: row.group.demos),
    Column("subsample", "1 step in", "one transition in so many of an episode was kept",
           pl.Int64, key=True, by_task=lambda row: row.group.subsample),
    Column("settings", "settings", "the settings in which otherwise equal rows differ; supplementary data by name",
           pl.String, key=True, by_task=lambda row: row.group.settings),
    Column("seed", "seed", "training seed", pl.Int64, run=_of_manifest("seed")),
    Column("seeds", "seeds", "training seeds",
           pl.Int64, by_task=lambda row: len({run.seed for run in row.group.runs})),
    Column("transitions", "transitions", "transitions learnt from", pl.Int64, run=_of_manifest("transitions")),
    Column("updates", "updates", "gradient updates", pl.Int64, run=_of_manifest("updates")),
    Column("environment_steps", "environment steps", "steps that training took in the environment, a run; - for none",
           pl.Int64, run=_steps_taken,
           by_task=lambda row: max((_steps_taken(run) or 0 for run in row.group.runs), default=0) or None,
           family=INTERACTION),
    Column("seconds", "seconds", "wall time of training", decimals=1, run=_of_manifest("seconds")),
    Column("episodes", "episodes", "simulated episodes, all seeds together", pl.Int64, run=_of_evaluation("episodes"),
           by_task=lambda row: sum(evaluation["episodes"] for evaluation in row.group.evaluations) or None),
    Column("return_mean", "return (mean)", "mean return",
           decimals=1, run=_of_evaluation("return_mean"), by_task=lambda row: _mean(row.group.returns),
           mlflow=("eval", "summary")),
    Column("return_std", "deviation", "standard deviation of the episodes' returns",
           decimals=1, run=_of_evaluation("return_std"), mlflow=("eval",)),
    Column("return_iqm", "return (IQM)", "interquartile mean of the seeds' mean returns",
           decimals=1, by_task=_of_estimate("group.iqm", "value"), mlflow=("summary",)),
    Column("return_low", "95 % low", "lower end of the IQM's 95 % bootstrap interval over seeds",
           decimals=1, by_task=_of_estimate("group.iqm", "low"), mlflow=("summary",)),
    Column("return_high", "high", "upper end of that interval",
           decimals=1, by_task=_of_estimate("group.iqm", "high"), mlflow=("summary",)),
    Column("length_mean", "length", "mean length of a simulated episode, in steps",
           decimals=1, run=_of_evaluation("length_mean"), mlflow=("eval",)),
    Column("score", "score", "0 is the reference's random policy, 100 its expert",
           decimals=1, run=_of_evaluation("score"), mlflow=("eval",)),
    Column("score_iqm", "score (IQM)", "IQM of the seeds' scores: 0 is the reference's random policy, 100 its expert",
           decimals=1, by_task=lambda row: row.group.score_iqm, mlflow=("summary",)),
    Column("reference", "reference", "the table of returns that the score refers to",
           pl.String, run=_of_evaluation("reference"), by_task=lambda row: row.group.reference),
    Column("percent_of_data", "% of data",
           "mean return in percent of the dataset's own mean return, where that is > 0",
           decimals=1, run=lambda run: run.percent_of_data,
           by_task=lambda row: _mean([run.percent_of_data for run in row.group.runs])),
    _improvement("improvement", "P(> bc)",
                 "probability that a run's return beats that of a bc run on the same task, a tie counting half",
                 "value"),
    _improvement("improvement_low", "P low", "lower end of that probability's 95 % bootstrap interval", "low"),
    _improvement("improvement_high", "P high", "upper end of that interval", "high"),
    Column("action_difference", "differs from bc, %",
           "difference of greedy actions from the bc run's of the same seed, at 256 observations of the dataset: mean "
           "absolute difference in % of the range or, of discrete actions, % of observations with another one",
           decimals=1, by_task=attrgetter("action_difference"), overall=attrgetter("action_difference"),
           mlflow=("summary",), family=IMPROVEMENT),
    Column("paired_tasks", "on tasks", "tasks on which both were evaluated in one environment",
           pl.Int64, overall=_of_estimate("improvement", "tasks")),
    Column("tasks", "tasks", "tasks with a figure on this scale: dataset, demonstrations and subsampling",
           pl.Int64, overall=lambda row: len(row.values)),
    Column("runs", "runs", "runs with a figure on this scale, all tasks together",
           pl.Int64, overall=lambda row: sum(map(len, row.values))),
    _correlation("transition_pearson", "reward r", "Pearson r of recovered and true reward, by transition",
                 "transition"),
    _correlation("null_bc_pearson", "cloning r",
                 "the same for a reward that only measures nearness to a cloned policy", "null_bc"),
    _correlation("null_linear_pearson", "linear cloning r",
                 "the cloning reward made linear in the observation, by transition", "null_linear"),
    _correlation("episode_pearson", "reward r by episode", "Pearson r of an episode's recovered and true reward sums",
                 "episode"),
    _correlation("null_bc_episode_pearson", "cloning r by episode", "the same for the sums of the cloning reward",
                 "null_bc", "episode"),
    _correlation("null_length_pearson", "length r by episode",
                 "Pearson r of an episode's length and its true reward sum", "null_length"),
    Column("within_source_pearson", "reward r within sources",
           "Pearson r by transition within each source, mean over sources",
           decimals=2, run=_of_reward("within_source", "pearson"), mlflow=("reward",)),
    Column("return_interval", "95 % interval", "the IQM's 95 % bootstrap interval over seeds",
           decimals=1, bounds=("return_low", "return_high")),
    Column("aggregate_interval", "95 % interval",
           "the IQM's 95 % bootstrap interval, runs drawn anew within each task",
           decimals=1, bounds=("aggregate_low", "aggregate_high")),
    Column("improvement_interval", "interval of P", "that probability's 95 % bootstrap interval",
           decimals=2, bounds=("improvement_low", "improvement_high")),
)
# fmt: on
SPEARMAN = tuple(
    Column(
        f"{level}_spearman", "", "Spearman's beside Pearson's", run=_of_reward(level, "spearman"), mlflow=("reward",)
    )
    for level in ("transition", "episode", "within_source", "null_length", "null_bc", "null_linear")
)
"""In no table, but in MLflow beside Pearson's r."""


def columns_of(table: pl.DataFrame) -> list[Column]:
    """The columns of a table that was made from the registry."""
    by_name = {column.name: column for column in COLUMNS}
    return [by_name[name] for name in table.columns]


def run_metrics(
    evaluation: Mapping[str, Any] | None = None, reward: Mapping[str, Any] | None = None
) -> dict[str, float | None]:
    """The metrics of a run in MLflow, `eval/COLUMN` and `reward/COLUMN`, of those records that there are."""
    records = RunRecords(manifest={}, evaluation=evaluation, reward=reward)
    stages = [stage for stage, record in (("eval", evaluation), ("reward", reward)) if record is not None]
    return {
        f"{stage}/{column.name}": column.run(records)
        for column in (*COLUMNS, *SPEARMAN)
        for stage in stages
        if column.run is not None and stage in column.mlflow
    }


def report_rows(groups: Sequence[Group], summary: pl.DataFrame) -> dict[Path, ReportRow]:
    """By run folder, the row of the table by task that the run is part of: its name, and `summary/COLUMN` in MLflow.

    summary: that table, one row a group.
    """
    shown = [column.name for column in columns_of(summary) if "summary" in column.mlflow]
    figures = [
        {f"summary/{name}": row[name] for name in shown if row[name] is not None and math.isfinite(row[name])}
        for row in summary.iter_rows(named=True)
    ]
    named = zip(groups, short_names(groups), figures, strict=True)
    return {run.folder: ReportRow(name, found) for group, name, found in named for run in group.runs}

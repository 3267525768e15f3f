"""How a table's values read: headers, decimals, what a null looks like, and what each column means."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

NULL = "-"


@dataclass(frozen=True)
class Column:
    """A column as people see it."""

    header: str
    meaning: str
    decimals: int | None = None
    """Digits after the point; None for text and counts."""
    null: str = NULL


COLUMNS: Mapping[str, Column] = {
    "run": Column("run", "the run folder's name"),
    "dataset": Column("dataset", "what was learnt from"),
    "variant": Column("method", "the method, and the settings that tell it apart"),
    "tasks": Column("tasks", "tasks with a figure on this scale: dataset, demonstrations and subsampling"),
    "runs": Column("runs", "runs with a figure on this scale, all tasks together"),
    "scale": Column("scale", "reference of the scores; % data: mean return in percent of the dataset's own"),
    "aggregate_mean": Column("mean", "mean over all runs of all tasks", 1),
    "aggregate_iqm": Column("IQM", "mean of the middle half of all runs of all tasks", 1),
    "aggregate_low": Column(
        "95% low", "lower end of the IQM's 95 % bootstrap interval, runs drawn anew within each task", 1
    ),
    "aggregate_high": Column("high", "upper end of that interval", 1),
    "improvement": Column(
        "P(> bc)", "probability that a run's return beats that of a bc run on the same task, a tie counting half", 2
    ),
    "improvement_low": Column("P low", "lower end of that probability's 95 % bootstrap interval", 2),
    "improvement_high": Column("P high", "upper end of that interval", 2),
    "paired_tasks": Column("on tasks", "tasks on which both were evaluated in one environment"),
    "method": Column("method", "bc: behavioural cloning; iq: inverse soft Q-learning; others: the documentation"),
    "demos": Column("demos", "expert episodes learnt from", null="all"),
    "subsample": Column("sub", "every how manyth transition of an episode was kept"),
    "settings": Column("settings", "the settings in which otherwise equal rows differ; supplementary data by name"),
    "seed": Column("seed", "training seed"),
    "seeds": Column("seeds", "training seeds"),
    "transitions": Column("trans", "transitions learnt from"),
    "updates": Column("updates", "gradient updates"),
    "episodes": Column("eps", "simulated episodes, all seeds together"),
    "return_mean": Column("return", "mean return", 1),
    "return_std": Column("std", "standard deviation of the episodes' returns", 1),
    "return_iqm": Column("IQM", "interquartile mean of the seeds' mean returns", 1),
    "return_low": Column("95% low", "lower end of the IQM's 95 % bootstrap interval over seeds", 1),
    "return_high": Column("high", "upper end of that interval", 1),
    "length_mean": Column("length", "mean length of a simulated episode, in steps", 1),
    "score": Column("score", "0 is the reference's random policy, 100 its expert", 1),
    "score_iqm": Column("score", "IQM of the seeds' scores: 0 is the reference's random policy, 100 its expert", 1),
    "reference": Column("ref", "the table of returns that the score refers to"),
    "return_interval": Column("95 % interval", "the IQM's 95 % bootstrap interval over seeds", 1),
    "aggregate_interval": Column(
        "95 % interval", "the IQM's 95 % bootstrap interval, runs drawn anew within each task", 1
    ),
    "improvement_interval": Column("its interval", "that probability's 95 % bootstrap interval", 2),
    "percent_of_data": Column(
        "% data", "mean return in percent of the dataset's own mean return, where that is > 0", 1
    ),
    "transition_pearson": Column("r trans", "Pearson r of recovered and true reward, by transition", 2),
    "null_bc_pearson": Column("null bc", "the same for a reward that only measures nearness to a cloned policy", 2),
    "null_linear_pearson": Column("null lin", "the cloning reward made linear in the observation, by transition", 2),
    "episode_pearson": Column("r epis", "Pearson r of an episode's recovered and true reward sums", 2),
    "null_bc_episode_pearson": Column("null bc ep", "the same for the sums of the cloning reward", 2),
    "null_length_pearson": Column("null len", "Pearson r of an episode's length and its true reward sum", 2),
    "within_source_pearson": Column("r within", "Pearson r by transition within each source, mean over sources", 2),
    "seconds": Column("seconds", "wall time of training", 1),
}


INTERVALS = {
    "return_interval": ("return_low", "return_high"),
    "aggregate_interval": ("aggregate_low", "aggregate_high"),
    "improvement_interval": ("improvement_low", "improvement_high"),
}
"""Columns that stand for two where there is no need to compute with them."""


@dataclass(frozen=True)
class Cells:
    """A table as text: one header, meaning and alignment a column, one list of strings a row."""

    columns: list[Column]
    numeric: list[bool]
    rows: list[list[str]]

    @property
    def headers(self) -> list[str]:
        """Short names."""
        return [column.header for column in self.columns]


def cells(table: pl.DataFrame) -> Cells:
    """The table's values as people read them; `settings` is left out where no rows differ in any."""
    if "settings" in table.columns and not any(table["settings"]):
        table = table.drop("settings")
    columns = [COLUMNS.get(name, Column(name, name)) for name in table.columns]
    rows = [[_cell(value, column) for value, column in zip(row, columns, strict=True)] for row in table.iter_rows()]
    numeric = [dtype.is_numeric() or dtype == pl.List for dtype in table.dtypes]
    return Cells(columns, numeric, rows)


def with_intervals(table: pl.DataFrame) -> pl.DataFrame:
    """The table with each pair of bounds as one column, in the place of the lower."""
    for name, (low, high) in INTERVALS.items():
        if low in table.columns:
            known = pl.when(pl.col(low).is_not_null()).then(pl.concat_list(low, high))
            place = table.columns.index(low)
            table = table.with_columns(known.alias(name)).select(
                *table.columns[:place], name, *(other for other in table.columns[place:] if other not in (low, high))
            )
    return table


def _cell(value: Any, column: Column) -> str:
    if value is None or (isinstance(value, str) and value == ""):
        return column.null
    if isinstance(value, list):
        return " to ".join(_cell(bound, column) for bound in value)
    return str(value) if column.decimals is None else f"{value:.{column.decimals}f}"

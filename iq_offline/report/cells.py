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
    "method": Column("method", "bc: behavioural cloning; iq: inverse soft Q-learning"),
    "demos": Column("demos", "expert episodes learnt from", null="all"),
    "subsample": Column("sub", "every how manyth transition of an episode was kept"),
    "settings": Column("settings", "the settings in which otherwise equal rows differ"),
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
    "percent_of_data": Column(
        "% data", "mean return in percent of the dataset's own mean return, where that is > 0", 1
    ),
    "transition_pearson": Column("r trans", "Pearson r of recovered and true reward, by transition", 2),
    "null_bc_pearson": Column("null bc", "the same for a reward that only measures nearness to a cloned policy", 2),
    "episode_pearson": Column("r epis", "Pearson r of an episode's recovered and true reward sums", 2),
    "null_bc_episode_pearson": Column("null bc ep", "the same for the sums of the cloning reward", 2),
    "null_length_pearson": Column("null len", "Pearson r of an episode's length and its true reward sum", 2),
    "within_source_pearson": Column("r within", "Pearson r by transition within each source, mean over sources", 2),
    "seconds": Column("seconds", "wall time of training", 1),
}


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
    return Cells(columns, [dtype.is_numeric() for dtype in table.dtypes], rows)


def _cell(value: Any, column: Column) -> str:
    if value is None or value == "":
        return column.null
    return str(value) if column.decimals is None else f"{value:.{column.decimals}f}"

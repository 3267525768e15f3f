"""Tables of runs, made from the registry of columns, and how they are written: plain text, Markdown and CSV."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from iq_offline.report import columns
from iq_offline.report.columns import CORRELATION, Column, columns_of
from iq_offline.report.comparison import method_rows, task_rows
from iq_offline.report.groups import Group
from iq_offline.report.shortening import shortened

MOST_COLUMNS = 8
"""Of a table that people are shown at first; the rest is folded, or left to the page."""
FIRST = (
    *("aggregate_iqm", "aggregate_interval", "return_iqm", "return_interval", "score_iqm", "improvement"),
    *(
        "action_difference",
        "improvement_interval",
        "seeds",
        "return_mean",
        "return_std",
        "score",
        "tasks",
        "runs",
        "scale",
    ),
)
"""The columns that come first, behind what names the row."""
UNSAID = {"demos": None, "subsample": 1, "settings": ""}
"""Values that say nothing: where a key has no other, it is left out."""
TEXT_WIDTH = 120
GAP = "  "
SHORTEST_NAME = 12
"""Characters that a name keeps at least."""


def aggregate_table(groups: Sequence[Group]) -> pl.DataFrame:
    """One row a variant that was evaluated: mean, IQM and interval over all its runs, and improvement on cloning."""
    shown = [column for column in columns.COLUMNS if column.overall]
    return _table(shown, [[column.overall(row) for column in shown if column.overall] for row in method_rows(groups)])


def summary_table(groups: Sequence[Group]) -> pl.DataFrame:
    """One row per dataset, method, demos, subsample and, where runs differ in them, settings. Null: not known.

    `return_mean` and `return_iqm` are over the seeds' mean returns, `return_low` and `return_high` the IQM's
    95 % interval (null with one seed), `percent_of_data` relates `return_mean` to the dataset's own (null
    unless that is positive), `improvement` is the probability that a run beats one of cloning on the same task (null
    for cloning). Scores of several references are never averaged: `score_iqm` is then null and `reference` "mixed".
    Correlations are means over seeds.
    """
    shown = [column for column in columns.COLUMNS if column.by_task]
    return _table(shown, [[column.by_task(row) for column in shown if column.by_task] for row in task_rows(groups)])


def runs_table(groups: Sequence[Group]) -> pl.DataFrame:
    """One row a run, in the order of `summary_table` and then by seed; null where a stage was not run."""
    shown = [column for column in columns.COLUMNS if column.run or (column.key and column.by_task)]
    rows = [(row, run) for row in task_rows(groups) for run in row.group.runs]
    values = [
        [column.run(run) if column.run else column.by_task and column.by_task(row) for column in shown]
        for row, run in rows
    ]
    return _table(shown, values)


def _table(shown: Sequence[Column], rows: Sequence[Sequence[Any]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={column.name: column.dtype for column in shown}, orient="row")


def without_empty(table: pl.DataFrame) -> pl.DataFrame:
    """The table without the families of columns that no row fills."""
    families: dict[str, list[str]] = {}
    for column in columns_of(table):
        if column.family:
            families.setdefault(column.family, []).append(column.name)
    empty = [names for names in families.values() if all(table[name].null_count() == table.height for name in names)]
    return table.drop(name for names in empty for name in names)


def with_intervals(table: pl.DataFrame) -> pl.DataFrame:
    """The table with each pair of bounds as one column, in the place of the lower."""
    for column in columns.COLUMNS:
        if column.bounds and column.bounds[0] in table.columns:
            low, high = column.bounds
            known = pl.when(pl.col(low).is_not_null()).then(pl.concat_list(low, high))
            table = table.with_columns(known.alias(low)).drop(high).rename({low: column.name})
    return table


def first_columns(table: pl.DataFrame) -> pl.DataFrame:
    """What names the rows, then the columns of FIRST, then the rest; without keys that say nothing."""
    table = with_intervals(without_empty(table))
    table = table.drop(name for name, plain in UNSAID.items() if name in table.columns and _is_all(table[name], plain))
    keys = [column.name for column in columns_of(table) if column.key]
    first = [name for name in FIRST if name in table.columns and table[name].null_count() < table.height]
    rest = [name for name in table.columns if name not in (*keys, *first)]
    return table.select(*keys, *first, *rest)


def _is_all(values: pl.Series, plain: Any) -> bool:
    return all(value in (plain, None) for value in values)


def concise(table: pl.DataFrame) -> pl.DataFrame:
    """At most MOST_COLUMNS columns of a table."""
    return first_columns(table)[:, :MOST_COLUMNS]


@dataclass(frozen=True)
class Cells:
    """A table as people read it: one list of strings a row."""

    columns: list[Column]
    rows: list[list[str]]

    @property
    def headers(self) -> list[str]:
        """Short names."""
        return [column.header for column in self.columns]


def cells(table: pl.DataFrame) -> Cells:
    """The table's values as people read them; `settings` is left out where no rows differ in any."""
    if "settings" in table.columns and not any(table["settings"]):
        table = table.drop("settings")
    shown = columns_of(table)
    rows = [[_cell(value, column) for value, column in zip(row, shown, strict=True)] for row in table.iter_rows()]
    return Cells(shown, rows)


def _cell(value: Any, column: Column) -> str:
    if value is None or value == "":
        return column.null
    if isinstance(value, list):
        return " to ".join(_cell(bound, column) for bound in value)
    return str(value) if column.decimals is None else f"{value:.{column.decimals}f}"


def as_csv(table: pl.DataFrame) -> str:
    """The table as CSV. A text that a spreadsheet would run as a formula is quoted with an apostrophe."""
    texts = [
        pl.when(pl.col(name).str.contains(r"^[=+\-@\t\r]"))
        .then(pl.lit("'") + pl.col(name))
        .otherwise(pl.col(name))
        .alias(name)
        for name, dtype in table.schema.items()
        if dtype == pl.String
    ]
    return table.with_columns(texts).write_csv()


def as_markdown(table: pl.DataFrame) -> str:
    """The table in Markdown, numbers to the right, '-' for null."""
    shown = cells(table)
    rule = ["---:" if column.numeric else "---" for column in shown.columns]
    escaped = [[_markdown_cell(cell) for cell in row] for row in [shown.headers, rule, *shown.rows]]
    return "\n".join(f"| {' | '.join(row)} |" for row in escaped)


def _markdown_cell(text: str) -> str:
    """A name as it is: neither markup nor HTML of its own, on one line."""
    plain = " ".join(text.split())
    for sign in ("|", "`", "]("):
        plain = plain.replace(sign, f"\\{sign}")
    return plain.replace("<", "&lt;").replace(">", "&gt;")


def as_text(table: pl.DataFrame, width: int = TEXT_WIDTH) -> str:
    """The table in plain aligned lines of at most `width` characters, '-' for null.

    What does not fit beside the rest follows in a further part that repeats what names the row; names that
    fill more than two thirds of a line are shortened, different ones staying different. A family of columns is left out
    where no run has any of them.
    """
    shown = cells(without_empty(table))
    texts = [list(column) for column in zip(shown.headers, *shown.rows, strict=True)]
    keys = [place for place, column in enumerate(shown.columns) if column.key]
    _shorten(texts, keys, 2 * width // 3)
    return "\n\n".join(_part(shown.columns, texts, part) for part in _parts(shown.columns, texts, keys, width))


def _shorten(texts: list[list[str]], keys: Sequence[int], limit: int) -> None:
    """Shorten the longest names until they fit the limit together; different ones stay different."""
    sizes = {place: max(map(len, texts[place])) for place in keys}
    while keys and sum(sizes.values()) + len(GAP) * len(keys) > limit and max(sizes.values()) > SHORTEST_NAME:
        sizes[max(sizes, key=lambda place: sizes[place])] -= 1
    for place, size in sizes.items():
        texts[place] = [texts[place][0], *shortened(texts[place][1:], size)]


def _parts(shown: Sequence[Column], texts: Sequence[Sequence[str]], keys: Sequence[int], width: int) -> list[list[int]]:
    """Places of the columns of each part: all where they fit, else the names and then as many others as fit.

    The correlations begin a part of their own, so that each stays with its nulls.
    """

    def line(part: Sequence[int]) -> int:
        return sum(max(map(len, texts[place])) + len(GAP) for place in part) - len(GAP)

    if line(range(len(texts))) <= width:
        return [list(range(len(texts)))]
    first_correlation = next((place for place, one in enumerate(shown) if one.family == CORRELATION), None)
    parts = [list(keys)]
    for place in (place for place in range(len(texts)) if place not in keys):
        full = place == first_correlation or line([*parts[-1], place]) > width
        if full and len(parts[-1]) > len(keys):
            parts.append(list(keys))
        parts[-1].append(place)
    return parts


def _part(shown: Sequence[Column], texts: Sequence[Sequence[str]], part: Sequence[int]) -> str:
    padded = []
    for place in part:
        size, side = max(map(len, texts[place])), ">" if shown[place].numeric else "<"
        padded.append([f"{text:{side}{size}}" for text in texts[place]])
    return "\n".join(GAP.join(row).rstrip() for row in zip(*padded, strict=True))

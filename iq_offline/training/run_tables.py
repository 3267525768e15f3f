"""The tables of a run folder, read with their columns checked."""

from pathlib import Path

import polars as pl

NUMBERS = {
    "metrics.parquet": ("step",),
    "timing.parquet": ("step",),
    "returns.parquet": ("return",),
    "rewards.parquet": ("episode", "true", "recovered"),
}
"""The tables, and the columns of each in which every row has a finite number; metrics may be null where not logged."""
TEXTS = {"rewards.parquet": ("source",)}


def read_table(path: Path) -> pl.DataFrame:
    """A table. Raises OSError, and ValueError where it is damaged, lacks a column or has one of another type."""
    if not path.is_file():
        raise ValueError("is not a regular file")
    try:
        table = pl.read_parquet(path, glob=False)
        _check_columns(path.name, table)
    except pl.exceptions.PolarsError as error:
        raise ValueError(str(error)) from None
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # what Polars raises for some damaged files
            raise
        raise ValueError(str(error)) from None
    return table


def _check_columns(name: str, table: pl.DataFrame) -> None:
    texts = TEXTS.get(name, ())
    lacking = [column for column in (*texts, *NUMBERS[name]) if column not in table.columns]
    if lacking:
        raise ValueError(f"has no column {', '.join(lacking)}")
    for column, kind in table.schema.items():
        fits = kind == pl.String if column in texts else kind.is_numeric() or kind in (pl.Boolean, pl.Null)
        if not fits:
            raise ValueError(f"column {column} is of type {kind}")
    for column in NUMBERS[name]:
        if table[column].has_nulls() or not table[column].cast(pl.Float64).is_finite().all():
            raise ValueError(f"column {column} holds values that are not finite numbers")

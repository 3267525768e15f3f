"""Tables of runs: a summary over seeds, one row a run, and both as plain text or Markdown."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from iq_offline.evaluation.scores import interquartile_mean, interval95
from iq_offline.report.cells import cells
from iq_offline.report.comparison import (
    IMPROVEMENT,
    Variant,
    figures,
    improvement,
    percent_of_data,
    task_of,
    variants,
)
from iq_offline.report.groups import Group, grouped
from iq_offline.report.layout import aligned
from iq_offline.report.results import RunResult

TEXT_WIDTH = 120
KEY_SCHEMA = {
    "dataset": pl.String,
    "method": pl.String,
    "demos": pl.Int64,
    "subsample": pl.Int64,
    "settings": pl.String,
}
REWARD_PATHS = {
    "transition_pearson": ("transition",),
    "null_bc_pearson": ("null_bc",),
    "null_linear_pearson": ("null_linear",),
    "episode_pearson": ("episode",),
    "null_bc_episode_pearson": ("null_bc", "episode"),
    "null_length_pearson": ("null_length",),
}
"""Where in reward.json each correlation lies; each recovered one stands before its nulls."""
REWARD_SCHEMA = dict.fromkeys(REWARD_PATHS, pl.Float64)
SUMMARY_SCHEMA: dict[str, Any] = {
    **KEY_SCHEMA,
    "seeds": pl.Int64,
    "episodes": pl.Int64,
    "return_mean": pl.Float64,
    "return_iqm": pl.Float64,
    "return_low": pl.Float64,
    "return_high": pl.Float64,
    "score_iqm": pl.Float64,
    "reference": pl.String,
    "percent_of_data": pl.Float64,
    "improvement": pl.Float64,
    "improvement_low": pl.Float64,
    "improvement_high": pl.Float64,
    **REWARD_SCHEMA,
}
OPTIONAL = (IMPROVEMENT, tuple(REWARD_PATHS))
"""Columns that people are not shown where no row has any of them."""
RUNS_SCHEMA: dict[str, Any] = {
    "run": pl.String,
    **KEY_SCHEMA,
    "seed": pl.Int64,
    "transitions": pl.Int64,
    "updates": pl.Int64,
    "seconds": pl.Float64,
    "episodes": pl.Int64,
    "return_mean": pl.Float64,
    "return_std": pl.Float64,
    "length_mean": pl.Float64,
    "score": pl.Float64,
    "reference": pl.String,
    "percent_of_data": pl.Float64,
    **REWARD_SCHEMA,
    "within_source_pearson": pl.Float64,
}


def summary_table(results: Sequence[RunResult]) -> pl.DataFrame:
    """One row per dataset, method, demos, subsample and, where runs differ in them, settings. Null: not known.

    `return_mean` and `return_iqm` are over the seeds' mean returns, `return_low` and `return_high` the IQM's
    95 % interval (null with one seed), `percent_of_data` relates `return_mean` to the dataset's own (null
    unless that is positive), `improvement` is the probability that a run beats one of cloning on the same task (null
    for cloning). Scores of several references are never averaged: `score_iqm` is then null and `reference` "mixed".
    Correlations are means over seeds.
    """
    groups = grouped(results)
    found = variants(groups)
    return pl.DataFrame([_summary(group) | _improvement(group, found) for group in groups], schema=SUMMARY_SCHEMA)


def runs_table(results: Sequence[RunResult]) -> pl.DataFrame:
    """One row a run, in the order of `summary_table` and then by seed; null where a stage was not run."""
    rows = [_run(group, run) for group in grouped(results) for run in group.runs]
    return pl.DataFrame(rows, schema=RUNS_SCHEMA)


def as_markdown(table: pl.DataFrame) -> str:
    """The table in Markdown, numbers to the right, '-' for null."""
    shown = cells(table)
    rule = ["---:" if numeric else "---" for numeric in shown.numeric]
    escaped = [[_markdown_cell(cell) for cell in row] for row in [shown.headers, rule, *shown.rows]]
    return "\n".join(f"| {' | '.join(row)} |" for row in escaped)


def as_csv(table: pl.DataFrame) -> str:
    """The table as CSV. A text that a spreadsheet would run as a formula is quoted with an apostrophe."""
    texts = [
        pl.when(pl.col(name).str.contains(r"^[=+\-@\t\r]"))
        .then(pl.lit("'") + pl.col(name))
        .otherwise(pl.col(name))
        .alias(name)
        for name, kind in table.schema.items()
        if kind == pl.String
    ]
    return table.with_columns(texts).write_csv()


def _markdown_cell(text: str) -> str:
    """A name as it is: neither markup nor HTML of its own, on one line."""
    plain = " ".join(text.split())
    for sign in ("|", "`", "]("):
        plain = plain.replace(sign, f"\\{sign}")
    return plain.replace("<", "&lt;").replace(">", "&gt;")


def as_text(table: pl.DataFrame, width: int = TEXT_WIDTH) -> str:
    """The table in plain aligned lines of at most `width` characters, '-' for null.

    What does not fit beside the rest follows in a further part that repeats what names the row; names that
    fill more than two thirds of a line are shortened, different ones staying different. Optional columns are left out
    where no run has any of them.
    """
    return aligned(cells(without_empty(table)), width)


def without_empty(table: pl.DataFrame) -> pl.DataFrame:
    """The table without the optional columns that no row fills."""
    for names in OPTIONAL:
        present = [name for name in names if name in table.columns]
        if all(table[name].null_count() == table.height for name in present):
            table = table.drop(present)
    return table


def _summary(group: Group) -> dict[str, Any]:
    means = [evaluation["return_mean"] for evaluation in group.evaluations]
    interval = interval95(means) or (None, None)
    comparable = len(group.references) == 1 and None not in group.references
    scores: list[Any] = [evaluation.get("score") for evaluation in group.evaluations] if comparable else []
    mean = float(np.mean(means)) if means else None
    return {
        **_keys(group),
        "seeds": len({run.seed for run in group.runs}),
        "episodes": sum(evaluation["episodes"] for evaluation in group.evaluations) if means else None,
        "return_mean": mean,
        "return_iqm": interquartile_mean(means) if means else None,
        "return_low": interval[0],
        "return_high": interval[1],
        "score_iqm": interquartile_mean(scores) if scores and None not in scores else None,
        "reference": "mixed" if len(group.references) > 1 else next(iter(group.references), None),
        "percent_of_data": _mean([percent_of_data(run) for run in group.runs]),
        **{name: _mean([_pearson(reward, name) for reward in group.rewards]) for name in REWARD_PATHS},
    }


def _run(group: Group, run: RunResult) -> dict[str, Any]:
    evaluation, reward = run.evaluation or {}, run.reward or {}
    told = {key: run.manifest.get(key) for key in ("transitions", "updates", "seconds")}
    stage = ("episodes", "return_mean", "return_std", "length_mean", "score", "reference")
    return {
        "run": run.run,
        **_keys(group),
        "seed": run.seed,
        **told,
        **{key: evaluation.get(key) for key in stage},
        "percent_of_data": percent_of_data(run),
        **{name: _pearson(reward, name) for name in REWARD_PATHS},
        "within_source_pearson": reward.get("within_source", {}).get("pearson"),
    }


def _keys(group: Group) -> dict[str, Any]:
    return {name: getattr(group, name) for name in KEY_SCHEMA}


def _improvement(group: Group, others: Sequence[Variant]) -> dict[str, float | None]:
    """Against the cloning of the group's own task."""
    name = next(other.name for other in others if other.groups.get(task_of(group)) is group)
    found = improvement(Variant(name, {task_of(group): group}), others)
    return figures(found and found[0], IMPROVEMENT)


def _pearson(reward: dict[str, Any], name: str) -> float | None:
    for key in REWARD_PATHS[name]:
        reward = reward.get(key, {})
    return reward.get("pearson")


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return float(np.mean(present)) if present else None

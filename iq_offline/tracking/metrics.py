"""Which figures of a run the store shows: few, and under the same names whatever the method."""

import hashlib
import math
import re
from collections.abc import Mapping
from typing import Any

import polars as pl

Point = tuple[str, float, int]
"""(metric, value, step)"""

TRAINING = (
    "loss",
    "held_out_cloning_loss",
    "action_error",
    "policy_entropy",
    "expert_q",
    "policy_q",
    "expert_value",
    "expert_reward",
)
"""All others are in metrics.parquet, which goes along as a file: MLflow draws a chart a metric."""
PRIOR = "prior_"
SUMMARY_SUFFIXES = ("_mean", "_iqm", "_low", "_high")
LONGEST_NAME = 200
"""Of a metric, in characters; MLflow admits 250."""


def training_points(step: int, metrics: Mapping[str, float]) -> list[Point]:
    """The mirrored metrics of one step.

    A prior's metrics are those of the policy that is being trained, and go under the same names; its loss, which is
    another objective than the method's, is left out.
    """
    shown = {name.removeprefix(PRIOR): value for name, value in metrics.items() if name != f"{PRIOR}loss"}
    return [(f"train/{name}", shown[name], step) for name in TRAINING if name in shown]


def recorded_points(table: pl.DataFrame) -> list[Point]:
    """The mirrored metrics of metrics.parquet."""
    points: list[Point] = []
    for row in table.iter_rows(named=True):
        present = {name: value for name, value in row.items() if name != "step" and value is not None}
        points += training_points(row["step"], present)
    return points


def evaluation_metrics(evaluation: Mapping[str, Any]) -> dict[str, float | None]:
    """The few figures of an evaluation that are compared across runs."""
    return {f"eval/{key}": evaluation[key] for key in ("return_mean", "return_std", "length_mean", "score")}


def reward_metrics(reward: Mapping[str, Any]) -> dict[str, float | None]:
    """The few figures of a reward recovery that are compared across runs."""
    levels = ("transition", "episode", "within_source", "null_length", "null_bc", "null_linear")
    present = [level for level in levels if level in reward]
    return {f"reward/{level}_{kind}": reward[level][kind] for level in present for kind in ("pearson", "spearman")}


def summary_figures(summary: pl.DataFrame) -> dict[str, float]:
    """A comparison's rows as metrics: `summary/ROW/COLUMN` for each mean, IQM and end of an interval."""
    columns = [
        name
        for name in summary.columns
        if name.startswith(("return_", "score_", "improvement"))
        and (name.endswith(SUMMARY_SUFFIXES) or "_" not in name)
    ]
    return {
        f"summary/{_row_name(row)}/{column}": float(row[column])
        for row in summary.iter_rows(named=True)
        for column in columns
        if row[column] is not None and math.isfinite(row[column])
    }


def _row_name(row: Mapping[str, Any]) -> str:
    """A row of the summary as part of a metric's name, in the characters that MLflow admits."""
    demos = "all" if row["demos"] is None else row["demos"]
    text = f"{row['dataset']} {row['method']} {demos}x{row['subsample']} {row['settings'] or ''}"
    name = re.sub(r"[^\w.: -]", "_", text).strip()
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[:LONGEST_NAME]} {hashlib.sha256(text.encode()).hexdigest()[:6]}"


def flat_params(content: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A nested mapping as MLflow parameters: dotted keys, text values."""
    flat: dict[str, str] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            flat |= flat_params(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = str(value)
    return flat

"""Which figures of a run the store shows: few, and under the same names whatever the method."""

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
    "training_return",
    "evaluation_return",
)
"""All others are in metrics.parquet, which goes along as a file: MLflow draws a chart a metric."""
PRIOR = "prior_"


def training_points(step: int, metrics: Mapping[str, float]) -> list[Point]:
    """The mirrored metrics of one step.

    A run that acts has them over its environment steps. A prior's metrics are those of the policy that is being
    trained, and go under the same names; its loss, which is another objective than the method's, is left out.
    """
    shown = {name.removeprefix(PRIOR): value for name, value in metrics.items() if name != f"{PRIOR}loss"}
    clock = int(metrics.get("environment_steps", step))
    return [(f"train/{name}", shown[name], clock) for name in TRAINING if name in shown]


def recorded_points(table: pl.DataFrame) -> list[Point]:
    """The mirrored metrics of metrics.parquet."""
    points: list[Point] = []
    for row in table.iter_rows(named=True):
        present = {name: value for name, value in row.items() if name != "step" and value is not None}
        points += training_points(row["step"], present)
    return points


def flat_params(content: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A nested mapping as MLflow parameters: dotted keys, text values."""
    flat: dict[str, str] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            flat |= flat_params(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = str(value)
    return flat

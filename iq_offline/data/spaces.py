"""Action spaces as plain numbers, so that nothing below evaluation needs Gymnasium's objects."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class DiscreteActions:
    """Actions 0 .. count-1."""

    count: int

    @property
    def width(self) -> int:
        """Columns that one action takes in a packed table."""
        return 1

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `action_space_from_json` reads."""
        return {"type": "discrete", "count": self.count}


@dataclass(frozen=True)
class ContinuousActions:
    """A box of real actions, with finite bounds low <= high for each of its dimensions."""

    low: tuple[float, ...]
    high: tuple[float, ...]
    source: str
    """Where the bounds come from: dataset, environment, unit (all data within -1 and 1) or data (their range)."""

    @property
    def width(self) -> int:
        """Columns that one action takes in a packed table."""
        return len(self.low)

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `action_space_from_json` reads."""
        return {"type": "continuous", "low": list(self.low), "high": list(self.high), "source": self.source}


ActionSpace = DiscreteActions | ContinuousActions


def action_space_from_json(content: dict[str, Any]) -> ActionSpace:
    """The action space that `to_json` described."""
    if content["type"] == "discrete":
        return DiscreteActions(int(content["count"]))
    return ContinuousActions(tuple(content["low"]), tuple(content["high"]), content["source"])


def infer_action_space(actions: NDArray[Any], declared: ActionSpace | None) -> ActionSpace:
    """The declared space where there is one, else one that fits the recorded actions, shape (N,) or (N, A).

    Integer actions are discrete. Real ones get the bounds -1 and 1 where all lie within, else their range.
    """
    if declared is not None:
        return declared
    if np.issubdtype(actions.dtype, np.integer):
        return DiscreteActions(int(actions.max()) + 1)
    flat = actions.reshape(len(actions), -1)
    low, high = flat.min(axis=0), flat.max(axis=0)
    if low.min() >= -1 and high.max() <= 1:
        return ContinuousActions((-1.0,) * flat.shape[1], (1.0,) * flat.shape[1], "unit")
    span = np.where(high > low, high, low + 1.0)
    return ContinuousActions(tuple(map(float, low)), tuple(map(float, span)), "data")

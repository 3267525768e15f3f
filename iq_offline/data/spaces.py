"""Action spaces as plain numbers, so that nothing below evaluation needs Gymnasium's objects."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST_BOUND = float(np.finfo(np.float32).max) / 2
"""A wider range is beyond 32-bit floats: no bound that anyone meant."""


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
    """A box of real actions, with bounds low <= high for each of its dimensions.

    They are finite, but for what a source declares.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    source: str
    """Where the bounds come from: dataset, environment, unit (all data within -1 and 1), data (their range), or the
    first two with '+data', where only some are declared."""

    @property
    def width(self) -> int:
        """Columns that one action takes in a packed table."""
        return len(self.low)

    @property
    def bounded(self) -> bool:
        """Whether all bounds are finite."""
        return bool(np.isfinite([*self.low, *self.high]).all())

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `action_space_from_json` reads."""
        return {"type": "continuous", "low": list(self.low), "high": list(self.high), "source": self.source}


ActionSpace = DiscreteActions | ContinuousActions


def action_space_from_json(content: dict[str, Any]) -> ActionSpace:
    """The action space that `to_json` described."""
    if content["type"] == "discrete":
        return DiscreteActions(int(content["count"]))
    return ContinuousActions(tuple(content["low"]), tuple(content["high"]), content["source"])


def declared_box(low: NDArray[Any], high: NDArray[Any], source: str) -> ContinuousActions | None:
    """The box that a source declares, shape (A,); None where no bound of it is finite."""
    low, high = (np.where(np.abs(side) < LARGEST_BOUND, side, sign * np.inf) for side, sign in ((low, -1), (high, 1)))
    if not np.isfinite([low, high]).any():
        return None
    return ContinuousActions(tuple(map(float, low)), tuple(map(float, high)), source)


def infer_action_space(actions: NDArray[Any], declared: ActionSpace | None) -> ActionSpace:
    """The declared space where there is one, else one that fits the recorded actions, shape (N,) or (N, A).

    Integer actions are discrete. Real ones get the bounds -1 and 1 where all lie within, else their range. So does
    each dimension of which only one bound is declared, or none.
    """
    if isinstance(declared, ContinuousActions) and not declared.bounded:
        return _completed(declared, actions)
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


def _completed(declared: ContinuousActions, actions: NDArray[Any]) -> ContinuousActions:
    """The declared bounds, and where one is infinite, one that the data give: -1 or 1, or the data's own."""
    low, high = np.array(declared.low), np.array(declared.high)
    has_low, has_high = np.isfinite(low), np.isfinite(high)
    least, greatest = actions.min(axis=0).astype(np.float64), actions.max(axis=0).astype(np.float64)
    unit = (least >= -1) & (greatest <= 1)
    low = np.where(has_low, low, np.where(unit, -1.0, least))
    high = np.where(has_high, high, np.where(unit, 1.0, greatest))
    high = np.where(has_high | (high > low), high, low + 1.0)
    low = np.where(has_low | (high > low), low, high - 1.0)
    return ContinuousActions(tuple(low.tolist()), tuple(high.tolist()), f"{declared.source}+data")


def bounds_note(declared: ActionSpace | None, space: ActionSpace) -> str | None:
    """A sentence about bounds that were inferred beside declared ones; None where none were."""
    if not isinstance(declared, ContinuousActions) or declared.bounded or not isinstance(space, ContinuousActions):
        return None
    finite = np.isfinite([declared.low, declared.high]).all(axis=0)
    told = ", ".join(f"{n}: {space.low[n]:.6g} to {space.high[n]:.6g}" for n in np.flatnonzero(~finite).tolist())
    return (
        f"the declared action space has infinite bounds: finite ones are kept, others are the data's (dimension {told})"
    )

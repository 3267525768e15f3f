"""The divergence alarm: stops a run that has come apart, and says what, since when, and what to try."""

import math
from collections.abc import Sequence

from iq_offline.errors import TrainingDiverged

WATCHED = {
    "expert_q": "the expert's mean Q",
    "expert_value": "the expert's mean V",
    "supplementary_q": "the supplementary data's mean Q",
    "supplementary_value": "the supplementary data's mean V",
}
"""The metrics that are values where data are."""


class DivergenceAlarm:
    """Watches the metrics of one learner as they are logged.

    It stops at the first metric that is not finite, and where the mean |Q| of the expert's or the supplementary
    actions, or the mean |V| of their observations, has passed `largest` in `patience` logged steps running: with
    rewards drawn to at most 2c no true value is beyond 2c / (1 - gamma), so values far beyond are the bootstrap's own
    making, the entropy's, or those of a loss that has no least value where no penalty reaches.
    """

    def __init__(self, largest: float | None, remedy: str, patience: int = 3, before: int = 0) -> None:
        """`before`: updates of the run that came before the learner's own, so that the message counts them."""
        self._largest, self._remedy, self._patience, self._before = largest, remedy, patience, before
        self._since: int | None = None
        self._count = 0

    def recall(self, rows: Sequence[dict[str, float]]) -> None:
        """See the logged metrics of a run that goes on, from before it was cut off."""
        for row in rows:
            if "expert_q" in row:
                self.check(int(row["step"]) - self._before, row)

    def check(self, step: int, metrics: dict[str, float]) -> None:
        """Raises TrainingDiverged."""
        step += self._before
        for name, value in metrics.items():
            if not math.isfinite(value):
                self._stop(f"{name} is {value} at update {step}", step)
        seen = [name for name in WATCHED if name in metrics]
        worst = max(seen, key=lambda name: abs(metrics[name]), default=None)
        if self._largest is None or worst is None or abs(metrics[worst]) <= self._largest:
            self._since, self._count = None, 0
            return
        self._since = self._since or step
        self._count += 1
        if self._count >= self._patience:
            self._stop(
                f"{WATCHED[worst]} is {metrics[worst]:.4g} at update {step}, beyond {self._largest:g}", self._since
            )

    def _stop(self, what: str, since: int) -> None:
        raise TrainingDiverged(f"training diverged: {what} (since update {since})", self._remedy)

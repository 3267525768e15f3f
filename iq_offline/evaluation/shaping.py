"""How alike two rewards are when potential-based shaping does not count.

Adding gamma * potential(s') - potential(s) to a reward changes no optimal policy [NHR99], and it is what an inverse
method can never pin down. Here the shaping is taken out of both rewards by least squares, over potentials that are
linear in given features: what is left is compared. With one feature for each observation of a small problem
this is exact; for real data it takes out what these features can express.

EPIC [EPIC21] compares by the same formula, but makes rewards canonical by expectations over a
distribution of transitions that recorded data do not offer; hence "EPIC-like".

[NHR99] Ng, Harada and Russell, Policy invariance under reward transformations, ICML 1999. [EPIC21] Gleave et al.,
Quantifying Differences in Reward Functions, ICLR 2021 (2006.13900).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

RANDOM_FEATURES = 128
"""Beside the observation itself."""
MIN_EIGENVALUE = 1e-11
"""Directions of the scaled features with less than this share of the largest eigenvalue count as collinear."""
MIN_VARIATION = 1e-11
"""A column whose variance is no more than this share of its mean square is constant to rounding."""
MIN_SHARE = 1e-10
"""A reward of which shaping leaves no more than this share of its variance is shaping alone; rounding leaves 1e-15."""


class PotentialFeatures:
    """Features of potentials: a constant, the standardised observation, and random tanh units of it, seeded.

    The constant is a potential like any other: where episodes terminate, shaping by it adds a reward for the last step.
    The observation is clipped. What clipping cuts off is a feature of its own, so that potentials that are linear in an
    observation far from the demonstrations are among them, too.
    """

    def __init__(self, size: int, units: int = RANDOM_FEATURES, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self._weights = rng.normal(size=(size, units)) / np.sqrt(size)
        self._offsets = rng.normal(size=units)

    def __call__(self, clipped: Floats, cut_off: Floats) -> Floats:
        """The standardised observation within its clip, (N, D), and beyond, (N, E) -> (N, 1 + D + units + E)."""
        units = np.tanh(clipped @ self._weights + self._offsets)
        return np.concatenate([np.ones((len(clipped), 1)), clipped, units, cut_off], axis=1)


@dataclass
class ShapingFree:
    """Sums that grow by batches of transitions; then the correlation of two rewards without shaping."""

    gamma: float
    moments: Floats | None = None
    origin: Floats | None = None
    """The first rewards (R,), from which all are counted: a great offset would cost the last digits."""
    n: int = 0

    def add(self, features: Floats, next_features: Floats, terminations: Floats, rewards: Floats) -> None:
        """Transitions; rewards are columns, true first. Shapes: (N, F), (N, F), (N,), (N, R)."""
        shaping = self.gamma * (1 - terminations)[:, None] * next_features - features
        self.origin = rewards[0].astype(np.float64) if self.origin is None else self.origin
        rows = np.concatenate([np.ones((len(rewards), 1)), shaping, rewards - self.origin], axis=1).astype(np.float64)
        self.moments = rows.T @ rows + (0 if self.moments is None else self.moments)
        self.n += len(rows)

    def correlations(self, count: int) -> list[float | None]:
        """Of the first of the last `count` columns with each of the others; None where one is shaping alone.

        Raises ValueError before any batch.
        """
        if self.moments is None:
            raise ValueError("no transitions were added")
        sums = self.moments[0]
        centred = (self.moments - np.outer(sums, sums) / self.n)[1:, 1:]
        basis, left, total = centred[:-count, :-count], centred[:-count, -count:], centred[-count:, -count:]
        varies = np.diag(centred) > MIN_VARIATION * np.diag(self.moments)[1:]
        residual = total - left.T @ _solved(basis, left, varies[:-count])
        kept = (np.diag(residual) > MIN_SHARE * np.diag(total)) & varies[-count:]
        return [
            float(np.clip(residual[0, i] / np.sqrt(residual[0, 0] * residual[i, i]), -1, 1))
            if kept[0] and kept[i]
            else None
            for i in range(1, count)
        ]


def _solved(moments: Floats, left: Floats, varies: NDArray[np.bool_]) -> Floats:
    """The least-squares solution of moments @ x = left, without directions that the data do not tell apart.

    Zero where a column of the moments does not vary. Shapes: (F, F), (F, R), (F,) -> (F, R).
    """
    scale = np.where(varies, 1 / np.sqrt(np.where(varies, np.diag(moments), 1.0)), 0.0)
    values, vectors = np.linalg.eigh(moments * np.outer(scale, scale))
    kept = values > MIN_EIGENVALUE * values[-1]
    found: Floats = (vectors[:, kept] / values[kept]) @ (vectors[:, kept].T @ (scale[:, None] * left))
    return scale[:, None] * found


def epic_like_distance(correlation: float | None) -> float | None:
    """sqrt((1 - correlation) / 2), [EPIC21]: 0 for equal rewards, 0.71 for unrelated, 1 for opposite ones."""
    return None if correlation is None else float(np.sqrt(max(1 - correlation, 0.0) / 2))

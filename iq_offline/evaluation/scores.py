"""Scores from returns, always with the name of their reference; interquartile means and bootstrap intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap, trim_mean

BOOTSTRAP_SAMPLES = 2000
BOOTSTRAP_SEED = 0


@dataclass(frozen=True)
class ScoreReference:
    """The returns that score 0 and 100, and the table that they come from: d4rl, minari or dataset."""

    name: str
    random: float
    expert: float

    def score(self, episode_return: float) -> float | None:
        """0 at the random policy's return, 100 at the expert's; None where these are equal."""
        if self.expert == self.random:
            return None
        return 100 * (episode_return - self.random) / (self.expert - self.random)


def interquartile_mean(values: Sequence[float]) -> float:
    """Mean of the middle half of the values (25 % cut from each end)."""
    return float(trim_mean(np.asarray(values, dtype=float), 0.25))


def interval95(values: Sequence[float]) -> tuple[float, float] | None:
    """95 % percentile-bootstrap interval of the interquartile mean, seeded; None for fewer than two values."""
    if len(values) < 2:
        return None
    result = bootstrap(
        (np.asarray(values, dtype=float),),
        lambda sample, axis: trim_mean(sample, 0.25, axis=axis),
        n_resamples=BOOTSTRAP_SAMPLES,
        method="percentile",
        rng=np.random.default_rng(BOOTSTRAP_SEED),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)

"""Scores from returns, always with the name of their reference; interquartile means and bootstrap intervals."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap, trim_mean

from iq_offline.data.catalogue import catalogue

BOOTSTRAP_SAMPLES = 2000
BOOTSTRAP_SEED = 0
BATCH = 100
"""Resamples that are held in memory at once."""

Floats = NDArray[np.floating[Any]]


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


def reference_of(dataset: Mapping[str, Any]) -> ScoreReference | None:
    """The catalogue's for a manifest's dataset, found by the hash of its bytes; else what the data carry themselves."""
    for entry in catalogue().values():
        same = entry.sha256 is not None and entry.sha256 in (dataset["sha256"], dataset["origin_sha256"])
        if same and entry.reference:
            return ScoreReference(entry.reference.name, entry.reference.random, entry.reference.expert)
    return ScoreReference(*dataset["reference"]) if dataset["reference"] else None


def interquartile_mean(values: Sequence[float]) -> float:
    """Mean of the middle half of the values (25 % cut from each end)."""
    return float(trim_mean(np.asarray(values, dtype=float), 0.25))


def interval95(values: Sequence[float]) -> tuple[float, float] | None:
    """95 % percentile-bootstrap interval of the interquartile mean, seeded; None for fewer than two values."""
    return bootstrap95([np.asarray(values, dtype=float)], lambda sample, axis: trim_mean(sample, 0.25, axis=axis))


def bootstrap95(samples: Sequence[Floats], statistic: Callable[..., Any]) -> tuple[Any, Any] | None:
    """95 % percentile-bootstrap interval of statistic(*samples, axis=-1), seeded; None where one has fewer than two.

    Each sample's last axis is drawn anew, with replacement.
    """
    if min(sample.shape[-1] for sample in samples) < 2:
        return None
    result = bootstrap(
        samples,
        statistic,
        n_resamples=BOOTSTRAP_SAMPLES,
        batch=BATCH,
        vectorized=True,
        axis=-1,
        method="percentile",
        rng=np.random.default_rng(BOOTSTRAP_SEED),
    )
    return result.confidence_interval.low, result.confidence_interval.high

"""Recovered reward against true reward: correlations by transition, by episode and within each source."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import pearsonr, spearmanr

Floats = NDArray[np.floating[Any]]

CAPPED_AT = 5.0
"""Largest squared error, in units of 2 std^2, that the cloning null tells apart."""


@dataclass(frozen=True)
class Correlation:
    """Pearson and Spearman correlation of n pairs; None where either side is constant or n < 3."""

    pearson: float | None
    spearman: float | None
    n: int

    def to_json(self) -> dict[str, Any]:
        """The object that `reward --json` prints."""
        return {"pearson": self.pearson, "spearman": self.spearman, "n": self.n}


def correlate(true: Floats, recovered: Floats) -> Correlation:
    """Correlation of two vectors of one length."""
    n = len(true)
    if n < 3 or np.ptp(true) == 0 or np.ptp(recovered) == 0:
        return Correlation(None, None, n)
    return Correlation(float(pearsonr(true, recovered)[0]), float(spearmanr(true, recovered)[0]), n)


def reward_report(transitions: pl.DataFrame) -> dict[str, Any]:
    """The correlations of DESIGN's `reward` object.

    `transitions` has one row a step: source, episode, true, recovered, null_bc. An episode's value is the
    undiscounted sum over its steps; `null_length` sets the episode's length in place of the recovered return;
    `within_source` is the mean over sources of each source's own correlation, listed under `sources`.
    """
    episodes = transitions.group_by("source", "episode", maintain_order=True).agg(
        pl.col("true", "recovered", "null_bc").sum(), pl.len().alias("length")
    )
    return {
        "transition": _of(transitions, "recovered"),
        "episode": _of(episodes, "recovered"),
        "within_source": _within(transitions, episodes),
        "null_length": _of(episodes, "length"),
        "null_bc": _of(transitions, "null_bc") | {"episode": _of(episodes, "null_bc")},
    }


def cloning_null(squared_error: Floats, std: float) -> Floats:
    """A reward that knows no dynamics: 1 where the clone's action is the recorded one, 0 from the cap on.

    `squared_error`: |policy(s) - a|^2 in scaled actions, shape (N,); `std` the policy's.
    """
    capped: Floats = np.minimum(CAPPED_AT, squared_error / (2 * std**2))
    return 1 - capped / CAPPED_AT


def _of(frame: pl.DataFrame, candidate: str) -> dict[str, Any]:
    return correlate(frame["true"].to_numpy(), frame[candidate].to_numpy().astype(float)).to_json()


def _within(transitions: pl.DataFrame, episodes: pl.DataFrame) -> dict[str, Any]:
    sources = {
        name: {
            "transition": _of(transitions.filter(pl.col("source") == name), "recovered"),
            "episode": _of(episodes.filter(pl.col("source") == name), "recovered"),
        }
        for name in transitions["source"].unique(maintain_order=True)
    }
    mean = {kind: _mean([entry["transition"][kind] for entry in sources.values()]) for kind in ("pearson", "spearman")}
    return mean | {"n": len(transitions), "sources": sources}


def _mean(values: list[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return float(np.mean(present)) if present else None

"""Statistics of several runs on several tasks: stratified intervals, probability of improvement, performance profiles.

A sample is a list of strata, one a task, each with one number a run. Every interval is a seeded percentile bootstrap
that draws runs anew within each task and never across tasks [AG21]; it says nothing of tasks that were not run.

[AG21] Agarwal et al., Deep Reinforcement Learning at the Edge of the Statistical Precipice, NeurIPS 2021 (2108.13264).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import trim_mean

from iq_offline.evaluation.scores import Floats, bootstrap95

Strata = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval; no interval where a task has fewer than two runs."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Profile:
    """Share of runs above each threshold, shape (T,), and the band of its pointwise 95 % intervals, if there is one."""

    thresholds: Floats
    shares: Floats
    low: Floats | None
    high: Floats | None


def mean(strata: Strata) -> Estimate:
    """Mean over all runs of all tasks."""
    return _estimate(_arrays(strata), lambda *samples, axis: np.concatenate(samples, axis=axis).mean(axis=axis))


def stratified_iqm(strata: Strata) -> Estimate:
    """Mean of the middle half of all runs of all tasks: a quarter is cut from each end, in whole runs."""
    return _estimate(
        _arrays(strata), lambda *samples, axis: trim_mean(np.concatenate(samples, axis=axis), 0.25, axis=axis)
    )


def probability_of_improvement(first: Strata, second: Strata) -> Estimate:
    """Probability that a run of `first` beats one of `second` on the same task, a tie counting half; mean over tasks.

    Both list the same tasks in the same order; numbers of runs may differ. On one task it is Mann and Whitney's
    U / (n m). Tasks weigh equally. 0.5: neither is better. Raises ValueError where the tasks do not pair.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} tasks against {len(second)}")
    pairs = [sample for pair in zip(_arrays(first), _arrays(second), strict=True) for sample in pair]
    return _estimate(pairs, lambda *samples, axis: _superiority(samples, axis))


def performance_profile(strata: Strata, thresholds: Floats) -> Profile:
    """Share of a task's runs strictly above each threshold, mean over tasks: tasks weigh equally."""
    samples = _arrays(strata)

    def shares(*drawn: Floats, axis: int) -> Floats:
        assert axis == -1
        return np.asarray(np.mean([_shares_above(one, thresholds) for one in drawn], axis=0))

    return Profile(thresholds, shares(*samples, axis=-1), *(bootstrap95(samples, shares) or (None, None)))


def _shares_above(sample: Floats, thresholds: Floats) -> Floats:
    """Share of the last axis above each of the ascending thresholds. Shapes: (..., n) to (T, ...)."""
    rows, n, levels = sample.shape[:-1], sample.shape[-1], len(thresholds) + 1
    passed = np.searchsorted(thresholds, sample.reshape(-1, n), "left")
    places = passed + np.arange(len(passed))[:, None] * levels
    counts = np.bincount(places.ravel(), minlength=len(passed) * levels).reshape(len(passed), levels)
    above = counts[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
    return np.asarray((above / n).T.reshape(-1, *rows))


def _superiority(samples: Sequence[Floats], axis: int) -> Floats:
    tasks = []
    for x, y in zip(samples[::2], samples[1::2], strict=True):
        tasks.append(_share_of_wins(np.moveaxis(x, axis, -1), np.moveaxis(y, axis, -1)))
    return np.asarray(np.mean(tasks, axis=0))


def _share_of_wins(x: Floats, y: Floats) -> Floats:
    """Share of pairs in which x is larger, a tie counting half. Shapes: (..., n), (..., m) to (...).

    Values become ranks, so that one search in sorted integers serves all rows: n log m steps a row instead of n m.
    """
    n, m, rows = x.shape[-1], y.shape[-1], x.shape[:-1]
    ranks = np.unique(np.concatenate([x, y], axis=-1), return_inverse=True)[1].reshape(-1, n + m)
    keys = ranks + np.arange(len(ranks))[:, None] * (int(ranks.max()) + 1)
    sought, ordered = keys[:, :n], np.sort(keys[:, n:], axis=-1).ravel()
    # Among all rows' keys: those of earlier rows are smaller, and are counted in both.
    both = np.searchsorted(ordered, sought, "left") + np.searchsorted(ordered, sought, "right")
    wins = 0.5 * both.sum(axis=-1) - n * m * np.arange(len(ranks))
    return np.asarray((wins / (n * m)).reshape(rows))


def _estimate(samples: Sequence[Floats], statistic: Callable[..., Any]) -> Estimate:
    return Estimate(float(statistic(*samples, axis=-1)), *map(float, bootstrap95(samples, statistic) or ()))


def _arrays(strata: Strata) -> list[Floats]:
    """Raises ValueError where a task has no run, or there is no task."""
    arrays = [np.asarray(stratum, dtype=float) for stratum in strata]
    if not arrays or any(len(array) == 0 for array in arrays):
        raise ValueError("every task needs a run, and there must be a task")
    return arrays

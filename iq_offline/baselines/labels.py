"""Rewards from demonstrations, for transitions that have none: pure functions of arrays."""

import numpy as np
from numpy.typing import NDArray

from iq_offline.baselines.distances import Floats, nearest_distances
from iq_offline.config.baselines import OTRConfig, SEABOConfig
from iq_offline.errors import PackageMissing

SMALLEST_NORM = 1e-12
"""A shorter observation has no direction: its cosine with any other is 0."""


def seabo_rewards(config: SEABOConfig, triples: Floats, demonstrated: Floats, action_size: int) -> Floats:
    """scale * exp(-decay * d / |A|), d the distance to the nearest demonstrated (s, a, s'); [SEABO24] sec. 4.

    Shapes: (N, F), (M, F) -> (N,). Largest at a demonstration: `scale`.
    """
    rewards: Floats = config.scale * np.exp(-config.decay * nearest_distances(triples, demonstrated) / action_size)
    return rewards


def otr_rewards(config: OTRConfig, episode: Floats, demonstrations: list[Floats]) -> Floats:
    """scale * exp(-decay * c) of each step of an episode; [OTR23] algorithm 1.

    c is the step's cost in the transport to that demonstration which the whole episode reaches at least cost.
    Shapes: (T, D), each (T_k, D) -> (T,). Raises PackageMissing without POT.
    """
    costs = [transport_costs(config, episode, evenly(steps, config.demonstration_steps)) for steps in demonstrations]
    nearest = min(costs, key=lambda cost: float(cost.mean()))
    rewards: Floats = config.scale * np.exp(-config.decay * nearest)
    return rewards


def transport_costs(config: OTRConfig, episode: Floats, demonstration: Floats) -> Floats:
    """Mean cosine cost of each step's mass under the entropic optimal plan, in [0, 2]. Shapes: (T, D), (S, D) -> (T,).

    Both sides have uniform mass. The plan's rows are normalised, so a cost does not depend on the episode's length,
    and a plan that is not quite there after the last iteration gives costs of the right size.
    """
    costs = cosine_costs(episode, demonstration)
    # What a whole row is shifted by changes no plan, and keeps exp(-cost / regularisation) from vanishing.
    shifted = costs - costs.min(axis=1, keepdims=True)
    plan = _sinkhorn(shifted, config.regularisation, config.iterations)
    mean: Floats = (plan * costs).sum(axis=1) / plan.sum(axis=1)
    return mean


def cosine_costs(first: Floats, second: Floats) -> Floats:
    """1 - cosine of each pair of rows. Shapes: (T, D), (S, D) -> (T, S)."""
    lengths = [np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), SMALLEST_NORM) for rows in (first, second)]
    costs: Floats = 1 - (first / lengths[0]) @ (second / lengths[1]).T
    return costs.clip(0, 2)


def evenly(steps: Floats, most: int) -> Floats:
    """At most so many rows, evenly spread from the first to the last. Shapes: (T, D) -> (min(T, most), D)."""
    if len(steps) <= most:
        return steps
    return steps[np.linspace(0, len(steps) - 1, most).round().astype(np.int64)]


def uds_rewards(steps: int, *, expert: bool) -> Floats:
    """1 for each demonstrated step, 0 for each supplementary one; [UDS22] sec. 4, for which the latter is the least."""
    return np.full(steps, float(expert))


def _sinkhorn(costs: Floats, regularisation: float, iterations: int) -> Floats:
    try:
        import ot
    except ImportError:
        raise PackageMissing("labeller otr needs POT", "run: pip install 'iq-offline[baselines]'") from None
    rows, columns = costs.shape
    plan: NDArray[np.float64] = ot.sinkhorn(
        np.full(rows, 1 / rows),
        np.full(columns, 1 / columns),
        costs,
        regularisation,
        numItermax=iterations,
        warn=False,
    )
    return plan

"""recovery-bc: clone supplementary transitions that lead back to demonstrated states, after [ILID24].

Demonstrations show no recovery, because the demonstrator never leaves their states. Supplementary data of any policy
may hold some: stretches that start far from the demonstrated states and reach one. What was done on the way is worth
cloning, whoever did it. At demonstrated states the demonstrations themselves say what to do.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from iq_offline.baselines.distances import (
    MIN_BANDWIDTH,
    Floats,
    Scaling,
    left_out_distances,
    nearest_distances,
    similarity,
)
from iq_offline.baselines.filtering import CloningConfig, Found, Selection
from iq_offline.baselines.sources import PeerData, Recorded, recorded
from iq_offline.config.baselines import RecoveryBCConfig, RecoveryConfig
from iq_offline.training.batches import TransitionSampler
from iq_offline.training.loop import Progress, fit_clone, with_metrics


def fit_recovery(config: RecoveryBCConfig, seed: int, data: PeerData, device: torch.device) -> Iterator[Progress]:
    """Clone the demonstrations and what leads back to them; the demonstrations alone where nothing does."""
    expert = TransitionSampler(data.expert, data.split.rows, device)
    found = recoveries(config, config.cloning, data, expert)
    steps = fit_clone(found.cloning, seed, found.demonstrations, data.expert.action_space, device)
    yield from with_metrics(steps, found.metrics)


def recoveries(config: RecoveryConfig, cloning: CloningConfig, data: PeerData, expert: TransitionSampler) -> Found:
    """The demonstrations with what leads back to them beside them; `expert` alone where nothing does."""
    parts = data.supplementary_parts
    selection = Selection.of_transitions(recovery_weights(config, data, recorded(parts)), parts)
    if config.expert_share == 1 or not selection.parts:
        return Found(expert, cloning, selection.metrics)
    return Found(selection.beside(expert, config.expert_share), cloning, selection.metrics)


def recovery_weights(config: RecoveryConfig, data: PeerData, other: Recorded) -> Floats:
    """Weight of each transition of `other`: how soon it leads to demonstrated states from one that is none, (N,).

    (1 - similarity(s_t)) * max over k >= 1 of discount^(k - 1) * similarity(s_(t + k)) within the episode; less than
    `min_weight` counts as zero. Distances are in standard deviations of the demonstrated observations.
    """
    expert = recorded(data.demonstrated_parts)
    scaling = Scaling.fit([expert], data.expert.action_space)
    demonstrated = scaling.observations(np.concatenate([expert.observations, expert.next_observations]))
    numbers = np.concatenate([expert.episodes, expert.episodes])
    if len(np.unique(numbers)) == 1:  # one demonstration: a step's own two observations are no neighbours
        numbers = np.concatenate([np.arange(len(expert))] * 2)
    bandwidth = config.bandwidth * float(np.median(left_out_distances(demonstrated, numbers)))

    def similar(observations: NDArray[np.float32]) -> Floats:
        distances = nearest_distances(scaling.observations(observations), demonstrated)
        return similarity(distances, max(bandwidth, MIN_BANDWIDTH))

    after = leads_back(similar(other.next_observations), other.episode_slices(), config.discount)
    weights = (1 - similar(other.observations)) * after
    return np.where(weights < config.min_weight, 0.0, weights)


def leads_back(next_similarities: Floats, episodes: list[slice], discount: float) -> Floats:
    """max over k >= 0 of discount^k * next_similarities[t + k] within the episode. Shapes: (N,) -> (N,)."""
    found = next_similarities.copy()
    for steps in episodes:
        for step in range(steps.stop - 2, steps.start - 1, -1):
            found[step] = max(found[step], discount * found[step + 1])
    return found

"""recovery-bc: clone supplementary transitions that lead back to demonstrated states, after [ILID24].

Demonstrations show no recovery, because the demonstrator never leaves their states. Supplementary data of any policy
may hold some: stretches that start far from the demonstrated states and reach one. What was done on the way is worth
cloning, whoever did it. At demonstrated states the demonstrations themselves say what to do.
"""

from collections.abc import Iterator

import numpy as np
import torch

from iq_offline.baselines.distances import Floats, Scaling, nearest_similarities
from iq_offline.baselines.filtering import Selection
from iq_offline.baselines.sources import PeerData, Recorded, recorded
from iq_offline.config.baselines import RecoveryBCConfig
from iq_offline.training.batches import Demonstrations, TransitionSampler
from iq_offline.training.loop import Progress, fit_clone, with_metrics


def fit_recovery(config: RecoveryBCConfig, seed: int, data: PeerData, device: torch.device) -> Iterator[Progress]:
    """Clone the demonstrations and what leads back to them; the demonstrations alone where nothing does."""
    expert = TransitionSampler(data.expert, data.split.rows, device)
    demonstrations: Demonstrations = expert
    metrics: dict[str, float] = {}
    if config.expert_share < 1:
        parts = data.supplementary_parts
        selection = Selection.of_transitions(recovery_weights(config, data, recorded(parts)), parts)
        metrics = selection.metrics
        if selection.parts:
            demonstrations = selection.beside(expert, config.expert_share)
    steps = fit_clone(config.cloning, seed, demonstrations, data.expert.action_space, device)
    yield from with_metrics(steps, metrics)


def recovery_weights(config: RecoveryBCConfig, data: PeerData, other: Recorded) -> Floats:
    """Weight of each transition of `other`: how soon it leads to demonstrated states from one that is none, (N,).

    (1 - similarity(s_t)) * max over k >= 1 of discount^(k - 1) * similarity(s_(t + k)) within the episode; less than
    `min_weight` counts as zero. Distances are in standard deviations of the demonstrated observations.
    """
    expert = recorded(data.demonstrated_parts)
    scaling = Scaling.fit([expert], data.expert.action_space)
    shown = [expert.observations, expert.next_observations]
    if expert.episodes[-1] == 0:  # of a single demonstration, next observations repeat observations: no scale
        shown = shown[:1]
    similar = nearest_similarities(
        scaling.observations(np.concatenate([other.observations, other.next_observations])),
        scaling.observations(np.concatenate(shown)),
        np.tile(expert.episodes, len(shown)),
        config.bandwidth,
    )
    now, after = np.split(similar, 2)
    weights = (1 - now) * leads_back(after, other.episode_slices(), config.discount)
    return np.where(weights < config.min_weight, 0.0, weights)


def leads_back(next_similarities: Floats, episodes: list[slice], discount: float) -> Floats:
    """max over k >= 0 of discount^k * next_similarities[t + k] within the episode. Shapes: (N,) -> (N,)."""
    found = next_similarities.copy()
    for steps in episodes:
        for step in range(steps.stop - 2, steps.start - 1, -1):
            found[step] = max(found[step], discount * found[step + 1])
    return found

"""More demonstrations: supplementary episodes that are taken for such, unless held-out demonstrations speak against it.

[IQ21]'s objective asks where the expert goes and what it does there; an episode of the expert's kind among the
supplementary data answers that as a demonstration does. Finding such episodes is cloning's trick, not inverse soft-Q's.
"""

from dataclasses import dataclass

import numpy as np
import torch

from iq_offline.algorithms.networks import Policy
from iq_offline.baselines.distances import Floats, Scaling
from iq_offline.baselines.episodes import best_episodes, episode_scores
from iq_offline.baselines.screening import Verdict, screen
from iq_offline.baselines.sources import Parts, PeerData, Recorded, recorded, supplementary_rows
from iq_offline.baselines.weights import nearest_weights
from iq_offline.config.baselines import EpisodeFilterConfig, ScreenConfig
from iq_offline.config.cloning import ContinuousBCConfig, DiscreteBCConfig
from iq_offline.errors import NothingAlike
from iq_offline.training.batches import DemonstrationMixture, Demonstrations, SupplementarySampler, TransitionSampler
from iq_offline.training.loop import fit_clone

CloningConfig = ContinuousBCConfig | DiscreteBCConfig


@dataclass(frozen=True)
class Found:
    """The demonstrations with more of them, or alone where none were found or taken; and what is logged of that."""

    demonstrations: Demonstrations
    metrics: dict[str, float]


def more_demonstrations(
    config: EpisodeFilterConfig,
    cloning: CloningConfig,
    seed: int,
    data: PeerData,
    expert: TransitionSampler,
) -> Found:
    """The episodes that are most like the demonstrations, beside these; `expert` alone where the screen refuses them.

    `cloning`: how the screen's policies are cloned. Rewards are not read.
    Raises NothingAlike where nothing is like a demonstration and there is no screen to say so.
    """
    if config.expert_share == 1:
        return Found(expert, {})
    metrics = {}
    if config.screen is not None:
        verdict = _screened(config, config.screen, cloning, seed, data, expert.device)
        metrics = {"screen_accepted": 0.0} if verdict is None else verdict.metrics()
        if verdict is None or not verdict.accepted:
            return Found(expert, metrics)
    found = _filtered(config, data, expert)
    return Found(found.demonstrations, metrics | found.metrics)


def filtered_rows(config: EpisodeFilterConfig, data: PeerData) -> tuple[Parts, dict[str, float]]:
    """Rows of the chosen episodes by table, and how many there are. Raises NothingAlike."""
    parts = supplementary_rows(data)
    other = recorded(parts)
    scores = episode_scores(likenesses(config.likeness.bandwidth, data, other), other.episodes, config.short_episode)
    best = best_episodes(scores, np.bincount(other.episodes), config.transitions)
    chosen = np.isin(other.episodes, best)
    ends = np.cumsum([len(rows) for _, rows in parts])[:-1]
    kept = [
        (table, rows[here]) for (table, rows), here in zip(parts, np.split(chosen, ends), strict=True) if here.any()
    ]
    return kept, {"kept_episodes": float(len(best)), "kept_transitions": float(chosen.sum())}


def likenesses(bandwidth: float, data: PeerData, other: Recorded) -> Floats:
    """Likeness of each transition of `other` to its nearest demonstrated one. Raises NothingAlike where all are 0."""
    expert = recorded([(data.expert, data.split.rows)])
    scaling = Scaling.fit([expert, other], data.expert.action_space)
    found = nearest_weights(scaling.pairs(other), scaling.pairs(expert), expert.episodes, bandwidth)
    if not found.any():
        raise NothingAlike(
            "no supplementary transition is anything like a demonstration",
            f"name other data, or widen what is alike (--set likeness.bandwidth={4 * bandwidth:g})",
        )
    return found


def _filtered(config: EpisodeFilterConfig, data: PeerData, expert: TransitionSampler) -> Found:
    parts, metrics = filtered_rows(config, data)
    more = SupplementarySampler([TransitionSampler(table, rows, expert.device) for table, rows in parts])
    return Found(DemonstrationMixture(expert, more, config.expert_share), metrics)


def _screened(
    config: EpisodeFilterConfig,
    asked: ScreenConfig,
    cloning: CloningConfig,
    seed: int,
    data: PeerData,
    device: torch.device,
) -> Verdict | None:
    short = cloning.model_copy(update={"updates": min(asked.updates, cloning.updates)})

    def cloned(kept: PeerData, *, filtered: bool) -> Policy:
        expert = TransitionSampler(kept.expert, kept.split.rows, device)
        demonstrations = _filtered(config, kept, expert).demonstrations if filtered else expert
        *_, last = fit_clone(short, seed, demonstrations, kept.expert.action_space, device)
        return last.learner.policy

    return screen(asked, data, cloned)

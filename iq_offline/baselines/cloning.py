"""Peers that clone: all data, the better episodes, or transitions by their weight."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from iq_offline.algorithms.bc import BCLearner
from iq_offline.algorithms.learner import Stream, generator
from iq_offline.algorithms.networks import Policy
from iq_offline.baselines.distances import Floats, Scaling
from iq_offline.baselines.episodes import best_episodes, episode_scores
from iq_offline.baselines.screening import Verdict, screen
from iq_offline.baselines.sources import PeerData, Pool, drawn, joined, recorded, sizes, supplementary_rows
from iq_offline.baselines.weights import discriminator_weights, effective_share, nearest_weights
from iq_offline.batch import Batch
from iq_offline.config.baselines import (
    ContinuousCloneAllConfig,
    ContinuousFilteredBCConfig,
    ContinuousWeightedBCConfig,
    DiscreteCloneAllConfig,
    DiscreteFilteredBCConfig,
    DiscreteWeightedBCConfig,
    ScreenConfig,
    WeightKind,
)
from iq_offline.config.cloning import ContinuousBCConfig, DiscreteBCConfig
from iq_offline.data.table import TransitionTable
from iq_offline.errors import ConfigError
from iq_offline.training.alarm import DivergenceAlarm
from iq_offline.training.batches import Rows, SupplementarySampler, TransitionSampler
from iq_offline.training.build import Data, cloned_policy
from iq_offline.training.loop import BC_REMEDY, Progress, fit, fit_clone

CloningConfig = ContinuousBCConfig | DiscreteBCConfig
WeightedConfig = ContinuousWeightedBCConfig | DiscreteWeightedBCConfig
FilteredConfig = ContinuousFilteredBCConfig | DiscreteFilteredBCConfig
CloneAll = ContinuousCloneAllConfig | DiscreteCloneAllConfig
Parts = Sequence[tuple[TransitionTable, Rows]]


@dataclass(frozen=True)
class Mixture:
    """What is cloned beside the demonstrations: rows by table, their weights, and the demonstrations' share.

    `weights`: (N,) in proportion to which they are drawn; None, all alike.
    """

    parts: Parts
    expert_share: float
    weights: Floats | None = None


def fit_clone_all(config: CloneAll, seed: int, data: PeerData, device: torch.device) -> Iterator[Progress]:
    """Cloning of all transitions, drawn uniformly."""
    parts = [(data.expert, data.split.rows), *supplementary_rows(data)]
    samplers = _samplers(parts, device)
    pool = Pool(samplers, device)
    draws = drawn(len(pool), config.cloning.batch_size, generator(seed, Stream.CLONING_BATCHES))
    batches = (pool.gather(positions) for positions in draws)
    yield from _clone(config.cloning, seed, _everything(data, samplers, device), batches)


def fit_filtered(config: FilteredConfig, seed: int, data: PeerData, device: torch.device) -> Iterator[Progress]:
    """Cloning of the demonstrations and of the episodes that are most like them."""
    if config.expert_share == 1:
        yield from _plain(config.cloning, seed, data, device)
        return
    verdict = None if config.screen is None else _screened(config, config.screen, seed, data, device)
    metrics = {} if verdict is None else verdict.metrics()
    if verdict is not None and not verdict.accepted:
        yield from _with_metrics(_plain(config.cloning, seed, data, device), metrics)
        return
    yield from _with_metrics(_filtered(config, config.cloning, seed, data, device), metrics)


def _filtered(
    config: FilteredConfig, cloning: CloningConfig, seed: int, data: PeerData, device: torch.device
) -> Iterator[Progress]:
    parts, kept = filtered_rows(config, data)
    yield from _with_metrics(_mixed(cloning, seed, data, Mixture(parts, config.expert_share), device), kept)


def _screened(config: FilteredConfig, asked: ScreenConfig, seed: int, data: PeerData, device: torch.device) -> Verdict:
    cloning = config.cloning.model_copy(update={"updates": asked.updates})

    def without(kept: PeerData) -> Policy:
        *_, last = _plain(cloning, seed, kept, device)
        return last.learner.policy

    def beside(kept: PeerData) -> Policy:
        *_, last = _filtered(config, cloning, seed, kept, device)
        return last.learner.policy

    return screen(asked, data, without, beside)


def fit_weighted(config: WeightedConfig, seed: int, data: PeerData, device: torch.device) -> Iterator[Progress]:
    """Cloning of the demonstrations and of supplementary transitions, these drawn in proportion to their weights."""
    if config.expert_share == 1:
        yield from _plain(config.cloning, seed, data, device)
        return
    parts = supplementary_rows(data)
    weights, metrics = _weights(config, seed, data, parts)
    metrics |= {"weights_effective_share": effective_share(weights)}
    mixture = Mixture(parts, config.expert_share, weights)
    yield from _with_metrics(_mixed(config.cloning, seed, data, mixture, device), metrics)


def filtered_rows(config: FilteredConfig, data: PeerData) -> tuple[Parts, dict[str, float]]:
    """Rows of the chosen episodes by table, and how many there are. Rewards are not read.

    Raises ConfigError where nothing is like a demonstration.
    """
    parts = supplementary_rows(data)
    episodes = recorded(parts).episodes
    scores = episode_scores(_likenesses(config.likeness.bandwidth, data, parts), episodes, config.short_episode)
    best = best_episodes(scores, np.bincount(episodes), config.transitions)
    chosen = np.isin(episodes, best)
    ends = np.cumsum([len(rows) for _, rows in parts])[:-1]
    kept = [
        (table, rows[here]) for (table, rows), here in zip(parts, np.split(chosen, ends), strict=True) if here.any()
    ]
    return kept, {"kept_episodes": float(len(best)), "kept_transitions": float(chosen.sum())}


def _weights(config: WeightedConfig, seed: int, data: PeerData, parts: Parts) -> tuple[Floats, dict[str, float]]:
    if config.kind is WeightKind.NEAREST:
        return _likenesses(config.likeness.bandwidth, data, parts), {}
    sources = [recorded([(data.expert, data.split.rows)]), recorded(parts)]
    scaling = Scaling.fit(sources, data.expert.action_space)
    expert, other = (torch.from_numpy(scaling.observations(source.observations)).float() for source in sources)
    return discriminator_weights(config.discriminator, seed, expert, other)


def _likenesses(bandwidth: float, data: PeerData, parts: Parts) -> Floats:
    expert, other = recorded([(data.expert, data.split.rows)]), recorded(parts)
    scaling = Scaling.fit([expert, other], data.expert.action_space)
    found = nearest_weights(scaling.pairs(other), scaling.pairs(expert), expert.episodes, bandwidth)
    if not found.any():
        raise ConfigError(
            "no supplementary transition is anything like a demonstration",
            f"name other data, or widen what is alike (--set likeness.bandwidth={4 * bandwidth:g})",
        )
    return found


def _plain(cloning: CloningConfig, seed: int, data: PeerData, device: torch.device) -> Iterator[Progress]:
    """Cloning of the demonstrations alone: `bc`, to the bit."""
    sampler = TransitionSampler(data.expert, data.split.rows, device)
    yield from fit_clone(cloning, seed, sampler, data.expert.action_space, device)


def _mixed(
    cloning: CloningConfig, seed: int, data: PeerData, mixture: Mixture, device: torch.device
) -> Iterator[Progress]:
    expert, *others = _samplers([(data.expert, data.split.rows), *mixture.parts], device)
    expert_size, other_size = sizes(cloning.batch_size, mixture.expert_share)
    pool, random = Pool(others, device), generator(seed, Stream.SUPPLEMENTARY_BATCHES)
    supplementary = (pool.gather(positions) for positions in drawn(len(pool), other_size, random, mixture.weights))
    demonstrated = expert.batches(expert_size, generator(seed, Stream.CLONING_BATCHES))
    batches = (joined(pair) for pair in zip(demonstrated, supplementary, strict=True))
    yield from _clone(cloning, seed, _everything(data, [expert, *others], device), batches)


def _clone(cloning: CloningConfig, seed: int, data: Data, batches: Iterator[Batch]) -> Iterator[Progress]:
    """Behavioural cloning on `batches`, its observations standardised by all that `data` hold."""
    learner = BCLearner(cloning, cloned_policy(cloning, seed, data))
    yield from fit(learner, batches, cloning.updates, DivergenceAlarm(None, BC_REMEDY))


def _everything(data: PeerData, samplers: Sequence[TransitionSampler], device: torch.device) -> Data:
    expert, *others = samplers
    return Data(expert, data.expert.action_space, device, SupplementarySampler(others) if others else None)


def _samplers(parts: Parts, device: torch.device) -> list[TransitionSampler]:
    return [TransitionSampler(table, rows, device) for table, rows in parts]


def _with_metrics(steps: Iterator[Progress], extra: dict[str, float]) -> Iterator[Progress]:
    for progress in steps:
        yield replace(progress, metrics=progress.metrics | extra)

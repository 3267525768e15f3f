"""The one door to the peers: a configuration and data to a generator of progress, as `training.loop.fit` is."""

from collections.abc import Iterator

import torch

from iq_offline.baselines.cloning import fit_clone_all, fit_filtered, fit_weighted
from iq_offline.baselines.filtering import CheckInterrupt, never_interrupt
from iq_offline.baselines.reward_labelling import fit_labelled
from iq_offline.baselines.sources import PeerData
from iq_offline.config import Method
from iq_offline.config.baselines import (
    BaselineConfig,
    EpisodeFilterConfig,
    Labeller,
    RewardLabelledConfig,
    WeightedBCConfig,
)
from iq_offline.data.spaces import DiscreteActions
from iq_offline.errors import ConfigError
from iq_offline.training.loop import Progress


def fit_baseline(
    config: BaselineConfig, seed: int, data: PeerData, device: torch.device, heed: CheckInterrupt = never_interrupt
) -> Iterator[Progress]:
    """Train a peer; yields every LOG_EVERY updates and at the end, the last Progress with the trained learner.

    `heed` is called with the progress of what is trained to look for episodes before; what it raises ends the run.
    Same config, seed, data and threads: same tensors. Rewards are read under `labeller=true` only.
    Raises ConfigError for what the peer cannot learn from, PackageMissing without its package, and TrainingDiverged.
    """
    _check(config, data)
    if isinstance(config, RewardLabelledConfig):
        return fit_labelled(config, seed, data, device)
    if isinstance(config, WeightedBCConfig):
        return fit_weighted(config, seed, data, device)
    if isinstance(config, EpisodeFilterConfig):
        return fit_filtered(config, seed, data, device, heed)
    return fit_clone_all(config, seed, data, device)


def needs_successors(config: BaselineConfig) -> bool:
    """Whether the expert's transitions must have their next observation."""
    return isinstance(config, RewardLabelledConfig)


def reads_rewards(config: BaselineConfig) -> bool:
    """Whether true rewards, the supplementary data's too, are learnt from."""
    return isinstance(config, RewardLabelledConfig) and config.labeller is Labeller.TRUE


def _check(config: BaselineConfig, data: PeerData) -> None:
    name = _method_of(config)
    if isinstance(config, RewardLabelledConfig) and isinstance(data.expert.action_space, DiscreteActions):
        raise ConfigError(
            f"{name} trains continuous actions only; {data.expert.info.name} has discrete ones",
            "use weighted-bc, filtered-bc, bc-all, bc or iq",
        )
    if not data.supplementary and not reads_rewards(config):
        raise ConfigError(
            f"{name} learns from supplementary data, and none are given",
            "name some with --supplementary, or use --method bc",
        )
    if data.expert.pictures and name != Method.BC_ALL:
        raise ConfigError(
            f"{name} measures distances between vectors; {data.expert.info.name} has pictures",
            "use bc-all, bc or iq",
        )


def _method_of(config: BaselineConfig) -> str:
    """The method's name as users give it."""
    if isinstance(config, RewardLabelledConfig):
        labeller = "oracle" if config.labeller is Labeller.TRUE else config.labeller
        return f"{labeller}-{config.trainer}"
    return config.name.removesuffix("-continuous").removesuffix("-discrete")

"""The one door to the peers: a configuration and data to a generator of progress, as `training.loop.fit` is."""

from collections.abc import Iterator

import torch

from iq_offline.baselines.cloning import fit_clone_all, fit_filtered, fit_weighted
from iq_offline.baselines.filtering import CheckInterrupt, never_interrupt
from iq_offline.baselines.recovery import fit_recovery
from iq_offline.baselines.reward_labelling import fit_labelled
from iq_offline.baselines.sources import PeerData
from iq_offline.config.base import AlgorithmConfig
from iq_offline.config.baselines import EpisodeFilterConfig, RecoveryBCConfig, RewardLabelledConfig, WeightedBCConfig
from iq_offline.data.spaces import DiscreteActions
from iq_offline.errors import ConfigError
from iq_offline.methods import METHODS
from iq_offline.training.loop import Progress


def fit_baseline(
    config: AlgorithmConfig,
    seed: int,
    data: PeerData,
    device: torch.device,
    check_interrupt: CheckInterrupt = never_interrupt,
) -> Iterator[Progress]:
    """Train a peer; yields every LOG_EVERY updates and at the end, the last Progress with the trained learner.

    `check_interrupt` is called with the progress of what is trained to choose episodes before; what it raises ends the
    run. Same settings, seed, data and threads: same tensors. Rewards are read under `labeller=true` only.
    Raises ConfigError for what the peer cannot learn from, PackageMissing without its package, and TrainingDiverged.
    """
    _check(config, data)
    if isinstance(config, RewardLabelledConfig):
        return fit_labelled(config, seed, data, device)
    if isinstance(config, WeightedBCConfig):
        return fit_weighted(config, seed, data, device)
    if isinstance(config, RecoveryBCConfig):
        return fit_recovery(config, seed, data, device)
    if isinstance(config, EpisodeFilterConfig):
        return fit_filtered(config, seed, data, device, check_interrupt)
    return fit_clone_all(config, seed, data, device)  # type: ignore[arg-type]


def _check(config: AlgorithmConfig, data: PeerData) -> None:
    name = _method_of(config)
    if isinstance(config, RewardLabelledConfig) and isinstance(data.expert.action_space, DiscreteActions):
        raise ConfigError(
            f"{name} trains continuous actions only; {data.expert.info.name} has discrete ones",
            "use recovery-bc, weighted-bc, filtered-bc, bc-all, bc or iq",
        )
    if not data.supplementary and not config.reads_rewards:
        raise ConfigError(
            f"{name} learns from supplementary data, and none are given",
            "name some with --supplementary, or use --method bc",
        )
    if data.expert.pictures and name != "bc-all":
        raise ConfigError(
            f"{name} measures distances between vectors; {data.expert.info.name} has pictures",
            "use bc-all, bc or iq",
        )


def _method_of(config: AlgorithmConfig) -> str:
    """The method's name as users give it."""
    return next(
        method.name
        for method in METHODS.values()
        if type(config) in method.config_classes()
        and all(str(getattr(config, key)) == value for key, value in method.settings.items())
    )

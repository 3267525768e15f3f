"""Frozen, typed configurations: what a training run is made of, to and from TOML, with a hash that names it."""

from iq_offline.config.base import NONE, Activation, Device, FrozenModel, HiddenSizes, Selection
from iq_offline.config.cloning import BCConfig, ContinuousBCConfig, DiscreteBCConfig
from iq_offline.config.iq import ContinuousIQConfig, DiscreteIQConfig
from iq_offline.config.train import AlgorithmConfig, Method, TrainConfig, algorithm_class, algorithm_config, valid_keys

__all__ = [
    "NONE",
    "Activation",
    "AlgorithmConfig",
    "BCConfig",
    "ContinuousBCConfig",
    "ContinuousIQConfig",
    "Device",
    "DiscreteBCConfig",
    "DiscreteIQConfig",
    "FrozenModel",
    "HiddenSizes",
    "Method",
    "Selection",
    "TrainConfig",
    "algorithm_class",
    "algorithm_config",
    "valid_keys",
]

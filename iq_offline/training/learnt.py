"""The learnt networks of a finished run, built again from its checkpoint: what reward recovery asks."""

import copy
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from iq_offline.algorithms.iq_continuous import ContinuousNetworks
from iq_offline.algorithms.iq_discrete import DiscreteNetworks
from iq_offline.algorithms.networks import (
    ContinuousPolicy,
    Critic,
    CriticEnsemble,
    DiscretePolicy,
    Policy,
    ValueNetwork,
)
from iq_offline.algorithms.pieces import absorbing_value
from iq_offline.config import AbsorbingValue, Activation, ContinuousIQConfig, DiscreteIQConfig, HiddenSizes, IQConfig
from iq_offline.data.strict_json import first_line
from iq_offline.errors import RunError
from iq_offline.training.run_folder import CHECKPOINT, CONFIG, RunFolder
from iq_offline.training.tensor_files import AGAIN, part

_Module = TypeVar("_Module", bound=nn.Module)


def continuous_networks_of(run: RunFolder) -> ContinuousNetworks:
    """Actor, prior, critics and in-sample value of a continuous IQ run, on the CPU."""
    config, policy, tensors = run.config.algorithm, run.policy(), run.checkpoint()
    assert isinstance(config, ContinuousIQConfig)
    assert isinstance(policy, ContinuousPolicy)
    members = [
        Critic(
            policy.layout,
            len(policy.action_centre),
            config.hidden_sizes,
            config.critic_activation,
            norm=config.critic_layer_norm,
        )
        for _ in range(config.ensemble.members)
    ]
    critic = _filled(CriticEnsemble(members), part(tensors, "critic"))
    norm, value = config.critic_layer_norm, None
    if config.in_sample_value is not None:
        network = ValueNetwork(policy.layout, config.hidden_sizes, config.critic_activation, norm=norm)
        value = _filled(network, part(tensors, "value"))
    return ContinuousNetworks(policy, prior_of(run), critic, value)  # type: ignore[arg-type]


def discrete_networks_of(run: RunFolder) -> DiscreteNetworks:
    """Q-function, actor, prior and in-sample value of a discrete IQ run, on the CPU."""
    config, policy, tensors = run.config.algorithm, run.policy(), run.checkpoint()
    assert isinstance(config, DiscreteIQConfig)
    assert isinstance(policy, DiscretePolicy)
    q, actor = policy, None
    if config.advantage_weights is not None:
        network = _discrete_like(policy, config.hidden_sizes, config.activation, norm=config.layer_norm)
        q, actor = _filled(network, part(tensors, "q")), policy
    values: dict[str, ValueNetwork | None] = {"value": None, "state_value": None}
    for name in values:
        if held := part(tensors, name):
            plain = ValueNetwork(policy.layout, config.hidden_sizes, config.activation, norm=config.layer_norm)
            values[name] = _filled(plain, held)
    return DiscreteNetworks(q, actor, prior_of(run), **values)  # type: ignore[arg-type]


def prior_of(run: RunFolder) -> Policy | None:
    """The run's cloned prior, or None where it has none."""
    tensors, config, policy = part(run.checkpoint(), "prior"), run.config.algorithm, run.policy()
    if not tensors:
        return None
    if isinstance(policy, ContinuousPolicy):
        return _filled(copy.deepcopy(policy), tensors)
    assert isinstance(policy, DiscretePolicy)
    assert isinstance(config, DiscreteIQConfig)
    assert config.prior is not None
    return _filled(_discrete_like(policy, config.prior.hidden_sizes, config.prior.activation, norm=False), tensors)


def absorbing_value_of(run: RunFolder) -> Tensor | float | None:
    """The value behind a termination that the run learnt; None for zero.

    The lowest value that training put there belongs to supplementary data alone: recorded rewards are recovered without
    it, or any termination at all would look like a reward.
    """
    config, tensors = run.config.algorithm, run.checkpoint()
    assert isinstance(config, IQConfig)
    if config.absorbing_value is AbsorbingValue.LOWEST:
        return None
    return absorbing_value(config, tensors.get("absorbing_value", torch.zeros(())))


def _discrete_like(
    policy: DiscretePolicy, hidden: HiddenSizes, activation: Activation, *, norm: bool
) -> DiscretePolicy:
    last = policy.network[-1]
    assert isinstance(last, nn.Linear)
    return DiscretePolicy(policy.standardiser, last.out_features, hidden, activation, norm=norm, layout=policy.layout)


def _filled(module: _Module, tensors: Mapping[str, Tensor]) -> _Module:
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise RunError(
            f"{CHECKPOINT} does not hold the networks that {CONFIG} describes: {first_line(error)}", AGAIN
        ) from None
    module.eval()
    module.requires_grad_(False)
    return module

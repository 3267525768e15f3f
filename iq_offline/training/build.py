"""From a configuration and data to networks: initial weights of a seed, and the scaling of its training data."""

import copy
from dataclasses import dataclass

import torch

from iq_offline.algorithms.iq_continuous import ContinuousNetworks
from iq_offline.algorithms.iq_discrete import DiscreteNetworks
from iq_offline.algorithms.learner import Stream, generator
from iq_offline.algorithms.networks import (
    ActionScale,
    ContinuousPolicy,
    Critic,
    CriticEnsemble,
    DiscretePolicy,
    Policy,
    Standardiser,
    ValueNetwork,
    initialise,
)
from iq_offline.config import (
    Activation,
    BCConfig,
    ContinuousBCConfig,
    ContinuousIQConfig,
    DiscreteIQConfig,
    HiddenSizes,
)
from iq_offline.data.spaces import ActionSpace, ContinuousActions
from iq_offline.training.batches import Demonstrations, SupplementarySampler


@dataclass(frozen=True)
class Data:
    """What a run learns from: expert transitions and, where the method reads them, supplementary ones."""

    expert: Demonstrations
    space: ActionSpace
    device: torch.device
    supplementary: SupplementarySampler | None = None

    def standardiser(self) -> Standardiser:
        """Of all training observations together."""
        observations = self.expert.observations().cpu()
        if self.supplementary is not None:
            observations = torch.cat([observations, self.supplementary.observations().cpu()])
        return Standardiser.fit(observations, self.expert.layout)


def cloned_policy(config: BCConfig, seed: int, data: Data) -> Policy:
    """The policy that behavioural cloning starts from."""
    if isinstance(config, ContinuousBCConfig):
        return continuous_policy(config, seed, data)
    return discrete_policy(config.hidden_sizes, config.activation, seed, data)


def continuous_policy(config: ContinuousBCConfig, seed: int, data: Data, std: float | None = None) -> ContinuousPolicy:
    """A policy with the seed's initial weights."""
    assert isinstance(data.space, ContinuousActions)
    extra = {} if std is None else {"std": std}
    policy = ContinuousPolicy(
        data.standardiser(),
        ActionScale.of_demonstrations(data.space.low, data.space.high, data.expert.proper.actions().cpu()),
        config.hidden_sizes,
        config.activation,
        head=config.head,
        learnt_std=config.learnt_std,
        layout=data.expert.layout,
        **extra,
    )
    initialise(policy, generator(seed, Stream.POLICY))
    return policy.to(data.device)


def discrete_policy(
    hidden: HiddenSizes, activation: Activation, seed: int, data: Data, *, norm: bool = False
) -> DiscretePolicy:
    """Logits or Q-values with the seed's initial weights."""
    assert not isinstance(data.space, ContinuousActions)
    layout = data.expert.layout
    policy = DiscretePolicy(data.standardiser(), data.space.count, hidden, activation, norm=norm, layout=layout)
    initialise(policy, generator(seed, Stream.POLICY))
    return policy.to(data.device)


def continuous_networks(
    config: ContinuousIQConfig, seed: int, data: Data, prior: ContinuousPolicy | None
) -> ContinuousNetworks:
    """Actor (the prior's copy, if there is one), critics and in-sample value."""
    if prior is None:
        plain = ContinuousBCConfig.model_construct(
            hidden_sizes=config.hidden_sizes,
            activation=config.actor_activation,
            head=config.policy_head,
            learnt_std=config.policy_std is None,
        )
        policy = continuous_policy(plain, seed, data, config.policy_std)
    else:
        prior.std = config.policy_std or prior.std
        policy = copy.deepcopy(prior).requires_grad_(True)
    critic = CriticEnsemble([_critic(config, data, policy) for _ in range(config.ensemble.members)])
    initialise(critic, generator(seed, Stream.CRITIC))
    return ContinuousNetworks(
        policy, prior, critic.to(data.device), _value(config, seed, data, config.critic_activation)
    )


def discrete_networks(
    config: DiscreteIQConfig, seed: int, data: Data, prior: DiscretePolicy | None
) -> DiscreteNetworks:
    """The Q-function, actor and in-sample value; the policy's network starts as the prior's copy, if there is one."""

    def new(*, norm: bool, starts_as_prior: bool) -> DiscretePolicy:
        if prior is not None and starts_as_prior:
            return copy.deepcopy(prior).requires_grad_(True)
        return discrete_policy(config.hidden_sizes, config.activation, seed, data, norm=norm)

    has_actor = config.advantage_weights is not None
    q = new(norm=config.layer_norm, starts_as_prior=not has_actor)
    actor = new(norm=False, starts_as_prior=True) if has_actor else None
    state_value = None
    if config.separate_value and not has_actor:
        state_value = _value_network(config.hidden_sizes, config.activation, seed, data, norm=config.layer_norm)
    return DiscreteNetworks(q, actor, prior, _value(config, seed, data, config.activation), state_value)


def _critic(config: ContinuousIQConfig, data: Data, policy: ContinuousPolicy) -> Critic:
    return Critic(
        data.expert.layout,
        len(policy.action_centre),
        config.hidden_sizes,
        config.critic_activation,
        norm=config.critic_layer_norm,
    )


def _value(
    config: ContinuousIQConfig | DiscreteIQConfig, seed: int, data: Data, activation: Activation
) -> ValueNetwork | None:
    if config.in_sample_value is None:
        return None
    norm = config.critic_layer_norm if isinstance(config, ContinuousIQConfig) else config.layer_norm
    return _value_network(config.hidden_sizes, activation, seed, data, norm=norm)


def _value_network(hidden: HiddenSizes, activation: Activation, seed: int, data: Data, *, norm: bool) -> ValueNetwork:
    value = ValueNetwork(data.expert.layout, hidden, activation, norm=norm)
    initialise(value, generator(seed, Stream.VALUE))
    return value.to(data.device)

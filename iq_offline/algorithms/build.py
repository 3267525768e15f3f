"""From settings to networks: initial weights of a seed, and the scaling of the training data."""

import copy
from dataclasses import dataclass, field

import torch
from torch import nn

from iq_offline.algorithms.encoders import ObservationLayout, initialise
from iq_offline.algorithms.networks import (
    DEFAULT_STD,
    ActionScale,
    ContinuousPolicy,
    Critic,
    CriticEnsemble,
    DiscretePolicy,
    Policy,
    Standardiser,
    ValueNetwork,
)
from iq_offline.algorithms.noise import Stream, generator
from iq_offline.algorithms.soft_q import QWithActor, SoftQ
from iq_offline.config.base import ActionHead, Activation, HiddenSizes
from iq_offline.config.cloning import BCConfig
from iq_offline.config.q_learning import ActorCriticConfig
from iq_offline.config.soft_q import SoftQConfig


@dataclass(frozen=True)
class NetworkSpec:
    """What networks are built for: observations and their scaling, actions, and the seed of the initial weights.

    `actions`: the scale of continuous actions, or the number of discrete ones.
    """

    layout: ObservationLayout
    standardiser: Standardiser
    actions: ActionScale | int
    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @classmethod
    def of_policy(cls, policy: Policy) -> "NetworkSpec":
        """That of a policy's own networks."""
        actions = policy.action_scale if isinstance(policy, ContinuousPolicy) else actions_of(policy)[1]
        return cls(policy.layout, policy.standardiser, actions)

    def initialised(self, module: nn.Module, stream: Stream) -> None:
        """Draw the module's initial weights from that stream of the seed, and move it to the device."""
        initialise(module, generator(self.seed, stream))
        module.to(self.device)


def clone_policy(config: BCConfig, spec: NetworkSpec) -> Policy:
    """The policy that behavioural cloning starts from."""
    if isinstance(spec.actions, int):
        return discrete_policy(config.hidden_sizes, config.activation, spec)
    return continuous_policy(config.hidden_sizes, config.activation, spec)


def continuous_policy(
    hidden: HiddenSizes,
    activation: Activation,
    spec: NetworkSpec,
    head: ActionHead = ActionHead.CLIPPED_GAUSSIAN,
    std: float | None = DEFAULT_STD,
) -> ContinuousPolicy:
    """With initial weights; `std`: None for a learnt one."""
    assert isinstance(spec.actions, ActionScale)
    policy = ContinuousPolicy(
        spec.standardiser,
        spec.actions,
        hidden,
        activation,
        head=head,
        learnt_std=std is None,
        std=std or DEFAULT_STD,
        layout=spec.layout,
    )
    spec.initialised(policy, Stream.POLICY)
    return policy


def discrete_policy(
    hidden: HiddenSizes, activation: Activation, spec: NetworkSpec, *, norm: bool = False
) -> DiscretePolicy:
    """Logits or Q-values with initial weights."""
    assert isinstance(spec.actions, int)
    policy = DiscretePolicy(spec.standardiser, spec.actions, hidden, activation, norm=norm, layout=spec.layout)
    spec.initialised(policy, Stream.POLICY)
    return policy


def value_network(hidden: HiddenSizes, activation: Activation, spec: NetworkSpec, *, norm: bool) -> ValueNetwork:
    """With initial weights."""
    value = ValueNetwork(spec.layout, hidden, activation, norm=norm)
    spec.initialised(value, Stream.VALUE)
    return value


def actor_and_critics(
    config: ActorCriticConfig, spec: NetworkSpec, prior: ContinuousPolicy | None = None
) -> tuple[ContinuousPolicy, CriticEnsemble]:
    """The actor (the prior's copy, if there is one) and the critics."""
    if prior is None:
        policy = continuous_policy(
            config.hidden_sizes, config.actor_activation, spec, type(config).head, config.policy_std
        )
    else:
        prior.std = config.policy_std or prior.std
        policy = copy.deepcopy(prior).requires_grad_(True)
    size = len(policy.action_centre)
    critic = CriticEnsemble(
        [
            Critic(spec.layout, size, config.hidden_sizes, config.critic_activation, norm=config.critic_layer_norm)
            for _ in range(config.ensemble.members)
        ]
    )
    spec.initialised(critic, Stream.CRITIC)
    return policy, critic


def soft_q_function(
    config: SoftQConfig,
    spec: NetworkSpec,
    start: DiscretePolicy | None = None,
    *,
    separate_value: bool = True,
    shared_encoder: bool = False,
) -> SoftQ:
    """A Q-function whose logits start as a copy of `start`, with a network of its own for V.

    `shared_encoder`: where observations have pictures, that of `start` serves all networks, and is trained no more.
    """
    encoder = None
    if shared_encoder and start is not None and spec.layout.pictures:
        encoder = start.encoder
    if start is None:
        logits = discrete_policy(config.hidden_sizes, config.activation, spec, norm=config.layer_norm)
    else:
        logits = copy.deepcopy(start, {id(encoder): encoder}).requires_grad_(True)
    value = None
    if separate_value:
        value = value_network(config.hidden_sizes, config.activation, spec, norm=config.layer_norm)
    if encoder is not None:
        encoder.requires_grad_(False)
        if value is not None:
            value.encoder = encoder
    return SoftQ(logits, config.temperature, value, encoder=encoder)


def q_with_actor(config: SoftQConfig, spec: NetworkSpec) -> QWithActor:
    """A Q-network and an actor beside it."""
    q = discrete_policy(config.hidden_sizes, config.activation, spec, norm=config.layer_norm)
    actor = discrete_policy(config.hidden_sizes, config.activation, spec)
    return QWithActor(q, config.temperature, actor=actor)


def actions_of(policy: Policy) -> tuple[str, int]:
    """The kind of a policy's actions, continuous or discrete, and how many numbers one has, or how many there are."""
    if isinstance(policy, ContinuousPolicy):
        return "continuous", len(policy.action_centre)
    last = policy.network[-1]
    assert isinstance(last, nn.Linear)
    return "discrete", last.out_features

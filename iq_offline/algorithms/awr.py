"""The IQ-Learn objective with an actor that learns by advantage-weighted regression [AWR19] (`iq-awr`).

The actor clones recorded actions, weighted by their advantage, and never asks Q about other actions.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from iq_offline.algorithms.actor_critic import ActorCritic, PolicyActions
from iq_offline.algorithms.adam import Adam
from iq_offline.algorithms.bc import cloning_errors
from iq_offline.algorithms.build import NetworkSpec, actor_and_critics, q_with_actor
from iq_offline.algorithms.distributions import ContinuousActionDistribution
from iq_offline.algorithms.divergences import ChiSquared
from iq_offline.algorithms.iq import expert_value
from iq_offline.algorithms.losses import Metrics
from iq_offline.algorithms.noise import Stream, generator
from iq_offline.algorithms.regularisers import DISCRETE, chosen, regularisers_of
from iq_offline.algorithms.soft_q import SoftQLearner
from iq_offline.batch import Batch
from iq_offline.config.awr import AWRConfig, DiscreteAWRConfig


@dataclass(frozen=True)
class NoEntropy:
    """No entropy: V(s) is Q at an action of the policy."""

    name: str = "entropy_cost"

    def __call__(self, policy: ContinuousActionDistribution, observations: Tensor, drawn: Tensor) -> PolicyActions:
        del observations
        actions = policy.sample(drawn)
        return PolicyActions(actions, torch.zeros_like(actions[:, 0]))


class AWRLearner(ActorCritic):
    """Each update moves the critics, then the actor, then the target critics."""

    config: AWRConfig

    def __init__(self, config: AWRConfig, spec: NetworkSpec) -> None:
        noise = generator(spec.seed, Stream.ACTIONS, spec.device)
        super().__init__(config, *actor_and_critics(config, spec), noise, NoEntropy(), regularisers_of(config))
        self.phi = ChiSquared(config.reward_penalty).phi

    def update(self, batch: Batch) -> Metrics:
        """One gradient step."""
        drawn = self.policy_actions(batch)
        actions = self.recorded_actions(batch)
        values = self.values(batch, drawn, actions=actions)
        loss = expert_value(values, None) - self.phi(values.rewards).mean()
        metrics = self.descend_critics(loss, batch, actions, values.q, drawn)

        weights = advantage_weights(self._advantages(batch), self.config.advantage_temperature, self.config.max_weight)
        loss = weighted_cloning(cloning_errors(self.policy, batch), weights)
        metrics |= self.descend_actor(loss, batch) | {"expert_weight": weights.mean()}

        self.update_target()
        return metrics

    @torch.no_grad()
    def _advantages(self, batch: Batch) -> Tensor:
        """Q(s, a) - V(s) of recorded actions, (B,)."""
        observations, actions = self.policy.standardise(batch.observations), self.policy.scale_actions(batch.actions)
        q = self.pessimistic(self.critic(observations, actions))
        return q - self.pessimistic(self.soft_value(batch.observations, self.critic, self.drawing))


class DiscreteAWRLearner(SoftQLearner):
    """One gradient step on Q and the actor an update; then the target follows."""

    config: DiscreteAWRConfig

    def __init__(self, config: DiscreteAWRConfig, spec: NetworkSpec) -> None:
        super().__init__(config, q_with_actor(config, spec), chosen(DISCRETE, config))
        self.adams.append(Adam([self.policy], config.learning_rate, config.weight_decay, config.updates))
        self.phi = ChiSquared(config.reward_penalty).phi

    def update(self, batch: Batch) -> Metrics:
        """The objective of Q with its regularisers, and the actor's advantage-weighted cloning loss."""
        values = self.values(batch)
        loss = expert_value(values, None) - self.phi(values.rewards).mean()
        total, terms = self.regularised(loss, batch, values.q)
        advantages = (values.q - values.v).detach()
        weights = advantage_weights(advantages, self.config.advantage_temperature, self.config.max_weight)
        actor_loss = weighted_cloning(cloning_errors(self.policy, batch), weights)
        critic_norm, actor_norm = self.step(total + actor_loss)
        return {
            "loss": loss.detach(),
            **terms,
            "actor_loss": actor_loss.detach(),
            "expert_weight": weights.mean(),
            "critic_gradient_norm": critic_norm,
            "actor_gradient_norm": actor_norm,
        }


def advantage_weights(advantages: Tensor, temperature: float, largest: float) -> Tensor:
    """min(exp(advantage / temperature), largest), without a gradient. Shapes: (B,) -> (B,).

    Source: [AWR19] eq. 8. At an infinite temperature all are 1: behavioural cloning.
    """
    exponent = (advantages.detach() / temperature).clamp(max=torch.tensor(largest).log().item())
    return exponent.exp()


def weighted_cloning(errors: Tensor, weights: Tensor) -> Tensor:
    """E[weight * error], the cloning error of each transition. Shapes: (B,), (B,) -> ()."""
    if errors.shape != weights.shape:
        raise ValueError(f"errors {tuple(errors.shape)} with weights {tuple(weights.shape)}")
    return (weights * errors).mean()

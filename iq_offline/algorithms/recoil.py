"""ReCOIL [RECOIL24]: fixed rewards by source, an in-sample value, an advantage-weighted actor.

V is fitted by the Gumbel loss at recorded actions alone [XQL23], the expert's Q is drawn to its greatest value,
supplementary Q to the target at the lowest reward, and the actor clones recorded actions of both sources by their
advantage [AWR19].
"""

import torch
from torch import Tensor

from iq_offline.algorithms.actor_critic import ActorCritic, PolicyActions, TransitionValues
from iq_offline.algorithms.adam import Adam, descend
from iq_offline.algorithms.awr import NoEntropy, advantage_weights, weighted_cloning
from iq_offline.algorithms.bc import cloning_errors
from iq_offline.algorithms.build import NetworkSpec, actor_and_critics, q_with_actor, value_network
from iq_offline.algorithms.losses import Metrics, bellman_error, mixed
from iq_offline.algorithms.networks import CriticEnsemble
from iq_offline.algorithms.noise import Noise, Stream, generator
from iq_offline.algorithms.regularisers import DISCRETE, chosen, q_of_actions, regularisers_of
from iq_offline.algorithms.soft_q import SoftQ, SoftQLearner
from iq_offline.batch import Batch
from iq_offline.config.recoil import DiscreteReCOILConfig, InSampleConfig


class ReCOILLearner(ActorCritic):
    """Each update moves the in-sample value, then the critics, then the actor, then the target critics."""

    config: InSampleConfig
    recovery_absorbing_value = None

    def __init__(self, config: InSampleConfig, spec: NetworkSpec) -> None:
        noise = generator(spec.seed, Stream.ACTIONS, spec.device)
        super().__init__(config, *actor_and_critics(config, spec), noise, NoEntropy(), regularisers_of(config))
        norm = config.critic_layer_norm
        self.value = value_network(config.hidden_sizes, config.critic_activation, spec, norm=norm)
        self.modules["value"] = self.value
        self.value_optimiser = Adam([self.value], config.value_learning_rate, 0.0, config.updates)
        self.adams.append(self.value_optimiser)
        self.absorbing_value = lowest_value(config)
        self.reward_bounds = min(config.fixed_rewards), max(config.fixed_rewards)

    def update(self, batch: Batch) -> Metrics:
        """One gradient step."""
        sources = [batch] if batch.supplementary is None else [batch, batch.supplementary]
        loss = _mixed([self._value_loss(source) for source in sources])
        descend([self.value_optimiser], loss)
        metrics = {"value_loss": loss.detach()}

        actions = self.recorded_actions(batch)
        expert, *others = [self.values(batch, None, actions=actions), *(self.values(one, None) for one in sources[1:])]
        loss = fixed_reward_error(self.config, expert, others)
        metrics |= self.descend_critics(loss, batch, actions, expert.q, None)

        weights = [self._weights(source) for source in sources]
        errors = [cloning_errors(self.policy, source, self.config.cloning_loss) for source in sources]
        loss = _mixed([weighted_cloning(*pair) for pair in zip(errors, weights, strict=True)])
        metrics |= self.descend_actor(loss, batch) | mean_weights(weights)

        self.update_target()
        return metrics

    def soft_value(
        self, observations: Tensor, critic: CriticEnsemble, noise: Noise, drawn: PolicyActions | None = None
    ) -> Tensor:
        """The in-sample value at raw observations, without a gradient, (1, B)."""
        del critic, noise, drawn
        with torch.no_grad():
            value: Tensor = self.value(self.policy.standardise(observations))
        return value.unsqueeze(0)

    def _value_loss(self, source: Batch) -> Tensor:
        observations = self.policy.standardise(source.observations)
        with torch.no_grad():
            q = self.pessimistic(self.target_critic(observations, self.policy.scale_actions(source.actions)))
        return gumbel_loss(self.value(observations), q, self.config.gumbel_temperature, self.config.max_exponent)

    @torch.no_grad()
    def _weights(self, source: Batch) -> Tensor:
        observations = self.policy.standardise(source.observations)
        q = self.pessimistic(self.critic(observations, self.policy.scale_actions(source.actions)))
        advantages = q - self.value(observations)
        return advantage_weights(advantages, self.config.advantage_temperature, self.config.max_weight)


class DiscreteReCOILLearner(SoftQLearner):
    """One gradient step on Q, the in-sample value and the actor an update; then the target follows."""

    config: DiscreteReCOILConfig
    recovery_absorbing_value = None

    def __init__(self, config: DiscreteReCOILConfig, spec: NetworkSpec) -> None:
        super().__init__(config, q_with_actor(config, spec), chosen(DISCRETE, config))
        self.value = value_network(config.hidden_sizes, config.activation, spec, norm=config.layer_norm)
        self.modules["value"] = self.value
        rate, decay, updates = config.learning_rate, config.weight_decay, config.updates
        self.adams.append(Adam([self.policy], rate, decay, updates))
        self.adams.append(Adam([self.value], config.value_learning_rate, decay, updates))
        self.absorbing_value = lowest_value(config)
        self.reward_bounds = min(config.fixed_rewards), max(config.fixed_rewards)

    def update(self, batch: Batch) -> Metrics:
        """One gradient step on the three losses together."""
        sources = [batch] if batch.supplementary is None else [batch, batch.supplementary]
        values = [self.values(source) for source in sources]
        loss = fixed_reward_error(self.config, values[0], values[1:])
        total, terms = self.regularised(loss, batch, values[0].q)
        value_loss = _mixed([self._value_loss(source) for source in sources])
        weights = [self._weights(one) for one in values]
        errors = [cloning_errors(self.policy, source) for source in sources]
        actor_loss = _mixed([weighted_cloning(*pair) for pair in zip(errors, weights, strict=True)])
        norms = self.step(total + value_loss + actor_loss)
        return {
            "loss": loss.detach(),
            **terms,
            "value_loss": value_loss.detach(),
            "actor_loss": actor_loss.detach(),
            **mean_weights(weights),
            "critic_gradient_norm": norms[0],
            "actor_gradient_norm": norms[1],
        }

    def soft_value(self, observations: Tensor, function: SoftQ, q: Tensor | None = None) -> Tensor:
        """The in-sample value at raw observations, without a gradient, (B,)."""
        del function, q
        with torch.no_grad():
            value: Tensor = self.value(self.policy.standardise(observations))
        return value

    def _value_loss(self, source: Batch) -> Tensor:
        with torch.no_grad():
            q = q_of_actions(self.target_function.q(source.observations), source.actions)
        v = self.value(self.policy.standardise(source.observations))
        return gumbel_loss(v, q, self.config.gumbel_temperature, self.config.max_exponent)

    def _weights(self, values: TransitionValues) -> Tensor:
        advantages = (values.q - values.v).detach()
        return advantage_weights(advantages, self.config.advantage_temperature, self.config.max_weight)


def gumbel_loss(v: Tensor, q: Tensor, temperature: float, largest: float) -> Tensor:
    """E[exp(z) - z - 1], z = (Q - V) / temperature: V is the soft maximum of Q over the data's own actions.

    Beyond z = `largest` the exponential goes on along its tangent, so that gradients stay finite and right in sign.
    q carries no gradient. Shapes: (B,), (B,) -> (). Source: [XQL23] eq. 10.
    """
    z = (q - v) / temperature
    inside = z.clamp(max=largest)
    return (torch.exp(inside) * (1 + z - inside) - z - 1).mean()


def lowest_value(config: InSampleConfig | DiscreteReCOILConfig) -> float:
    """The value after a termination in training: the lowest there is."""
    return config.fixed_rewards[1] / (1 - config.gamma) if config.target_bound is None else -config.target_bound


def fixed_reward_error(
    config: InSampleConfig | DiscreteReCOILConfig, expert: TransitionValues, others: list[TransitionValues]
) -> Tensor:
    """E[(Q - r_expert / (1 - gamma))^2] / 2 on the expert, the Bellman error at r_other on supplementary data, ()."""
    best, worst = config.fixed_rewards
    errors = [(expert.q - best / (1 - config.gamma)).square().mean() / 2]
    return _mixed([*errors, *(bellman_error(other.q, worst, other.next_v, other.discounts) for other in others)])


def mean_weights(weights: list[Tensor]) -> Metrics:
    """Mean advantage weight of each source, ()."""
    return dict(zip(("expert_weight", "supplementary_weight"), (one.mean() for one in weights), strict=False))


def _mixed(by_source: list[Tensor]) -> Tensor:
    return mixed(by_source[0], by_source[1] if len(by_source) > 1 else None)

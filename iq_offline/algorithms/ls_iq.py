"""Least-squares IQ-Learn [LSIQ23]: one fixed reward for the expert, one for supplementary data, clipped targets.

The expert's Q is drawn to its reward for ever, supplementary Q to its bootstrapped target. The value after a
termination is learnt: a termination is followed by self-transitions of the absorbing state, whose discounted occupancy
is gamma / (1 - gamma) of its own (sec. 4).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from iq_offline.algorithms.actor_critic import ActorCritic, SampledEntropy, TransitionValues
from iq_offline.algorithms.adam import Adam
from iq_offline.algorithms.build import NetworkSpec, actor_and_critics, soft_q_function
from iq_offline.algorithms.losses import Metrics, bellman_error, mixed
from iq_offline.algorithms.noise import Stream, generator
from iq_offline.algorithms.regularisers import DISCRETE, chosen, regularisers_of
from iq_offline.algorithms.soft_q import SoftQLearner
from iq_offline.batch import Batch
from iq_offline.config.ls_iq import DiscreteLSIQConfig, LSIQConfig


class LSIQLearner(ActorCritic):
    """Each update moves the critics and the absorbing value, then the actor, then the target critics."""

    config: LSIQConfig

    def __init__(self, config: LSIQConfig, spec: NetworkSpec) -> None:
        noise = generator(spec.seed, Stream.ACTIONS, spec.device)
        super().__init__(config, *actor_and_critics(config, spec), noise, SampledEntropy(), regularisers_of(config))
        self.reward_bounds = reward_bounds(config)
        self.absorbing = AbsorbingState(config.gamma, config.target_bound).to(spec.device)
        self.modules["absorbing"] = self.absorbing
        self.critic_optimisers.append(Adam([self.absorbing], config.critic_learning_rate, 0.0, config.updates))
        self.adams.insert(1, self.critic_optimisers[1])

    @property
    def absorbing_value(self) -> Tensor:  # type: ignore[override]
        """Learnt, within the bound of targets."""
        return self.absorbing.bounded_value

    def update(self, batch: Batch) -> Metrics:
        """One gradient step; the policy acts once: the critics' and the actor's loss see the same actions."""
        expert = self.policy_actions(batch)
        supplementary = None if batch.supplementary is None else self.policy_actions(batch.supplementary)
        actions = self.recorded_actions(batch)
        values, others = self.values(batch, expert, actions=actions), None
        if batch.supplementary is not None:
            others = self.values(batch.supplementary, supplementary)
        loss = least_squares(self.config, self.absorbing, batch, values, others)
        metrics = self.descend_critics(loss, batch, actions, values.q, expert)

        loss, entropy_cost = self.soft_actor_loss(batch, expert, supplementary)
        metrics |= self.descend_actor(loss, batch) | {self.entropy.name: entropy_cost}

        self.update_target()
        return metrics

    def diagnostics(self, batch: Batch) -> Metrics:
        """And the absorbing value."""
        return super().diagnostics(batch) | {"absorbing_value": self.absorbing.value.detach()}


class DiscreteLSIQLearner(SoftQLearner):
    """Each update moves Q and the absorbing value; then the target follows."""

    config: DiscreteLSIQConfig

    def __init__(self, config: DiscreteLSIQConfig, spec: NetworkSpec) -> None:
        super().__init__(config, soft_q_function(config, spec), chosen(DISCRETE, config))
        self.reward_bounds = reward_bounds(config)
        self.absorbing = AbsorbingState(config.gamma, config.target_bound).to(spec.device)
        self.modules["absorbing"] = self.absorbing
        self.adams.append(Adam([self.absorbing], config.learning_rate, 0.0, config.updates))

    @property
    def absorbing_value(self) -> Tensor:  # type: ignore[override]
        """Learnt, within the bound of targets."""
        return self.absorbing.bounded_value

    def update(self, batch: Batch) -> Metrics:
        """One gradient step on the least-squares loss and the regularisers."""
        values = self.values(batch)
        others = None if batch.supplementary is None else self.values(batch.supplementary)
        loss = least_squares(self.config, self.absorbing, batch, values, others)
        return self.descend(loss, batch, values.q)

    def diagnostics(self, batch: Batch) -> Metrics:
        """And the absorbing value."""
        return super().diagnostics(batch) | {"absorbing_value": self.absorbing.value.detach()}


class AbsorbingState(nn.Module):
    """The state after terminations: a reward for ever, which is the parameter.

    As a parameter itself, the value would take 1 / (1 - gamma) times as many updates to get anywhere.
    """

    def __init__(self, gamma: float, bound: float | None) -> None:
        super().__init__()
        self.reward = nn.Parameter(torch.zeros(()))
        self._gamma, self._bound = gamma, bound

    @property
    def value(self) -> Tensor:
        """reward / (1 - gamma), ()."""
        return self.reward / (1 - self._gamma)

    @property
    def bounded_value(self) -> Tensor:
        """The value within the bound of targets, ()."""
        return self.value if self._bound is None else self.value.clamp(-self._bound, self._bound)


def least_squares(
    config: LSIQConfig | DiscreteLSIQConfig,
    absorbing: AbsorbingState,
    batch: Batch,
    expert: TransitionValues,
    supplementary: TransitionValues | None,
) -> Tensor:
    """E[(Q - r_expert / (1 - gamma))^2] / 2 on the expert, the Bellman error at r_other on supplementary data, ()."""
    best, worst = config.fixed_rewards

    def with_self_transitions(mean: Tensor, terminations: Tensor, of_reward: Callable[[Tensor], Tensor]) -> Tensor:
        weight = config.gamma / (1 - config.gamma) * terminations.mean()
        return (mean + weight * of_reward((1 - config.gamma) * absorbing.value)) / (1 + weight)

    error = (expert.q - best / (1 - config.gamma)).square().mean() / 2
    loss = with_self_transitions(error, batch.terminations, lambda reward: (reward - best).square() / 2)
    if supplementary is None or batch.supplementary is None:
        return loss
    error = bellman_error(supplementary.q, worst, supplementary.next_v, supplementary.discounts)
    terminations = batch.supplementary.terminations
    return mixed(loss, with_self_transitions(error, terminations, lambda reward: (reward - worst).square() / 2))


def reward_bounds(config: LSIQConfig | DiscreteLSIQConfig) -> tuple[float, float]:
    """Recovered rewards lie within the fixed ones [LSIQ23]."""
    return min(config.fixed_rewards), max(config.fixed_rewards)

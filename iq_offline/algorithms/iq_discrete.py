"""Offline IQ-Learn with discrete actions: one soft Q-function is policy, value and reward ([IQ21] alg. 1, eq. 12)."""

import copy

import torch
from torch import Tensor

from iq_offline.algorithms.divergences import ChiSquared
from iq_offline.algorithms.learner import Metrics, average_into, named
from iq_offline.algorithms.losses import bounded, implicit_reward, iq_expert_loss, soft_value
from iq_offline.algorithms.networks import DiscretePolicy
from iq_offline.batch import Batch
from iq_offline.config import DiscreteIQConfig


class DiscreteIQLearner:
    """AdamW on eq. 12, the learning rate falling to zero along a cosine.

    Since Q(s, a) - V(s) = temperature * log policy(a | s), the loss is the cloning loss times the temperature
    plus a penalty on the recovered reward, and silent about observations off the data.

    V(s') comes from a slow target, bounded. The paper's full gradient (polyak_rate None) descends the objective itself,
    but trains Q at next observations that carry no action: with subsampled demonstrations it strengthens whichever
    action leads there, right or wrong.
    """

    def __init__(self, config: DiscreteIQConfig, policy: DiscretePolicy) -> None:
        self.policy = policy
        self._config = config
        self._target = policy if config.polyak_rate is None else copy.deepcopy(policy).requires_grad_(False)
        self._divergence = ChiSquared(config.reward_penalty)
        self._optimiser = torch.optim.AdamW(
            policy.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self._schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimiser, T_max=config.updates)

    def update(self, batch: Batch) -> Metrics:
        """One step; the value of a terminal next observation is zero."""
        config = self._config
        all_q = self.policy(batch.observations)
        q = all_q.gather(-1, batch.actions.unsqueeze(-1)).squeeze(-1)
        v = soft_value(all_q, config.temperature)
        next_v = bounded(soft_value(self._target(batch.next_observations), config.temperature), config.target_bound)
        discounts = config.gamma * (1 - batch.terminations)
        rewards = implicit_reward(q, next_v, discounts)
        loss = iq_expert_loss(rewards, v, next_v, discounts, self._divergence.phi)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        self._schedule.step()
        if config.polyak_rate is not None:
            average_into(self._target, self.policy, config.polyak_rate)
        return {
            "loss": loss.detach(),
            "expert_reward": rewards.detach().mean(),
            "expert_q": q.detach().mean(),
            "expert_value": v.detach().mean(),
            "expert_advantage": (q - v).detach().mean(),
        }

    def tensors(self) -> dict[str, Tensor]:
        """The policy's, which are the Q-function's, and the target's."""
        return named("policy", self.policy) | named("target", self._target)


@torch.no_grad()
def recovered_rewards(policy: DiscretePolicy, batch: Batch, *, temperature: float, gamma: float) -> Tensor:
    """Q(s, a) - discount * V(s') for each transition, shape (B,). Source: [IQ21] eq. 11."""
    q = policy(batch.observations).gather(-1, batch.actions.unsqueeze(-1)).squeeze(-1)
    next_v = soft_value(policy(batch.next_observations), temperature)
    return implicit_reward(q, next_v, gamma * (1 - batch.terminations))

"""Offline IQ-Learn with discrete actions: one soft Q-function is policy, value and reward ([IQ21] alg. 1, eq. 12)."""

import torch
from torch import Tensor

from iq_offline.algorithms.divergences import ChiSquared
from iq_offline.algorithms.learner import Metrics, named
from iq_offline.algorithms.losses import implicit_reward, iq_expert_loss, soft_value
from iq_offline.algorithms.networks import DiscretePolicy
from iq_offline.batch import Batch
from iq_offline.config import DiscreteIQConfig


class DiscreteIQLearner:
    """Adam on eq. 12. No target network: the gradient flows through V(s') too, so this descends the objective itself.

    Since Q(s, a) - V(s) = temperature * log policy(a | s), the loss is the cloning loss times the temperature
    plus a penalty on the recovered reward: bounded below, and silent about observations off the data.
    """

    def __init__(self, config: DiscreteIQConfig, policy: DiscretePolicy) -> None:
        self.policy = policy
        self._temperature = config.temperature
        self._gamma = config.gamma
        self._divergence = ChiSquared(config.reward_penalty)
        self._optimiser = torch.optim.Adam(policy.network.parameters(), lr=config.learning_rate, fused=True)

    def update(self, batch: Batch) -> Metrics:
        """One step; the value of a terminal next observation is zero."""
        all_q = self.policy(batch.observations)
        q = all_q.gather(-1, batch.actions.unsqueeze(-1)).squeeze(-1)
        v = soft_value(all_q, self._temperature)
        next_v = soft_value(self.policy(batch.next_observations), self._temperature)
        discounts = self._gamma * (1 - batch.terminations)
        rewards = implicit_reward(q, next_v, discounts)
        loss = iq_expert_loss(rewards, v, next_v, discounts, self._divergence.phi)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        return {
            "loss": loss.detach(),
            "expert_reward": rewards.detach().mean(),
            "expert_q": q.detach().mean(),
            "expert_value": v.detach().mean(),
            "expert_advantage": (q - v).detach().mean(),
        }

    def tensors(self) -> dict[str, Tensor]:
        """The policy's, which are the Q-function's."""
        return named("policy", self.policy)


@torch.no_grad()
def recovered_rewards(policy: DiscretePolicy, batch: Batch, *, temperature: float, gamma: float) -> Tensor:
    """Q(s, a) - discount * V(s') for each transition, shape (B,). Source: [IQ21] eq. 11."""
    q = policy(batch.observations).gather(-1, batch.actions.unsqueeze(-1)).squeeze(-1)
    next_v = soft_value(policy(batch.next_observations), temperature)
    return implicit_reward(q, next_v, gamma * (1 - batch.terminations))

"""Offline IQ-Learn with continuous actions, made safe offline by three conservative pieces.

Plain actor-critic IQ-Learn comes apart offline: with a deterministic expert the advantage Q(s, a) - V(s) has no upper
bound, so Q sharpens at the recorded actions without end. What holds it: a soft value whose entropy is measured
against the cloned policy (leaving it costs), an action-gradient penalty (no spikes), and a LayerNorm critic.
"""

import copy

import torch
from torch import Tensor

from iq_offline.algorithms.divergences import ChiSquared
from iq_offline.algorithms.learner import Metrics, average_into, named
from iq_offline.algorithms.losses import (
    action_gradient_penalty,
    actor_loss,
    bounded,
    gaussian_kl,
    implicit_reward,
    iq_expert_loss,
    kl_soft_value,
)
from iq_offline.algorithms.networks import ContinuousPolicy, Critic
from iq_offline.batch import Batch
from iq_offline.config import ContinuousIQConfig


class ContinuousIQLearner:
    """An actor that starts as the cloned prior, a critic and its slow target; each update moves critic, then actor."""

    def __init__(
        self, config: ContinuousIQConfig, prior: ContinuousPolicy, critic: Critic, noise: torch.Generator
    ) -> None:
        self.prior = prior.requires_grad_(False)
        self.policy = copy.deepcopy(prior).requires_grad_(True)
        self.critic = critic
        self.target_critic = copy.deepcopy(critic).requires_grad_(False)
        self._config = config
        self._divergence = ChiSquared(config.reward_penalty)
        self._noise = noise
        self._actor_optimiser = torch.optim.Adam(
            self.policy.network.parameters(), lr=config.actor_learning_rate, fused=True
        )
        self._critic_optimiser = torch.optim.Adam(critic.parameters(), lr=config.critic_learning_rate, fused=True)
        self._schedules = [
            torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=max(config.updates, 1))
            for optimiser in (self._actor_optimiser, self._critic_optimiser)
        ]

    def update(self, batch: Batch) -> Metrics:
        """One step of the critic, one of the actor, one of the target's average."""
        metrics = self._update_critic(batch) | self._update_actor(batch)
        average_into(self.target_critic, self.critic, self._config.polyak_rate)
        for schedule in self._schedules:
            schedule.step()
        return metrics

    def tensors(self) -> dict[str, Tensor]:
        """Policy, prior, critic and target critic."""
        return (
            named("policy", self.policy)
            | named("prior", self.prior)
            | named("critic", self.critic)
            | named("target_critic", self.target_critic)
        )

    def _update_critic(self, batch: Batch) -> Metrics:
        observations = self.policy.standardise(batch.observations)
        next_observations = self.policy.standardise(batch.next_observations)
        expert_actions = self.policy.scale_actions(batch.actions).requires_grad_(True)
        discounts = self._config.gamma * (1 - batch.terminations)
        with torch.no_grad():
            actions, kl = self._sample(batch.observations)
            next_actions, next_kl = self._sample(batch.next_observations)
            next_q = self.target_critic(next_observations, next_actions)
            next_v = bounded(kl_soft_value(next_q, next_kl, self._config.temperature), self._config.target_bound)
        q = self.critic(observations, expert_actions)
        v = kl_soft_value(self.critic(observations, actions), kl, self._config.temperature)
        rewards = implicit_reward(q, next_v, discounts)
        penalty = action_gradient_penalty(q, expert_actions)
        loss = iq_expert_loss(rewards, v, next_v, discounts, self._divergence.phi)
        self._critic_optimiser.zero_grad(set_to_none=True)
        (loss + self._config.action_gradient_weight * penalty).backward()  # type: ignore[no-untyped-call]
        self._critic_optimiser.step()
        return {
            "loss": loss.detach(),
            "action_gradient": penalty.detach(),
            "expert_reward": rewards.detach().mean(),
            "expert_q": q.detach().mean(),
            "expert_value": v.detach().mean(),
            "expert_advantage": (q - v).detach().mean(),
        }

    def _update_actor(self, batch: Batch) -> Metrics:
        actions, kl = self._sample(batch.observations)
        self.critic.requires_grad_(False)
        loss = actor_loss(
            self.critic(self.policy.standardise(batch.observations), actions), kl, self._config.temperature
        )
        self._actor_optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._actor_optimiser.step()
        self.critic.requires_grad_(True)
        return {"actor_loss": loss.detach(), "kl_to_prior": kl.detach().mean()}

    def _sample(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Actions of the policy as they would be executed (clipped), and its divergence from the prior."""
        mean = self.policy(observations)
        with torch.no_grad():
            prior_mean = self.prior(observations)
        noise = torch.empty_like(mean).normal_(generator=self._noise)
        actions = (mean + self._config.policy_std * noise).clamp(-1, 1)
        return actions, gaussian_kl(mean, prior_mean, self._config.policy_std)


VALUE_SAMPLES = 16
"""Actions that a recovered reward averages V(s') over; half of them mirror the other half."""


@torch.no_grad()
def recovered_rewards(
    policy: ContinuousPolicy,
    prior: ContinuousPolicy,
    critic: Critic,
    batch: Batch,
    *,
    config: ContinuousIQConfig,
    noise: torch.Generator,
) -> Tensor:
    """Q(s, a) - discount * V(s') for each transition, shape (B,). Source: [IQ21] eq. 11.

    V(s') is the mean over VALUE_SAMPLES actions of the policy, in mirrored pairs.
    """
    q = critic(policy.standardise(batch.observations), policy.scale_actions(batch.actions))
    next_observations = policy.standardise(batch.next_observations)
    mean = policy(batch.next_observations)
    kl = gaussian_kl(mean, prior(batch.next_observations), config.policy_std)
    total = torch.zeros_like(q)
    for _ in range(VALUE_SAMPLES // 2):
        offset = config.policy_std * torch.empty_like(mean).normal_(generator=noise)
        for actions in (mean + offset, mean - offset):
            total += critic(next_observations, actions.clamp(-1, 1))
    next_v = kl_soft_value(total / VALUE_SAMPLES, kl, config.temperature)
    return implicit_reward(q, next_v, config.gamma * (1 - batch.terminations))

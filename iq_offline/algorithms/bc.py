"""Behavioural cloning: the strongest baseline on whole demonstrations, and the prior of continuous IQ-Learn."""

import torch
from torch import Tensor

from iq_offline.algorithms.adam import Adam, Changed, descend
from iq_offline.algorithms.distributions import censored_residuals
from iq_offline.algorithms.learner import Metrics, named
from iq_offline.algorithms.losses import censored_absolute_error, censored_squared_error, cloning_cross_entropy
from iq_offline.algorithms.networks import (
    ActionScale,
    ContinuousPolicy,
    DiscretePolicy,
    Policy,
    scaled_actions,
    with_precision,
)
from iq_offline.algorithms.noise import Noise
from iq_offline.batch import Batch
from iq_offline.config import ActionHead, AnchorConfig, BCConfig, CloningLoss, ContinuousBCConfig


class BCLearner:
    """AdamW on the cloning loss, the learning rate falling to zero along a cosine."""

    def __init__(self, config: BCConfig, policy: Policy) -> None:
        self.policy = policy
        with_precision(policy, config.precision)
        self._loss = config.loss if isinstance(config, ContinuousBCConfig) else CloningLoss.LIKELIHOOD
        self.adams = [Adam([policy], config.learning_rate, config.weight_decay, config.fewest_updates)]
        self.noise: Noise | None = None

    @property
    def changed(self) -> list[Changed]:
        """All that an update changes."""
        return [*self.adams]

    def update(self, batch: Batch) -> Metrics:
        """One step on the batch's observations and actions; the rest of it is not read."""
        loss = cloning_loss(self.policy, batch, self._loss)
        (norm,) = descend(self.adams, loss)
        return {"loss": loss.detach(), "actor_gradient_norm": norm}

    @torch.no_grad()
    def diagnostics(self, batch: Batch) -> Metrics:
        """How far the executed actions are from the recorded ones; the policy's entropy."""
        return {
            "action_error": action_error(self.policy, batch),
            "policy_entropy": policy_entropy(self.policy, batch.observations),
        }

    def tensors(self) -> dict[str, Tensor]:
        """The policy's."""
        return named("policy", self.policy)


def cloning_loss(policy: Policy, batch: Batch, loss: CloningLoss = CloningLoss.CENSORED) -> Tensor:
    """What cloning minimises: cross entropy for a discrete policy; for a continuous one as its configuration says.

    CENSORED: squared error of scaled actions, censored at the bounds. ABSOLUTE: absolute error, likewise. SQUARED:
    plain. LIKELIHOOD: the head's negative log likelihood.
    """
    if not isinstance(policy, ContinuousPolicy):
        return cloning_cross_entropy(policy(batch.observations), batch.actions)
    if policy.head is ActionHead.CLIPPED_GAUSSIAN and not policy.learnt_std:
        censored = {CloningLoss.CENSORED: censored_squared_error, CloningLoss.ABSOLUTE: censored_absolute_error}
        if loss in censored:
            return censored[loss](policy(batch.observations), policy.scale_actions(batch.actions))
    return cloning_errors(policy, batch, loss).mean()


def cloning_errors(policy: Policy, batch: Batch, loss: CloningLoss = CloningLoss.CENSORED) -> Tensor:
    """The same of each transition, (B,)."""
    if not isinstance(policy, ContinuousPolicy):
        return torch.nn.functional.cross_entropy(policy(batch.observations), batch.actions, reduction="none")
    actions = policy.scale_actions(batch.actions)
    if loss is CloningLoss.LIKELIHOOD:
        return -policy.distribution(batch.observations).log_prob(actions)
    mean = _squashed_mean(policy, batch.observations)
    if loss is CloningLoss.SQUARED:
        return (mean - actions).square().mean(dim=-1)
    residuals = censored_residuals(mean, actions)
    return (residuals.abs() if loss is CloningLoss.ABSOLUTE else residuals.square()).mean(dim=-1)


def errors_in_bounds(policy: ContinuousPolicy, batch: Batch, bounds: ActionScale) -> Tensor:
    """Absolute errors of the mean action in units of the bounds, censored there, (B,).

    Policies whose own scaled actions fill different boxes compare by these.
    """
    mean = _squashed_mean(policy, batch.observations) * policy.action_half_range + policy.action_centre
    residuals = censored_residuals(scaled_actions(mean, bounds), scaled_actions(batch.actions, bounds))
    return residuals.abs().mean(dim=-1)


def _squashed_mean(policy: ContinuousPolicy, observations: Tensor) -> Tensor:
    mean = policy.mean(observations)
    return mean.tanh() if policy.head is ActionHead.TANH_GAUSSIAN else mean


def anchor_loss(config: AnchorConfig, policy: ContinuousPolicy, batch: Batch) -> Tensor:
    """The cloning losses that hold an actor to recorded actions, each with its weight, (). Source: [TD3BC21]."""
    total = torch.zeros((), device=batch.actions.device)
    if config.squared_error > 0:
        total = total + config.squared_error * cloning_errors(policy, batch, CloningLoss.CENSORED).mean()
    if config.likelihood > 0:
        total = total + config.likelihood * cloning_errors(policy, batch, CloningLoss.LIKELIHOOD).mean()
    return total


def action_error(policy: Policy, batch: Batch) -> Tensor:
    """Mean squared difference of executed and recorded scaled actions, or the share of actions that differ, ()."""
    if isinstance(policy, ContinuousPolicy):
        executed = policy.scale_actions(policy.act(batch.observations))
        return (executed - policy.scale_actions(batch.actions)).square().mean()
    return (policy.act(batch.observations) != batch.actions).float().mean()


def policy_entropy(policy: Policy, observations: Tensor) -> Tensor:
    """Mean entropy in nats, (); of a continuous policy, that of the Gaussian before clipping or squashing."""
    if isinstance(policy, ContinuousPolicy):
        return policy.distribution(observations).entropy().mean()
    assert isinstance(policy, DiscretePolicy)
    log_probabilities = torch.log_softmax(policy(observations), dim=-1)
    return -(log_probabilities.exp() * log_probabilities).sum(dim=-1).mean()

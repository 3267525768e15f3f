"""Behavioural cloning: the strongest baseline on whole demonstrations, and the prior of continuous IQ-Learn."""

import torch
from torch import Tensor

from iq_offline.algorithms.adam import Adam, Changed, descend
from iq_offline.algorithms.distributions import ON_THE_BOUND
from iq_offline.algorithms.encoders import with_precision
from iq_offline.algorithms.losses import Metrics
from iq_offline.algorithms.networks import ActionScale, ContinuousPolicy, Policy, named, scaled_actions
from iq_offline.algorithms.noise import Noise
from iq_offline.batch import Batch
from iq_offline.config.cloning import BCConfig, CloningLoss, ContinuousBCConfig


class BCLearner:
    """AdamW on the cloning loss, the learning rate falling to zero along a cosine."""

    def __init__(self, config: BCConfig, policy: Policy) -> None:
        self.policy = policy
        with_precision(policy, config.precision)
        self._loss = config.loss if isinstance(config, ContinuousBCConfig) else CloningLoss.CENSORED
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
            "action_error": self.policy.action_error(batch),
            "policy_entropy": self.policy.entropy(batch.observations),
        }

    def tensors(self) -> dict[str, Tensor]:
        """The policy's."""
        return named("policy", self.policy)


def cloning_loss(policy: Policy, batch: Batch, loss: CloningLoss = CloningLoss.CENSORED) -> Tensor:
    """What cloning minimises, (): cross entropy of discrete actions, else the censored error of the mean.

    Means are clipped when executed, so one beyond a bound that the recorded action lies on is right and costs nothing
    (Tobit's censoring, Tobin 1958; absolute errors: Powell 1984). Experts often act on the bounds: the plain error
    spends the network on them, and a tanh-squashed likelihood diverges there.
    """
    if not isinstance(policy, ContinuousPolicy):
        return torch.nn.functional.cross_entropy(policy(batch.observations), batch.actions)
    return _errors(policy, batch, loss).mean()


def cloning_errors(policy: Policy, batch: Batch, loss: CloningLoss = CloningLoss.CENSORED) -> Tensor:
    """The same of each transition, (B,)."""
    if not isinstance(policy, ContinuousPolicy):
        return torch.nn.functional.cross_entropy(policy(batch.observations), batch.actions, reduction="none")
    return _errors(policy, batch, loss).mean(dim=-1)


def errors_in_bounds(policy: ContinuousPolicy, batch: Batch, bounds: ActionScale) -> Tensor:
    """Absolute errors of the mean action in units of the bounds, censored there, (B,).

    Policies whose own scaled actions fill different boxes compare by these.
    """
    mean = policy.unclipped_mode(batch.observations) * policy.action_half_range + policy.action_centre
    residuals = censored_residuals(scaled_actions(mean, bounds), scaled_actions(batch.actions, bounds))
    return residuals.abs().mean(dim=-1)


def censored_residuals(means: Tensor, actions: Tensor) -> Tensor:
    """means - actions, zero where the recorded action lies on a bound and the mean beyond it. Shapes: (B, A)."""
    if means.shape != actions.shape:
        raise ValueError(f"means {tuple(means.shape)} for actions {tuple(actions.shape)}")
    residuals = means - actions
    right_above = (actions >= 1 - ON_THE_BOUND) & (residuals > 0)
    right_below = (actions <= -1 + ON_THE_BOUND) & (residuals < 0)
    return residuals.masked_fill(right_above | right_below, 0)


def _errors(policy: ContinuousPolicy, batch: Batch, loss: CloningLoss) -> Tensor:
    """Of each scaled action's dimensions, (B, A)."""
    residuals = censored_residuals(policy.unclipped_mode(batch.observations), policy.scale_actions(batch.actions))
    return residuals.abs() if loss is CloningLoss.ABSOLUTE else residuals.square()

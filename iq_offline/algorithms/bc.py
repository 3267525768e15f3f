"""Behavioural cloning: the strongest baseline on whole demonstrations, and the prior of continuous IQ-Learn."""

import torch
from torch import Tensor

from iq_offline.algorithms.learner import Metrics, named
from iq_offline.algorithms.losses import censored_squared_error, cloning_cross_entropy
from iq_offline.algorithms.networks import ContinuousPolicy, Policy
from iq_offline.batch import Batch
from iq_offline.config import BCConfig


class BCLearner:
    """AdamW on the cloning loss, the learning rate falling to zero along a cosine."""

    def __init__(self, config: BCConfig, policy: Policy) -> None:
        self.policy = policy
        self._optimiser = torch.optim.AdamW(
            policy.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self._schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimiser, T_max=config.updates)

    def update(self, batch: Batch) -> Metrics:
        """One step on the batch's observations and actions; the rest of it is not read."""
        loss = cloning_loss(self.policy, batch)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        self._schedule.step()
        return {"loss": loss.detach()}

    def tensors(self) -> dict[str, Tensor]:
        """The policy's."""
        return named("policy", self.policy)


def cloning_loss(policy: Policy, batch: Batch) -> Tensor:
    """Censored squared error of scaled actions for a continuous policy, cross entropy for a discrete one."""
    outputs = policy(batch.observations)
    if isinstance(policy, ContinuousPolicy):
        return censored_squared_error(outputs, policy.scale_actions(batch.actions))
    return cloning_cross_entropy(outputs, batch.actions)

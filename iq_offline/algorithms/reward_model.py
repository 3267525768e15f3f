"""An explicit reward r(s), r(s, a) or r(s, a, s') fitted to a recovered one, so that it can be used without Q and V.

[IQ21] names this as what is left to do (sec. 8): the recovered reward needs the next observation and the learnt V.
Fitting it to the conditional mean also averages out what the inputs do not tell.
"""

from enum import StrEnum

import torch
from torch import Tensor, nn

from iq_offline.algorithms.encoders import initialise, mlp
from iq_offline.algorithms.networks import ContinuousPolicy, DiscretePolicy, Policy
from iq_offline.batch import Batch
from iq_offline.config.base import Activation, HiddenSizes


class RewardInputs(StrEnum):
    """What an explicit reward sees. S: the observation. SA: and the action. SAS: and the next observation."""

    S = "s"
    SA = "sa"
    SAS = "sas"


class RewardModel(nn.Module):
    """A perceptron on standardised observations and scaled (or one-hot) actions, scaled as the run's policy scales.

    `mean` and `std` of the rewards that it is fitted to put its output back on their scale. Vectors only.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, policy: Policy, inputs: RewardInputs, hidden: HiddenSizes) -> None:
        super().__init__()
        self.inputs, self.hidden = inputs, hidden
        self._policy = [policy]  # scaling only: its weights are not this module's
        size, actions = policy.layout.features, self._action_size(policy)
        width = size + (0 if inputs is RewardInputs.S else actions) + (size if inputs is RewardInputs.SAS else 0)
        self.network = mlp(width, 1, hidden, Activation.SILU)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))

    def initialise(self, random: torch.Generator) -> None:
        """Fresh weights."""
        initialise(self.network, random)

    def forward(self, batch: Batch) -> Tensor:
        """Rewards of raw transitions, (B,)."""
        return self.standardised(batch) * self.std + self.mean

    def standardised(self, batch: Batch) -> Tensor:
        """Rewards less their mean and by their standard deviation, (B,)."""
        policy = self._policy[0]
        parts = [policy.standardise(batch.observations)]
        if self.inputs is not RewardInputs.S:
            parts.append(self._actions(policy, batch.actions))
        if self.inputs is RewardInputs.SAS:
            parts.append(policy.standardise(batch.next_observations))
        outputs: Tensor = self.network(torch.cat(parts, dim=-1))
        return outputs.squeeze(-1)

    def loss(self, batch: Batch, rewards: Tensor) -> Tensor:
        """Mean squared error of standardised rewards, (); minimise. `rewards`: (B,), as they were recovered."""
        return (self.standardised(batch) - (rewards - self.mean) / self.std).square().mean()

    @staticmethod
    def _action_size(policy: Policy) -> int:
        if isinstance(policy, ContinuousPolicy):
            return len(policy.action_centre)
        last = policy.network[-1]
        assert isinstance(last, nn.Linear)
        return last.out_features

    @staticmethod
    def _actions(policy: Policy, actions: Tensor) -> Tensor:
        if isinstance(policy, ContinuousPolicy):
            return policy.scale_actions(actions)
        assert isinstance(policy, DiscretePolicy)
        return nn.functional.one_hot(actions, RewardModel._action_size(policy)).float()

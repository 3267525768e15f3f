"""Settings of IQ-Learn over the mixture of demonstrations and supplementary data."""

from typing import Literal

from pydantic import Field

from iq_offline.config.base import HiddenSizes
from iq_offline.config.cloning import CloningLoss
from iq_offline.config.recoil import InSampleConfig
from iq_offline.config.regularisers import DiscreteRegularisers
from iq_offline.config.soft_q import SoftQConfig


class IQMixtureConfig(InSampleConfig):
    """IQ-Learn over the mixture, for continuous actions: an in-sample value and an advantage-weighted actor."""

    name: Literal["iq-mixture-continuous"] = "iq-mixture-continuous"
    advantage_temperature: float = Field(2.0, gt=0)
    """Advantages are divided by it: the smaller, the fewer actions count."""
    cloning_loss: CloningLoss = CloningLoss.ABSOLUTE
    """Of recorded actions, weighted by their advantage: the median of noisy actions is the policy's own."""


class DiscreteIQMixtureConfig(DiscreteRegularisers, SoftQConfig):
    """IQ-Learn over the mixture, for discrete actions: one Q-network, a gradient through V(s')."""

    remedy = "set polyak_rate=0.005, target_bound=100 or a smaller learning_rate"

    name: Literal["iq-mixture-discrete"] = "iq-mixture-discrete"
    updates: int = Field(1500, ge=1)
    """Gradient updates; the learning rate falls to zero along a cosine over them."""
    batch_size: int = Field(128, ge=1)
    """Transitions of an update; half of them supplementary where there are such."""
    learning_rate: float = Field(1e-3, gt=0)
    """At the first update."""
    hidden_sizes: HiddenSizes = (64, 64)
    """Of the Q-network."""
    polyak_rate: float | None = Field(None, gt=0, le=1)
    """Rate at which a target network follows; none: no target network, a gradient through V(s')."""
    reward_penalty: float = Field(0.5, gt=0)
    """Coefficient c of chi-squared: the penalty on recovered rewards of both sources is r^2 / (4c)."""

    @property
    def reads_supplementary(self) -> bool:
        """Always, where there are such data."""
        return True

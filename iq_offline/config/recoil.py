"""Settings of ReCOIL [RECOIL24]."""

from typing import Literal

from pydantic import Field

from iq_offline.config.awr import AdvantageWeightsConfig
from iq_offline.config.cloning import CloningLoss
from iq_offline.config.ls_iq import GIVEN_REWARDS_REMEDY, FixedRewardsConfig
from iq_offline.config.q_learning import ActorCriticConfig
from iq_offline.config.regularisers import ContinuousRegularisers, DiscreteRegularisers
from iq_offline.config.soft_q import SoftQConfig


class InSampleValueConfig(AdvantageWeightsConfig):
    """A value network fitted at recorded actions alone, by the Gumbel loss [XQL23]."""

    gumbel_temperature: float = Field(20.0, gt=0)
    """Of the soft maximum over recorded Q."""
    max_exponent: float = Field(7.0, gt=0)
    """Beyond this exponent the Gumbel loss goes on along its tangent."""
    value_learning_rate: float = Field(3e-4, gt=0)
    """Of the value network, at the first update."""
    advantage_temperature: float = Field(10.0, gt=0)
    """Advantages are divided by it: the smaller, the fewer actions count."""


class InSampleConfig(
    InSampleValueConfig, FixedRewardsConfig, AdvantageWeightsConfig, ContinuousRegularisers, ActorCriticConfig
):
    """Fixed rewards, an in-sample value and an advantage-weighted actor, for continuous actions."""

    remedy = GIVEN_REWARDS_REMEDY

    updates: int = Field(10_000, ge=0)
    """Updates of value, critics and actor; all learning rates fall to zero along a cosine."""
    actor_learning_rate: float = Field(1e-3, gt=0)
    """At the first update."""
    actor_weight_decay: float = Field(1e-2, ge=0)
    """Decoupled (AdamW)."""
    policy_std: float = Field(0.135, gt=0)
    """Standard deviation of the policy, in scaled actions."""
    cloning_loss: CloningLoss = CloningLoss.CENSORED
    """Of recorded actions, which their advantages weigh."""


class ReCOILConfig(InSampleConfig):
    """ReCOIL for continuous actions."""

    name: Literal["recoil-continuous"] = "recoil-continuous"


class DiscreteReCOILConfig(
    InSampleValueConfig, FixedRewardsConfig, AdvantageWeightsConfig, DiscreteRegularisers, SoftQConfig
):
    """ReCOIL for discrete actions."""

    remedy = GIVEN_REWARDS_REMEDY

    name: Literal["recoil-discrete"] = "recoil-discrete"
    updates: int = Field(5000, ge=1)
    """Gradient updates; the learning rate falls to zero along a cosine over them."""
    learning_rate: float = Field(1e-3, gt=0)
    """Of Q and of the actor, at the first update."""

"""Settings of IQ-Learn with an advantage-weighted actor [AWR19], and what ReCOIL's actor shares with it."""

from typing import Literal

from pydantic import Field

from iq_offline.config.base import FrozenModel
from iq_offline.config.q_learning import ActorCriticConfig
from iq_offline.config.regularisers import ContinuousRegularisers, DiscreteRegularisers, GradientPenaltyConfig
from iq_offline.config.soft_q import SoftQConfig


class AdvantageWeightsConfig(FrozenModel):
    """Weights min(exp(advantage / advantage_temperature), max_weight) of recorded actions, [AWR19] eq. 8."""

    advantage_temperature: float = Field(0.1, gt=0)
    """Advantages are divided by it: the smaller, the fewer actions count."""
    max_weight: float = Field(100.0, gt=0)
    """Weights are clipped to this."""


class AWRConfig(AdvantageWeightsConfig, ContinuousRegularisers, ActorCriticConfig):
    """The IQ-Learn objective with an advantage-weighted actor, for continuous actions."""

    remedy = "set gradient_penalty.weight=10, polyak_rate=0.005 or target_bound=100; or use --method iq"

    name: Literal["iq-awr-continuous"] = "iq-awr-continuous"
    updates: int = Field(10_000, ge=0)
    """Updates of critics and actor; both learning rates fall to zero along a cosine."""
    actor_learning_rate: float = Field(1e-3, gt=0)
    """At the first update."""
    actor_weight_decay: float = Field(1e-2, ge=0)
    """Decoupled (AdamW)."""
    policy_std: float = Field(0.135, gt=0)
    """Standard deviation of the policy, in scaled actions: V(s) is Q at an action drawn from it."""
    reward_penalty: float = Field(0.5, gt=0)
    """Coefficient c of chi-squared: the penalty on recovered rewards is r^2 / (4c)."""
    gradient_penalty: GradientPenaltyConfig | None = GradientPenaltyConfig()

    @property
    def reads_supplementary(self) -> bool:
        """By a regulariser."""
        return self.regularisers_read_supplementary


class DiscreteAWRConfig(AdvantageWeightsConfig, DiscreteRegularisers, SoftQConfig):
    """The IQ-Learn objective with an advantage-weighted actor, for discrete actions."""

    remedy = "set gradient_penalty.weight=10, polyak_rate=0.005 or target_bound=100; or use --method iq"

    name: Literal["iq-awr-discrete"] = "iq-awr-discrete"
    updates: int = Field(5000, ge=1)
    """Gradient updates; the learning rate falls to zero along a cosine over them."""
    learning_rate: float = Field(1e-3, gt=0)
    """Of Q and of the actor, at the first update."""
    reward_penalty: float = Field(0.5, gt=0)
    """Coefficient c of chi-squared: the penalty on recovered rewards is r^2 / (4c)."""
    gradient_penalty: GradientPenaltyConfig | None = GradientPenaltyConfig()

    @property
    def reads_supplementary(self) -> bool:
        """By a regulariser."""
        return self.regularisers_read_supplementary

"""Settings of least-squares IQ-Learn [LSIQ23], and of the fixed rewards that ReCOIL shares with it."""

from typing import Literal, Self

from pydantic import Field, model_validator

from iq_offline.config.base import ActionHead, Activation, FrozenModel
from iq_offline.config.q_learning import ActorCriticConfig, QLearningConfig
from iq_offline.config.regularisers import ContinuousRegularisers, DiscreteRegularisers
from iq_offline.config.soft_q import SoftQConfig

GIVEN_REWARDS_REMEDY = (
    "set polyak_rate=0.005 or target_bound=200 (as large as the greatest |reward| / (1 - gamma) is enough); "
    "or use --method iq"
)


class FixedRewardsConfig(FrozenModel):
    """One reward for the expert's transitions and one for supplementary ones."""

    fixed_rewards: tuple[float, float] = (2.0, -2.0)
    """Of the expert and of supplementary data: those of [LSIQ23] at its coefficient 0.5."""
    target_bound: float | None = Field(200.0, gt=0)
    """Largest |V(s')|: by default that of the fixed rewards, for ever. none: unbounded."""

    @property
    def reads_supplementary(self) -> bool:
        """Always, where there are such data."""
        return True

    @property
    def largest_true_value(self) -> float:
        """The largest |value| that the fixed rewards make."""
        assert isinstance(self, QLearningConfig)
        return max(map(abs, self.fixed_rewards)) / (1 - self.gamma)

    @model_validator(mode="after")
    def _values_stay_below_the_limit(self) -> Self:
        assert isinstance(self, QLearningConfig)
        largest = self.largest_true_value
        if self.max_abs_q is not None and largest >= self.max_abs_q:
            raise ValueError(
                f"fixed_rewards at gamma={self.gamma:g} make values of {largest:g}, where max_abs_q={self.max_abs_q:g} "
                f"stops the run: set max_abs_q={10 * largest:g}, and target_bound={largest:g}"
            )
        return self


class LSIQConfig(FixedRewardsConfig, ContinuousRegularisers, ActorCriticConfig):
    """LS-IQ for continuous actions."""

    head = ActionHead.TANH_GAUSSIAN
    remedy = GIVEN_REWARDS_REMEDY

    name: Literal["ls-iq-continuous"] = "ls-iq-continuous"
    updates: int = Field(20_000, ge=0)
    """Updates of critics and actor; both learning rates fall to zero along a cosine."""
    actor_activation: Activation = Activation.RELU
    critic_layer_norm: bool = False
    """Before each hidden activation of the critics [LN16]."""


class DiscreteLSIQConfig(FixedRewardsConfig, DiscreteRegularisers, SoftQConfig):
    """LS-IQ for discrete actions."""

    remedy = GIVEN_REWARDS_REMEDY

    name: Literal["ls-iq-discrete"] = "ls-iq-discrete"
    updates: int = Field(5000, ge=1)
    """Gradient updates; the learning rate falls to zero along a cosine over them."""
    learning_rate: float = Field(1e-3, gt=0)
    """Of Q and V, at the first update."""
    temperature: float = Field(1.0, gt=0)
    """Weight of the policy's entropy in the soft value."""

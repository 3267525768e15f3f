"""Settings of coherent soft imitation [CSIL23]."""

from typing import Literal

from pydantic import Field

from iq_offline.config.base import FrozenModel
from iq_offline.config.cloning import ContinuousBCConfig, DiscreteBCConfig
from iq_offline.config.ls_iq import GIVEN_REWARDS_REMEDY
from iq_offline.config.q_learning import ActorCriticConfig
from iq_offline.config.regularisers import (
    ActionGradientAt,
    ActionGradientConfig,
    ContinuousRegularisers,
    DiscreteRegularisers,
)
from iq_offline.config.soft_q import SoftQConfig


class CoherentRewardConfig(FrozenModel):
    """The coherent reward: coherence * log(density of the clone / uniform density), bounded."""

    coherence: float | None = Field(None, gt=0)
    """Weight of the coherent reward; none: 1 / action dimensions (1 if discrete)."""
    target_bound: float | None = Field(645.0, gt=0)
    """Largest |V(s')|: by default that of the largest coherent reward, for ever. none: unbounded."""

    @property
    def reads_supplementary(self) -> bool:
        """Always, where there are such data."""
        return True


class CSILConfig(CoherentRewardConfig, ContinuousRegularisers, ActorCriticConfig):
    """CSIL for continuous actions."""

    remedy = GIVEN_REWARDS_REMEDY

    name: Literal["csil-continuous"] = "csil-continuous"
    updates: int = Field(5000, ge=0)
    """Updates of critics and actor, after the prior's own; both learning rates fall to zero along a cosine."""
    temperature: float = Field(1.0, ge=0)
    """Weight of KL(policy || prior) in the soft value and in the actor's loss."""
    policy_std: float = Field(0.135, gt=0)
    """Standard deviation of policy and prior, in scaled actions."""
    action_gradient: ActionGradientConfig | None = ActionGradientConfig(at=ActionGradientAt.RECORDED)
    prior: ContinuousBCConfig = ContinuousBCConfig()
    """The behavioural clone that initialises the actor and whose density makes the reward."""


class DiscreteCSILConfig(CoherentRewardConfig, DiscreteRegularisers, SoftQConfig):
    """CSIL for discrete actions."""

    remedy = GIVEN_REWARDS_REMEDY

    name: Literal["csil-discrete"] = "csil-discrete"
    temperature: float = Field(1.0, gt=0)
    """Weight of KL(policy || prior) in the soft value."""
    prior: DiscreteBCConfig = DiscreteBCConfig()
    """The behavioural clone that initialises the policy and whose probability makes the reward."""

"""Settings of soft Q imitation learning that acts [SQIL20]: fixed rewards, one a source."""

from typing import Literal

from pydantic import Field

from iq_offline.config.base import ActionHead, Activation, FrozenModel
from iq_offline.config.online import InteractionConfig
from iq_offline.config.q_learning import ActorCriticConfig, EnsembleConfig
from iq_offline.config.regularisers import ContinuousRegularisers, DiscreteRegularisers
from iq_offline.config.soft_q import SoftQConfig


class SourceRewardsConfig(FrozenModel):
    """One reward for the expert's transitions and one for what is experienced."""

    source_rewards: tuple[float, float] = (1.0, 0.0)
    """Of the expert's transitions, and of experienced ones."""


class OnlineSQILConfig(SourceRewardsConfig, InteractionConfig, ContinuousRegularisers, ActorCriticConfig):
    """SQIL for continuous actions: SAC with those rewards."""

    head = ActionHead.TANH_GAUSSIAN
    remedy = "set target_bound=100 or a smaller critic_learning_rate"

    name: Literal["sqil-online-continuous"] = "sqil-online-continuous"
    updates: int = Field(0, ge=0)
    """Follow environment_steps, warm_up_steps and updates_per_step; learning rates fall to zero along a cosine."""
    actor_activation: Activation = Activation.RELU
    ensemble: EnsembleConfig = EnsembleConfig(members=2)


class DiscreteOnlineSQILConfig(SourceRewardsConfig, InteractionConfig, DiscreteRegularisers, SoftQConfig):
    """SQIL for discrete actions: soft Q-learning with those rewards."""

    remedy = "set target_bound=100 or a smaller learning_rate"

    name: Literal["sqil-online-discrete"] = "sqil-online-discrete"
    environment_steps: int = Field(20_000, ge=1)
    """Steps in the environment, those of the warm-up included; scheduled evaluations come on top."""
    warm_up_steps: int = Field(500, ge=0)
    """Steps before the first update, of uniformly random actions."""
    updates: int = Field(0, ge=0)
    """Follow environment_steps, warm_up_steps and updates_per_step; the learning rate falls to zero along a cosine."""
    learning_rate: float = Field(1e-3, gt=0)
    """Of Q, at the first update."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled (AdamW)."""
    temperature: float = Field(0.01, gt=0)
    """Weight of the policy's entropy in the soft value."""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Of the Q-network."""
    activation: Activation = Activation.ELU

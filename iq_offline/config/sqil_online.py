"""Settings of soft Q imitation learning that acts [SQIL20]: fixed rewards, one a source."""

from typing import Literal

from iq_offline.config.base import FrozenModel
from iq_offline.config.online import ActingActorCriticConfig, ActingSoftQConfig


class SourceRewardsConfig(FrozenModel):
    """One reward for the expert's transitions and one for what is experienced."""

    source_rewards: tuple[float, float] = (1.0, 0.0)
    """Of the expert's transitions, and of experienced ones."""


class OnlineSQILConfig(SourceRewardsConfig, ActingActorCriticConfig):
    """SQIL for continuous actions: SAC with those rewards."""

    remedy = "set target_bound=100 or a smaller critic_learning_rate"

    name: Literal["sqil-online-continuous"] = "sqil-online-continuous"


class DiscreteOnlineSQILConfig(SourceRewardsConfig, ActingSoftQConfig):
    """SQIL for discrete actions: soft Q-learning with those rewards."""

    remedy = "set target_bound=100 or a smaller learning_rate"

    name: Literal["sqil-online-discrete"] = "sqil-online-discrete"

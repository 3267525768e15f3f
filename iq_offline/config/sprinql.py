"""Settings of the method after SPRINQL [SPRINQL24]: two levels of quality, with given reference rewards."""

from typing import Literal

from pydantic import Field

from iq_offline.config.base import ActionHead, Activation, FrozenModel
from iq_offline.config.q_learning import ActorCriticConfig, EnsembleConfig
from iq_offline.config.regularisers import ContinuousRegularisers, CQLConfig, DiscreteRegularisers
from iq_offline.config.soft_q import SoftQConfig


class ReferenceRewardsConfig(FrozenModel):
    """IQ-Learn on both sources, the recovered reward of each drawn to a reference."""

    reward_reference: tuple[float, float] = (1.0, 0.0)
    """Rewards of expert and of supplementary data that the penalty draws to, (r - reference)^2 / (4c)."""
    reward_penalty: float = Field(0.5, gt=0)
    """Coefficient c of that penalty."""
    cql: CQLConfig | None = CQLConfig()

    @property
    def reads_supplementary(self) -> bool:
        """Always, where there are such data."""
        return True


class SPRINQLConfig(ReferenceRewardsConfig, ContinuousRegularisers, ActorCriticConfig):
    """SPRINQL for continuous actions."""

    head = ActionHead.TANH_GAUSSIAN
    remedy = "set polyak_rate=0.005 or target_bound=100; or use --method iq"

    name: Literal["sprinql-continuous"] = "sprinql-continuous"
    updates: int = Field(20_000, ge=0)
    """Updates of critics and actor; both learning rates fall to zero along a cosine."""
    actor_learning_rate: float = Field(3e-5, gt=0)
    """At the first update."""
    actor_weight_decay: float = Field(1e-3, ge=0)
    """Decoupled (AdamW)."""
    critic_weight_decay: float = Field(1e-3, ge=0)
    """Decoupled (AdamW)."""
    actor_activation: Activation = Activation.RELU
    critic_layer_norm: bool = False
    """Before each hidden activation of the critics [LN16]."""
    ensemble: EnsembleConfig = EnsembleConfig(members=2)


class DiscreteSPRINQLConfig(ReferenceRewardsConfig, DiscreteRegularisers, SoftQConfig):
    """SPRINQL for discrete actions."""

    remedy = "set polyak_rate=0.005 or target_bound=100; or use --method iq"

    name: Literal["sprinql-discrete"] = "sprinql-discrete"
    updates: int = Field(5000, ge=1)
    """Gradient updates; the learning rate falls to zero along a cosine over them."""
    learning_rate: float = Field(1e-3, gt=0)
    """Of Q and V, at the first update."""

"""Settings that the Q-learning methods share: discount, target, networks, optimisation."""

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from iq_offline.config.base import ActionHead, Activation, AlgorithmConfig, FrozenModel, HiddenSizes, Precision


class QLearningConfig(AlgorithmConfig):
    """Of every method that learns a Q-function."""

    learns_reward: ClassVar[bool] = True
    remedy: ClassVar[str]
    """What to change where the Q-function diverges."""
    beside_updates: ClassVar[frozenset[str]] = frozenset({"updates", "max_abs_q"})
    """Settings that no update depends on, learning rates apart."""

    updates: int = Field(2000, ge=0)
    """Gradient updates after the prior's own; learning rates fall to zero along a cosine over them."""
    batch_size: int = Field(256, ge=1)
    """Transitions of an update; half of them supplementary where the method reads those."""
    gamma: float = Field(0.99, ge=0, lt=1)
    """Discount per environment step."""
    polyak_rate: float | None = Field(0.005, gt=0, le=1)
    """Rate at which the target network follows; none: no target network, a gradient through V(s')."""
    target_bound: float | None = Field(100.0, gt=0)
    """Largest |V(s')|; none: unbounded. By default that of rewards up to 2c, where phi is greatest, for ever."""
    precision: Precision = Precision.FLOAT32
    """Of the method's own updates; a prior has its own."""
    max_abs_q: float | None = Field(1000.0, gt=0)
    """Stop when the mean |Q| of the expert's actions exceeds this; none: never."""

    @property
    def needs_initial_observations(self) -> bool:
        """Whether a batch holds first observations of episodes."""
        return False


class Pessimism(StrEnum):
    """How an ensemble's members become one value. BOUND: mean less some standard deviations."""

    MEAN = "mean"
    MINIMUM = "minimum"
    BOUND = "bound"


class EnsembleConfig(FrozenModel):
    """Several critics that share targets."""

    members: int = Field(1, ge=1)
    """Critics, each with initial weights of its own."""
    pessimism: Pessimism = Pessimism.MINIMUM
    deviations: float = Field(1.0, ge=0)
    """Standard deviations below the mean (BOUND)."""


class ActorCriticConfig(QLearningConfig):
    """Of continuous actions: an actor and an ensemble of critics."""

    head: ClassVar[ActionHead] = ActionHead.CLIPPED_GAUSSIAN
    """Distribution of the actor's actions."""

    actor_learning_rate: float = Field(3e-4, gt=0)
    """At the first update."""
    critic_learning_rate: float = Field(3e-4, gt=0)
    """At the first update."""
    actor_weight_decay: float = Field(0.0, ge=0)
    """Decoupled (AdamW)."""
    critic_weight_decay: float = Field(0.0, ge=0)
    """Decoupled (AdamW)."""
    temperature: float = Field(0.01, ge=0)
    """Weight of the policy's entropy in the soft value and in the actor's loss."""
    policy_std: float | None = Field(None, gt=0)
    """Standard deviation of the policy, in scaled actions; none: learnt, by observation."""
    hidden_sizes: HiddenSizes = (256, 256)
    """Of the critics, of an in-sample value and of an actor without a prior."""
    actor_activation: Activation = Activation.TANH
    """Of an actor without a prior; else the prior's."""
    critic_activation: Activation = Activation.RELU
    critic_layer_norm: bool = True
    """Before each hidden activation of critics and in-sample value [LN16]."""
    ensemble: EnsembleConfig = EnsembleConfig()

"""Settings of the methods that act in an environment while they learn: how often, and what they learn then."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from iq_offline.config.base import ActionHead, Activation, FrozenModel
from iq_offline.config.cloning import ContinuousBCConfig, DiscreteBCConfig
from iq_offline.config.iq import InverseObjectiveConfig, ValueTerm
from iq_offline.config.q_learning import ActorCriticConfig, EnsembleConfig, QLearningConfig
from iq_offline.config.regularisers import ContinuousRegularisers, DiscreteRegularisers
from iq_offline.config.soft_q import SoftQConfig


class InteractionConfig(FrozenModel):
    """Acting in rounds: whole episodes with the policy as it is, then updates on all that was experienced."""

    beside_updates: ClassVar[frozenset[str]] = QLearningConfig.beside_updates | {
        "environment_steps",
        "warm_up_steps",
        "updates_per_step",
        "environments",
        "replay_size",
        "evaluate_every",
        "evaluation_episodes",
    }

    environment_steps: int = Field(100_000, ge=1)
    """Steps in the environment, those of the warm-up included; scheduled evaluations come on top."""
    warm_up_steps: int = Field(1000, ge=0)
    """Steps before the first update: uniformly random actions, or those of the run that training starts from."""
    updates_per_step: float = Field(1.0, gt=0)
    """Gradient updates for each step after the warm-up."""
    environments: int = Field(1, ge=1)
    """Environments that act together; each runs one episode a round."""
    replay_size: int = Field(1_000_000, ge=1)
    """Most recent transitions that batches are drawn from, in whole episodes."""
    evaluate_every: int | None = Field(None, ge=1)
    """Environment steps between two evaluations of the deterministic policy; none: no evaluations."""
    evaluation_episodes: int = Field(10, ge=1)
    """Episodes of such an evaluation. It chooses nothing: the last policy is the run's."""

    @property
    def reads_supplementary(self) -> bool:
        """No: what was experienced is in their place, half of each batch."""
        return False

    def updates_after(self, steps: int) -> int:
        """Updates that so many environment steps allow."""
        return int(self.updates_per_step * max(0, steps - self.warm_up_steps))

    @model_validator(mode="after")
    def _updates_follow_the_steps(self) -> Self:
        assert isinstance(self, QLearningConfig)
        given, follow = self.updates, self.updates_after(self.environment_steps)
        if given not in (0, follow):
            raise ValueError(
                f"updates follow the environment steps ({follow} here): "
                "set environment_steps or updates_per_step in place of updates"
            )
        if follow == 0:
            raise ValueError("no update follows the warm-up: set a larger environment_steps or a smaller warm_up_steps")
        self.__dict__["updates"] = follow
        return self


class StartConfig(FrozenModel):
    """What keeps a policy that starts from a run (--start-from) from being unlearnt."""

    anchor_weight: float = Field(1.0, ge=0)
    """Weight of KL(policy || start) in the soft value at the first update."""
    anchor_half_life: int = Field(10_000, ge=1)
    """Updates in which that weight halves."""
    policy_waits: int = Field(2000, ge=0)
    """Updates of the Q-function alone, at first."""


class ActingActorCriticConfig(InteractionConfig, ContinuousRegularisers, ActorCriticConfig):
    """What the methods that act have for continuous actions."""

    head = ActionHead.TANH_GAUSSIAN

    updates: int = Field(0, ge=0)
    """Follow environment_steps, warm_up_steps and updates_per_step; learning rates fall to zero along a cosine."""
    actor_activation: Activation = Activation.RELU
    ensemble: EnsembleConfig = EnsembleConfig(members=2)


class ActingSoftQConfig(InteractionConfig, DiscreteRegularisers, SoftQConfig):
    """What the methods that act have for discrete actions."""

    environment_steps: int = Field(20_000, ge=1)
    """Steps in the environment, those of the warm-up included; scheduled evaluations come on top."""
    warm_up_steps: int = Field(500, ge=0)
    """Steps before the first update: uniformly random actions, or those of the run that training starts from."""
    updates: int = Field(0, ge=0)
    """Follow environment_steps, warm_up_steps and updates_per_step; the learning rate falls to zero along a cosine."""
    learning_rate: float = Field(1e-3, gt=0)
    """Of Q and V, at the first update."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled (AdamW)."""
    temperature: float = Field(0.01, gt=0)
    """Weight of the policy's entropy in the soft value."""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Of the Q-network; a policy that starts from a run has that run's."""
    activation: Activation = Activation.ELU


class OnlineIQConfig(ActingActorCriticConfig, InverseObjectiveConfig):
    """IQ-Learn that acts, for continuous actions."""

    remedy = "set target_bound=100, critic_layer_norm=true or a smaller critic_learning_rate"

    name: Literal["iq-online-continuous"] = "iq-online-continuous"
    value_term: ValueTerm = ValueTerm.MIXTURE
    temperature: float = Field(0.01, gt=0)
    """Weight of the policy's entropy in the soft value and in the actor's loss."""
    start: StartConfig = StartConfig()
    prior: ContinuousBCConfig | None = None
    """Of the run that training starts from: set by --start-from."""


class DiscreteOnlineIQConfig(ActingSoftQConfig, InverseObjectiveConfig):
    """IQ-Learn that acts, for discrete actions."""

    remedy = "set target_bound=100, polyak_rate=0.005 or a smaller learning_rate"

    name: Literal["iq-online-discrete"] = "iq-online-discrete"
    value_term: ValueTerm = ValueTerm.MIXTURE
    start: StartConfig = StartConfig()
    prior: DiscreteBCConfig | None = None
    """Of the run that training starts from: set by --start-from."""

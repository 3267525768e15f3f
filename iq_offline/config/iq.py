"""Settings of IQ-Learn [IQ21]: the conservative default and the paper's own, for continuous and discrete actions."""

from enum import StrEnum
from typing import Literal, Self

from pydantic import Field, model_validator

from iq_offline.config.base import ActionHead, Activation, HiddenSizes
from iq_offline.config.baselines import (
    CrossValidationConfig,
    DriftTestConfig,
    EpisodeFilterConfig,
    ResidualTestConfig,
)
from iq_offline.config.cloning import CloningLoss, ContinuousBCConfig, DiscreteBCConfig
from iq_offline.config.q_learning import ActorCriticConfig, EnsembleConfig, QLearningConfig
from iq_offline.config.regularisers import ActionGradientConfig, ContinuousRegularisers, DiscreteRegularisers
from iq_offline.config.soft_q import SoftQConfig


class ValueTerm(StrEnum):
    """Where (1 - gamma) E V(s0) is taken.

    EXPERT, MIXTURE: telescoped over those transitions, [IQ21] cor. 2.1. INITIAL: at the episodes' first observations.
    """

    EXPERT = "expert"
    MIXTURE = "mixture"
    INITIAL = "initial"


class DivergenceKind(StrEnum):
    """The divergence whose phi the expert's reward passes through (formulas: docs/reference/regularisers.md)."""

    CHI_SQUARED = "chi-squared"
    TOTAL_VARIATION = "total-variation"
    WASSERSTEIN = "wasserstein"
    KL = "kl"
    KL_DUAL = "kl-dual"
    KL_DONSKER_VARADHAN = "kl-donsker-varadhan"
    FORWARD_KL = "forward-kl"
    JENSEN_SHANNON = "jensen-shannon"
    HELLINGER = "hellinger"


class InverseObjectiveConfig(DiscreteRegularisers):
    """The IQ-Learn objective, [IQ21] eq. 9."""

    value_term: ValueTerm = ValueTerm.EXPERT
    divergence: DivergenceKind = DivergenceKind.CHI_SQUARED
    reward_penalty: float = Field(0.5, gt=0)
    """Coefficient c of chi-squared: the penalty on recovered rewards is r^2 / (4c)."""
    reward_bound: float = Field(1.0, gt=0)
    """Largest |r| of the total variation divergence."""

    @property
    def reads_supplementary(self) -> bool:
        """By the value term or a regulariser."""
        return self.value_term is ValueTerm.MIXTURE or self.regularisers_read_supplementary

    @property
    def needs_initial_observations(self) -> bool:
        """For the value term at first observations."""
        return self.value_term is ValueTerm.INITIAL

    @model_validator(mode="after")
    def _objective_is_complete(self) -> Self:
        assert isinstance(self, QLearningConfig)
        if self.value_term is ValueTerm.INITIAL and self.polyak_rate is not None:
            raise ValueError(
                "value_term=initial needs a gradient through V(s'), else V is lowered at first observations alone "
                "and no reward is learnt: set polyak_rate=none"
            )
        penalised = self.gradient_penalty is not None and self.gradient_penalty.weight > 0
        if self.divergence is DivergenceKind.WASSERSTEIN and not penalised:
            raise ValueError("divergence=wasserstein needs a gradient penalty: gradient_penalty.weight=10")
        for key, kind in (
            ("reward_penalty", DivergenceKind.CHI_SQUARED),
            ("reward_bound", DivergenceKind.TOTAL_VARIATION),
        ):
            if self.divergence is not kind and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key} is read under divergence={kind} alone: leave it, or set that")
        members = getattr(self, "ensemble", EnsembleConfig()).members
        if self.divergence is DivergenceKind.KL_DONSKER_VARADHAN and members > 1:
            raise ValueError("the logarithm of a mean needs a single critic: set ensemble.members=1")
        return self


class IQConfig(InverseObjectiveConfig, ContinuousRegularisers, ActorCriticConfig):
    """IQ-Learn for continuous actions, anchored to a behavioural clone: what holds its values offline is on."""

    remedy = (
        "set action_gradient.weight=0.1 with action_gradient.at=between, a larger temperature, critic_layer_norm=true "
        "or target_bound=100"
    )

    name: Literal["iq-continuous"] = "iq-continuous"
    temperature: float = Field(3.0, ge=0)
    """Weight of KL(policy || prior) in the soft value and in the actor's loss."""
    policy_std: float = Field(0.135, gt=0)
    """Standard deviation of policy and prior, in scaled actions."""
    action_gradient: ActionGradientConfig | None = ActionGradientConfig(weight=0.1)
    prior: ContinuousBCConfig = ContinuousBCConfig()
    """The behavioural clone that initialises the actor and anchors the soft value."""
    accept_episodes: EpisodeFilterConfig | None = EpisodeFilterConfig(
        residual_test=ResidualTestConfig(),
        drift_test=DriftTestConfig(),
        cross_validation=CrossValidationConfig(),
        loss=CloningLoss.ABSOLUTE,
        update_factors=(1, 4),
    )
    """Clone supplementary episodes that pass these tests, too; the objective keeps to the given demonstrations."""

    @model_validator(mode="after")
    def _filter_fits(self) -> Self:
        if self.accept_episodes:
            self.accept_episodes.check_fits(self.prior, "accept_episodes.")
        return self


class IQPaperConfig(InverseObjectiveConfig, ContinuousRegularisers, ActorCriticConfig):
    """IQ-Learn as its paper has it, offline: nothing bounds the values (docs/reference/methods/iq-paper.md)."""

    head = ActionHead.TANH_GAUSSIAN
    remedy = "use --method iq, which bounds its values"

    name: Literal["iq-paper-continuous"] = "iq-paper-continuous"
    updates: int = Field(20_000, ge=0)
    """Updates of critics and actor; both learning rates fall to zero along a cosine."""
    actor_learning_rate: float = Field(3e-5, gt=0)
    """At the first update."""
    actor_activation: Activation = Activation.RELU
    critic_layer_norm: bool = False
    """Before each hidden activation of the critics [LN16]."""
    target_bound: float | None = Field(None, gt=0)
    """Largest |V(s')|; none: unbounded."""


class DiscreteIQConfig(InverseObjectiveConfig, SoftQConfig):
    """IQ-Learn for discrete actions that starts from a behavioural clone, with a network of its own for V."""

    remedy = "set polyak_rate=0.005, target_bound=100 or a smaller learning_rate"

    name: Literal["iq-discrete"] = "iq-discrete"
    prior: DiscreteBCConfig = DiscreteBCConfig()
    """The behavioural clone that initialises the policy."""
    shared_encoder: bool = True
    """Of pictures: policy, V and targets share the clone's encoder, trained by cloning alone; else each has its own."""
    accept_episodes: EpisodeFilterConfig | None = EpisodeFilterConfig(
        drift_test=DriftTestConfig(), cross_validation=CrossValidationConfig()
    )
    """Clone supplementary episodes that pass this test, too; the objective keeps to the given demonstrations."""

    @model_validator(mode="after")
    def _filter_fits(self) -> Self:
        if self.accept_episodes:
            self.accept_episodes.check_fits(self.prior, "accept_episodes.")
        return self


class DiscreteIQPaperConfig(InverseObjectiveConfig, SoftQConfig):
    """IQ-Learn as its paper has it, for discrete actions: one Q-network, a gradient through V(s')."""

    remedy = "use --method iq, or set polyak_rate=0.005 or target_bound=100"

    name: Literal["iq-paper-discrete"] = "iq-paper-discrete"
    batch_size: int = Field(32, ge=1)
    """Transitions of an update; half of them supplementary where the method reads those."""
    updates: int = Field(20_000, ge=1)
    """Gradient updates; the learning rate falls to zero along a cosine over them."""
    learning_rate: float = Field(1e-4, gt=0)
    """At the first update."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled (AdamW)."""
    temperature: float = Field(0.01, gt=0)
    """Weight of the policy's entropy in the soft value."""
    polyak_rate: float | None = Field(None, gt=0, le=1)
    """Rate at which a target network follows; none: no target network, a gradient through V(s')."""
    target_bound: float | None = Field(None, gt=0)
    """Largest |V(s')|; none: unbounded."""
    hidden_sizes: HiddenSizes = (64, 64)
    """Of the Q-network."""
    activation: Activation = Activation.ELU

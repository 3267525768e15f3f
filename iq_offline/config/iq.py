"""Offline IQ-Learn's settings: the objective, its soft value, and the conservative pieces, off unless named."""

from enum import StrEnum
from typing import Literal, Self

from pydantic import Field, model_validator

from iq_offline.config.base import ActionHead, Activation, FrozenModel, HiddenSizes, Precision
from iq_offline.config.baselines import EpisodeFilterConfig
from iq_offline.config.cloning import ContinuousBCConfig, DiscreteBCConfig
from iq_offline.config.conservative import (
    AbsorbingValue,
    ActionGradientAt,
    AdvantageWeightsConfig,
    AnchorConfig,
    CQLConfig,
    EnsembleConfig,
    GradientPenaltyConfig,
    InSampleValueConfig,
    Pessimism,
    Source,
    ValueSuppressionConfig,
)


class ObjectiveKind(StrEnum):
    """What the critic minimises.

    INVERSE: the inverse soft-Q objective, [IQ21] eq. 9. LEAST_SQUARES: squared Bellman error with one fixed reward for
    the expert and one for supplementary data, [LSIQ23]. COHERENT: squared Bellman error with the cloned policy's own
    reward, [CSIL23].
    """

    INVERSE = "inverse"
    LEAST_SQUARES = "least-squares"
    COHERENT = "coherent"


class ValueTerm(StrEnum):
    """Where (1 - gamma) E V(s0) is taken.

    EXPERT, MIXTURE: telescoped over those transitions, [IQ21] cor. 2.1. INITIAL: at the episodes' first observations.
    """

    EXPERT = "expert"
    MIXTURE = "mixture"
    INITIAL = "initial"


class DivergenceKind(StrEnum):
    """The statistical divergence whose phi the expert's reward passes through; formulas in docs/conservative.md."""

    CHI_SQUARED = "chi-squared"
    TOTAL_VARIATION = "total-variation"
    WASSERSTEIN = "wasserstein"
    KL = "kl"
    KL_DUAL = "kl-dual"
    KL_DONSKER_VARADHAN = "kl-donsker-varadhan"
    FORWARD_KL = "forward-kl"
    JENSEN_SHANNON = "jensen-shannon"
    HELLINGER = "hellinger"


CHI_SQUARED = DivergenceKind.CHI_SQUARED


class EntropyReference(StrEnum):
    """What the policy's entropy in the soft value is measured against. OFF: no entropy, V is Q."""

    PRIOR = "prior"
    UNIFORM = "uniform"
    OFF = "off"


class IQConfig(FrozenModel):
    """What discrete and continuous IQ-Learn share."""

    batch_size: int = Field(256, ge=1)
    """Transitions of an update; half of them supplementary where those are learnt from."""
    gamma: float = Field(0.99, ge=0, lt=1)
    """Discount per environment step."""
    objective: ObjectiveKind = ObjectiveKind.INVERSE
    value_term: ValueTerm = ValueTerm.EXPERT
    divergence: DivergenceKind = DivergenceKind.CHI_SQUARED
    reward_penalty: float = Field(0.5, gt=0)
    """Chi-squared coefficient c: the penalty on recovered rewards is r^2 / (4c)."""
    penalty_on: Source = Source.EXPERT
    """Where the chi-squared penalty is taken."""
    reward_reference: tuple[float, float] = (0.0, 0.0)
    """Rewards of expert and of supplementary data that the penalty draws to, (r - reference)^2 / (4c) [SPRINQL24]."""
    reward_bound: float = Field(1.0, gt=0)
    """Largest |r| of the total variation divergence."""
    fixed_rewards: tuple[float, float] = (2.0, -2.0)
    """Rewards of expert and of supplementary data under LEAST_SQUARES: those of [LSIQ23] at its coefficient 0.5."""
    expert_target_fixed: bool = True
    """Draw the expert's Q to expert reward / (1 - gamma) in place of a bootstrapped target (LEAST_SQUARES) [LSIQ23]."""
    coherence: float | None = Field(None, gt=0)
    """Weight of the coherent reward (COHERENT); None: 1 / action dimensions (1 if discrete)."""
    polyak_rate: float | None = Field(0.005, gt=0, le=1)
    """Share of the Q-function that enters its target at each update; None: no target, a gradient through V(s')."""
    target_bound: float | None = Field(100.0, gt=0)
    """Largest |V(s')|: by default that of rewards up to 2c, where phi is greatest, for ever. None: unbounded."""
    absorbing_value: AbsorbingValue = AbsorbingValue.ZERO
    cql: CQLConfig | None = None
    value_suppression: ValueSuppressionConfig | None = None
    gradient_penalty: GradientPenaltyConfig | None = None
    in_sample_value: InSampleValueConfig | None = None
    advantage_weights: AdvantageWeightsConfig | None = None
    """The actor learns from recorded actions by their advantage, not from Q at its own."""
    more_demonstrations: EpisodeFilterConfig | None = None
    """Clone supplementary episodes that are more demonstrations, too; the objective keeps to the given ones."""
    precision: Precision = Precision.FLOAT32
    """Of the method's own updates; a prior has its own."""
    alarm_q: float | None = Field(1000.0, gt=0)
    """Stop when the mean |Q| of the expert's actions has passed this: ten times the greatest true value by default."""

    @property
    def uses_supplementary(self) -> bool:
        """Whether any term reads supplementary transitions."""
        return (
            self.objective is not ObjectiveKind.INVERSE
            or self.value_term is ValueTerm.MIXTURE
            or self.penalty_on is Source.MIXTURE
            or (self.cql is not None and self.cql.weight > 0 and self.cql.on is Source.MIXTURE)
            or (self.advantage_weights is not None and self.advantage_weights.on is Source.MIXTURE)
            or (self.value_suppression is not None and self.value_suppression.weight > 0)
            or self.in_sample_value is not None
        )

    @property
    def largest_fixed_value(self) -> float:
        """The largest |value| that fixed rewards make; 0 where none are fixed."""
        if self.objective is not ObjectiveKind.LEAST_SQUARES:
            return 0.0
        return max(map(abs, self.fixed_rewards)) / (1 - self.gamma)

    @model_validator(mode="after")
    def _every_setting_is_read(self) -> Self:
        inverse, chi = self.objective is ObjectiveKind.INVERSE, self.divergence is CHI_SQUARED
        if not inverse and not (chi and self.value_term is ValueTerm.EXPERT and self._penalty_is_plain):
            raise ValueError(
                f"objective={self.objective} has no divergence, value term or penalty to choose: "
                "leave divergence, value_term, penalty_on and reward_reference, or set objective=inverse"
            )
        if not chi and not self._penalty_is_plain:
            raise ValueError("penalty_on and reward_reference are chi-squared's own: set divergence=chi-squared")
        if self.penalty_on is Source.EXPERT and self.reward_reference[1] != 0:
            raise ValueError("a reward reference of supplementary data needs penalty_on=mixture")
        if self.value_term is ValueTerm.INITIAL and self.polyak_rate is not None:
            raise ValueError(
                "value_term=initial needs a gradient through V(s'), else V is lowered at first observations alone "
                "and no reward is learnt: set polyak_rate=none"
            )
        if inverse and self.in_sample_value is not None:
            raise ValueError("an in-sample value carries no gradient of the value term: set objective=least-squares")
        return self

    @model_validator(mode="after")
    def _no_other_objective_is_set(self) -> Self:
        """Raises ValueError for a number of an objective or divergence that is not chosen."""
        inverse = self.objective is ObjectiveKind.INVERSE
        read_under = {
            "reward_penalty": ("objective=inverse, divergence=chi-squared", inverse and self.divergence is CHI_SQUARED),
            "reward_bound": ("divergence=total-variation", self.divergence is DivergenceKind.TOTAL_VARIATION),
            "fixed_rewards": ("objective=least-squares", self.objective is ObjectiveKind.LEAST_SQUARES),
            "expert_target_fixed": ("objective=least-squares", self.objective is ObjectiveKind.LEAST_SQUARES),
            "coherence": ("objective=coherent", self.objective is ObjectiveKind.COHERENT),
        }
        for name, (where, is_read) in read_under.items():
            if not is_read and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is read under {where} alone: leave it, or set that")
        return self

    @model_validator(mode="after")
    def _divergence_is_whole(self) -> Self:
        if self.divergence is DivergenceKind.WASSERSTEIN and not (
            self.gradient_penalty and self.gradient_penalty.weight
        ):
            raise ValueError("divergence=wasserstein needs a gradient penalty: gradient_penalty.weight=10")
        learned = self.absorbing_value is AbsorbingValue.LEARNED
        if self.divergence is DivergenceKind.KL_DONSKER_VARADHAN and learned:
            raise ValueError("the logarithm of a mean has no absorbing tail: set absorbing_value=zero")
        return self

    @model_validator(mode="after")
    def _fixed_rewards_are_no_alarm(self) -> Self:
        largest = self.largest_fixed_value
        if self.alarm_q is not None and largest >= self.alarm_q:
            raise ValueError(
                f"fixed_rewards at gamma={self.gamma:g} make values of {largest:g}, where alarm_q={self.alarm_q:g} "
                f"stops the run: set alarm_q={10 * largest:g}, and target_bound={largest:g}"
            )
        return self

    @property
    def _penalty_is_plain(self) -> bool:
        return self.penalty_on is Source.EXPERT and self.reward_reference == (0.0, 0.0)


class DiscreteIQConfig(IQConfig):
    """Offline IQ-Learn with a soft Q-function over discrete actions, [IQ21] eq. 12."""

    name: Literal["iq-discrete"] = "iq-discrete"
    updates: int = Field(2000, ge=1)
    """Gradient updates after the prior's own; the learning rate falls to zero along a cosine over them."""
    learning_rate: float = Field(3e-4, gt=0)
    """Of Q, V and an actor, at the first update."""
    weight_decay: float = Field(1e-2, ge=0)
    """Decoupled (AdamW)."""
    temperature: float = Field(0.1, gt=0)
    """Weight of the policy's entropy in the soft value."""
    entropy: EntropyReference = EntropyReference.UNIFORM
    hidden_sizes: HiddenSizes = (256, 256)
    """Of V, of an in-sample value and of a Q beside an actor; a policy that starts from a prior has the prior's."""
    activation: Activation = Activation.TANH
    layer_norm: bool = False
    """Before each hidden activation of those same networks."""
    separate_value: bool = True
    """Write Q as V(s) + temperature * log policy(a | s), a network for each, so that fitting V leaves the policy."""
    prior: DiscreteBCConfig | None = DiscreteBCConfig()
    """The cloned policy that the policy starts from, of the KL-to-BC soft value and of the coherent reward."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.entropy is EntropyReference.OFF:
            raise ValueError("discrete actions need an entropy: entropy=uniform or prior")
        _needs_prior(self.entropy, self.objective, self.prior)
        if self.more_demonstrations and self.prior:
            self.more_demonstrations.check_fits(self.prior, "more_demonstrations.")
        if self.prior and not (self.separate_value or self.advantage_weights or self.in_sample_value):
            copied = (self.prior.hidden_sizes, self.prior.activation, False)
            if (self.hidden_sizes, self.activation, self.layer_norm) != copied:
                raise ValueError(
                    "the one network starts as the prior's copy: set prior.hidden_sizes and prior.activation alike, "
                    "and layer_norm=false; or prior=none, or separate_value=true, whose V has its own"
                )
        return self


class ContinuousIQConfig(IQConfig):
    """Offline IQ-Learn with an actor, a KL-to-BC soft value, a LayerNorm critic and an action-gradient penalty."""

    name: Literal["iq-continuous"] = "iq-continuous"
    updates: int = Field(2000, ge=0)
    """Updates of critic and actor together, after the prior's own; both learning rates fall to zero along a cosine."""
    actor_learning_rate: float = Field(3e-4, gt=0)
    """At the first update."""
    critic_learning_rate: float = Field(3e-4, gt=0)
    """At the first update."""
    actor_weight_decay: float = Field(0.0, ge=0)
    """Decoupled (AdamW)."""
    critic_weight_decay: float = Field(0.0, ge=0)
    """Decoupled (AdamW)."""
    temperature: float = Field(3.0, ge=0)
    """Weight of the entropy, KL(policy || BC prior) by default, in the soft value and in the actor's loss."""
    entropy: EntropyReference = EntropyReference.PRIOR
    policy_head: ActionHead = ActionHead.CLIPPED_GAUSSIAN
    policy_std: float | None = Field(0.135, gt=0)
    """Standard deviation of policy and prior, in scaled actions; None: learnt, by observation."""
    action_gradient_weight: float = Field(0.1, ge=0)
    """Weight of E |dQ/da|^2 (conservative: keeps Q flat around the data)."""
    action_gradient_at: ActionGradientAt = ActionGradientAt.BETWEEN
    one_backward: bool = False
    """Move critics and actor at once, by one backward pass: the actor's loss -E[V(s)] is a term of the critics'."""
    anchor: AnchorConfig | None = None
    ensemble: EnsembleConfig = EnsembleConfig()
    hidden_sizes: HiddenSizes = (256, 256)
    """Of the critics, of an in-sample value and of an actor that starts from no prior."""
    actor_activation: Activation = Activation.TANH
    """Of an actor that starts from no prior; else the prior's."""
    critic_activation: Activation = Activation.RELU
    critic_layer_norm: bool = True
    """Before each hidden activation of critics and in-sample value [LN16]."""
    prior: ContinuousBCConfig | None = ContinuousBCConfig()
    """The cloned policy that starts the actor and anchors the soft value."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        _needs_prior(self.entropy, self.objective, self.prior)
        if self.more_demonstrations and self.prior:
            self.more_demonstrations.check_fits(self.prior, "more_demonstrations.")
        if self.policy_head is ActionHead.DETERMINISTIC and self.entropy is not EntropyReference.OFF:
            raise ValueError("a deterministic policy has no entropy: set entropy=off")
        if self.policy_head is ActionHead.DETERMINISTIC and (self.cql or (self.anchor and self.anchor.likelihood > 0)):
            raise ValueError("a deterministic policy has no density: set cql=none and anchor.likelihood=0")
        if self.advantage_weights and self.anchor and self.anchor.scale_q is not None:
            raise ValueError("an actor with advantage_weights has no Q to scale: set anchor.scale_q=none")
        if self.policy_head is ActionHead.DETERMINISTIC and self.objective is ObjectiveKind.COHERENT:
            raise ValueError("a deterministic policy has no likelihood to be a reward: leave policy_head or objective")
        if self.policy_head is ActionHead.DETERMINISTIC and self.policy_std is None:
            raise ValueError(
                "a deterministic policy has no width to learn: set policy_std=0.135, which it leaves unread"
            )
        if self.divergence is DivergenceKind.KL_DONSKER_VARADHAN and self.ensemble.members > 1:
            raise ValueError("the logarithm of a mean is one critic's: set ensemble.members=1")
        _prior_is_alike(self)
        return self

    @model_validator(mode="after")
    def _one_backward_fits(self) -> Self:
        """One gradient serves both where V(s), at the actor's states and evenly weighted, is a term of the loss."""
        if not self.one_backward:
            return self
        beside = self.uses_supplementary and self.value_term is ValueTerm.EXPERT
        if self.objective is not ObjectiveKind.INVERSE or self.value_term is ValueTerm.INITIAL or beside:
            raise ValueError(
                "one_backward needs V(s) of all states that are learnt from in the loss: set objective=inverse, and "
                "value_term=mixture where supplementary data are read"
            )
        if self.ensemble.members > 1 and self.ensemble.pessimism is not Pessimism.MEAN:
            raise ValueError("one_backward needs the mean over critics in the actor's loss: ensemble.pessimism=mean")
        scaled = self.anchor is not None and self.anchor.scale_q is not None
        if self.absorbing_value is AbsorbingValue.LEARNED or self.advantage_weights or scaled:
            raise ValueError(
                "one_backward needs the actor's loss as it is in the critics': set absorbing_value=zero, "
                "advantage_weights=none and anchor.scale_q=none"
            )
        return self


def _needs_prior(entropy: EntropyReference, objective: ObjectiveKind, prior: object) -> None:
    if prior is None and (entropy is EntropyReference.PRIOR or objective is ObjectiveKind.COHERENT):
        raise ValueError("a prior is needed: set prior.updates, or entropy=uniform with another objective")


def _prior_is_alike(config: ContinuousIQConfig) -> None:
    """Raises ValueError where the policy cannot start as the prior's copy."""
    if config.prior is None:
        return
    if config.prior.head is not config.policy_head:
        raise ValueError(
            f"the prior's head is {config.prior.head}, the policy's {config.policy_head}: set prior.head as policy_head"
        )
    if config.policy_std is None and not config.prior.learnt_std:
        raise ValueError(
            "policy_std=none learns a width, which the prior has not: set prior.learnt_std=true, prior.loss=likelihood "
            "and more_demonstrations.loss=none with it"
        )
    if config.policy_std is not None and config.prior.learnt_std:
        raise ValueError("prior.learnt_std=true learns a width, which the policy has not: set policy_std=none")

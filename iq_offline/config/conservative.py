"""Conservative regularisers: one small configuration each. A field of an algorithm that holds None leaves it out."""

from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from iq_offline.config.base import FrozenModel


class Source(StrEnum):
    """Which recorded transitions a term is taken over. MIXTURE: expert and supplementary, half each."""

    EXPERT = "expert"
    MIXTURE = "mixture"


class CQLConfig(FrozenModel):
    """Conservative Q-learning's gap [CQL20]: Q of all actions, softly greatest, against Q of the recorded one."""

    weight: float = Field(1.0, ge=0)
    """Of the gap in the critics' loss."""
    actions: int = Field(10, ge=1)
    """Uniform actions a state, and as many of the policy (continuous; with discrete actions the gap is exact)."""
    temperature: float = Field(1.0, gt=0)
    """Of the soft maximum over actions; towards 0 it is the greatest Q."""
    on: Source = Source.MIXTURE


class ValueSuppressionConfig(FrozenModel):
    """Lower Q at the policy's actions in supplementary observations, raise it at the expert's ([RECOIL24])."""

    weight: float = Field(1.0, ge=0)
    """Of the difference in the critics' loss."""


class GradientPenaltyKind(StrEnum):
    """TWO_SIDED: (norm - target)^2, [WGANGP17]. HINGE: only above the target, largest component."""

    TWO_SIDED = "two-sided"
    HINGE = "hinge"


class ActionGradientAt(StrEnum):
    """Where the action-gradient penalty is taken: at the expert's actions [CSIL23], or between them and the policy's.

    RECORDED leaves Q free to fall without end on the way to the policy's draw a'. BETWEEN, at a point drawn evenly on
    that way, bounds the fall for every critic: E[Q(s, a) - Q(s, a')] <= weight * penalty + E |a - a'|^2 / (4 weight).
    """

    RECORDED = "recorded"
    BETWEEN = "between"


class GradientPenaltyConfig(FrozenModel):
    """Keep the gradient of Q near or below a norm, between the expert's actions and the policy's."""

    weight: float = Field(10.0, ge=0)
    """In the critics' loss; [WGANGP17] has 10."""
    target: float = Field(1.0, ge=0)
    """Norm of the gradient, in standardised observations and scaled actions."""
    kind: GradientPenaltyKind = GradientPenaltyKind.HINGE


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
    diversity_weight: float = Field(0.0, ge=0)
    """Of the members' action gradients, [EDAC21]; needs two members."""

    @model_validator(mode="after")
    def _several(self) -> Self:
        if self.diversity_weight > 0 and self.members < 2:
            raise ValueError("diversity needs several critics: set ensemble.members=2 or more")
        return self


class InSampleKind(StrEnum):
    """EXPECTILE: [IQL22]. GUMBEL: [XQL23]."""

    EXPECTILE = "expectile"
    GUMBEL = "gumbel"


class InSampleValueConfig(FrozenModel):
    """A value network fitted at recorded actions only, in place of Q at the policy's actions."""

    kind: InSampleKind = InSampleKind.EXPECTILE
    expectile: float = Field(0.7, gt=0, lt=1)
    """Of recorded Q (EXPECTILE): 1/2 is their mean, towards 1 the greatest."""
    gumbel_temperature: float = Field(1.0, gt=0)
    """Of the soft maximum over recorded Q (GUMBEL)."""
    largest: float = Field(7.0, gt=0)
    """Largest exponent of the Gumbel loss."""
    learning_rate: float = Field(3e-4, gt=0)
    """Of the value network, at the first update."""


class AdvantageWeightsConfig(FrozenModel):
    """Weights exp(advantage / temperature) of recorded actions, for an actor that asks Q about no others [AWR19]."""

    temperature: float = Field(0.1, gt=0)
    """Advantages are divided by it: the smaller, the fewer actions count."""
    largest: float = Field(100.0, gt=0)
    """Weights are clipped to this."""
    on: Source = Source.MIXTURE


class AnchorConfig(FrozenModel):
    """Cloning beside the actor's own loss, on the expert's transitions [TD3BC21]."""

    squared_error: float = Field(0.0, ge=0)
    """Weight of the censored squared error of the executed action."""
    likelihood: float = Field(0.0, ge=0)
    """Weight of the negative log likelihood."""
    scale_q: float | None = Field(None, gt=0)
    """Divide Q by its mean size and multiply it by this, so that the weights mean the same in every task."""


class AbsorbingValue(StrEnum):
    """Value after a termination. ZERO: as in [IQ21]. LEARNED: a parameter. LOWEST: minus the target bound."""

    ZERO = "zero"
    LEARNED = "learned"
    LOWEST = "lowest"

"""Settings of the regularisers: one class and one field each. A field that holds None leaves its regulariser out.

`algorithms/regularisers.py` has one function for each field, under the field's name.
"""

from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from iq_offline.config.base import FrozenModel
from iq_offline.config.cloning import CloningLoss
from iq_offline.config.q_learning import ActorCriticConfig


class Source(StrEnum):
    """Which recorded transitions a term is averaged over. MIXTURE: expert and supplementary, half each."""

    EXPERT = "expert"
    MIXTURE = "mixture"


class RegulariserConfig(FrozenModel):
    """A term that is added to a loss with a weight; a weight of 0 leaves it out."""

    weight: float = Field(1.0, ge=0)
    """Of the term in the loss."""

    @property
    def reads_supplementary(self) -> bool:
        """Whether the term is computed from supplementary transitions, too."""
        return False


class ActionGradientAt(StrEnum):
    """Where the action-gradient penalty is: at the expert's actions [CSIL23], or between them and the policy's.

    RECORDED leaves Q free to fall without bound on the way to the policy's action a'. BETWEEN, at a point drawn
    uniformly on that way, bounds the fall for every critic: E[Q(s, a) - Q(s, a')] <= weight * penalty +
    E |a - a'|^2 / (4 weight).
    """

    RECORDED = "recorded"
    BETWEEN = "between"


class ActionGradientConfig(RegulariserConfig):
    """Penalty E |dQ/da|^2: keeps Q flat around the data [CSIL23]."""

    at: ActionGradientAt = ActionGradientAt.BETWEEN


class CQLConfig(RegulariserConfig):
    """Conservative Q-learning's gap [CQL20]: the soft maximum of Q over actions less Q of the recorded action."""

    actions: int = Field(10, ge=1)
    """Uniform actions a state, and as many of the policy (continuous; with discrete actions the gap is exact)."""
    temperature: float = Field(1.0, gt=0)
    """Of the soft maximum over actions; towards 0 it is the greatest Q."""
    on: Source = Source.MIXTURE

    @property
    def reads_supplementary(self) -> bool:
        """Whether the gap is averaged over both sources."""
        return self.on is Source.MIXTURE


class ValueSuppressionConfig(RegulariserConfig):
    """Lower Q of the policy's actions at supplementary observations, raise Q of the expert's actions [RECOIL24]."""

    @property
    def reads_supplementary(self) -> bool:
        """Always."""
        return True


class GradientPenaltyKind(StrEnum):
    """TWO_SIDED: (norm - target)^2, [WGANGP17]. HINGE: only above the target, largest component."""

    TWO_SIDED = "two-sided"
    HINGE = "hinge"


class GradientPenaltyConfig(RegulariserConfig):
    """Penalty on the gradient of Q in standardised observations and scaled actions [WGANGP17]."""

    weight: float = Field(10.0, ge=0)
    """Of the term in the loss; [WGANGP17] has 10."""
    target: float = Field(1.0, ge=0)
    """Norm of the gradient."""
    kind: GradientPenaltyKind = GradientPenaltyKind.HINGE


class DiversityConfig(RegulariserConfig):
    """Mean cosine similarity of the action gradients of two critics [EDAC21]; needs an ensemble."""

    @property
    def reads_supplementary(self) -> bool:
        """Always, where there are such transitions."""
        return True


class ObservationNoiseConfig(RegulariserConfig):
    """Penalty on the change of Q under noise on the observation [RORL22]."""

    std: float = Field(0.05, gt=0)
    """Of the Gaussian noise, in standardised observations."""


class BehaviouralCloningConfig(RegulariserConfig):
    """Cloning loss of the expert's actions, beside the actor's own loss [TD3BC21]."""

    loss: CloningLoss = CloningLoss.CENSORED


class DiscreteRegularisers(FrozenModel):
    """Regularisers of a Q-function over discrete actions."""

    cql: CQLConfig | None = None
    value_suppression: ValueSuppressionConfig | None = None
    gradient_penalty: GradientPenaltyConfig | None = None

    @property
    def regularisers_read_supplementary(self) -> bool:
        """Whether a regulariser with a weight reads supplementary transitions."""
        return any(settings.reads_supplementary for _, settings in active_regularisers(self))


class ContinuousRegularisers(DiscreteRegularisers):
    """Regularisers of critics over continuous actions, and of their actor."""

    action_gradient: ActionGradientConfig | None = None
    diversity: DiversityConfig | None = None
    observation_noise: ObservationNoiseConfig | None = None
    behavioural_cloning: BehaviouralCloningConfig | None = None

    @model_validator(mode="after")
    def _diversity_is_of_several(self) -> Self:
        assert isinstance(self, ActorCriticConfig)
        if self.diversity is not None and self.diversity.weight > 0 and self.ensemble.members < 2:
            raise ValueError("diversity needs several critics: set ensemble.members=2 or more")
        return self


def active_regularisers(config: FrozenModel) -> list[tuple[str, RegulariserConfig]]:
    """Name and settings of each regulariser whose weight is not 0, in the order of the fields."""
    found = [(name, getattr(config, name)) for name in type(config).model_fields]
    return [(name, held) for name, held in found if isinstance(held, RegulariserConfig) and held.weight > 0]

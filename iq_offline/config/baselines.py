"""Settings of the peers: methods of others on the same data, trained and judged in the same frame."""

from enum import StrEnum
from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from iq_offline.config.base import AlgorithmConfig, FrozenModel, HiddenSizes
from iq_offline.config.cloning import CloningLoss, ContinuousBCConfig, DiscreteBCConfig


class WeightKind(StrEnum):
    """What weighs supplementary transitions. DISCRIMINATOR: the density ratio of expert to other observations.

    NEAREST: the similarity of observation and action to the nearest demonstration.
    """

    DISCRIMINATOR = "discriminator"
    NEAREST = "nearest"


class DiscriminatorConfig(FrozenModel):
    """A classifier of expert against supplementary observations; regularised, since there are few of the former."""

    updates: int = Field(1500, ge=1)
    """Gradient updates of the discriminator, before cloning."""
    batch_size: int = Field(256, ge=1)
    """Observations of each source in one update."""
    learning_rate: float = Field(1e-3, gt=0)
    """Of the discriminator, all through."""
    weight_decay: float = Field(1e-2, ge=0)
    """Decoupled (AdamW)."""
    noise: float = Field(0.05, ge=0)
    """Standard deviation of the noise on standardised observations."""
    hidden_sizes: HiddenSizes = (256, 256)
    """Units of each hidden layer of the discriminator."""
    log_weight_bounds: tuple[float, float] = (-6.0, 4.0)
    """Logits, and so logarithms of weights, are clipped to these."""


class SimilarityConfig(FrozenModel):
    """Similarity exp(-d^2 / (2 h^2)) of a transition at distance d from its nearest demonstration."""

    bandwidth: float = Field(1.5, gt=0)
    """h, in median distances from one demonstration to the nearest step of another."""


class WeightedBCConfig(AlgorithmConfig):
    """Behavioural cloning of supplementary transitions by their weight, beside the demonstrations."""

    needs_successors = False

    kind: WeightKind = WeightKind.DISCRIMINATOR
    expert_share: float = Field(0.5, gt=0, le=1)
    """Of each batch; 1 is cloning of the demonstrations alone."""
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    similarity: SimilarityConfig = SimilarityConfig()
    cloning: ContinuousBCConfig | DiscreteBCConfig


class ContinuousWeightedBCConfig(WeightedBCConfig):
    """Of continuous actions."""

    name: Literal["weighted-bc-continuous"] = "weighted-bc-continuous"
    cloning: ContinuousBCConfig = ContinuousBCConfig()


class DiscreteWeightedBCConfig(WeightedBCConfig):
    """Of discrete actions."""

    name: Literal["weighted-bc-discrete"] = "weighted-bc-discrete"
    cloning: DiscreteBCConfig = DiscreteBCConfig()


class CrossValidationConfig(FrozenModel):
    """Clone supplementary episodes only where that predicts held-out demonstrations better, by a paired test."""

    folds: int = Field(5, ge=2)
    """Parts of the demonstrations, each left out once; of fewer than three demonstrations, stretches of them."""
    updates: int = Field(5000, ge=1)
    """Of each clone that is compared; no more than cloning itself has."""
    level: float = Field(0.01, gt=0, lt=0.5)
    """Probability of accepting episodes that do not help."""


class ResidualTestConfig(FrozenModel):
    """Choose the episodes that are the expert's under noise: observations do not predict the residuals of a clone."""

    updates: int = Field(2000, ge=1)
    """Of the clone whose residuals are tested; no more than cloning itself has."""
    negligible_residual: float = Field(0.1, gt=0, lt=1)
    """Residuals below this part of the actions' half range count in proportion: they may be the clone's own errors."""
    max_predictability: float = Field(0.05, gt=0, lt=1)
    """Largest mean square of the residuals' signs that observations may predict in an episode of the expert's."""
    min_steps: int = Field(100, ge=2)
    """Shorter episodes say too little, and are left out."""


class DriftTestConfig(FrozenModel):
    """Reject episodes if the policy behind them changed while they were recorded, as a learning agent's does."""

    level: float = Field(0.01, gt=0, lt=0.5)
    """Probability of rejecting episodes of one policy."""
    folds: int = Field(5, ge=2)
    """Parts of the episodes, each left out once by the regressions that are compared."""
    min_episodes: int = Field(10, ge=2)
    """Fewer episodes are not tested: they say too little."""
    updates: int = Field(2000, ge=1)
    """Of the clone whose residuals are tested, where the residual test has trained none."""


class EpisodeFilterConfig(FrozenModel):
    """Which supplementary episodes serve as more demonstrations: those most similar to the ones there are."""

    expert_share: float = Field(0.25, gt=0, le=1)
    """Of each batch; 1 is cloning of the demonstrations alone."""
    similarity: SimilarityConfig = SimilarityConfig()
    short_episode: int = Field(200, ge=1)
    """Steps by which a shorter episode's summed similarity is divided, too: one good step makes no good episode.

    At most the mean length of the demonstrations: where these are short, no good episode is long.
    """
    transitions: int = Field(5000, ge=1)
    """The best episodes are accepted while they have together no more than so many; the best one in any case."""
    residual_test: ResidualTestConfig | None = None
    """Accept in place of these every episode that is the expert's up to noise, weighted by how little noise it has.

    Continuous actions. Where no episode passes, the most similar ones are used.
    """
    drift_test: DriftTestConfig | None = None
    """Reject all of them if their policy changed from episode to episode; None: never."""
    cross_validation: CrossValidationConfig | None = None
    """Reject all of them unless held-out demonstrations are predicted better with them; None: never."""
    loss: CloningLoss | None = None
    """Of cloning where such episodes are accepted (continuous actions); None: the clone's own."""
    update_factors: tuple[PositiveInt, ...] = Field((1,), min_length=1)
    """Where such episodes are accepted, the clone makes one of so many times its updates (continuous actions).

    Of several the one whose clone predicts held-out ones of these episodes best: more data of a policy that is
    hard to learn bear more updates, and noise bears fewer.
    """

    def check_fits(self, cloning: ContinuousBCConfig | DiscreteBCConfig, prefix: str = "") -> None:
        """Raises ValueError where such episodes cannot be tested or cloned; `prefix` leads to these settings."""
        if isinstance(cloning, DiscreteBCConfig):
            if self.residual_test or self.loss:
                raise ValueError(
                    f"discrete actions leave no residual: set {prefix}residual_test=none, {prefix}loss=none and a "
                    f"{prefix}cross_validation"
                )
            if len(self.update_factors) > 1:
                raise ValueError(f"discrete actions leave no residual to choose by: set {prefix}update_factors=[1]")


class FilteredBCConfig(EpisodeFilterConfig, AlgorithmConfig):
    """Behavioural cloning of the demonstrations and such episodes."""

    needs_successors = False

    cloning: ContinuousBCConfig | DiscreteBCConfig

    @model_validator(mode="after")
    def _complete(self) -> Self:
        self.check_fits(self.cloning)
        return self


class ContinuousFilteredBCConfig(FilteredBCConfig):
    """Of continuous actions."""

    name: Literal["filtered-bc-continuous"] = "filtered-bc-continuous"
    cloning: ContinuousBCConfig = ContinuousBCConfig()


class DiscreteFilteredBCConfig(FilteredBCConfig):
    """Of discrete actions."""

    name: Literal["filtered-bc-discrete"] = "filtered-bc-discrete"
    cloning: DiscreteBCConfig = DiscreteBCConfig()


class RecoveryBCConfig(AlgorithmConfig):
    """Behavioural cloning of the demonstrations and of supplementary transitions that lead back to their states."""

    needs_successors = False

    expert_share: float = Field(0.5, gt=0, le=1)
    """Of each batch; 1 is cloning of the demonstrations alone."""
    bandwidth: float = Field(1.5, gt=0)
    """Of the similarity exp(-d^2 / (2 h^2)) of observations, in median distances between demonstrations."""
    discount: float = Field(0.95, gt=0, lt=1)
    """Per step on the way back to a demonstrated state."""
    min_weight: float = Field(0.1, ge=0, lt=1)
    """Transitions of less weight are left out."""
    cloning: ContinuousBCConfig | DiscreteBCConfig


class ContinuousRecoveryBCConfig(RecoveryBCConfig):
    """Of continuous actions."""

    name: Literal["recovery-bc-continuous"] = "recovery-bc-continuous"
    cloning: ContinuousBCConfig = ContinuousBCConfig(loss=CloningLoss.ABSOLUTE)


class DiscreteRecoveryBCConfig(RecoveryBCConfig):
    """Of discrete actions."""

    name: Literal["recovery-bc-discrete"] = "recovery-bc-discrete"
    cloning: DiscreteBCConfig = DiscreteBCConfig()


class CloneAllConfig(AlgorithmConfig):
    """Behavioural cloning of expert and supplementary transitions alike: the null of methods that separate them."""

    needs_successors = False

    cloning: ContinuousBCConfig | DiscreteBCConfig


class ContinuousCloneAllConfig(CloneAllConfig):
    """Of continuous actions."""

    name: Literal["bc-all-continuous"] = "bc-all-continuous"
    cloning: ContinuousBCConfig = ContinuousBCConfig()


class DiscreteCloneAllConfig(CloneAllConfig):
    """Of discrete actions."""

    name: Literal["bc-all-discrete"] = "bc-all-discrete"
    cloning: DiscreteBCConfig = DiscreteBCConfig()


CloningPeerConfig = (
    ContinuousWeightedBCConfig
    | DiscreteWeightedBCConfig
    | ContinuousFilteredBCConfig
    | DiscreteFilteredBCConfig
    | ContinuousRecoveryBCConfig
    | DiscreteRecoveryBCConfig
    | ContinuousCloneAllConfig
    | DiscreteCloneAllConfig
)


class Labeller(StrEnum):
    """Where rewards come from. TRUE reads the recorded ones: an oracle, no imitation; the others never do."""

    SEABO = "seabo"
    OTR = "otr"
    UDS = "uds"
    TRUE = "true"

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        """`--set labeller=true`, and the same in TOML without quotes, come as a truth value."""
        return cls.TRUE if value is True else None


class Trainer(StrEnum):
    """Offline reinforcement learning on labelled rewards. IQL: [IQL22]. TD3BC: [TD3BC21]. CQL: [CQL20]."""

    IQL = "iql"
    TD3BC = "td3bc"
    CQL = "cql"


class SEABOConfig(FrozenModel):
    """Reward scale * exp(-decay * d / |A|), d the distance to the nearest demonstrated transition [SEABO24]."""

    scale: float = Field(1.0, gt=0)
    """The reward at a demonstrated transition."""
    decay: float = Field(0.5, gt=0)
    """How fast the reward falls with distance."""


class OTRConfig(FrozenModel):
    """Reward scale * exp(-decay * c), c a step's mean cost in the optimal transport to a demonstration [OTR23]."""

    scale: float = Field(5.0, gt=0)
    """The reward at no cost."""
    decay: float = Field(5.0, gt=0)
    """How fast the reward falls with cost."""
    regularisation: float = Field(0.01, ge=0.005)
    """Weight of the transport plan's entropy; costs lie between 0 and 2."""
    iterations: int = Field(100, ge=1)
    """Sinkhorn's, at most."""
    demonstration_steps: int = Field(250, ge=1)
    """Steps of a demonstration that are transported to, evenly spread, where it has more."""


class IQLConfig(FrozenModel):
    """Implicit Q-learning's own settings."""

    learning_rate: float = Field(3e-4, gt=0)
    """Of actor, critics and value."""
    expectile: float = Field(0.7, gt=0, lt=1)
    """Of recorded Q that the value is fitted to."""
    inverse_temperature: float = Field(3.0, ge=0)
    """Weights of recorded actions are exp(inverse_temperature * advantage)."""
    max_weight: float = Field(100.0, gt=0)
    """Weights of recorded actions are clipped to this."""
    actor_cosine: bool = True
    """Let the actor's learning rate fall to zero along a cosine, as the paper's does; the critics' stays."""


class TD3BCConfig(FrozenModel):
    """TD3+BC's own settings."""

    learning_rate: float = Field(3e-4, gt=0)
    """Of actor and critics."""
    q_scale: float = Field(2.5, ge=0)
    """Weight of Q, divided by its mean size, against squared cloning error."""


class ConservativeQConfig(FrozenModel):
    """Conservative Q-learning's own settings: d3rlpy's, but for a fixed weight where it learns one."""

    actor_learning_rate: float = Field(1e-4, gt=0)
    """Constant over the updates."""
    critic_learning_rate: float = Field(3e-4, gt=0)
    """Constant over the updates."""
    weight: float = Field(5.0, ge=0)
    """Of the gap between Q of all actions and of the recorded one."""
    actions: int = Field(10, ge=1)
    """Of each kind (uniform, the policy's at s, at s') that the gap samples."""


class RewardLabelledConfig(AlgorithmConfig):
    """Rewards by a labeller, then offline reinforcement learning by d3rlpy; continuous actions only."""

    name: Literal["reward-labelled"] = "reward-labelled"
    labeller: Labeller = Labeller.SEABO
    trainer: Trainer = Trainer.TD3BC
    updates: int = Field(10_000, ge=1)
    """Gradient updates of d3rlpy's trainer."""
    batch_size: int = Field(256, ge=1)
    """Transitions of an update."""
    expert_share: float = Field(0.2, gt=0, lt=1)
    """Of each batch: the few demonstrations would else hardly be seen among many supplementary transitions."""
    gamma: float = Field(0.99, ge=0, lt=1)
    """Discount per environment step."""
    polyak_rate: float = Field(0.005, gt=0, le=1)
    """Share of the Q-function that enters its target at each update."""
    hidden_sizes: HiddenSizes = Field((256, 256), min_length=1)
    """Of actor, critics and value, with ReLU units."""
    critic_layer_norm: bool = True
    """LayerNorm in critics and value [LN16]."""
    return_range: float | None = Field(None, gt=0)
    """Scale rewards so that the best and the worst episode's sums are this far apart; [IQL22] has 1000."""
    seabo: SEABOConfig = SEABOConfig()
    otr: OTRConfig = OTRConfig()
    iql: IQLConfig = IQLConfig()
    td3bc: TD3BCConfig = TD3BCConfig()
    cql: ConservativeQConfig = ConservativeQConfig()

    @property
    def reads_rewards(self) -> bool:
        """By the oracle."""
        return self.labeller is Labeller.TRUE


BaselineConfig = CloningPeerConfig | RewardLabelledConfig

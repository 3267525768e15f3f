"""IQ-Learn's learners from their settings: what `iq.py` and `iq_discrete.py` leave open is chosen here, once."""

from collections.abc import Callable

from torch import Tensor

from iq_offline.algorithms import divergences, iq
from iq_offline.algorithms.actor_critic import PriorEntropy, SampledEntropy
from iq_offline.algorithms.build import NetworkSpec, actor_and_critics, soft_q_function
from iq_offline.algorithms.iq_discrete import DiscreteIQLearner
from iq_offline.algorithms.networks import ContinuousPolicy, DiscretePolicy
from iq_offline.algorithms.noise import Stream, generator
from iq_offline.algorithms.regularisers import DISCRETE, chosen, regularisers_of
from iq_offline.config.iq import (
    DiscreteIQConfig,
    DiscreteIQPaperConfig,
    DivergenceKind,
    InverseObjectiveConfig,
    IQConfig,
    IQPaperConfig,
    ValueTerm,
)

VALUE_TERMS: dict[ValueTerm, iq.ValueTerm | None] = {
    ValueTerm.EXPERT: iq.expert_value,
    ValueTerm.MIXTURE: iq.mixture_value,
    ValueTerm.INITIAL: None,
}


def build(config: IQConfig | IQPaperConfig, spec: NetworkSpec, prior: ContinuousPolicy | None = None) -> iq.IQLearner:
    """Anchored to the prior where there is one."""
    return iq.IQLearner(
        config,
        *actor_and_critics(config, spec, prior),
        generator(spec.seed, Stream.ACTIONS, spec.device),
        SampledEntropy() if prior is None else PriorEntropy(prior),
        regularisers_of(config),
        phi=phi_of(config),
        value_term=VALUE_TERMS[config.value_term],
    )


def build_discrete(
    config: DiscreteIQConfig | DiscreteIQPaperConfig, spec: NetworkSpec, prior: DiscretePolicy | None = None
) -> DiscreteIQLearner:
    """Started from the prior where there is one, with a network of its own for V."""
    return DiscreteIQLearner(
        config,
        soft_q_function(
            config,
            spec,
            prior,
            separate_value=isinstance(config, DiscreteIQConfig),
            shared_encoder=isinstance(config, DiscreteIQConfig) and config.shared_encoder,
        ),
        chosen(DISCRETE, config),
        phi=phi_of(config),
        value_term=VALUE_TERMS[config.value_term],
        prior=prior,
    )


def phi_of(config: InverseObjectiveConfig) -> Callable[[Tensor], Tensor]:
    """The concave function that the expert's recovered rewards pass through."""
    kinds: dict[DivergenceKind, divergences.Divergence] = {
        DivergenceKind.CHI_SQUARED: divergences.ChiSquared(config.reward_penalty),
        DivergenceKind.TOTAL_VARIATION: divergences.TotalVariation(config.reward_bound),
        DivergenceKind.WASSERSTEIN: divergences.Linear(),
        DivergenceKind.KL: divergences.KL(),
        DivergenceKind.KL_DUAL: divergences.KLDual(),
        DivergenceKind.KL_DONSKER_VARADHAN: divergences.KLDonskerVaradhan(),
        DivergenceKind.FORWARD_KL: divergences.ForwardKL(),
        DivergenceKind.JENSEN_SHANNON: divergences.JensenShannon(),
        DivergenceKind.HELLINGER: divergences.Hellinger(),
    }
    return kinds[config.divergence].phi

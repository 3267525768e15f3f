"""Settings that nothing would read, or that contradict one another, are refused with what to do instead."""

from typing import Any

import pytest
from pydantic import ValidationError

from iq_offline.config.MISSING import ContinuousIQConfig
from iq_offline.config.base import FrozenModel
from iq_offline.config.cloning import BCConfig, ContinuousBCConfig
from iq_offline.config.iq import DiscreteIQConfig, IQConfig
from iq_offline.config.q_learning import EnsembleConfig

LEAST_SQUARES, COHERENT = {"objective": "least-squares"}, {"objective": "coherent"}
INVERSES_OWN = "leave divergence, value_term, penalty_on and reward_reference, or set objective=inverse"
CHI_SQUAREDS_OWN = "penalty_on and reward_reference are chi-squared's own: set divergence=chi-squared"
WHOLE_WASSERSTEIN = "divergence=wasserstein needs a gradient penalty: gradient_penalty.weight=10"
NEEDS_PRIOR = "a prior is needed: set prior.updates, or entropy=uniform with another objective"
NO_DENSITY = "a deterministic policy has no density: set cql=none and anchor.likelihood=0"
OF_V_ALONE: list[dict[str, Any]] = [{"layer_norm": True}, {"hidden_sizes": (3,)}, {"activation": "relu"}]
DETERMINISTIC = {"policy_head": "deterministic", "prior": None, "entropy": "off"}
HEADS_DIFFER = "set prior.head as policy_head"


REFUSED: list[tuple[type[FrozenModel], dict[str, Any], str]] = [
    *((IQConfig, kind | {"divergence": "kl"}, INVERSES_OWN) for kind in (LEAST_SQUARES, COHERENT)),
    *((IQConfig, kind | {"value_term": "mixture"}, INVERSES_OWN) for kind in (LEAST_SQUARES, COHERENT)),
    (IQConfig, LEAST_SQUARES | {"value_term": "initial"}, INVERSES_OWN),
    (IQConfig, LEAST_SQUARES | {"penalty_on": "mixture"}, INVERSES_OWN),
    (IQConfig, COHERENT | {"reward_reference": (1.0, 0.0)}, INVERSES_OWN),
    (IQConfig, {"divergence": "kl", "penalty_on": "mixture"}, CHI_SQUAREDS_OWN),
    (IQConfig, {"divergence": "hellinger", "reward_reference": (1.0, 0.0)}, CHI_SQUAREDS_OWN),
    (IQConfig, {"reward_reference": (0.0, 1.0)}, "of supplementary data needs penalty_on=mixture"),
    (IQConfig, {"value_term": "initial"}, "needs a gradient through V(s')"),
    (IQConfig, LEAST_SQUARES | {"gamma": 0.999}, "make values of 2000, where alarm_q=1000 stops the run: set alarm_q="),
    (IQConfig, LEAST_SQUARES | {"reward_penalty": 7.0}, "reward_penalty is read under objective=inverse, div"),
    (IQConfig, {"divergence": "kl", "reward_penalty": 7.0}, "reward_penalty is read under objective=inverse, div"),
    (IQConfig, {"reward_bound": 9.0}, "reward_bound is read under divergence=total-variation alone: leave it"),
    (IQConfig, {"fixed_rewards": (5.0, -5.0)}, "fixed_rewards is read under objective=least-squares"),
    (IQConfig, {"expert_target_fixed": False}, "expert_target_fixed is read under objective=least-squares"),
    (IQConfig, LEAST_SQUARES | {"coherence": 3.0}, "coherence is read under objective=coherent"),
    (IQConfig, {"in_sample_value": {}}, "carries no gradient of the value term: set objective=least-squares"),
    (IQConfig, {"divergence": "wasserstein"}, WHOLE_WASSERSTEIN),
    (IQConfig, {"divergence": "wasserstein", "gradient_penalty": {"weight": 0}}, WHOLE_WASSERSTEIN),
    (
        IQConfig,
        {"divergence": "kl-donsker-varadhan", "absorbing_value": "learned"},
        "the logarithm of a mean has no absorbing tail: set absorbing_value=zero",
    ),
    (DiscreteIQConfig, {"entropy": "off"}, "discrete actions need an entropy: entropy=uniform or prior"),
    (DiscreteIQConfig, {"entropy": "prior", "prior": None}, NEEDS_PRIOR),
    (DiscreteIQConfig, COHERENT | {"prior": None}, NEEDS_PRIOR),
    (ContinuousIQConfig, {"prior": None}, NEEDS_PRIOR),
    (ContinuousIQConfig, COHERENT | {"prior": None, "entropy": "uniform"}, NEEDS_PRIOR),
    (
        ContinuousIQConfig,
        {"policy_head": "deterministic", "prior": {"head": "deterministic"}},
        "a deterministic policy has no entropy: set entropy=off",
    ),
    (ContinuousIQConfig, DETERMINISTIC | {"cql": {}}, NO_DENSITY),
    (ContinuousIQConfig, DETERMINISTIC | {"anchor": {"likelihood": 1.0}}, NO_DENSITY),
    (
        ContinuousIQConfig,
        COHERENT | DETERMINISTIC | {"prior": {"head": "deterministic"}},
        "a deterministic policy has no likelihood to be a reward",
    ),
    (
        ContinuousIQConfig,
        {"advantage_weights": {}, "anchor": {"scale_q": 1.0}},
        "no Q to scale: set anchor.scale_q=none",
    ),
    *((DiscreteIQConfig, {"separate_value": False} | own, "prior's copy") for own in OF_V_ALONE),
    (ContinuousIQConfig, DETERMINISTIC | {"policy_std": None}, "a deterministic policy has no width to learn"),
    (
        ContinuousIQConfig,
        {"divergence": "kl-donsker-varadhan", "ensemble": {"members": 2}},
        "the logarithm of a mean is one critic's: set ensemble.members=1",
    ),
    (ContinuousIQConfig, {"policy_head": "tanh-gaussian"}, HEADS_DIFFER),
    (ContinuousIQConfig, {"policy_std": None}, "set prior.learnt_std=true, prior.loss=likelihood and more_demo"),
    (ContinuousIQConfig, {"prior": {"learnt_std": True, "loss": "likelihood"}}, "set policy_std=none"),
    (EnsembleConfig, {"diversity_weight": 1.0}, "diversity needs several critics: set ensemble.members=2 or more"),
    (ContinuousBCConfig, {"learnt_std": True}, "learnt_std needs loss=likelihood"),
    (ContinuousBCConfig, {"head": "deterministic", "loss": "likelihood"}, "set loss=censored or squared"),
    (BCConfig, {"hidden_size": 3}, "Extra inputs are not permitted"),
]


def named(case: Any) -> str:
    return ",".join(case) if isinstance(case, dict) else ""


@pytest.mark.parametrize(("model", "settings", "message"), REFUSED, ids=named)
def test_what_does_not_go_together_is_refused_with_the_remedy(
    model: type[FrozenModel], settings: dict[str, Any], message: str
):
    with pytest.raises(ValidationError) as error:
        model(**settings)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        (IQConfig, LEAST_SQUARES | {"in_sample_value": {}}),
        (IQConfig, {"penalty_on": "mixture", "reward_reference": (1.0, -1.0)}),
        (IQConfig, {"value_term": "initial", "polyak_rate": None}),
        (IQConfig, LEAST_SQUARES | {"gamma": 0.999, "alarm_q": 20_000.0, "target_bound": 2000.0}),
        *((DiscreteIQConfig, own) for own in OF_V_ALONE),
        *((DiscreteIQConfig, {"separate_value": False, "prior": None} | own) for own in OF_V_ALONE),
        (IQConfig, {"divergence": "wasserstein", "gradient_penalty": {}}),
        (IQConfig, {"divergence": "kl-donsker-varadhan"}),
        (DiscreteIQConfig, {"entropy": "uniform", "prior": None}),
        (ContinuousIQConfig, DETERMINISTIC | {"anchor": {"squared_error": 1.0}}),
        (ContinuousIQConfig, {"policy_head": "tanh-gaussian", "prior": {"head": "tanh-gaussian"}}),
        (EnsembleConfig, {"diversity_weight": 1.0, "members": 2}),
    ],
    ids=named,
)
def test_the_remedies_are_accepted(model: type[FrozenModel], settings: dict[str, Any]):
    held = model(**settings)
    assert held.model_dump(exclude_unset=True).keys() == settings.keys()

"""Settings that contradict one another are refused with what to do instead; what another method has is no key."""

from typing import Any

import pytest
from pydantic import ValidationError

from iq_offline.config.awr import AWRConfig, DiscreteAWRConfig
from iq_offline.config.base import FrozenModel
from iq_offline.config.cloning import BCConfig, ContinuousBCConfig
from iq_offline.config.csil import CSILConfig, DiscreteCSILConfig
from iq_offline.config.iq import DiscreteIQConfig, DiscreteIQPaperConfig, IQConfig, IQPaperConfig
from iq_offline.config.ls_iq import DiscreteLSIQConfig, LSIQConfig
from iq_offline.config.recoil import DiscreteReCOILConfig, ReCOILConfig
from iq_offline.config.sprinql import DiscreteSPRINQLConfig, SPRINQLConfig
from iq_offline.config.train import algorithm_class, algorithm_config, valid_keys
from iq_offline.errors import ConfigError

IQ_LEARN = (IQConfig, IQPaperConfig, DiscreteIQConfig, DiscreteIQPaperConfig)
FIXED_REWARDS = (LSIQConfig, DiscreteLSIQConfig, ReCOILConfig, DiscreteReCOILConfig)
CONTINUOUS = (IQConfig, IQPaperConfig, AWRConfig, LSIQConfig, CSILConfig, ReCOILConfig, SPRINQLConfig)
LONG = {"gamma": 0.999}
WHOLE_WASSERSTEIN = "divergence=wasserstein needs a gradient penalty: gradient_penalty.weight=10"

REFUSED: list[tuple[type[FrozenModel], dict[str, Any], str]] = [
    *((model, {"value_term": "initial", "polyak_rate": 0.005}, "set polyak_rate=none") for model in IQ_LEARN),
    *((model, {"divergence": "wasserstein"}, WHOLE_WASSERSTEIN) for model in IQ_LEARN),
    (IQConfig, {"divergence": "wasserstein", "gradient_penalty": {"weight": 0}}, WHOLE_WASSERSTEIN),
    *(
        (model, {"divergence": "kl", "reward_penalty": 7.0}, "reward_penalty is read under divergence=chi-squared")
        for model in IQ_LEARN
    ),
    (IQConfig, {"reward_bound": 9.0}, "reward_bound is read under divergence=total-variation alone: leave it"),
    *(
        (model, {"divergence": "kl-donsker-varadhan", "ensemble": {"members": 2}}, "set ensemble.members=1")
        for model in (IQConfig, IQPaperConfig)
    ),
    *(
        (model, LONG, "make values of 2000, where max_abs_q=1000 stops the run: set max_abs_q=20000")
        for model in FIXED_REWARDS
    ),
    *(
        (DiscreteIQConfig, {"accept_episodes": own}, "set accept_episodes.")
        for own in ({"residual_test": {}}, {"loss": "absolute"}, {"update_factors": (1, 2)})
    ),
    *((model, {"diversity": {}, "ensemble": {"members": 1}}, "set ensemble.members=2 or more") for model in CONTINUOUS),
    *((model, {"policy_std": None}, "should be a valid number") for model in (IQConfig, CSILConfig, AWRConfig)),
    *((model, {"temperature": 0}, "greater than 0") for model in (DiscreteIQConfig, DiscreteCSILConfig)),
    (BCConfig, {"hidden_size": 3}, "Extra inputs are not permitted"),
]
ACCEPTED: list[tuple[type[FrozenModel], dict[str, Any]]] = [
    *((model, {"value_term": "initial", "polyak_rate": None}) for model in IQ_LEARN),
    *((model, {"divergence": "wasserstein", "gradient_penalty": {}}) for model in IQ_LEARN),
    *((model, {"divergence": "kl-donsker-varadhan"}) for model in IQ_LEARN),
    (IQConfig, {"divergence": "total-variation", "reward_bound": 9.0}),
    *((model, LONG | {"max_abs_q": 20_000.0, "target_bound": 2000.0}) for model in FIXED_REWARDS),
    (IQConfig, {"accept_episodes": {"residual_test": {}, "loss": "absolute"}}),
    *((model, {"diversity": {}, "ensemble": {"members": 2}}) for model in CONTINUOUS),
    (SPRINQLConfig, {"diversity": {}}),
    *((model, {"diversity": {"weight": 0}}) for model in CONTINUOUS),
    (ContinuousBCConfig, {"loss": "absolute"}),
]


def named(case: Any) -> str:
    return ",".join(case) if isinstance(case, dict) else ""


@pytest.mark.parametrize(("model", "settings", "message"), REFUSED, ids=named)
def test_contradictions_are_refused_with_the_remedy(model: type[FrozenModel], settings: dict[str, Any], message: str):
    with pytest.raises(ValidationError) as error:
        model(**settings)
    assert message in str(error.value)


@pytest.mark.parametrize(("model", "settings"), ACCEPTED, ids=named)
def test_remedies_are_accepted(model: type[FrozenModel], settings: dict[str, Any]):
    held = model(**settings)
    assert held.model_dump(exclude_unset=True).keys() == settings.keys()


OTHERS = {
    "fixed_rewards": FIXED_REWARDS,
    "coherence": (CSILConfig, DiscreteCSILConfig),
    "reward_reference": (SPRINQLConfig, DiscreteSPRINQLConfig),
    "divergence": IQ_LEARN,
    "value_term": IQ_LEARN,
    "accept_episodes": (IQConfig, DiscreteIQConfig),
    "advantage_temperature": (AWRConfig, DiscreteAWRConfig, ReCOILConfig, DiscreteReCOILConfig),
    "gumbel_temperature": (ReCOILConfig, DiscreteReCOILConfig),
    "prior": (IQConfig, DiscreteIQConfig, CSILConfig, DiscreteCSILConfig),
}


@pytest.mark.parametrize("key", OTHERS)
def test_a_methods_own_settings_are_no_others(key: str):
    """So a combination that makes no sense cannot be written down."""
    discrete = (DiscreteAWRConfig, DiscreteLSIQConfig, DiscreteCSILConfig, DiscreteReCOILConfig, DiscreteSPRINQLConfig)
    models = {*CONTINUOUS, *IQ_LEARN, *discrete}
    assert {model for model in models if key in model.model_fields} == set(OTHERS[key])


@pytest.mark.parametrize(
    ("method", "override", "present"),
    [
        ("iq", "action_gradient_weight=1", "action_gradient.weight"),
        ("iq", "action_gradient_at=recorded", "action_gradient.at"),
        ("iq", "alarm_q=5", "max_abs_q"),
        ("iq", "ensemble.diversity_weight=1", "diversity.weight"),
        ("iq", "anchor.squared_error=1", "behavioural_cloning.weight"),
        ("iq", "more_demonstrations=none", "accept_episodes"),
        ("iq-awr", "advantage_weights.largest=5", "max_weight"),
        ("recoil", "in_sample_value.largest=5", "max_exponent"),
        ("recoil", "in_sample_value.learning_rate=1", "value_learning_rate"),
    ],
)
def test_keys_of_earlier_versions_name_the_present_one(method: str, override: str, present: str):
    key = override.partition("=")[0]
    with pytest.raises(ConfigError, match=f"unknown key '{key}' for method {method}") as error:
        algorithm_config(method, discrete=False, overrides=[override])
    assert error.value.remedy.startswith(f"did you mean {present}")
    assert f"iq-offline methods {method}" in error.value.remedy
    assert present in valid_keys(algorithm_class(method, discrete=False))


@pytest.mark.parametrize("override", ["one_backward=true", "objective=coherent", "policy_head=deterministic"])
@pytest.mark.parametrize("discrete", [False, True])
def test_keys_that_are_gone_are_refused(override: str, discrete: bool):
    with pytest.raises(ConfigError, match="unknown key") as error:
        algorithm_config("iq", discrete=discrete, overrides=[override])
    assert "iq-offline methods iq" in error.value.remedy


@pytest.mark.parametrize(
    ("method", "override", "key", "kept"),
    [
        ("iq", "action_gradient.at=recorded", "action_gradient.weight", 0.1),
        ("iq", "accept_episodes.residual_test.updates=7", "accept_episodes.cross_validation.folds", 5),
        ("iq", "accept_episodes.residual_test.updates=7", "accept_episodes.loss", "absolute"),
        ("recovery-bc", "cloning.updates=7", "cloning.loss", "absolute"),
    ],
)
def test_override_keeps_other_defaults_of_its_group(method: str, override: str, key: str, kept: Any):
    """A method's own default for a group of settings holds for the keys that an override leaves alone."""
    values: Any = algorithm_config(method, discrete=False, overrides=[override]).model_dump(mode="json")
    for part in key.split("."):
        values = values[part]
    assert values == kept

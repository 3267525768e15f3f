"""Configurations: frozen, checked, the same after a trip through TOML, and named by their content."""

import pytest
from pydantic import ValidationError

from iq_offline.config.MISSING import ContinuousIQConfig, Method
from iq_offline.config.cloning import BCConfig, ContinuousBCConfig, DiscreteBCConfig
from iq_offline.config.iq import DiscreteIQConfig
from iq_offline.config.train import TrainConfig, algorithm_config
from iq_offline.errors import ConfigError, nearest


def train_config(**changes: object) -> TrainConfig:
    values = {"dataset": "demo", "method": "iq", "demos": 5, "algorithm": ContinuousIQConfig()}
    return TrainConfig(**(values | changes))  # type: ignore[arg-type]


def test_toml_gives_back_the_same_configuration():
    config = train_config(algorithm=ContinuousIQConfig(prior=ContinuousBCConfig(updates=7, hidden_sizes=(8,))))
    assert TrainConfig.from_toml(config.to_toml()) == config


def test_what_is_off_stays_off_through_toml_and_on_the_command_line():
    config = train_config(demos=None, algorithm=DiscreteIQConfig(polyak_rate=None))
    assert TrainConfig.from_toml(config.to_toml()) == config
    for text in ("none", "null"):
        off = algorithm_config(Method.IQ, discrete=True, overrides=[f"polyak_rate={text}"])
        assert isinstance(off, DiscreteIQConfig)
        assert off.polyak_rate is None


def test_a_configuration_cannot_be_changed_or_given_unknown_keys():
    with pytest.raises(ValidationError, match="frozen"):
        BCConfig().updates = 3  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        BCConfig(upates=3)  # type: ignore[call-arg]


def test_the_hash_names_the_content_and_not_the_place():
    reference = train_config().content_hash("data")
    assert reference == train_config(dataset="/elsewhere", device="cpu", threads=2).content_hash("data")
    assert reference != train_config(seed=1).content_hash("data")
    assert reference != train_config().content_hash("other data")


def test_overrides_follow_the_preset_which_follows_the_defaults():
    preset = {"iq-continuous": {"temperature": 1.0, "prior.updates": 10}, "bc-continuous": {"updates": 3}}
    config = algorithm_config(Method.IQ, discrete=False, presets=[preset], overrides=["temperature=0.5", "updates=9"])
    assert isinstance(config, ContinuousIQConfig)
    assert (config.temperature, config.updates, config.prior.updates) == (0.5, 9, 10)
    assert config.gamma == ContinuousIQConfig().gamma


def test_the_action_space_decides_which_iq_is_configured():
    assert isinstance(algorithm_config(Method.IQ, discrete=True), DiscreteIQConfig)
    assert isinstance(algorithm_config(Method.BC, discrete=True), DiscreteBCConfig)


def test_lists_and_names_are_parsed():
    config = algorithm_config(Method.BC, discrete=False, overrides=["hidden_sizes=[32, 16]", "activation=relu"])
    assert isinstance(config, BCConfig)
    assert (config.hidden_sizes, config.activation) == ((32, 16), "relu")


def test_the_configurations_own_name_cannot_be_overridden():
    with pytest.raises(ConfigError, match="unknown key 'name'"):
        algorithm_config(Method.BC, discrete=False, overrides=["name=iq"])


def test_few_names_are_all_listed_nearest_first_and_many_are_not():
    assert nearest("cuba", ["auto", "cpu", "cuda"]).startswith("cuda, ")
    assert nearest("alpha", [f"name{i}" for i in range(9)] + ["alphas"]) == "alphas"
    assert nearest("xyz", [f"hopper-{number}" for number in range(100)]) == "none of 100 is near"


@pytest.mark.parametrize(
    ("transitions", "updates"),
    [(1, 5000), (5000, 5000), (5001, 5001), (10_000, 10_000), (20_000, 20_000), (10**6, 20_000)],
)
def test_more_transitions_are_cloned_for_more_updates_within_bounds(transitions: int, updates: int):
    assert ContinuousBCConfig().settled(transitions).updates == updates
    assert ContinuousBCConfig(updates=7).settled(transitions).updates == 7
    assert DiscreteBCConfig().settled(transitions).updates == 5000


def test_half_the_batch_is_twice_the_updates_for_as_many_passes():
    assert ContinuousBCConfig(batch_size=128).settled(6000).updates == 12_000

"""Configurations: frozen, checked, the same after a trip through TOML, and named by their content."""

import pytest
from pydantic import ValidationError

from iq_offline.config.cloning import BCConfig, ContinuousBCConfig, DiscreteBCConfig
from iq_offline.config.iq import DiscreteIQConfig, IQConfig
from iq_offline.config.train import TrainConfig, algorithm_class, algorithm_config, config_classes
from iq_offline.errors import ConfigError, did_you_mean
from iq_offline.methods import METHODS


def train_config(**changes: object) -> TrainConfig:
    values = {"dataset": "demo", "method": "iq", "demos": 5, "algorithm": IQConfig()}
    return TrainConfig(**(values | changes))  # type: ignore[arg-type]


def test_toml_gives_back_the_same_configuration():
    config = train_config(algorithm=IQConfig(prior=ContinuousBCConfig(updates=7, hidden_sizes=(8,))))
    assert TrainConfig.from_toml(config.to_toml()) == config


def test_what_is_off_stays_off():
    """Through TOML and on the command line."""
    config = train_config(demos=None, algorithm=DiscreteIQConfig(polyak_rate=None))
    assert TrainConfig.from_toml(config.to_toml()) == config
    for text in ("none", "null"):
        off = algorithm_config("iq", discrete=True, overrides=[f"polyak_rate={text}"])
        assert isinstance(off, DiscreteIQConfig)
        assert off.polyak_rate is None


def test_configurations_are_frozen_and_refuse_unknown_keys():
    with pytest.raises(ValidationError, match="frozen"):
        ContinuousBCConfig().updates = 3  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        ContinuousBCConfig(upates=3)  # type: ignore[call-arg]


def test_hash_names_content_and_not_place():
    reference = train_config().content_hash("data")
    assert reference == train_config(dataset="/elsewhere", device="cpu", threads=2).content_hash("data")
    assert reference != train_config(seed=1).content_hash("data")
    assert reference != train_config().content_hash("other data")


def test_overrides_follow_preset_which_follows_defaults():
    preset = {"iq-continuous": {"temperature": 1.0, "prior.updates": 10}, "bc-continuous": {"updates": 3}}
    config = algorithm_config("iq", discrete=False, presets=[preset], overrides=["temperature=0.5", "updates=9"])
    assert isinstance(config, IQConfig)
    assert (config.temperature, config.updates, config.prior.updates) == (0.5, 9, 10)
    assert config.gamma == IQConfig().gamma


def test_action_space_decides_which_iq_is_configured():
    assert isinstance(algorithm_config("iq", discrete=True), DiscreteIQConfig)
    assert isinstance(algorithm_config("bc", discrete=True), DiscreteBCConfig)


def test_lists_and_names_are_parsed():
    config = algorithm_config("bc", discrete=False, overrides=["hidden_sizes=[32, 16]", "activation=relu"])
    assert isinstance(config, BCConfig)
    assert (config.hidden_sizes, config.activation) == ((32, 16), "relu")


@pytest.mark.parametrize("config", config_classes(), ids=lambda config: config.__name__)
def test_toml_tells_the_class_of_settings(config):
    """By its `name`, for every method and kind of actions."""
    method = next(name for name, method in METHODS.items() if config in method.config_classes())
    held = TrainConfig(dataset="demo", method=method, algorithm=config())
    read = TrainConfig.from_toml(held.to_toml())
    assert type(read.algorithm) is config
    assert read == held


def test_names_of_settings_are_unique():
    names = [config.model_fields["name"].default for config in config_classes()]
    assert len(set(names)) == len(names)


def test_settings_of_no_method_are_refused():
    """Such as those of an earlier version, whose keys were others."""
    text = train_config().to_toml()
    with pytest.raises(ValueError, match="no method has settings called 'iq-old'"):
        TrainConfig.from_toml(text.replace('name = "iq-continuous"', 'name = "iq-old"'))
    with pytest.raises(ValueError, match=r"algorithm\.alarm_q: Extra inputs"):
        TrainConfig.from_toml(text.replace("[algorithm]", "[algorithm]\nalarm_q = 5"))
    with pytest.raises(ValueError, match="no method is called iq-cq: did you mean iq-cql"):
        TrainConfig.from_toml(text.replace('method = "iq"', 'method = "iq-cq"'))


def test_settings_of_a_method_follow_preset_and_override():
    """`iq-cql` is `iq` with CQL's weight of one."""
    assert algorithm_class("iq-cql", discrete=False) is IQConfig
    for discrete in (False, True):
        plain, by_cql = (algorithm_config(method, discrete=discrete) for method in ("iq", "iq-cql"))
        assert (plain.cql, by_cql.cql.weight) == (None, 1.0)  # type: ignore[attr-defined]
        assert by_cql.model_copy(update={"cql": None}) == plain
    halved = algorithm_config("iq-cql", discrete=False, overrides=["cql.weight=0.5"])
    assert halved.cql.weight == 0.5  # type: ignore[attr-defined]
    off = algorithm_config("iq-cql", discrete=False, overrides=["cql=none"])
    assert off.cql is None  # type: ignore[attr-defined]


def test_name_of_configuration_cannot_be_overridden():
    with pytest.raises(ConfigError, match="unknown key 'name'"):
        algorithm_config("bc", discrete=False, overrides=["name=iq"])


def test_near_names_are_a_question():
    """Few names are all listed, each once; of many, the command that lists them is named."""
    assert did_you_mean("cuda0", ["auto", "cpu", "cuda"]) == "did you mean cuda or cpu? also valid: auto"
    assert did_you_mean("cuda0", ["cuda", "cuda1", "cuda2"]) == "did you mean cuda, cuda2 or cuda1?"
    listed = "did you mean cuda? all of them: iq-offline list"
    assert did_you_mean("cuda0", ["cuda", "tpu"], listed_by="iq-offline list") == listed
    many = [*(f"name{i}" for i in range(9)), "alphas"]
    assert did_you_mean("alpha", many) == "did you mean alphas?"
    assert did_you_mean("alpha", many, "iq-offline list") == "did you mean alphas? all of them: iq-offline list"
    hundred = [f"hopper-{number}" for number in range(100)]
    assert did_you_mean("xyz", hundred) == "none of 100 names is near"
    assert did_you_mean("xyz", hundred, "iq-offline datasets") == "all of them: iq-offline datasets"


@pytest.mark.parametrize(
    ("transitions", "updates"),
    [(1, 5000), (5000, 5000), (5001, 5001), (10_000, 10_000), (20_000, 20_000), (10**6, 20_000)],
)
def test_more_transitions_are_cloned_for_more_updates(transitions: int, updates: int):
    """Within bounds."""
    assert ContinuousBCConfig().settled(transitions).updates == updates
    assert ContinuousBCConfig(updates=7).settled(transitions).updates == 7
    assert DiscreteBCConfig().settled(transitions).updates == 5000


def test_half_the_batch_is_twice_the_updates():
    """For as many passes."""
    assert ContinuousBCConfig(batch_size=128).settled(6000).updates == 12_000

"""`methods`: every method and every setting is told, and what is told is what `train` takes."""

import json

import pytest
from typer.testing import CliRunner

from iq_offline.cli import app
from iq_offline.config.cloning import FEWEST_UPDATES, MOST_UPDATES, PASSES
from iq_offline.config.train import algorithm_class, algorithm_config, valid_keys
from iq_offline.errors import ConfigError
from iq_offline.methods import METHODS
from iq_offline.stages.methods import list_methods, method_settings

BOTH = {"continuous": False, "discrete": True}
KINDS = [
    (method, actions)
    for method in METHODS
    for actions, discrete in BOTH.items()
    if not discrete or algorithm_class(method, discrete=True) is not algorithm_class(method, discrete=False)
]


def test_every_method_is_listed_with_a_sentence():
    listed = {row["method"]: row["about"] for row in list_methods()}
    assert list(listed) == list(METHODS)
    assert all(len(about) > 20 for about in listed.values())
    assert listed["csil"].startswith("Coherent soft imitation")


@pytest.mark.parametrize(("method", "actions"), KINDS)
def test_every_key_of_train_is_told(method, actions):
    """And says what it is."""
    told = method_settings(method, actions, None)["settings"]
    assert sorted(setting["key"] for setting in told) == sorted(
        valid_keys(algorithm_class(method, discrete=BOTH[actions]))
    )
    assert [setting["key"] for setting in told if not setting["says"] or not setting["accepts"]] == []


@pytest.mark.parametrize(("method", "actions"), KINDS)
def test_told_values_given_back_are_the_method(method, actions):
    """By `--set`."""
    told = method_settings(method, actions, None)["settings"]
    overrides = [f"{s['key']}={s['value']}" for s in told if s["is_on"] and s["value"] is not None]
    discrete = BOTH[actions]
    assert algorithm_config(method, discrete=discrete, overrides=overrides) == algorithm_config(
        method, discrete=discrete
    )


def told(name: str, actions: str = "continuous", preset: str | None = None) -> dict[str, dict]:
    return {setting["key"]: setting for setting in method_settings(name, actions, preset)["settings"]}


def test_what_a_method_chose_is_marked():
    by_cql, plain = told("iq-cql"), told("bc")
    assert by_cql["cql.weight"] == {
        "key": "cql.weight",
        "value": "1.0",
        "is_on": True,
        "accepts": "number from 0",
        "says": "Of the term in the loss.",
        "chosen": True,
    }
    assert not by_cql["gamma"]["chosen"]
    assert not any(setting["chosen"] for setting in plain.values())


def test_group_that_is_off_shows_its_values():
    """Those that it would have."""
    by_iq = told("iq")
    assert (by_iq["cql"]["value"], by_iq["cql"]["is_on"]) == ("none", True)
    assert (by_iq["cql.actions"]["value"], by_iq["cql.actions"]["is_on"]) == ("10", False)
    assert told("iq-cql")["cql"]["value"] is None


def test_what_is_accepted_is_told_in_words():
    by_iq = told("iq")
    assert by_iq["gamma"]["accepts"] == "number from 0 below 1"
    assert by_iq["polyak_rate"]["accepts"] == "number above 0 to 1 or none"
    assert by_iq["value_term"]["accepts"] == "expert, mixture, initial"
    assert by_iq["hidden_sizes"]["accepts"] == "list of: whole number from 1"
    assert by_iq["cql"]["accepts"] == "none, or its settings"
    assert told("ls-iq")["fixed_rewards"]["accepts"] == "list: number, number"
    assert told("sprinql")["critic_layer_norm"]["accepts"] == "true or false"


def test_preset_is_told_on_top_of_method():
    assert told("iq")["updates"]["value"] == "2000"
    assert told("iq", preset="quick")["updates"] == told("iq")["updates"] | {"value": "200", "chosen": True}


def test_numbers_in_cloning_text_are_the_constants():
    says = told("bc")["updates"]["says"]
    assert f"none: {PASSES} passes" in says
    assert f"{FEWEST_UPDATES} updates at least, and {MOST_UPDATES} at most" in says


@pytest.mark.parametrize(
    ("arguments", "problem", "remedy"),
    [
        (("iq-cq", "continuous", None), "unknown method 'iq-cq'", "iq-cql"),
        (("iq", "both", None), "unknown kind of actions 'both'", "continuous, discrete"),
        (("iq", "continuous", "quik"), "unknown preset 'quik'", "quick"),
        (("otr-iql", "discrete", None), "method otr-iql is for continuous actions", "leave --actions out"),
    ],
)
def test_mistakes_are_named_with_their_remedy(arguments, problem, remedy):
    with pytest.raises(ConfigError, match=problem) as caught:
        method_settings(*arguments)
    assert remedy in caught.value.remedy


def call(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["methods", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_command_prints_methods_and_settings():
    """A line a method, and a block a setting."""
    assert len(call().splitlines()) == len(METHODS) + 1
    text = call("iq-cql", "--actions", "discrete")
    assert text.startswith("iq-cql, discrete actions, [iq-discrete] in a preset's file\n")
    assert "\n* cql.weight=1.0   [number from 0]\n      Of the term in the loss.\n" in text
    assert "\n  (gradient_penalty.weight=10.0)   [number from 0]\n" in text
    assert not [line for line in text.splitlines() if line != line.rstrip()]


def test_the_command_prints_json():
    assert json.loads(call("--json")) == {"methods": list_methods()}
    assert json.loads(call("csil", "--json")) == method_settings("csil", "continuous", None)


def test_a_preset_without_a_method_is_refused():
    result = CliRunner().invoke(app, ["methods", "--preset", "quick"])
    assert isinstance(result.exception, ConfigError)
    assert "iq-offline methods METHOD --preset PRESET" in result.exception.remedy

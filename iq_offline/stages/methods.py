"""methods: what `train --method` can train, and every setting of one that `--set` takes."""

from dataclasses import asdict
from enum import StrEnum
from typing import Any

from iq_offline.config.settings import describe_settings
from iq_offline.config.train import algorithm_config, choice, method_of
from iq_offline.errors import ConfigError
from iq_offline.methods import METHODS
from iq_offline.stages.presets import read_preset


class Actions(StrEnum):
    """The action spaces that settings are for."""

    CONTINUOUS = "continuous"
    DISCRETE = "discrete"


def list_methods() -> list[dict[str, str]]:
    """Every method's name, and what it is in a sentence."""
    return [{"method": method.name, "about": method.summary.rstrip(".")} for method in METHODS.values()]


def method_settings(name: str, actions: str, preset: str | None) -> dict[str, Any]:
    """What `train` takes by that name: every setting with its value, and whether the method or the preset chose that.

    Raises ConfigError for an unknown method, kind of actions or preset, and for actions that a method is not for.
    """
    method, discrete = method_of(name), choice(Actions, actions, "kind of actions") is Actions.DISCRETE
    if discrete and method.discrete is None:
        raise ConfigError(f"method {name} is for continuous actions", "leave --actions out, or name another method")
    presets = [] if preset is None else read_preset(preset)
    config = algorithm_config(name, discrete=discrete, presets=presets)
    plain = describe_settings(type(config).model_validate({}))
    rows = [
        asdict(setting) | {"chosen": setting != default}
        for setting, default in zip(describe_settings(config), plain, strict=True)
    ]
    return {"method": name, "actions": actions, "table": config.name, "about": method.summary, "settings": rows}

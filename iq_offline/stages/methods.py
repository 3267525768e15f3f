"""methods: what `train --method` can train, and every setting of one that `--set` takes."""

from dataclasses import asdict
from enum import StrEnum
from typing import Any

from iq_offline.config import Method, algorithm_class, algorithm_config, choice
from iq_offline.config.settings import describe_settings
from iq_offline.errors import ConfigError
from iq_offline.stages.presets import heading, recipe

WITHOUT_RECIPE = {
    Method.BC: "Behavioural cloning of the demonstrations alone: what every method is held against.",
    Method.IQ: "IQ-Learn that starts from a behavioural clone and keeps its soft value anchored to it.",
    Method.BC_ALL: "Behavioural cloning of expert and supplementary transitions alike.",
    Method.WEIGHTED_BC: "Behavioural cloning, supplementary transitions weighted by how expert-like they are.",
    Method.FILTERED_BC: "Behavioural cloning, with the supplementary episodes that are most like demonstrations.",
}


class Actions(StrEnum):
    """The action spaces that settings are for."""

    CONTINUOUS = "continuous"
    DISCRETE = "discrete"


def list_methods() -> list[dict[str, str]]:
    """Every method's name, and what it is in a sentence."""
    return [{"method": method.value, "about": _about(method).partition(". ")[0].rstrip(".")} for method in Method]


def method_settings(name: str, actions: str, preset: str | None) -> dict[str, Any]:
    """What `train` takes by that name: every setting with its value, and whether a recipe or the preset chose that.

    Raises ConfigError for an unknown method, kind of actions or preset, and for actions that a method is not for.
    """
    method, discrete = choice(Method, name, "method"), choice(Actions, actions, "kind of actions") is Actions.DISCRETE
    if discrete and algorithm_class(method, discrete=True) is algorithm_class(method, discrete=False):
        raise ConfigError(f"method {name} is for continuous actions", "leave --actions out, or name another method")
    presets = [*recipe(name), *([] if preset in (None, name) else recipe(str(preset)))]
    config = algorithm_config(method, discrete=discrete, presets=presets)
    plain = describe_settings(algorithm_config(method, discrete=discrete))
    rows = [
        asdict(setting) | {"chosen": setting != default}
        for setting, default in zip(describe_settings(config), plain, strict=True)
    ]
    return {"method": name, "actions": actions, "table": config.name, "about": _about(method), "settings": rows}


def _about(method: Method) -> str:
    return WITHOUT_RECIPE.get(method) or heading(method)

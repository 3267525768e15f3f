"""Every setting of a training run is an option of `train`, described once: where its field is."""

from dataclasses import fields
from enum import Enum

import pytest
import typer

from iq_offline.cli import app
from iq_offline.config.train import TrainConfig
from iq_offline.stages.train import RunOptions, train_config

OPTIONS = {option.opts[0]: option for option in typer.main.get_command(app).commands["train"].params}
DEFAULTS = {name: field.get_default(call_default_factory=True) for name, field in TrainConfig.model_fields.items()}
SETTINGS = {
    name: default for name, default in DEFAULTS.items() if name not in ("dataset", "method", "algorithm", "seed")
}
RUN_OPTIONS = {field.name: field.default for field in fields(RunOptions) if field.name != "tracked"}


@pytest.mark.parametrize("name", [*SETTINGS, *RUN_OPTIONS])
def test_every_field_is_an_option_with_its_default(name: str):
    """A new field without an option, or with another default, would be a setting that the command line has not."""
    default = (SETTINGS | RUN_OPTIONS)[name]
    option = OPTIONS[f"--{name.replace('_', '-')}"]
    assert (option.default or None) == ((default.value if isinstance(default, Enum) else default) or None)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_help_of_a_setting_is_its_docstring(name: str):
    assert OPTIONS[f"--{name.replace('_', '-')}"].help == TrainConfig.model_fields[name].description


def test_a_setting_reaches_the_configuration(linear_task):
    """`train_config` names no setting: what the command hands on is checked by the configuration itself."""
    config = train_config(str(linear_task), "bc", updates=7, demos=2, select="top", threads=3)
    assert (config.demos, config.select, config.threads, config.algorithm.updates) == (2, "top", 3, 7)
    with pytest.raises(KeyError, match="no_such_setting"):
        train_config(str(linear_task), "bc", no_such_setting=1)

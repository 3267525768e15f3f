"""Presets: settings by a shipped name or from a TOML file, whole and checked before anything is trained."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from iq_offline import paths
from iq_offline.config.train import config_classes
from iq_offline.data.strict_json import read_toml
from iq_offline.errors import ConfigError, did_you_mean

Preset = dict[str, dict[str, Any]]
"""Values by the configuration's name: only what differs from the defaults."""


def read_preset(name: str) -> list[Preset]:
    """A preset's values, by configuration.

    Raises ConfigError for a name that is neither a preset nor a TOML file, and for a file that holds anything but
    tables of settings, each named as a configuration is.
    """
    folder = _folder()
    in_file = name.endswith(".toml")
    file = Path(name) if in_file else folder / f"{name}.toml"
    if not file.is_file():
        if in_file:
            raise ConfigError(f"no preset file at {name}", "check the path; a shipped preset is named without .toml")
        raise ConfigError(f"unknown preset '{name}'", did_you_mean(name, [p.stem for p in folder.glob("*.toml")]))
    try:
        content = read_toml(file)
    except ValueError as error:
        raise ConfigError(f"preset {file} is not TOML: {error}", "mend the file") from None
    _check_tables(content, file)
    return [content]


def warn_of_unused_preset(
    preset: str | None, named: Sequence[Preset], configuration: str, warn: Callable[[str], None]
) -> None:
    """Warn where the preset that was asked for has no settings for what is trained."""
    for content in named:
        if configuration not in content:
            tables = ", ".join(content) or "none"
            warn(f"nothing of preset {preset} applies: it has no table [{configuration}] (its tables: {tables})")


def _folder() -> Path:
    return paths.shipped("pipelines") / "presets"


def _check_tables(content: Mapping[str, Any], file: Path) -> None:
    """Raises ConfigError for what no method would ever read."""
    known = {config.model_fields["name"].default for config in config_classes()}
    tables = f"its tables are named as in a run's config.toml: {', '.join(sorted(known))}"
    for name, table in content.items():
        if name in known and isinstance(table, dict):
            continue
        if name in known:
            raise ConfigError(f"preset {file}: {name} is no table", f"write [{name}], and its settings below that")
        if isinstance(table, dict):
            raise ConfigError(f"preset {file}: no method has settings called [{name}]", tables)
        raise ConfigError(f"preset {file}: '{name}' stands outside a table", f"put it into one; {tables}")

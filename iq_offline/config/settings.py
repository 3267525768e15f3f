"""Every setting of a configuration: its key for `--set`, its value, what it accepts and what it says of itself."""

import inspect
import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from pydantic import BaseModel

from iq_offline.config.base import NONE
from iq_offline.config.train import nested

BOUNDS = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
KINDS = {"integer": "whole number", "number": "number", "boolean": "true or false", "null": NONE}


@dataclass(frozen=True)
class Setting:
    """One key, with its value as `--set` would have it.

    `value`: of a group of settings, `none` where it is off and nothing where it is on. `is_on`: False inside a group
    that is off, of which setting any key turns on the whole, with these values.
    """

    key: str
    value: str | None
    is_on: bool
    accepts: str
    says: str


def describe_settings(config: BaseModel) -> list[Setting]:
    """All settings of a configuration in their order, those of groups that are off among them."""
    return list(_settings(config, "", is_on=True))


def _settings(config: BaseModel, prefix: str, *, is_on: bool) -> Iterator[Setting]:
    schema = type(config).model_json_schema()
    for name, field in type(config).model_fields.items():
        if name == "name":
            continue
        value = getattr(config, name)
        group, may_be_off = nested(field.annotation)
        if group is None:
            about, definitions = schema["properties"][name], schema.get("$defs", {})
            says = field.description or _of_choices(about, definitions)
            yield Setting(prefix + name, _text(value), is_on, _accepts(about, definitions), says)
            continue
        if may_be_off:
            off = NONE if value is None else None
            says = field.description or inspect.getdoc(group) or ""
            yield Setting(prefix + name, off, is_on, f"{NONE}, or its settings", says)
        yield from _settings(value or group(), f"{prefix}{name}.", is_on=is_on and value is not None)


def _text(value: Any) -> str:
    if value is None:
        return NONE
    return str(value.value) if isinstance(value, Enum) else json.dumps(value)


def _of_choices(about: dict[str, Any], definitions: dict[str, Any]) -> str:
    """What an enumeration says of its choices, for a setting that says no more than that."""
    return next((definition["description"] for definition in _named(about, definitions)), "")


def _named(about: dict[str, Any], definitions: dict[str, Any]) -> list[dict[str, Any]]:
    options = about.get("anyOf", [about])
    return [definitions[option["$ref"].rpartition("/")[2]] for option in options if "$ref" in option]


def _accepts(about: dict[str, Any], definitions: dict[str, Any]) -> str:
    if "anyOf" in about:
        return " or ".join(_accepts(option, definitions) for option in about["anyOf"])
    if "$ref" in about:
        return ", ".join(_named(about, definitions)[0]["enum"])
    if about["type"] == "array":
        if "prefixItems" in about:
            return "list: " + ", ".join(_accepts(item, definitions) for item in about["prefixItems"])
        return "list of: " + _accepts(about["items"], definitions)
    bounds = " ".join(f"{word} {about[name]:g}" for name, word in BOUNDS.items() if name in about)
    return f"{KINDS[about['type']]} {bounds}".strip()

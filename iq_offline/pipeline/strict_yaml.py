"""YAML read strictly: nothing is dropped, and nothing means something else than it says.

YAML 1.1 reads `off` as false, `010` as 8 and `1:30` as 90. Here words are texts, and such numbers are refused.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from iq_offline.errors import ConfigError

LARGEST_BYTES = 1 << 20
LARGEST_EXPANSION = 100_000
"""Values in a file, each alias counted as often as it stands for something."""
MEND = "mend the file, or name another"


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """PyYAML's safe loader, without repeated keys and without YAML 1.1's surprises."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[str, Any]:  # noqa: ARG002
        names: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _misread(key, "a key that is no text")
            if key.value in names:
                first = names[key.value]
                raise _misread(key, f"the key '{key.value[:100]}' stands twice in one place (first in line {first})")
            names[key.value] = key.start_mark.line + 1
        found = super().construct_mapping(node, deep=True)
        odd = next((key for key in found if not isinstance(key, str | int)), None)
        if odd is not None:
            raise _misread(node, f"the key {odd!r} is no text: put it into quotes")
        return {str(key): value for key, value in found.items()}

    def integer(self, node: yaml.ScalarNode) -> int:
        if not re.fullmatch(r"[-+]?(0|[1-9][0-9]{0,17})", node.value):
            raise _misread(node, f"{node.value[:30]} is not a plain whole number: write its decimal digits")
        return int(node.value)

    def number(self, node: yaml.ScalarNode) -> float:
        value = float(node.value) if re.fullmatch(r"[-+.0-9eE]+", node.value) else float("nan")
        if value - value != 0:
            raise _misread(node, f"{node.value[:30]} is not a finite decimal number")
        return value

    def truth(self, node: yaml.ScalarNode) -> bool | str:
        text = str(node.value)
        return {"true": True, "false": False}.get(text.lower(), text)

    def text(self, node: yaml.ScalarNode) -> str:
        return str(node.value)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.integer)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.number)
_Loader.add_constructor("tag:yaml.org,2002:bool", _Loader.truth)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _Loader.text)


def load_yaml(file: Path) -> Any:
    """The one document in a file. Raises ConfigError that names the line of what cannot be used."""
    try:
        if not file.is_file():
            raise ConfigError(f"{file} is not a file", "name a YAML file")
        if file.stat().st_size > LARGEST_BYTES:
            raise ConfigError(f"{file} has {file.stat().st_size:,} bytes: no table is that long", MEND)
        content = yaml.load(file.read_text(), Loader=_Loader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{file} is not readable as YAML: {error}", MEND) from None
    except RecursionError:
        raise ConfigError(f"{file} is nested too deeply", MEND) from None
    if _expanded(content, {}) > LARGEST_EXPANSION:
        raise ConfigError(f"{file} holds more than {LARGEST_EXPANSION:,} values by its aliases", MEND)
    return content


def _misread(node: yaml.Node, problem: str) -> yaml.YAMLError:
    return yaml.YAMLError(f"line {node.start_mark.line + 1}: {problem}")


def _expanded(value: Any, known: dict[int, int]) -> int:
    """How many values it stands for, a shared one counted at each of its places."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = LARGEST_EXPANSION + 1  # what holds itself has no end
        inner = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_expanded(one, known) for one in inner)
    return known[id(value)]

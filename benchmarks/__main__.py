"""The entry: list the benchmarks, or run the one that is named."""

import ast
import importlib
import sys
from importlib.util import find_spec
from pathlib import Path

from iq_offline.errors import ConfigError, UserError, did_you_mean

PROGRAM = "python -m benchmarks"
HELP = ([], ["-h"], ["--help"])


def main(arguments: list[str]) -> int:
    """Run the command line; its exit status, 2 for a user's error."""
    try:
        run("benchmarks", arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def run(package: str, arguments: list[str]) -> None:
    """Run the part that the arguments name; without a name, list the parts."""
    parts = parts_of(package)
    if arguments in HELP:
        print(overview(package))
        return
    name, *rest = arguments
    if name not in parts:
        listed_by = " ".join([PROGRAM, *names_of(package)])
        raise ConfigError(f"there is no benchmark '{name}'", did_you_mean(name, parts, listed_by))
    if parts_of(parts[name]):
        run(parts[name], rest)
    else:
        importlib.import_module(parts[name]).main(rest)


def parts_of(module: str) -> dict[str, str]:
    """The modules of a package's parts by their names; none of what is no package."""
    spec = find_spec(module)
    if spec is None or spec.submodule_search_locations is None:
        return {}
    return {name: f"{module}.{name.replace('-', '_')}" for name in importlib.import_module(module).PARTS}


def names_of(module: str) -> list[str]:
    """What the command line calls a module."""
    return [name.replace("_", "-") for name in module.split(".")[1:]]


def overview(package: str) -> str:
    """A line for each part: its name, and the first sentence of its documentation, which is read without an import."""
    lines = [f"usage: {' '.join([PROGRAM, *names_of(package)])} NAME [options]", "", summary(package), ""]
    parts = parts_of(package)
    width = max(map(len, parts))
    for name, module in parts.items():
        inner = parts_of(module)
        also = f" ({', '.join(inner)})" if inner else ""
        lines.append(f"  {name:<{width}}  {summary(module)}{also}")
    return "\n".join([*lines, "", "NAME --help tells more."])


def summary(module: str) -> str:
    """The first line of a module's documentation, without its full stop."""
    spec = find_spec(module)
    assert spec is not None, module
    assert spec.origin is not None, module
    documentation = ast.get_docstring(ast.parse(Path(spec.origin).read_text()))
    assert documentation is not None, module
    return documentation.splitlines()[0].removesuffix(".")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

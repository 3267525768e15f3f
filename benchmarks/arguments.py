"""What the benchmarks' command lines have in common: the parser, types of arguments, options that many have."""

import argparse
import shlex
from pathlib import Path
from typing import Any


class Parser(argparse.ArgumentParser):
    """The parser of one benchmark, with its documentation as the description."""

    def __init__(self, module: str, documentation: str | None) -> None:
        names = [name.replace("_", "-") for name in module.split(".")[1:]]
        super().__init__(
            prog=" ".join(["python -m benchmarks", *names]),
            description=documentation,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def add_demonstrations(self, *, demos: int = 5, subsample: int = 1, seeds: str = "0-2") -> None:
        """--demos, --subsample and --seeds, with their defaults."""
        self.add_argument("--demos", type=int, default=demos, help="demonstrated episodes (default: %(default)s)")
        self.add_argument("--subsample", type=int, default=subsample, help="keep every so many steps of them")
        self.add_seeds(seeds)

    def add_seeds(self, default: str) -> None:
        """--seeds."""
        self.add_argument(
            "--seeds", type=seeds_of, default=seeds_of(default), metavar="0-2", help=f"0-2 or 0,3 (default: {default})"
        )

    def add_json(self) -> None:
        """--json, for what measures speed or memory: `results.result_file` writes it."""
        self.add_argument("--json", type=Path, metavar="FILE", help="write what was measured to this file, too")

    def parse(self, arguments: list[str]) -> Any:
        """The options, and the whole command as `command`."""
        options = self.parse_args(arguments)
        options.command = f"{self.prog} {shlex.join(arguments)}".strip()
        return options


def seeds_of(text: str) -> list[int]:
    """`0-2` or `0,3` as numbers."""
    first, _, last = text.partition("-")
    try:
        return list(range(int(first), int(last) + 1)) if last else [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not like 0-2 or 0,3") from None


def names_of(text: str) -> list[str]:
    """`a,b` as names."""
    return text.split(",")

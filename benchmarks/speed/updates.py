"""Gradient updates a CPU second: ours and the peers' in turn, each in a process of its own, on one thread.

Every round gives each candidate some CPU seconds; medians are over rounds, and a ratio is the median of the rounds' own
ratios. JAX and `imitation` get environments of their own, made when absent. Prints Markdown; what cannot be run here is
named with its reason. docs/experiments/speed.md says what equals what.
"""

import argparse
import math
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.arguments import Parser
from benchmarks.results import machine, result_file, versions
from benchmarks.yardsticks import tables
from benchmarks.yardsticks.candidates import CANDIDATES, GEMM, Candidate
from benchmarks.yardsticks.environments import DEFAULT_FOLDER
from benchmarks.yardsticks.rounds import NotRun, Round, Worker, measured


def main(arguments: list[str]) -> None:
    """Start the workers, run the rounds, print the tables."""
    options = options_of(arguments)
    chosen = [candidate for candidate in CANDIDATES if not options.only or candidate.name in options.only]
    with tempfile.TemporaryDirectory() as errors, result_file(options) as rows:
        workers, left_out = started(chosen, options.environments, Path(errors))
        if not workers:
            raise SystemExit("nothing can be run here: " + "; ".join(f"{k}: {v}" for k, v in left_out.items()))
        rounds = []
        for found in measured(workers, options.rounds, options.seconds):
            rounds.append(found)
            rows += [{"candidate": name, "round": len(rounds), **reply} for name, reply in found.items()]
            print(
                f"round {len(rounds)} of {options.rounds}, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True
            )
        rows += [{"candidate": name, "not_run": reason} for name, reason in left_out.items()]
        for worker in workers:
            worker.stop()
    show(rounds, left_out, options)
    if any(name.startswith("ours") for name in left_out):
        raise SystemExit(1)


def options_of(arguments: list[str]) -> argparse.Namespace:
    """The command's options."""
    parser = Parser(__name__, __doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0, help="CPU seconds of a candidate in a round")
    names = [candidate.name for candidate in CANDIDATES]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--environments", type=Path, default=DEFAULT_FOLDER, help="where the peers' own ones lie")
    parser.add_json()
    options: argparse.Namespace = parser.parse(arguments)
    return options


def started(chosen: Sequence[Candidate], environments: Path, errors: Path) -> tuple[list[Worker], dict[str, str]]:
    """Workers that are ready, started one after the other; and who cannot be run, with the reason."""
    workers, left_out = [], {}
    for candidate in chosen:
        print(f"starting {candidate.name}", file=sys.stderr, flush=True)
        try:
            workers.append(Worker(candidate, environments, errors))
        except NotRun as reason:
            left_out[candidate.name] = str(reason)
    return workers, left_out


def show(rounds: Sequence[Round], left_out: dict[str, str], options: argparse.Namespace) -> None:
    """The tables, and what is not in them."""
    known = machine() | versions()
    here = ", ".join(f"{what} {known[what]}" for what in ("processor", "cores", "python", "torch", "d3rlpy"))
    print(f"{options.rounds} rounds of {options.seconds:g} CPU seconds a candidate; {here}.\n")
    measured_ones = [candidate for candidate in CANDIDATES if candidate.name in rounds[0]]
    names = [candidate.name for candidate in measured_ones]
    parts = [tables.ratios(names, rounds), tables.speeds(measured_ones, rounds)]
    parts += [tables.limits(rounds)] if GEMM in names else []
    parts.append(tables.counts(measured_ones))
    print("\n\n".join(part for part in parts if part))
    for name, reason in left_out.items():
        print(f"\nnot run: {name}: {reason}")
    for name in names:
        if not all(math.isfinite(found[name]["loss"]) for found in rounds):
            print(f"\nnot to be trusted: {name}: its loss is not finite")

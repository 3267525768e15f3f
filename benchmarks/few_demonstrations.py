"""`bc` beside `iq` from few demonstrations: returns of the last checkpoint, paired by seed.

Each DATASET is an id or a path. Every run is an ordinary run folder under --out, trained and evaluated by the
command line, one thread a process. Prints one Markdown row a dataset: percent of the dataset's own mean return, or the
returns themselves, for tasks where these are negative. The last column is the difference of the two policies' greedy
actions: in percent of the actions' range, or the percentage of observations with another discrete action.
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.arguments import Parser
from benchmarks.markdown import listed, table
from iq_offline.training.greedy_actions import percent_different
from iq_offline.training.run_folder import ACTIONS, RunFolder

METHODS = ("bc", "iq")


def command(*arguments: str) -> str:
    """Run `iq-offline` and return what it prints; its errors go to the terminal."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "iq_offline", *arguments]
    return subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout


def folder(dataset: str, method: str, seed: int, options: argparse.Namespace) -> Path:
    """Where the run lies."""
    name = f"{Path(dataset).stem}-{method}-{options.demos}x{options.subsample}-seed{seed}"
    return Path(options.out) / name


def difference(dataset: str, seed: int, options: argparse.Namespace) -> float:
    """How far the greedy actions of the two methods are apart, in percent."""
    tables = [RunFolder.open(folder(dataset, method, seed, options)).table(ACTIONS) for method in METHODS]
    found = percent_different(*tables)
    assert found is not None, "both methods learn from the same dataset"
    return found


def score(dataset: str, method: str, seed: int, options: argparse.Namespace) -> float:
    """Train and evaluate one run; its mean return, in percent of the dataset's unless returns are asked for."""
    out = folder(dataset, method, seed, options)
    if not (out / "manifest.json").is_file():
        sizes = ("--demos", str(options.demos), "--subsample", str(options.subsample), "--seed", str(seed))
        extra = [part for pair in options.set for part in ("--set", pair)] if method == "iq" else []
        command("train", "--dataset", dataset, "--method", method, *sizes, "--out", str(out), *extra)
    (run,) = json.loads(command("eval", str(out), "--episodes", str(options.episodes), "--json"))["runs"]
    return float(run["return_mean"] if options.returns else 100 * run["return_mean"] / run["dataset_return_mean"])


def main(arguments: list[str]) -> None:
    """Run everything and print the table."""
    parser = Parser(__name__, __doc__)
    parser.add_argument("datasets", nargs="+")
    parser.add_demonstrations()
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--out", default="few-demonstrations")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], help="key=value for iq")
    parser.add_argument("--returns", action="store_true", help="print returns, not percent")
    options = parser.parse(arguments)

    cells = [(d, m, s) for d in options.datasets for s in options.seeds for m in METHODS]
    with ThreadPoolExecutor(options.jobs) as pool:
        found = dict(zip(cells, pool.map(lambda cell: score(*cell, options), cells), strict=True))

    rows = []
    for dataset in options.datasets:
        row, means = [], {}
        for method in METHODS:
            values = [found[dataset, method, seed] for seed in options.seeds]
            means[method] = np.mean(values)
            row += [listed(values), f"{means[method]:.1f}"]
        sizes = f"{options.demos}, every {options.subsample}"
        apart = np.mean([difference(dataset, seed, options) for seed in options.seeds])
        gain = f"{means['iq'] - means['bc']:+.1f}"
        rows.append([Path(dataset).stem, sizes, *row, gain, f"{apart:.2f}"])
    returns = [header for method in METHODS for header in (f"{method}: seeds", "mean")]
    print("\n" + table(["dataset", "demonstrations", *returns, "iq - bc", "differs, %"], rows))

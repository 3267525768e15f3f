"""Does any method diverge in a long run? Trains methods on files, and logs what became of each.

python -m benchmarks stability FILE... --methods iq,iq-cql --demos 5 --updates 50000 --log stability.jsonl

Each line of the log is one run: `finished` with the last diagnostics, or `alarm` with the message that stopped it;
and the commit that made it.
Runs that the log already holds are not made again. No simulator is asked.
"""

import argparse
import time
from functools import partial
from pathlib import Path

import torch

from benchmarks.arguments import Parser, names_of
from benchmarks.run_log import Run, run_once, runs_of
from iq_offline.config.train import Compile, Device, TrainConfig, algorithm_class, algorithm_config, updates_key
from iq_offline.data.spaces import DiscreteActions
from iq_offline.data.split import choose_expert, rows_with_successors
from iq_offline.errors import TrainingDiverged
from iq_offline.stages.fetch import open_dataset
from iq_offline.training.batches import SupplementarySampler, TransitionSampler
from iq_offline.training.loop import train
from iq_offline.training.provenance import git_commit

CPU = torch.device("cpu")
SHOWN = (
    "expert_q",
    "expert_value",
    "policy_q",
    "random_q",
    "expert_reward",
    "action_error",
    "kl_to_prior",
    "critic_gradient_norm",
)


def main(arguments: list[str]) -> None:
    """Run what the log lacks, then print it as a table."""
    parser = Parser(__name__, __doc__)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--methods", type=names_of, default="iq,iq-paper,ls-iq,csil,recoil,sprinql,iq-cql,iq-awr")
    parser.add_argument("--demos", type=int, default=5)
    parser.add_argument("--updates", type=int, default=50_000)
    parser.add_argument("--supplementary", action="append", default=[])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], help="key=value, for all runs")
    parser.add_argument("--compile", default="auto", choices=[str(choice) for choice in Compile])
    parser.add_argument("--log", type=Path, default=Path("stability.jsonl"))
    options = parser.parse(arguments)
    torch.set_num_threads(1)
    for file in options.files:
        for method in options.methods:
            key = {
                "file": Path(file).stem,
                "method": method,
                "updates": options.updates,
                "demos": options.demos,
                "seed": options.seed,
                "supplementary": [Path(name).stem for name in options.supplementary],
                "set": options.set,
            }
            run_once(options.log, key, partial(_run, file, method, options))
    runs = runs_of(options.log)
    for run in runs:
        _show(run)
    unexpected = [run for run in runs if run["outcome"] == "alarm" and run["method"] != "iq-paper"]
    if unexpected:
        raise SystemExit(f"{len(unexpected)} runs of recipes that should hold were stopped by the alarm")


def _run(file: str, method: str, options: argparse.Namespace) -> Run:
    table = open_dataset(file)
    discrete = isinstance(table.action_space, DiscreteActions)
    key = updates_key(algorithm_class(method, discrete=discrete))
    algorithm = algorithm_config(method, discrete=discrete, overrides=[f"{key}={options.updates}", *options.set])
    config = TrainConfig(
        dataset=file,
        method=method,
        seed=options.seed,
        demos=options.demos,
        device=Device.CPU,
        algorithm=algorithm,
        compile=Compile(options.compile),
    )
    demos = min(options.demos, len(table.episodes))
    split = choose_expert(table, demos=demos, subsample=1, seed=options.seed, need_successors=True)
    starts = table.episodes["start_row"].to_numpy()[list(split.episodes)]
    others = [open_dataset(name) for name in options.supplementary]
    supplementary = None
    if others:
        supplementary = SupplementarySampler([TransitionSampler(t, rows_with_successors(t), CPU) for t in others])
    started, largest = time.process_time(), 0.0
    step, metrics = 0, {}
    try:
        sampler = TransitionSampler(table, split.rows, CPU, starts)
        for progress in train(config, sampler, table.action_space, CPU, supplementary=supplementary):
            step, metrics = progress.step, progress.metrics
            largest = max(largest, abs(metrics.get("expert_q", 0.0)))
        outcome = {"outcome": "finished"}
    except TrainingDiverged as error:
        outcome = {"outcome": "alarm", "message": error.problem}
    last = {name: round(metrics[name], 4) for name in SHOWN if name in metrics}
    seconds = round(time.process_time() - started)
    found = {"steps": step, "largest_expert_q": round(largest, 2), "last": last, "cpu_seconds": seconds}
    return outcome | found | {"commit": git_commit()}


def _show(run: Run) -> None:
    last = " ".join(f"{name}={value:g}" for name, value in run["last"].items())
    beside = f" + {','.join(run['supplementary'])}" if run["supplementary"] else ""
    print(f"{run['file']}{beside} {run['method']}: {run['outcome']} at {run['steps']}", run.get("message", last))

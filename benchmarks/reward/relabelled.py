"""Relabel with a recovered reward, train by offline RL, simulate, beside other rewards and cloning.

python -m benchmarks reward relabelled FOLDER --tasks hopper,walker2d,halfcheetah --demos 3 --subsample 20 --seeds 0-1

Learns a reward from the demonstrations alone (`iq --preset reward`), relabels them and TASK-replay.hdf5 with it, and
trains d3rlpy's algorithms on the relabelled sets. Beside them: the same on true rewards (an oracle), on SEABO's and
OTR's, and cloning of the demonstrations, of all data, of the episodes most like them. Percent of the expert's mean
return, the last checkpoint, 10 episodes. Methods: bc, bc-all, filtered-bc, and LABELLER-TRAINER with LABELLER one of
linear, normalised, distilled (ours), seabo, otr, true and TRAINER one of td3bc, iql, cql. `--return-range` scales
rewards as IQL's authors do. The log keeps every run; those that it holds are not made again.
"""

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.arguments import Parser, names_of
from benchmarks.markdown import listed, table
from benchmarks.run_log import Run, run_once, runs_of
from iq_offline.baselines.fit import fit_baseline
from iq_offline.baselines.sources import PeerData
from iq_offline.config.baselines import ContinuousCloneAllConfig, ContinuousFilteredBCConfig, RewardLabelledConfig
from iq_offline.config.cloning import ContinuousBCConfig
from iq_offline.data.split import choose_expert
from iq_offline.evaluation.simulation import simulate
from iq_offline.stages.distil import DistilRequest, distil_reward
from iq_offline.stages.fetch import open_dataset
from iq_offline.stages.relabel import RelabelRequest, relabel_dataset
from iq_offline.stages.train import RunOptions, train_config, train_run
from iq_offline.training.batches import TransitionSampler
from iq_offline.training.loop import fit_clone

CPU = torch.device("cpu")
OURS = {"linear": "linear", "normalised": "normalised", "distilled": "distilled"}
METHODS = "bc,bc-all,filtered-bc,linear-td3bc,seabo-td3bc,otr-td3bc,true-td3bc"


def main(arguments: list[str]) -> None:
    """Run what the log lacks, then print a row a task and method."""
    parser = Parser(__name__, __doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tasks", type=names_of, default="hopper,walker2d,halfcheetah")
    parser.add_argument("--methods", type=names_of, default=METHODS)
    parser.add_argument("--supplementary", default="replay", help="a kind, as in TASK-replay.hdf5")
    parser.add_demonstrations(demos=3, subsample=20, seeds="0-1")
    parser.add_argument("--updates", type=int, default=10_000, help="of d3rlpy's algorithms")
    parser.add_argument("--return-range", type=float, help="of the replay episodes' sums of rewards; 1000 is IQL's")
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--log", type=Path, default=Path("relabelled.jsonl"))
    options = parser.parse(arguments)
    torch.set_num_threads(1)
    for seed in options.seeds:
        for task in options.tasks:
            for method in options.methods:
                key = {"task": task, "method": method, "seed": seed, "supplementary": options.supplementary}
                key |= {"demos": options.demos, "subsample": options.subsample, "updates": options.updates}
                key |= {"return_range": options.return_range}
                run_once(options.log, key, partial(_timed, options, task, method, seed))
    _print(options.log)


def _timed(options: argparse.Namespace, task: str, method: str, seed: int) -> Run:
    started = time.process_time()
    percent = _percent(options, task, method, seed)
    return {"percent": percent, "cpu_seconds": round(time.process_time() - started, 1)}


def _percent(options: argparse.Namespace, task: str, method: str, seed: int) -> float:
    expert, other = (str(options.folder / f"{task}-{kind}.hdf5") for kind in ("expert", options.supplementary))
    with tempfile.TemporaryDirectory() as folder:
        labeller, _, trainer = method.partition("-")
        if labeller in OURS:
            given = _relabelled(options, Path(folder), (expert, other), labeller, seed)
            policy = _trained(options, given, f"true-{trainer}", seed)
        else:
            policy = _trained(options, (expert, other), method, seed)
    info, whole = open_dataset(expert).info, open_dataset(expert).episodes["return"].to_numpy().mean()
    assert info.env_id is not None
    episodes = simulate(info.env_id, info.env_kwargs, policy, options.episodes)
    return float(100 * np.mean([episode.episode_return for episode in episodes]) / whole)


def _relabelled(
    options: argparse.Namespace, folder: Path, files: tuple[str, str], labeller: str, seed: int
) -> tuple[str, str]:
    shares = {"demos": options.demos, "subsample": options.subsample, "seed": seed}
    config = train_config(files[0], "iq", "reward", **shares)
    run = train_run(config, RunOptions(folder / "run", tracked=False), lambda _: None, lambda _: None)
    if labeller == "distilled":
        distil_reward(run, DistilRequest(files), lambda _: None)
    written = []
    for number, file in enumerate(files):
        written.append(str(folder / f"{number}.hdf5"))
        fitted_to = (files[1],) if OURS[labeller] == "linear" else ()
        relabel_dataset(run, RelabelRequest(file, Path(written[-1]), "d4rl", OURS[labeller], fitted_to))
    return written[0], written[1]


def _trained(options: argparse.Namespace, files: tuple[str, str], method: str, seed: int) -> Any:
    table, other = (open_dataset(file) for file in files)
    labelled = "-" in method and method not in ("bc-all", "filtered-bc")
    split = choose_expert(table, demos=options.demos, subsample=options.subsample, seed=seed, need_successors=labelled)
    if method == "bc":
        sampler = TransitionSampler(table, split.rows, CPU)
        *_, last = fit_clone(ContinuousBCConfig(), seed, sampler, table.action_space, CPU)
        return last.learner.policy.eval()
    labeller, _, trainer = method.partition("-")
    config = {"bc-all": ContinuousCloneAllConfig(), "filtered-bc": ContinuousFilteredBCConfig()}.get(
        method
    ) or RewardLabelledConfig.model_validate(
        {"labeller": labeller, "trainer": trainer, "updates": options.updates, "return_range": options.return_range}
    )
    *_, last = fit_baseline(config, seed, PeerData(table, split, (other,)), CPU)
    return last.learner.policy.eval()


def _print(log: Path) -> None:
    runs = runs_of(log)
    rows = []
    for task, method in dict.fromkeys((run["task"], _named(run)) for run in runs):
        own = [run for run in runs if (run["task"], _named(run)) == (task, method)]
        percents = [run["percent"] for run in own]
        seconds = np.mean([run["cpu_seconds"] for run in own])
        rows.append([task, method, len(own), listed(percents, "{:.0f}"), f"{np.mean(percents):.0f}", f"{seconds:.0f}"])
    print(table(["task", "method", "seeds", "percent by seed", "mean", "CPU seconds"], rows))


def _named(run: dict[str, Any]) -> str:
    name = f"{run['method']}, {run['updates']:,}"
    return name if run.get("return_range") is None else f"{name}, range {run['return_range']:g}"

"""The paper's offline panels: 1 to 15 subsampled demonstrations, paired by seed, means and intervals.

python -m benchmarks offline-panels CARTPOLE:20 ACROBOT:5 LUNARLANDER:5 --seeds 0-4 --log panels.jsonl

Each file comes with its subsampling. The log keeps every run; those that it holds are not made again. The interval is
of the paired difference to `bc` (95 %, Student's t over seeds). `pipelines/offline-panels.yaml` is the same as run
folders, with MLflow and a report.
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy.stats import t as student

from benchmarks.arguments import Parser, names_of
from benchmarks.markdown import table as markdown
from benchmarks.run_log import Run, run_once, runs_of
from iq_offline.config.train import Device, TrainConfig, algorithm_config
from iq_offline.data.spaces import DiscreteActions
from iq_offline.data.split import choose_expert
from iq_offline.evaluation.simulation import simulate
from iq_offline.stages.fetch import open_dataset
from iq_offline.training.batches import TransitionSampler
from iq_offline.training.loop import train

CPU = torch.device("cpu")


def main(arguments: list[str]) -> None:
    """Run what the log lacks, then print the table."""
    parser = Parser(__name__, __doc__)
    parser.add_argument("files", nargs="+", help="FILE:SUBSAMPLE")
    parser.add_argument("--methods", type=names_of, default="bc,iq")
    parser.add_argument("--demos", type=names_of, default="1,3,7,10,15")
    parser.add_seeds("0-4")
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--log", type=Path, default=Path("panels.jsonl"))
    options = parser.parse(arguments)
    torch.set_num_threads(1)
    for named in options.files:
        file, _, subsample = named.rpartition(":")
        for demos in map(int, options.demos):
            for seed in options.seeds:
                for method in options.methods:
                    key = {"task": Path(file).stem, "demos": demos, "seed": seed, "method": method}
                    cell = (file, int(subsample), demos, seed, method, options.episodes)
                    run_once(options.log, key, partial(_run, *cell))
    _print(options.log, options.methods)


def _run(file: str, subsample: int, demos: int, seed: int, method: str, episodes: int) -> Run:
    table = open_dataset(file)
    discrete = isinstance(table.action_space, DiscreteActions)
    algorithm = algorithm_config(method, discrete=discrete)
    config = TrainConfig(
        dataset=file, method=method, seed=seed, demos=demos, subsample=subsample, device=Device.CPU, algorithm=algorithm
    )
    split = choose_expert(table, demos=demos, subsample=subsample, seed=seed, need_successors=method != "bc")
    *_, last = train(config, TransitionSampler(table, split.rows, CPU), table.action_space, CPU)
    info = table.info
    assert info.env_id
    simulated = simulate(info.env_id, info.env_kwargs, last.learner.policy, episodes)
    return {"return": float(np.mean([episode.episode_return for episode in simulated]))}


def _print(log: Path, methods: list[str]) -> None:
    runs = {(r["task"], r["demos"], r["method"], r["seed"]): r["return"] for r in runs_of(log)}
    rows = []
    for task, demos in sorted({key[:2] for key in runs}):
        by_seed = {m: {k[3]: v for k, v in runs.items() if k[:3] == (task, demos, m)} for m in methods}
        means = (f"{np.mean(list(by_seed[m].values())):.1f}" for m in methods)
        differences = [_interval(by_seed[m], by_seed["bc"]) for m in methods if m != "bc"]
        rows.append([task, demos, *means, "; ".join(differences)])
    print(markdown(["task", "demonstrations", *methods, "difference to bc, 95 %"], rows))


def _interval(method: dict[int, float], cloning: dict[int, float]) -> str:
    paired = np.array([method[seed] - cloning[seed] for seed in method if seed in cloning])
    if len(paired) < 2:
        return f"{paired.mean():+.1f}"
    half = student.ppf(0.975, len(paired) - 1) * paired.std(ddof=1) / np.sqrt(len(paired))
    return f"{paired.mean():+.1f} ± {half:.1f}"

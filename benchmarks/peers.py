#!/usr/bin/env python3
"""Peers beside behavioural cloning on the same demonstrations and supplementary data: returns at the last checkpoint.

Usage: peers.py --expert FILE --supplementary FILE... [--demos 5] [--subsample 1] [--seeds 0-1] [--episodes 10]
                [--methods bc filtered-bc ...] [--updates N] [--set key=value]...

Everything runs in this process on one thread: train, then simulate the deterministic policy in the environment that
the expert's data name. Prints one Markdown row a method: percent of the expert's mean return, seed by seed.
Methods: bc, bc-all, filtered-bc, cross-validated-bc (filtered-bc with cross-validation), weighted-bc,
weighted-bc-nearest, and <labeller>-<trainer> of seabo, otr, uds, true and iql, td3bc, cql (true reads the recorded
rewards: an oracle).
--updates and --set concern reward-labelled methods.
"""

import argparse
import time
from collections.abc import Iterator

import numpy as np
import torch
from seeds import seeds_of

from iq_offline.baselines.fit import fit_baseline
from iq_offline.baselines.sources import PeerData
from iq_offline.config.baselines import (
    BaselineConfig,
    ContinuousCloneAllConfig,
    ContinuousFilteredBCConfig,
    ContinuousWeightedBCConfig,
    CrossValidationConfig,
    DiscreteCloneAllConfig,
    DiscreteFilteredBCConfig,
    DiscreteWeightedBCConfig,
    Labeller,
    RewardLabelledConfig,
    Trainer,
    WeightKind,
)
from iq_offline.config.cloning import ContinuousBCConfig, DiscreteBCConfig
from iq_offline.data.spaces import DiscreteActions
from iq_offline.data.split import choose_expert
from iq_offline.evaluation.simulation import simulate
from iq_offline.stages.fetch import open_dataset
from iq_offline.training.batches import TransitionSampler
from iq_offline.training.loop import Progress, fit_clone

CPU = torch.device("cpu")
CLONING = ("bc", "bc-all", "filtered-bc", "cross-validated-bc", "weighted-bc", "weighted-bc-nearest")
LABELLED = tuple(f"{labeller}-{trainer}" for labeller in Labeller for trainer in Trainer)


def config_of(method: str, *, discrete: bool, options: argparse.Namespace) -> BaselineConfig | None:
    """The peer's configuration; None for behavioural cloning itself."""
    if method == "bc":
        return None
    if method == "bc-all":
        return DiscreteCloneAllConfig() if discrete else ContinuousCloneAllConfig()
    if method in ("filtered-bc", "cross-validated-bc"):
        test = CrossValidationConfig() if method == "cross-validated-bc" else None
        return (
            DiscreteFilteredBCConfig(cross_validation=test)
            if discrete
            else ContinuousFilteredBCConfig(cross_validation=test)
        )
    if method.startswith("weighted-bc"):
        kind = WeightKind.NEAREST if method.endswith("nearest") else WeightKind.DISCRIMINATOR
        return DiscreteWeightedBCConfig(kind=kind) if discrete else ContinuousWeightedBCConfig(kind=kind)
    labeller, trainer = method.split("-")
    changed = dict(pair.split("=", 1) for pair in options.set)
    if options.updates:
        changed["updates"] = options.updates
    return RewardLabelledConfig.model_validate({"labeller": labeller, "trainer": trainer, **changed})


def trained(method: str, seed: int, options: argparse.Namespace) -> tuple[Iterator[Progress], str, dict[str, object]]:
    """The training generator of one cell, and the environment of its data."""
    table = open_dataset(options.expert)
    others = tuple(open_dataset(file) for file in options.supplementary)
    discrete = isinstance(table.action_space, DiscreteActions)
    config = config_of(method, discrete=discrete, options=options)
    split = choose_expert(
        table,
        demos=options.demos,
        subsample=options.subsample,
        seed=seed,
        need_successors=config is not None and config.needs_successors,
    )
    if config is None:
        sampler = TransitionSampler(table, split.rows, CPU)
        cloning = DiscreteBCConfig() if discrete else ContinuousBCConfig()
        steps = fit_clone(cloning, seed, sampler, table.action_space, CPU)
    else:
        steps = fit_baseline(config, seed, PeerData(table, split, others), CPU)
    return steps, table.info.env_id or "", table.info.env_kwargs


def returned(method: str, seed: int, options: argparse.Namespace) -> tuple[float, float]:
    """Mean return of one cell in percent of the expert's, and seconds of training."""
    started = time.perf_counter()
    steps, env_id, env_kwargs = trained(method, seed, options)
    for progress in steps:
        last = progress
    seconds = time.perf_counter() - started
    policy = last.learner.policy.eval()
    returns = [episode.episode_return for episode in simulate(env_id, env_kwargs, policy, options.episodes)]
    expert = open_dataset(options.expert).episodes["return"].to_numpy().mean()
    shown = ", ".join(f"{name} {value:.4g}" for name, value in last.metrics.items())
    print(f"{method} seed {seed}: return {np.mean(returns):.0f} after {seconds:.0f} s; {shown}", flush=True)
    return float(100 * np.mean(returns) / expert), seconds


def main() -> None:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--expert", required=True)
    parser.add_argument("--supplementary", nargs="+", required=True)
    parser.add_argument("--methods", nargs="+", default=list(CLONING), choices=CLONING + LABELLED, metavar="METHOD")
    parser.add_argument("--demos", type=int, default=5)
    parser.add_argument("--subsample", type=int, default=1)
    parser.add_argument("--seeds", type=seeds_of, default=seeds_of("0-1"))
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--updates", type=int)
    parser.add_argument("--set", action="append", default=[])
    options = parser.parse_args()
    torch.set_num_threads(1)

    rows = []
    for method in options.methods:
        cells = [returned(method, seed, options) for seed in options.seeds]
        percents, seconds = zip(*cells, strict=True)
        listed = ", ".join(f"{percent:.0f}" for percent in percents)
        rows.append(f"| {method} | {listed} | {np.mean(percents):.0f} | {np.mean(seconds):.0f} |")
    print(f"\n| method | percent of the expert's return, seeds {options.seeds} | mean | seconds of training |")
    print("|---|---|---|---|", *rows, sep="\n")


if __name__ == "__main__":
    main()

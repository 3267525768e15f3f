#!/usr/bin/env python3
"""What held-out demonstrations say of supplementary data: whether cloning episodes of them helps.

Usage: whose_episodes.py EXPERT:SUPPLEMENTARY... [--demos 5] [--subsample 20] [--seeds 0-2]

One Markdown row a pair and seed: how many episodes pass the residual test, the p-value of the drift test, the error on
held-out demonstrations without and with the candidates, its p-value, and whether they are accepted. No reward is
read, and nothing is simulated.
"""

import argparse

import torch
from seeds import seeds_of

from iq_offline.baselines.filtering import more_demonstrations
from iq_offline.baselines.sources import PeerData
from iq_offline.config.cloning import ContinuousBCConfig
from iq_offline.config.iq import IQConfig
from iq_offline.data.split import choose_expert
from iq_offline.stages.fetch import open_dataset
from iq_offline.training.batches import TransitionSampler

CONFIG = IQConfig().accept_episodes
CPU = torch.device("cpu")


def row(pair: str, seed: int, options: argparse.Namespace) -> str:
    """One row of the table."""
    expert_name, _, other_name = pair.partition(":")
    table, other = open_dataset(expert_name), open_dataset(other_name)
    split = choose_expert(table, demos=options.demos, subsample=options.subsample, seed=seed, need_successors=True)
    sampler = TransitionSampler(table, split.rows, CPU)
    assert CONFIG is not None
    metrics = more_demonstrations(CONFIG, ContinuousBCConfig(), seed, PeerData(table, split, (other,)), sampler).metrics
    without, with_episodes = (metrics.get(f"cross_validation_error_{name}") for name in ("without", "with"))
    p_value, drift = metrics.get("cross_validation_p_value"), metrics.get("drift_p_value")
    cells = [
        f"{table.info.name}, {options.demos}, every {options.subsample}",
        other.info.name,
        str(seed),
        f"{metrics.get('residual_test_passed', 0):.0f} of {len(other.episodes)}",
        *("-" if value is None else f"{value:.2g}" for value in (drift, without, with_episodes, p_value)),
        "yes" if metrics.get("cross_validation_accepted") else "no",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="+")
    parser.add_argument("--demos", type=int, default=5)
    parser.add_argument("--subsample", type=int, default=20)
    parser.add_argument("--seeds", type=seeds_of, default=seeds_of("0-2"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| demonstrations | supplementary | seed | pass | drift | error without | error with | p-value | accepted |")
    print("|---|---|---|---|---|---|---|---|---|")
    for pair in options.pairs:
        for seed in options.seeds:
            print(row(pair, seed, options), flush=True)


if __name__ == "__main__":
    main()

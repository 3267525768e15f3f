"""Whether held-out demonstrations say that cloning supplementary episodes helps.

One Markdown row a pair and seed: how many episodes pass the residual test, the p-value of the drift test, the error on
held-out demonstrations without and with the candidates, its p-value, and whether they are accepted. No reward is
read, and nothing is simulated.
"""

import argparse

import torch

from benchmarks.arguments import Parser
from benchmarks.markdown import print_header, print_row
from iq_offline.baselines.filtering import more_demonstrations
from iq_offline.baselines.sources import PeerData
from iq_offline.config.cloning import ContinuousBCConfig
from iq_offline.config.iq import IQConfig
from iq_offline.data.split import choose_expert
from iq_offline.stages.fetch import open_dataset
from iq_offline.training.batches import TransitionSampler

CONFIG = IQConfig().accept_episodes
CPU = torch.device("cpu")


def row(pair: str, seed: int, options: argparse.Namespace) -> list[str]:
    """The cells of one row."""
    expert_name, _, other_name = pair.partition(":")
    table, other = open_dataset(expert_name), open_dataset(other_name)
    split = choose_expert(table, demos=options.demos, subsample=options.subsample, seed=seed, need_successors=True)
    sampler = TransitionSampler(table, split.rows, CPU)
    assert CONFIG is not None
    metrics = more_demonstrations(CONFIG, ContinuousBCConfig(), seed, PeerData(table, split, (other,)), sampler).metrics
    without, with_episodes = (metrics.get(f"cross_validation_error_{name}") for name in ("without", "with"))
    p_value, drift = metrics.get("cross_validation_p_value"), metrics.get("drift_p_value")
    return [
        f"{table.info.name}, {options.demos}, every {options.subsample}",
        other.info.name,
        str(seed),
        f"{metrics.get('residual_test_passed', 0):.0f} of {len(other.episodes)}",
        *("-" if value is None else f"{value:.2g}" for value in (drift, without, with_episodes, p_value)),
        "yes" if metrics.get("cross_validation_accepted") else "no",
    ]


def main(arguments: list[str]) -> None:
    """Print the table."""
    parser = Parser(__name__, __doc__)
    parser.add_argument("pairs", nargs="+", metavar="EXPERT:SUPPLEMENTARY")
    parser.add_demonstrations(subsample=20)
    options = parser.parse(arguments)
    torch.set_num_threads(1)
    errors = ("drift", "error without", "error with", "p-value")
    print_header("demonstrations", "supplementary", "seed", "pass", *errors, "accepted")
    for pair in options.pairs:
        for seed in options.seeds:
            print_row(*row(pair, seed, options))

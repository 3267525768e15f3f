"""The censored squared error of `bc` beside the plain one: held-out error and return.

Both losses start from the same weights and see the same batches. Held-out error: mean squared error of the executed,
scaled action on every 7th step of the episodes that were not learnt from. Return: percent of the dataset's own mean.
One Markdown row a dataset and loss; one thread.
"""

import argparse

import numpy as np
import torch
from torch import Tensor

from benchmarks.arguments import Parser
from benchmarks.markdown import listed, print_header, print_row
from iq_offline.algorithms import bc
from iq_offline.algorithms.networks import ContinuousPolicy
from iq_offline.config.cloning import ContinuousBCConfig
from iq_offline.data.split import choose_expert
from iq_offline.data.table import TransitionTable, rows_of_episodes
from iq_offline.evaluation.simulation import simulate
from iq_offline.stages.fetch import open_dataset
from iq_offline.training.batches import TransitionSampler
from iq_offline.training.loop import fit_clone

HELD_OUT_EVERY = 7
CPU = torch.device("cpu")


def plain_residuals(means: Tensor, actions: Tensor) -> Tensor:
    """Differences without censoring."""
    return means - actions


RESIDUALS = {"plain": plain_residuals, "censored": bc.censored_residuals}


def clone(table: TransitionTable, loss: str, seed: int, options: argparse.Namespace) -> tuple[float, float]:
    """Held-out error and return in percent of one cloned policy."""
    split = choose_expert(table, demos=options.demos, subsample=options.subsample, seed=seed, need_successors=False)
    bc.censored_residuals = RESIDUALS[loss]
    config = ContinuousBCConfig(learning_rate=options.learning_rate)
    *_, last = fit_clone(config, seed, TransitionSampler(table, split.rows, CPU), table.action_space, CPU)
    policy = last.learner.policy
    assert isinstance(policy, ContinuousPolicy)
    others = np.setdiff1d(np.arange(len(table.episodes)), split.episodes)
    rows = rows_of_episodes(table.episodes[others.tolist()], HELD_OUT_EVERY)
    with torch.no_grad():
        executed = policy(torch.from_numpy(table.observations(rows))).clamp(-1, 1)
        error = (executed - policy.scale_actions(torch.from_numpy(table.actions(rows)))).square().mean().item()
    assert table.info.env_id is not None
    episodes = simulate(table.info.env_id, table.info.env_kwargs, policy, options.episodes)
    mean = np.mean([episode.episode_return for episode in episodes])
    return error, float(100 * mean / table.episodes["return"].to_numpy().mean())


def main(arguments: list[str]) -> None:
    """Run all and print the table."""
    parser = Parser(__name__, __doc__)
    parser.add_argument("datasets", nargs="+")
    parser.add_demonstrations()
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--learning-rate", type=float, default=ContinuousBCConfig().learning_rate)
    options = parser.parse(arguments)
    torch.set_num_threads(1)
    print_header("dataset", "demonstrations", "loss", "held-out error, x 1e-4", "return, %")
    for dataset in options.datasets:
        table = open_dataset(dataset)
        for loss in RESIDUALS:
            results = [clone(table, loss, seed, options) for seed in options.seeds]
            errors = listed((1e4 * error for error, _ in results), "{:.2f}")
            returns = listed((percent for _, percent in results), "{:.0f}")
            print_row(table.info.name, f"{options.demos}, every {options.subsample}", loss, errors, returns)

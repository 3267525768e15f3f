"""reward: a run's recovered reward against the true reward of recorded data, which training never saw."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl
import torch

from iq_offline.algorithms.iq_continuous import recovered_rewards as continuous_rewards
from iq_offline.algorithms.iq_discrete import recovered_rewards as discrete_rewards
from iq_offline.algorithms.learner import Stream, generator
from iq_offline.algorithms.networks import ContinuousPolicy, DiscretePolicy, Policy
from iq_offline.batch import Batch
from iq_offline.config import ContinuousBCConfig, ContinuousIQConfig, DiscreteBCConfig, DiscreteIQConfig, IQConfig
from iq_offline.data.files import whole_file
from iq_offline.data.spaces import ContinuousActions
from iq_offline.data.split import rows_with_successors
from iq_offline.data.table import TransitionTable, rows_of_episodes
from iq_offline.errors import ConfigError, RunError
from iq_offline.evaluation.correlation import cloning_null, reward_report
from iq_offline.stages.fetch import open_dataset
from iq_offline.tracking.mirror import mirror_stage, reward_metrics
from iq_offline.training import run_folder
from iq_offline.training.batches import TransitionSampler, observation_layout
from iq_offline.training.learnt import absorbing_value_of, continuous_networks_of, discrete_networks_of, prior_of
from iq_offline.training.loop import fit_clone
from iq_offline.training.run_folder import RunFolder

CHUNK = 8192
Rewarder = Callable[[Batch], torch.Tensor]


def recover_reward(
    run: RunFolder,
    datasets: Sequence[str],
    on_chunk: Callable[[int], None],
    warn: Callable[[str], None],
) -> dict[str, Any]:
    """Correlate recovered and true reward on datasets (the run's own and its supplementary ones if none is named).

    Writes reward.json and rewards.parquet into the run folder. Raises RunError for a method that learns no reward,
    ConfigError for a dataset of another shape.
    """
    if not isinstance(run.config.algorithm, IQConfig):
        raise RunError(
            f"{run.manifest['run']} was trained by {run.config.method}, which learns no reward",
            "use a run of --method iq",
        )
    torch.set_num_threads(run.config.threads)
    rewarder, null = _recovered(run), _cloning_null(run)
    frames = []
    for table in _tables(run, datasets):
        rows = rows_with_successors(table)
        frames.append(_frame(table, rows, rewarder, null, on_chunk))
    transitions = pl.concat(frames)
    report = {"run": run.manifest["run"], "datasets": [frame["source"][0] for frame in frames]}
    report |= reward_report(transitions)
    with whole_file(run.path / run_folder.REWARDS) as temporary:
        transitions.write_parquet(temporary)
    with whole_file(run.path / run_folder.REWARD) as temporary:
        temporary.write_text(json.dumps(report, indent=1))
    mirror_stage(run.path, reward_metrics(report), (run_folder.REWARD, run_folder.REWARDS), warn)
    return report


def _tables(run: RunFolder, datasets: Sequence[str]) -> list[TransitionTable]:
    own = [run.config.dataset, *run.config.supplementary]
    tables = [open_dataset(dataset) for dataset in datasets or own]
    policy = run.policy()
    size, discrete = len(policy.observation_mean), isinstance(policy, DiscretePolicy)
    for table in tables:
        found = observation_layout(table).size
        if found != size or (table.action_space.to_json()["type"] == "discrete") != discrete:
            raise ConfigError(
                f"{table.info.name} has observations of {found} numbers and {table.action_space}; "
                f"the run was trained on {size} and {'discrete' if discrete else 'continuous'} actions",
                "name datasets of the run's own task",
            )
    if len({table.info.name for table in tables}) < len(tables):
        raise ConfigError("a dataset is named twice", "name each dataset once")
    return tables


def _frame(
    table: TransitionTable, rows: Any, rewarder: Rewarder, null: Rewarder, on_chunk: Callable[[int], None]
) -> pl.DataFrame:
    sampler = TransitionSampler(table, rows, torch.device("cpu"))
    recovered, nulls = [], []
    for first in range(0, len(rows), CHUNK):
        batch = sampler.gather(torch.arange(first, min(first + CHUNK, len(rows))))
        recovered.append(rewarder(batch))
        nulls.append(null(batch))
        on_chunk(len(batch.terminations))
    number = np.searchsorted(table.episodes["start_row"].to_numpy(), rows, side="right") - 1
    return pl.DataFrame(
        {
            "source": pl.Series([table.info.name]).repeat_by(len(rows)).explode(),
            "episode": table.episodes["episode"].to_numpy()[number],
            "step": rows - table.episodes["start_row"].to_numpy()[number],
            "true": table.rewards(rows).astype(np.float64),
            "recovered": torch.cat(recovered).double().numpy(),
            "null_bc": torch.cat(nulls).double().numpy(),
        }
    )


def _recovered(run: RunFolder) -> Rewarder:
    algorithm, absorbing = run.config.algorithm, absorbing_value_of(run)
    if isinstance(algorithm, DiscreteIQConfig):
        discrete = discrete_networks_of(run)
        return lambda batch: discrete_rewards(discrete, batch, config=algorithm, absorbing=absorbing)
    assert isinstance(algorithm, ContinuousIQConfig)
    continuous, noise = continuous_networks_of(run), generator(run.config.seed, Stream.REWARD)
    return lambda batch: continuous_rewards(continuous, batch, config=algorithm, noise=noise, absorbing=absorbing)


def _cloning_null(run: RunFolder) -> Rewarder:
    """The reward that needs no dynamics: how near the recorded action is to that of a cloned policy."""
    prior = prior_of(run) or _clone_again(run)
    if isinstance(prior, ContinuousPolicy):
        return lambda batch: _squared_error_null(prior, batch, prior.std)
    return lambda batch: _surprise_null(prior, batch)


def _clone_again(run: RunFolder) -> Policy:
    """Behavioural cloning on the run's own transitions, for a run that holds no prior."""
    table = open_dataset(run.config.dataset)
    if table.info.sha256 != run.manifest["dataset"]["sha256"]:
        raise RunError(f"{run.config.dataset} has changed since the run was trained", "fetch the original data again")
    chosen = table.episodes[run.split["expert_episodes"]]
    sampler = TransitionSampler(table, rows_of_episodes(chosen, run.config.subsample), torch.device("cpu"))
    config = ContinuousBCConfig() if isinstance(table.action_space, ContinuousActions) else DiscreteBCConfig()
    *_, last = fit_clone(config, run.config.seed, sampler, table.action_space, torch.device("cpu"))
    return last.learner.policy


@torch.no_grad()
def _squared_error_null(prior: ContinuousPolicy, batch: Batch, std: float) -> torch.Tensor:
    executed = prior.scale_actions(prior.act(batch.observations))
    error = (executed - prior.scale_actions(batch.actions)).square().sum(dim=-1)
    return torch.from_numpy(cloning_null(error.double().numpy(), std))


@torch.no_grad()
def _surprise_null(clone: Policy, batch: Batch) -> torch.Tensor:
    surprise = torch.nn.functional.cross_entropy(clone(batch.observations), batch.actions, reduction="none")
    return torch.from_numpy(cloning_null(2 * surprise.double().numpy(), 1.0))

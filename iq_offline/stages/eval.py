"""eval: run folders to simulated returns and scores, in the environment that the data themselves name."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from iq_offline.data.environments import STEP_LIMIT, foreign_watchers
from iq_offline.data.files import whole_file
from iq_offline.errors import RunError
from iq_offline.evaluation.scores import ScoreReference, interval95, reference_of
from iq_offline.evaluation.simulation import EpisodeBound, OnSteps, SimulatedEpisode, film, simulate
from iq_offline.report.columns import run_metrics
from iq_offline.report.groups import Group, grouped
from iq_offline.report.loading import load_runs
from iq_offline.tracking.mirror import mirror_stage
from iq_offline.training import run_folder
from iq_offline.training.run_folder import RunFolder

MIN_STEPS, TIMES_LONGEST = 1_000, 10
"""An episode without a time limit counts as endless after so many steps, and so many times the data's longest."""
OnProgress = Callable[[int, str], None]
"""Called with the number of finished episodes, and a note."""


@dataclass(frozen=True)
class EvalRequest:
    """How to evaluate. The environment is the data's own unless another is named; `video` films the first episode."""

    episodes: int = 20
    env_id: str | None = None
    env_kwargs: dict[str, Any] | None = None
    video: Path | None = None


def evaluate_run(
    run: RunFolder, request: EvalRequest, on_progress: OnProgress, warn: Callable[[str], None]
) -> dict[str, Any]:
    """Simulate the run's last policy; writes returns.parquet and evaluation.json into its folder, and the video.

    Raises EnvironmentMissing, RunError where no environment is known, and what `film` raises.
    """
    import torch

    torch.set_num_threads(run.config.threads)
    dataset = run.manifest["dataset"]
    env_id = request.env_id or dataset["env_id"]
    env_kwargs = request.env_kwargs if request.env_kwargs is not None else dataset["env_kwargs"]
    if not env_id:
        raise RunError(f"{dataset['name']} names no environment to evaluate in", "name one with --env-id")
    if request.env_id is None and ":" in env_id:
        raise RunError(
            f"{run.path / run_folder.MANIFEST} names an environment in a module, {env_id!r}, which would run its code",
            "if you trust that module, name the environment with --env-id",
        )
    for watcher in foreign_watchers(env_id, env_kwargs):
        warn(f"the data were recorded through {watcher}, which by its name only watches: evaluated without it")
    policy, bound = run.policy(), _episode_bound(dataset, env_kwargs)
    filmed = None
    if request.video:
        filming: OnSteps = lambda steps: on_progress(0, f"filming, {steps:,} steps")  # noqa: E731
        filmed = film(env_id, env_kwargs, policy, request.video, filming, bound)
    episodes: list[SimulatedEpisode] = []
    simulating: OnSteps = lambda steps: on_progress(len(episodes), f"{steps:,} steps")  # noqa: E731
    for episode in simulate(env_id, env_kwargs, policy, request.episodes, on_steps=simulating, bound=bound):
        episodes.append(episode)
        on_progress(len(episodes), "")
    if filmed not in (None, episodes[0]):
        warn(f"the filmed episode is not the evaluated one: {filmed}, {episodes[0]}; {env_id} does not repeat itself")
    named = env_id.rpartition(":")[2]  # without the module that registers it
    own_environment = (named, env_kwargs) == (dataset["env_id"], dataset["env_kwargs"])
    result = _result(run, episodes, reference_of(dataset) if own_environment else None)
    result |= {"env_id": named, "env_kwargs": env_kwargs, "dataset_return_mean": dataset["return_mean"]}
    if request.video:
        result["video"] = str(request.video)
    rows = [{"episode": e.episode, "seed": e.seed, "length": e.length, "return": e.episode_return} for e in episodes]
    with whole_file(run.path / run_folder.RETURNS) as temporary:
        pl.DataFrame(rows).write_parquet(temporary)
    run_folder.seal_record(run.path / run_folder.EVALUATION, result)
    mirror_stage(run.path, run_metrics(evaluation=result), (run_folder.EVALUATION, run_folder.RETURNS), warn)
    return result


def aggregates(runs: Sequence[RunFolder]) -> list[dict[str, Any]]:
    """One row per method and task, over seeds: interquartile means and their 95 % intervals, grouped as in a report.

    Runs that differ in more than their seed never share a row. An interval is None for a single run.
    """
    groups = grouped(load_runs([run.path for run in runs])[0])
    return [_aggregate(group) for group in groups]


def _aggregate(group: Group) -> dict[str, Any]:
    scores = [evaluation["score"] for evaluation in group.evaluations] if group.score_iqm is not None else []
    iqm = group.iqm
    interval = interval95(scores) if scores else None
    return {
        "method": group.method,
        "dataset": group.dataset,
        "group": group.label,
        "runs": len(group.runs),
        "return_iqm": iqm.value if iqm else None,
        "return_ci95": [iqm.low, iqm.high] if iqm and iqm.low is not None else None,
        "score_iqm": group.score_iqm,
        "score_ci95": list(interval) if interval else None,
        "reference": group.reference,
    }


def _episode_bound(dataset: dict[str, Any], env_kwargs: dict[str, Any]) -> EpisodeBound:
    """From the lengths of the data's own episodes."""
    longest = dataset.get("longest_episode") or -(-dataset["steps"] // dataset["episodes"])
    limited = json.dumps(env_kwargs | {STEP_LIMIT: longest})
    return EpisodeBound(
        max(MIN_STEPS, TIMES_LONGEST * longest),
        f"give it the length of the data's longest episode as limit: --env-kwargs '{limited}'",
    )


def _result(run: RunFolder, episodes: list[SimulatedEpisode], reference: ScoreReference | None) -> dict[str, Any]:
    returns = np.array([episode.episode_return for episode in episodes])
    mean = float(returns.mean())
    if not np.isfinite(returns).all():
        raise RunError(f"{run.manifest['run']}: the simulated returns are not finite numbers", "train the run again")
    return {
        **{key: run.manifest[key] for key in ("run", "method", "seed")},
        "dataset": run.manifest["dataset"]["name"],
        "episodes": len(episodes),
        "return_mean": mean,
        "return_std": float(returns.std()),
        "length_mean": float(np.mean([episode.length for episode in episodes])),
        "score": reference.score(mean) if reference else None,
        "reference": reference.name if reference else None,
    }

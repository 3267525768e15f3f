"""select: choose among runs without a simulator, by their errors on demonstrations that none has learnt from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
import torch

from iq_offline.algorithms.bc import cloning_errors, errors_in_bounds
from iq_offline.algorithms.networks import ActionScale, ContinuousPolicy, Policy
from iq_offline.batch import Batch
from iq_offline.data.spaces import ActionSpace, ContinuousActions, DiscreteActions
from iq_offline.data.table import TransitionTable, rows_of_episodes
from iq_offline.errors import ConfigError, did_you_mean
from iq_offline.evaluation.correlation import correlate
from iq_offline.stages.fetch import open_dataset
from iq_offline.stages.verify import check_split
from iq_offline.training import run_folder
from iq_offline.training.batches import evenly_spread
from iq_offline.training.run_folder import RunFolder

MAX_SAMPLE = 8192
"""At most so many transitions are judged on, evenly spread."""


class Signal(StrEnum):
    """The statistic of the errors on unseen demonstrations that ranks the runs; less is better.

    MEAN, MEDIAN, WORST: of the steps' errors, WORST the 95th percentile. An error is the mean over dimensions of the
    absolute difference of scaled actions, censored at the bounds; of discrete actions their cross entropy in nats.
    """

    MEAN = "mean"
    MEDIAN = "median"
    WORST = "worst"


@dataclass(frozen=True)
class SelectRequest:
    """Demonstrations to judge on (the runs' own dataset if none), and by which signal."""

    dataset: str | None = None
    signal: str = Signal.MEAN


def select_run(
    runs: Sequence[RunFolder],
    request: SelectRequest,
    on_progress: Callable[[int, str], None],
    warn: Callable[[str], None],
) -> dict[str, Any]:
    """The runs, best first, with their signals; returns, where simulated, are shown beside and read by nothing.

    All runs are judged on the same transitions: those of the episodes that no run has learnt from. Raises ConfigError
    where there are none, for runs of several datasets without one named, and for an unknown signal.
    """
    if request.signal not in list(Signal):
        raise ConfigError(f"--signal {request.signal} is unknown", did_you_mean(request.signal, Signal))
    table, batch = unseen_demonstrations(runs, request.dataset)
    for run in runs:
        check_split(run, warn)
    rows = []
    for run in runs:
        policy, evaluation = run.policy(), run.read_optional(run_folder.EVALUATION)
        _check_fits(policy, table, run)
        row = {key: run.manifest[key] for key in ("run", "method", "seed")}
        row |= signals(policy, _shifted(table, policy.layout.offset, batch), table.action_space)
        row |= {"return": None if evaluation is None else float(evaluation["return_mean"]), "path": str(run.path)}
        rows.append(row)
        on_progress(len(rows), "")
    rows.sort(key=lambda row: row[request.signal])
    return {
        "dataset": table.info.name,
        "transitions": len(batch.observations),
        "signal": str(request.signal),
        "runs": rows,
        "spearman_with_return": _agreement(rows),
    }


def unseen_demonstrations(runs: Sequence[RunFolder], dataset: str | None = None) -> tuple[TransitionTable, Batch]:
    """The demonstrations named (the runs' own if none), and transitions of the episodes that no run has learnt from.

    Raises ConfigError as `select_run` does.
    """
    table = open_dataset(dataset or _common_dataset(runs))
    origin, seen = table.info.origin, set[int]()
    for run in runs:
        if origin in {_origin(other) for other in run.split["supplementary"]}:
            raise ConfigError(
                f"{run.manifest['run']} had all of {table.info.name} as supplementary data", "name other demonstrations"
            )
        if _origin(run.manifest["dataset"]) == origin:
            seen |= set(run.split["expert_episodes"])
    left = [episode for episode in range(len(table.episodes)) if episode not in seen]
    if not left:
        raise ConfigError(
            f"every episode of {table.info.name} was learnt from by one of the runs",
            "train with --demos or --held-out so that some are left, or name other demonstrations with --dataset",
        )
    return table, evenly_spread(table, rows_of_episodes(table.episodes[left], 1), MAX_SAMPLE, torch.device("cpu"))


def _shifted(table: TransitionTable, offset: tuple[float, ...], batch: Batch) -> Batch:
    """A batch of the table's transitions for a policy that was trained with another offset."""
    if offset == table.offset:
        return batch
    zeros = (0.0,) * table.observation_size
    shift = torch.zeros(batch.observations.shape[1], dtype=torch.float64)
    shift[: table.observation_size] = torch.tensor(table.offset or zeros, dtype=torch.float64) - torch.tensor(
        offset or zeros, dtype=torch.float64
    )
    here, there = ((raw.double() + shift).float() for raw in (batch.observations, batch.next_observations))
    return replace(batch, observations=here, next_observations=there)


@torch.no_grad()
def signals(policy: Policy, batch: Batch, space: ActionSpace) -> dict[str, float]:
    """Each signal of a policy on those transitions; `space`: of their actions."""
    if isinstance(policy, ContinuousPolicy) and isinstance(space, ContinuousActions):
        losses = errors_in_bounds(policy, batch, ActionScale.of_bounds(space.low, space.high))
    else:
        losses = cloning_errors(policy, batch)
    errors = losses.double().numpy()
    found = {Signal.MEAN: errors.mean(), Signal.MEDIAN: np.median(errors), Signal.WORST: np.quantile(errors, 0.95)}
    return {str(signal): float(value) for signal, value in found.items()}


def _common_dataset(runs: Sequence[RunFolder]) -> str:
    if len({_origin(run.manifest["dataset"]) for run in runs}) > 1:
        names = ", ".join(sorted({run.manifest["dataset"]["name"] for run in runs}))
        raise ConfigError(f"the runs have learnt from several datasets ({names})", "name demonstrations with --dataset")
    return min(run.config.dataset for run in runs)


def _origin(info: Mapping[str, Any]) -> str:
    """The identity of a dataset, the same for its conversions: the hash of what it was made from."""
    return str(info.get("origin_sha256") or info["sha256"])


def _check_fits(policy: Policy, table: TransitionTable, run: RunFolder) -> None:
    space = table.action_space
    if isinstance(policy, ContinuousPolicy):
        same_actions = isinstance(space, ContinuousActions) and space.width == len(policy.action_centre)
    else:
        same_actions = isinstance(space, DiscreteActions)
    same_categories = policy.layout.categories in ((), table.categories)
    if policy.layout.vector != table.observation_size or not (same_actions and same_categories):
        raise ConfigError(
            f"{run.manifest['run']} has learnt another task's observations or actions than {table.info.name} has",
            "name demonstrations of the runs' task with --dataset",
        )


def _agreement(rows: Sequence[dict[str, Any]]) -> dict[str, float | None] | None:
    """Spearman's rank correlation of less error with more return, by signal; None with fewer than three returns."""
    known = [row for row in rows if row["return"] is not None]
    if len(known) < 3:
        return None
    returns = np.array([row["return"] for row in known])
    return {str(signal): correlate(returns, -np.array([row[signal] for row in known])).spearman for signal in Signal}

"""verify: everything in a run folder against its schema, its recorded hashes and the data that it names."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from iq_offline.errors import DatasetError, RunError, UserError
from iq_offline.stages.fetch import open_dataset
from iq_offline.stages.learning_data import split_of
from iq_offline.stages.rewarder import load_reward_model
from iq_offline.training import run_folder
from iq_offline.training.run_folder import RunFolder

Check = Callable[[RunFolder], object]


def verify_run(run: RunFolder, warn: Callable[[str], None]) -> dict[str, Any]:
    """What is wrong with a run: an empty list of problems where nothing is.

    A dataset that is not on this machine is skipped with a warning; all else is checked.
    """
    problems = [{"problem": error.problem, "remedy": error.remedy} for error in _errors(run, warn)]
    return {"run": str(run.path), "sound": not problems, "problems": problems}


def check_split(run: RunFolder, warn: Callable[[str], None]) -> None:
    """Raises RunError where the recorded split is not the one that the run's settings choose in its dataset."""
    config, split = run.config, run.split
    try:
        table = open_dataset(config.dataset)
    except DatasetError as error:
        warn(f"{run.manifest['run']}: the split is not compared with its dataset ({error.problem})")
        return
    if table.info.sha256 != run.manifest["dataset"]["sha256"]:
        warn(f"{run.manifest['run']}: {config.dataset} has changed since; the split is not compared with it")
        return
    expected = split_of(config, table).to_json(table)
    for key in ("expert_episodes", "held_out_episodes", "transitions", "rows_sha256", "subsample", "subsample_from"):
        if key in split and split[key] != expected[key]:
            raise RunError(
                f"{run.path / run_folder.SPLIT} is damaged: its {key} are not those that the run's seed chooses",
                "train the run again",
            )


def _errors(run: RunFolder, warn: Callable[[str], None]) -> Iterator[UserError]:
    checks: list[Check] = [
        lambda one: one.config,
        lambda one: one.split,
        RunFolder.policy,
        RunFolder.checkpoint,
        lambda one: one.table(run_folder.METRICS),
        lambda one: one.table(run_folder.TIMING),
        lambda one: check_split(one, warn),
        lambda one: one.read_optional(run_folder.TRACKING),
    ]
    stages: dict[str, Check] = {
        run_folder.EVALUATION: _check_evaluation,
        run_folder.REWARD: _check_reward,
        run_folder.REWARD_MODEL_REPORT: load_reward_model,
    }
    if run_folder.ACTIONS in run.manifest["files"]:  # the first runs of this format have none
        checks.append(lambda one: one.table(run_folder.ACTIONS))
    checks += [check for name, check in stages.items() if os.path.lexists(run.path / name)]
    seen = set()
    for check in checks:
        try:
            check(run)
        except UserError as error:
            if error.problem not in seen:
                yield error
            seen.add(error.problem)


def _check_evaluation(run: RunFolder) -> None:
    summary, returns = run.read_optional(run_folder.EVALUATION), run.table(run_folder.RETURNS)["return"].to_numpy()
    assert summary is not None
    if len(returns) != summary["episodes"] or not np.isclose(returns.mean(), summary["return_mean"]):
        raise _no_summary(run, run_folder.EVALUATION, run_folder.RETURNS, "eval")


def _check_reward(run: RunFolder) -> None:
    report, transitions = run.read_optional(run_folder.REWARD), run.table(run_folder.REWARDS)
    assert report is not None
    if report["transition"]["n"] != transitions.height:
        raise _no_summary(run, run_folder.REWARD, run_folder.REWARDS, "reward")


def _no_summary(run: RunFolder, summary: str, table: str, command: str) -> RunError:
    problem = f"{run.path / summary} is damaged: it does not summarise {table}"
    return RunError(problem, f"run `iq-offline {command}` on it again")

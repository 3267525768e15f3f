"""Greedy actions that a run keeps, and how far two policies' are apart."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from tests_support import requested
from written_runs import write_folder

from iq_offline.stages.fetch import open_dataset
from iq_offline.stages.train import stays_at_clone, train_run
from iq_offline.training.greedy_actions import COMPARED_OBSERVATIONS, greedy_actions, percent_different
from iq_offline.training.run_folder import ACTIONS, METRICS, RunFolder


def table(**columns: list[float] | list[int]) -> pl.DataFrame:
    return pl.DataFrame({"row": [0, 5, 9, 12], **columns})


def test_continuous_difference_is_in_percent_of_range():
    """Scaled actions have a range of two."""
    one, other = table(action_0=[0.0, 0.0, 1.0, -1.0]), table(action_0=[0.2, 0.0, -1.0, -1.0])
    assert percent_different(one, other) == pytest.approx(100 * (0.1 + 0 + 1 + 0) / 4)
    assert percent_different(one, one) == 0


def test_discrete_difference_is_the_share_of_other_actions():
    one, other = table(action_0=[0, 1, 2, 3]), table(action_0=[3, 1, 2, 3])
    assert percent_different(one, other) == pytest.approx(25)


@pytest.mark.parametrize(
    "other",
    [
        table(action_0=[0, 0, 1, -1]),
        table(action_0=[0.0] * 4, action_1=[0.0] * 4),
        pl.DataFrame({"row": [0, 5, 9, 13], "action_0": [0.0] * 4}),
    ],
)
def test_policies_of_other_data_have_no_difference(other: pl.DataFrame):
    assert percent_different(table(action_0=[0.0] * 4), other) is None


@pytest.mark.parametrize("dataset", ["demo/swimmer/expert-v0", "demo/cartpole/expert-v0"])
def test_run_keeps_its_policys_greedy_actions(dataset: str, tmp_path: Path):
    asked = requested(dataset, "bc", updates=5, demos=1, out=tmp_path / "run", tracked=False)
    run = train_run(*asked, lambda _: None, lambda _: None)
    kept, source = run.table(ACTIONS), open_dataset(dataset)
    assert len(kept) == COMPARED_OBSERVATIONS
    observations = torch.from_numpy(np.array(source.rows[kept["row"].to_numpy(), : source.observation_size]))
    policy = run.policy()
    with torch.no_grad():
        expected = policy.act(observations).numpy()
    found = kept.drop("row").to_numpy()
    assert found == pytest.approx(expected.reshape(len(kept), -1), abs=1e-6)  # Swimmer's actions are scaled as they are
    assert greedy_actions(policy, source).equals(kept)


@pytest.mark.parametrize(
    ("actions", "distance", "difference"),
    [([0.5, 0.1], 0.0001, "0.5 % of the actions' range"), ([0.5, 0.1], 0.01, None), ([1, 0], 0.004, "0.4 % of observ")],
    ids=["alike", "apart", "discrete"],
)
def test_policy_that_stays_at_its_clone_is_told(
    actions: list[float], distance: float, difference: str | None, tmp_path: Path
):
    """The distance of scaled actions is squared; that of discrete ones is a share."""
    write_folder(tmp_path, actions=actions)
    metrics = pl.DataFrame({"step": [0, 10, 20], "prior_distance": [None, 1.0, distance]})
    metrics.write_parquet(tmp_path / METRICS)
    told = stays_at_clone(RunFolder.open(tmp_path))
    assert (told is None) == (difference is None)
    assert difference is None or difference in (told or "")

"""select ranks runs by their error on demonstrations that none of them has learnt from, and reads no return."""

import json

import numpy as np
import pytest
import torch
from tests_support import requested

from iq_offline.errors import ConfigError
from iq_offline.stages.convert import ConvertRequest, convert_dataset
from iq_offline.stages.fetch import open_dataset
from iq_offline.stages.select import SelectRequest, Signal, select_run, signals
from iq_offline.stages.train import train_run
from iq_offline.training.batches import TransitionSampler

SWIMMER, CARTPOLE = "demo/swimmer/expert-v0", "demo/cartpole/expert-v0"


def ignore(*_):
    """Nothing is watched."""


def trained(out, dataset=SWIMMER, **more):
    small = ("hidden_sizes=[16]",)
    asked = {"method": "bc", "demos": 2, "updates": 5, "overrides": small} | more
    return train_run(*requested(dataset, out=out, tracked=False, device="cpu", **asked), ignore, ignore)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    place = tmp_path_factory.mktemp("select")
    return [
        trained(place / "untrained", updates=1),
        trained(place / "trained", updates=400),
        trained(place / "another", updates=30, seed=1),
    ]


def chosen(runs, **request):
    return select_run(runs, SelectRequest(**request), ignore, ignore)


@pytest.mark.parametrize("signal", list(Signal))
def test_better_clone_comes_first(runs, signal):
    """The better clone comes first whatever the order of the runs."""
    for order in (runs, runs[::-1]):
        found = chosen(order, signal=str(signal))
        assert [row["run"] for row in found["runs"]] == ["trained", "another", "untrained"]
        errors = [row[str(signal)] for row in found["runs"]]
        assert errors == sorted(errors)
    assert found["spearman_with_return"] is None  # nothing was simulated


def test_only_unseen_episodes_are_judged(runs):
    """Only episodes that no run has learnt from are looked at."""
    table = open_dataset(SWIMMER)
    seen = {episode for run in runs for episode in run.split["expert_episodes"]}
    assert chosen(runs)["transitions"] == min(8192, 1000 * (len(table.episodes) - len(seen)))


def test_a_conversion_is_the_same_dataset(runs, tmp_path):
    """Else its episodes would count as unseen."""
    file = tmp_path / "converted.hdf5"
    convert_dataset(SWIMMER, file, ConvertRequest(output_format="d4rl"))
    assert open_dataset(str(file)).info.sha256 != open_dataset(SWIMMER).info.sha256
    assert chosen(runs, dataset=str(file))["transitions"] == chosen(runs)["transitions"]
    other = trained(tmp_path / "run", str(file), seed=1)
    assert chosen([*runs, other])["transitions"] == chosen(runs)["transitions"]  # the episodes of `another`
    with pytest.raises(ConfigError, match="as supplementary data"):
        chosen([trained(tmp_path / "both", "demo/swimmer/mixed-v0", supplementary=(str(file),))], dataset=SWIMMER)


def test_signals_by_hand(runs):
    table, policy = open_dataset(SWIMMER), runs[1].policy()
    batch = TransitionSampler(table, np.arange(50), torch.device("cpu")).gather(torch.arange(50))
    with torch.no_grad():
        means = policy.mean(batch.observations).double().numpy()
    actions = batch.actions.double().numpy()
    errors = np.abs(means - actions)
    errors[(actions >= 1 - 1e-6) & (means > actions)] = 0
    errors[(actions <= -1 + 1e-6) & (means < actions)] = 0
    steps = errors.mean(axis=1)
    expected = {"mean": steps.mean(), "median": np.median(steps), "worst": np.quantile(steps, 0.95)}
    assert signals(policy, batch, table.action_space) == pytest.approx(expected, rel=1e-5)


def test_returns_are_shown_beside_and_choose_nothing(runs):
    for run, value in zip(runs, (3.0, 1.0, 2.0), strict=True):  # the worst clone has the greatest return
        told = {key: run.manifest[key] for key in ("run", "method", "seed")} | {"dataset": "linear", "episodes": 1}
        told |= {"return_mean": value, "return_std": 0.0, "length_mean": 1.0}
        (run.path / "evaluation.json").write_text(json.dumps(told))
    try:
        found = chosen(runs)
    finally:
        for run in runs:
            (run.path / "evaluation.json").unlink()
    assert [row["return"] for row in found["runs"]] == [1.0, 2.0, 3.0]
    assert found["spearman_with_return"]["mean"] == pytest.approx(-1)


def test_discrete_runs_are_ranked_by_cross_entropy(tmp_path):
    pair = [trained(tmp_path / "one", CARTPOLE, updates=1), trained(tmp_path / "two", CARTPOLE, updates=300)]
    found = chosen(pair)
    assert [row["run"] for row in found["runs"]] == ["two", "one"]
    assert found["runs"][1]["mean"] == pytest.approx(np.log(2), rel=0.5)


def test_mistakes_are_named(runs, tmp_path):
    whole = trained(tmp_path / "whole", demos=None, updates=1)
    with pytest.raises(ConfigError, match=r"every episode of .* was learnt from") as caught:
        chosen([*runs, whole])
    assert "--held-out" in caught.value.remedy
    with pytest.raises(ConfigError, match="unknown") as caught:
        chosen(runs, signal="meen")
    assert "mean" in caught.value.remedy
    with pytest.raises(ConfigError, match="another task's"):
        chosen(runs, dataset=CARTPOLE)
    other = trained(tmp_path / "other", CARTPOLE, updates=1)
    with pytest.raises(ConfigError, match="several datasets"):
        chosen([*runs, other])
    supplementary = trained(tmp_path / "supplementary", supplementary=("demo/swimmer/mixed-v0",), updates=1)
    with pytest.raises(ConfigError, match="as supplementary data"):
        chosen([supplementary], dataset="demo/swimmer/mixed-v0")

"""The Python API: from a dataset's name to a comparison, with the numbers of the commands."""

import json
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import gymnasium
import numpy as np
import polars as pl
import pytest
import torch
from matplotlib.figure import Figure
from tests_support import write_hdf5
from typer.testing import CliRunner

import iq_offline as iq
from iq_offline.algorithms.encoders import ObservationLayout
from iq_offline.algorithms.networks import ActionScale, ContinuousPolicy, Standardiser
from iq_offline.api import Policy
from iq_offline.cli import app
from iq_offline.config.base import Activation

EXPERT = "demo/cartpole/expert-v0"
SMALL = {"hidden_sizes": [8], "prior.updates": 20, "prior.hidden_sizes": [8]}
QUIET = {"updates": 20, "demos": 2, "device": "cpu", "show_progress": False}


@pytest.fixture
def run() -> iq.Run:
    return iq.train(EXPERT, "iq", settings=SMALL, **QUIET)


def test_import_is_light_and_names_are_there():
    """`import iq_offline` takes under 100 ms of the processor, imports nothing heavy and lists its public names."""
    code = (
        "import time; start = time.process_time(); import iq_offline, sys; spent = time.process_time() - start;"
        "heavy = set(sys.modules) & {'numpy', 'torch', 'polars', 'pydantic', 'mlflow', 'rich', 'typer'};"
        "assert not heavy, heavy; assert set(iq_offline.__all__) <= set(dir(iq_offline)); print(spent)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(result.stdout) < 0.1
    assert all(hasattr(iq, name) for name in iq.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'learn'"):
        _ = iq.learn


def test_dataset_shows_what_was_recorded():
    """A dataset has one row per step in its arrays, one per episode in its table, and inspect's summary."""
    dataset = iq.load_dataset(EXPERT)
    assert (dataset.name, dataset.env_id, dataset.steps) == (EXPERT, "CartPole-v1", 10_000)
    assert dataset.observations.shape == (10_000, 4)
    assert set(dataset.actions.tolist()) == {0, 1}
    returns = dataset.episodes["return"].to_numpy()
    assert dataset.rewards.sum() == returns.sum() == 10_000
    assert dataset.summary()["episodes"] == len(dataset.episodes) == 20


def test_observations_keep_their_offset(tmp_path, numbered):
    """Observations that the table stores less an offset are given as they were recorded."""
    arrays = numbered([5, 5], terminated=[True, True])
    arrays |= {key: arrays[key].astype(np.float64) + 1e9 for key in ("observations", "next_observations")}
    dataset = iq.load_dataset(write_hdf5(tmp_path / "far.hdf5", arrays))
    assert dataset._table.offset
    np.testing.assert_array_equal(dataset.observations, arrays["observations"])


def test_training_equals_the_command(run, tmp_path):
    """`iq.train` and `iq-offline train` with the same arguments give the same configuration and tensors."""
    options = [
        "--dataset",
        EXPERT,
        "--demos",
        "2",
        "--updates",
        "20",
        "--device",
        "cpu",
        "--out",
        str(tmp_path / "run"),
    ]
    options += [f"--set={key}={json.dumps(value)}" for key, value in SMALL.items()]
    assert CliRunner().invoke(app, ["train", *options]).exit_code == 0
    ours, other = (json.loads((path / "manifest.json").read_text()) for path in (run.path, tmp_path / "run"))
    assert {key: ours[key] for key in ("config_hash", "checkpoint_sha256")} == {
        key: other[key] for key in ("config_hash", "checkpoint_sha256")
    }
    assert (run.method, run.dataset, run.seed, run.config["demos"]) == ("iq", EXPERT, 0, 2)
    assert run.metrics["step"][-1] == 40


def test_evaluation_and_reward_are_the_records(run):
    """`evaluate` and `reward` return what they write into the run folder."""
    evaluation = run.evaluate(episodes=3, show_progress=False)
    record = json.loads((run.path / "evaluation.json").read_text())
    assert (evaluation.return_mean, evaluation.score) == (record["return_mean"], record["score"])
    assert evaluation.episodes["return"].mean() == pytest.approx(evaluation.return_mean)
    found = run.reward("demo/cartpole/random-v0", iq.load_dataset(EXPERT), form="implicit")
    assert json.loads((run.path / "reward.json").read_text())["episode"]["pearson"] == found.episode_pearson
    assert set(found.transitions["source"]) == {"demo/cartpole/random-v0", EXPERT}
    assert "episodes" in found.reading
    assert "Evaluation('CartPole-v1', 3 episodes" in repr(evaluation)


def test_prediction_steps_as_evaluation_does(run):
    """A loop over Gymnasium with `predict` gives the return of `evaluate`; a batch gives the actions of its rows."""
    policy, environment = iq.load_policy(run.path), gymnasium.make("CartPole-v1")
    returns = run.evaluate(episodes=1, show_progress=False).episodes
    observation, _ = environment.reset(seed=returns["seed"][0])
    total, ended, seen = 0.0, False, []
    while not ended:
        seen.append(observation)
        observation, reward, terminated, truncated, _ = environment.step(policy.predict(observation))
        total, ended = total + float(reward), terminated or truncated
    assert total == returns["return"][0]
    batch = np.stack(seen * 3)
    assert policy.predict(batch).tolist() == [policy.predict(one) for one in batch]
    assert policy.predict(batch[:1]).shape == (1,)
    assert policy.predict(batch[:0]).shape == (0,)


def made_policy(layout: ObservationLayout, size: int) -> tuple[Policy, ContinuousPolicy]:
    torch.manual_seed(0)
    scale = ActionScale(torch.tensor([1.0, 0.0]), torch.tensor([2.0, 1.0]))
    network = ContinuousPolicy(
        Standardiser(torch.zeros(size), torch.ones(size)), scale, (4,), Activation.RELU, layout=layout
    )
    network.requires_grad_(False)
    return Policy(SimpleNamespace(path=Path("made"), policy=lambda: network)), network  # type: ignore[arg-type]


def test_dictionaries_are_predicted_in_order():
    """The arrays of a dictionary lie in the order of their names; a batch of dictionaries gives one action a row."""
    policy, network = made_policy(ObservationLayout(5), 5)
    goals, places = np.arange(4.0).reshape(2, 2) / 9, np.arange(6.0).reshape(2, 3) / 9
    batch = {"place": places, "goal": {"where": goals}}
    expected = network.act(torch.from_numpy(np.concatenate([goals, places], axis=1)).float()).numpy()
    np.testing.assert_allclose(policy.predict(batch), expected, rtol=1e-6)
    one = policy.predict({"place": places[1], "goal": {"where": goals[1]}})
    np.testing.assert_allclose(one, expected[1], rtol=1e-6)


def test_pictures_are_predicted_alone_and_batched():
    """A picture is one observation, and an array with one more dimension a batch of them."""
    shape = (8, 8, 3)
    policy, network = made_policy(ObservationLayout(0, (shape,)), 192)
    pictures = np.random.default_rng(0).integers(0, 256, (3, *shape), np.uint8)
    expected = network.act(torch.from_numpy(pictures.reshape(3, -1)).float()).numpy()
    np.testing.assert_allclose(policy.predict(pictures), expected, rtol=1e-5)
    assert policy.predict(pictures[0]).shape == (2,)


def test_offsets_are_taken_off():
    """An observation is narrowed to 32 bits after its offset is taken off."""
    policy, network = made_policy(ObservationLayout(2, offset=(1e9, 0.0)), 2)
    expected = network.act(torch.tensor([[0.5, 2.0]])).numpy()
    np.testing.assert_allclose(policy.predict(np.array([[1e9 + 0.5, 2.0]])), expected, rtol=1e-6)


def test_comparison_is_a_table_and_a_figure(run, tmp_path):
    """`compare` takes runs and folders at any depth; the table has a row per method, the figure a panel per dataset."""
    clones = [
        iq.train(EXPERT, "bc", seed=seed, out=tmp_path / "deep" / "er" / f"seed-{seed}", **QUIET) for seed in (0, 1)
    ]
    for one in (run, *clones):
        one.evaluate(episodes=2, show_progress=False)
    table, figure = iq.compare([run, tmp_path / "deep"])
    assert isinstance(table, pl.DataFrame)
    assert dict(table.select("method", "seeds").iter_rows()) == {"bc": 2, "iq": 1}
    assert isinstance(figure, Figure)
    assert [axes.get_title() for axes in figure.axes] == [EXPERT]
    assert [label.get_text().split(",")[0] for label in figure.axes[0].get_yticklabels()] == ["bc", "iq"]
    (tmp_path / "deep" / "er" / "seed-1" / "manifest.json").write_text("{")
    with pytest.warns(UserWarning, match="manifest"):
        assert iq.compare(tmp_path / "deep").table["seeds"].to_list() == [1]


def test_finished_runs_are_opened_again(run, tmp_path):
    """`load_run` opens a run folder or a folder with one run; `resume` returns the finished run."""
    assert iq.load_run(run.path.parent) == iq.load_run(str(run.path)) == run
    out = tmp_path / "again"
    first = iq.train(EXPERT, settings=SMALL, out=out, **QUIET)
    assert iq.train(EXPERT, settings=SMALL, out=out, resume=True, **QUIET) == first
    with pytest.raises(iq.UserError, match="overwrite"):
        iq.train(EXPERT, settings=SMALL, out=out, **QUIET)


MISTAKES = {
    "no run": (lambda _: iq.load_policy("nowhere"), "does not exist"),
    "no run in a folder": (lambda folder: iq.load_policy(folder), "holds no run"),
    "unknown dataset": (lambda _: iq.load_dataset("demo/cartpole/expertt"), "demo/cartpole/expert-v0"),
    "unknown method": (lambda _: iq.train(EXPERT, "iqq"), "unknown method 'iqq'"),
    "no demonstrations": (lambda _: iq.train(EXPERT, demos=0), "demos=0 does not fit"),
    "negative seed": (lambda _: iq.train(EXPERT, seed=-1), "seed=-1 does not fit"),
    "unknown setting": (lambda _: iq.train(EXPERT, settings={"temprature": 1}), "temperature"),
    "nothing to compare": (lambda _: iq.compare([]), "no run folders"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_raise_user_errors(mistake, tmp_path):
    attempt, message = MISTAKES[mistake]
    with pytest.raises(iq.UserError) as raised:
        attempt(tmp_path)
    assert message in str(raised.value)


def test_wrong_observations_and_folders_are_named(run):
    """An observation of another size is refused with both sizes, and a folder of several runs with their names."""
    policy = iq.load_policy(run)
    with pytest.raises(iq.UserError, match=r"has 4 numbers, and the shape given is \(7,\)"):
        policy.predict(np.zeros(7))
    iq.train(EXPERT, "bc", **QUIET)
    with pytest.raises(iq.UserError, match="holds 2 runs"):
        iq.load_policy(run.path.parent)
    with pytest.raises(iq.UserError, match="give at least 1"):
        run.evaluate(episodes=0)


def test_defects_are_warnings(tmp_path, numbered):
    """What `train` prints as a warning is a UserWarning at the caller's line."""
    arrays = numbered([5, 5], terminated=[True, True])
    arrays["terminals"][-1] = False
    path = write_hdf5(tmp_path / "tail.hdf5", arrays)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        iq.train(path, "bc", updates=5, show_progress=False)
    assert any("no end marked" in str(warning.message) for warning in caught)
    assert {warning.filename for warning in caught} == {__file__}

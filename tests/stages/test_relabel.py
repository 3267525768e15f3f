"""relabel, distil and the forms of a recovered reward, on tiny real episodes."""

import json
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from tests_support import requested, without_drawing, write_hdf5

from iq_offline.algorithms.encoders import ObservationLayout
from iq_offline.algorithms.recovery import Normalisation
from iq_offline.data.split import rows_with_successors
from iq_offline.errors import ConfigError, RunError
from iq_offline.stages.distil import DistilRequest, distil_reward
from iq_offline.stages.fetch import open_dataset
from iq_offline.stages.relabel import RelabelRequest, relabel_dataset
from iq_offline.stages.reward import RewardRequest, as_text, recover_reward
from iq_offline.stages.rewarder import check_task
from iq_offline.stages.train import train_run
from iq_offline.training.run_folder import RunFolder

DEMO = "demo/swimmer/expert-v0"
RANDOM = "demo/swimmer/random-v0"


def ignore(*_):
    """Nothing is watched."""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("reward") / "run"
    few = ("prior.updates=60", "hidden_sizes=[16]", "prior.hidden_sizes=[16]", "ensemble.members=2")
    request = requested(dataset=DEMO, demos=2, updates=30, overrides=few, out=out, tracked=False)
    return train_run(*request, ignore, ignore)


@pytest.fixture(scope="module")
def discrete(tmp_path_factory):
    out = tmp_path_factory.mktemp("reward") / "discrete"
    few = ("prior.updates=60", "hidden_sizes=[16]", "prior.hidden_sizes=[16]")
    request = requested(dataset="demo/cartpole/expert-v0", demos=3, updates=30, overrides=few, out=out, tracked=False)
    return train_run(*request, ignore, ignore)


def recovered(run, form, *datasets):
    with without_drawing():
        report = recover_reward(run, RewardRequest(datasets or (DEMO, RANDOM), form), ignore, ignore)
    return report, pl.read_parquet(run.path / "rewards.parquet")


def test_normalised_form_bounds_the_scale(run):
    """The normalised form is a lower bound on the scale of uniform and demonstrated actions."""
    canonical = recovered(run, "canonical")[1]
    normalised = recovered(run, "normalised")[1]["recovered"].to_numpy()
    bound = (canonical["recovered"] - 0.5 * canonical["uncertainty"]).to_numpy()
    assert normalised.min() == 0
    assert normalised.max() == 1
    inside = (normalised > 0) & (normalised < 1)
    slope, offset = np.polyfit(bound[inside], normalised[inside], 1)
    np.testing.assert_allclose(normalised[inside], slope * bound[inside] + offset, atol=1e-4)
    assert slope > 0


@pytest.mark.parametrize("form", ["implicit", "canonical", "normalised"])
def test_other_forms_stand_beside_the_chosen(run, form):
    """The other forms stand beside the one asked for."""
    _, frame = recovered(run, form)
    np.testing.assert_array_equal(frame["recovered"], frame[form])
    _, linear = recovered(run, "linear")
    assert np.corrcoef(linear[form], frame[form])[0, 1] > 0.99  # V is drawn anew


def test_critics_disagree_and_value_has_error(run):
    """Critics disagree and v of a stochastic policy has an error."""
    _, frame = recovered(run, "implicit")
    assert (frame["uncertainty"] >= 0).all()
    assert frame["uncertainty"].max() > 0  # two critics
    assert frame["value_error"].max() > 0  # V is a mean over sampled actions


def test_discrete_value_is_closed_form(discrete):
    """A discrete value is closed form and one q function has no uncertainty."""
    report, frame = recovered(discrete, "normalised", "demo/cartpole/expert-v0", "demo/cartpole/random-v0")
    assert frame["value_error"].max() == 0
    assert frame["uncertainty"].max() == 0
    assert report["value_error"] == 0
    assert report["shaping_free"]["pearson"] is None or -1 <= report["shaping_free"]["pearson"] <= 1


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_shaping_is_taken_out_where_episodes_terminate(discrete, tmp_path, scale):
    """Where the true reward is the recovered one under shaping, its raw correlation is low and the shaping-free one 1.

    The potential is a constant and a line; at a scale of 30 the observations are beyond what the policy is shown.
    """
    rng, ends = np.random.default_rng(0), np.arange(400) % 20 == 19
    here, there = (scale * rng.normal(size=(2, 400, 4))).astype(np.float32)
    arrays = {"observations": here, "next_observations": there, "actions": rng.integers(2, size=400)}
    arrays |= {"terminals": ends & (np.arange(400) < 200), "timeouts": ends & (np.arange(400) >= 200)}
    plain = write_hdf5(tmp_path / "plain.hdf5", arrays | {"rewards": np.zeros(400, dtype=np.float32)})
    reward = recovered(discrete, "implicit", str(plain))[1]["recovered"].to_numpy()
    table = open_dataset(str(plain))
    rows = rows_with_successors(table)
    before, after = (40 * reward.std() * (3 + table.observations(part).sum(axis=1)) for part in (rows, rows + 1))
    rewards = np.zeros(400)
    rewards[rows - table.episode_numbers(rows)] = reward + 0.99 * (1 - table.terminations(rows)) * after - before
    shaped = write_hdf5(tmp_path / "shaped.hdf5", arrays | {"rewards": rewards})
    report, _ = recovered(discrete, "implicit", str(shaped))
    assert report["transition"]["pearson"] < 0.5
    assert report["shaping_free"]["pearson"] == pytest.approx(1, abs=1e-5)
    assert report["shaping_free"]["epic_like_distance"] < 0.002


def test_linear_form_explains_the_normalised_one(run):
    """The linear form is linear in the observation and explains the normalised one."""
    report, frame = recovered(run, "linear", DEMO, RANDOM)
    _, normalised = recovered(run, "normalised", DEMO, RANDOM)
    assert report["form"] == "linear"
    assert 0 < report["linear"]["explained"] < 1
    rewards = frame["recovered"].to_numpy()
    assert np.corrcoef(rewards, normalised["recovered"])[0, 1] > 0.3
    inside = (rewards > 0) & (rewards < 1)
    observations = np.concatenate(
        [table.observations(table.transition_rows) for table in map(open_dataset, (DEMO, RANDOM))]
    )
    columns = np.column_stack([np.ones(len(observations)), observations])[inside]
    left = rewards[inside] - columns @ np.linalg.lstsq(columns, rewards[inside], rcond=None)[0]
    assert left.std() < 0.02 * rewards[inside].std()  # but for numbers beyond five deviations
    assert len(report["linear"]["weights"]) == observations.shape[1]
    assert report["null_linear"]["episode"]["n"] == report["episode"]["n"]
    assert "baseline: linear cloning" in as_text(report)


def test_pictures_have_no_linear_reward(run, monkeypatch):
    """Pictures have no linear reward and the report says what it is of."""
    policy = run.policy()
    policy.layout = SimpleNamespace(
        pictures=("camera",),
        categories=(),
        offset=(),
        encoder=policy.layout.encoder,
        features=policy.layout.features,
    )
    monkeypatch.setattr(RunFolder, "policy", lambda _: policy)
    monkeypatch.setattr("iq_offline.stages.rewarder.check_task", ignore)
    warnings = []
    report = recover_reward(run, RewardRequest((DEMO,)), ignore, warnings.append)
    assert report["form"] == "normalised"
    assert "null_linear" not in report
    assert any("pictures" in warning for warning in warnings)


def test_fitted_to_gives_two_datasets_one_reward(run, tmp_path):
    """Two datasets are relabelled with one linear reward where it is fitted to one."""
    reported, _ = recovered(run, "linear", RANDOM)
    records = [
        relabel_dataset(run, RelabelRequest(name, tmp_path / f"{number}.hdf5", "d4rl", "linear", (RANDOM,)))
        for number, name in enumerate((DEMO, RANDOM))
    ]
    fitted_to = [{"dataset": name, "sha256": open_dataset(RANDOM).info.sha256} for name in reported["datasets"]]
    assert [record["relabelled"]["fitted_to"] for record in records] == [fitted_to] * 2
    _, frame = recovered(run, "linear", RANDOM)
    table = open_dataset(str(tmp_path / "1.hdf5"))
    np.testing.assert_allclose(table.rewards(table.transition_rows), frame["recovered"], atol=1e-6)
    demonstrated = open_dataset(str(tmp_path / "0.hdf5"))
    assert demonstrated.rewards(demonstrated.transition_rows).mean() > frame["recovered"].mean()
    with pytest.raises(ConfigError, match="--form implicit is fitted to nothing"):
        relabel_dataset(run, RelabelRequest(DEMO, tmp_path / "2.hdf5", "d4rl", "implicit", (RANDOM,)))
    assert not (tmp_path / "2.hdf5").exists()


def test_report_has_intervals_nulls_sources_and_picture(run, tmp_path):
    """The report has intervals nulls and sources and a picture."""
    picture = tmp_path / "reward.svg"
    report = recover_reward(run, RewardRequest((DEMO, RANDOM), plot=picture), ignore, ignore)
    low, high = report["transition"]["pearson_ci95"]
    assert low <= report["transition"]["pearson"] <= high
    own = report["within_source"]["sources"][report["datasets"][1]]
    expected = {"transition", "episode", "null_length", "null_bc", "length_controlled", "ranking", "null_linear"}
    assert set(own) == expected
    assert 0 <= report["ranking"]["accuracy"] <= 1
    assert 0 <= report["shaping_free"]["epic_like_distance"] <= 1
    assert picture.read_text().startswith("<?xml")
    assert (run.path / "reward.png").read_bytes().startswith(b"\x89PNG")
    assert "baseline: length" in as_text(report)
    assert json.loads((run.path / "reward.json").read_text())["transition"] == report["transition"]


def test_unknown_picture_or_form_is_refused_first(run, tmp_path):
    """A picture of no known kind and a form of no known name are refused before anything is written."""
    with pytest.raises(ConfigError, match="no picture's name"):
        recover_reward(run, RewardRequest((DEMO,), plot=tmp_path / "reward.txt"), ignore, ignore)
    with pytest.raises(ConfigError, match="--form best"):
        recover_reward(run, RewardRequest((DEMO,), form="best"), ignore, ignore)


@pytest.mark.parametrize("format", ["minari", "d4rl"])
def test_relabelled_dataset_changes_rewards_only(run, tmp_path, format):
    """A relabelled dataset has the recovered rewards and everything else as it was."""
    _, frame = recovered(run, "canonical", RANDOM)
    to = tmp_path / ("relabelled-v0" if format == "minari" else "relabelled.hdf5")
    record = relabel_dataset(run, RelabelRequest(RANDOM, to, format, "canonical"))
    before, after = open_dataset(RANDOM), open_dataset(str(to))
    rows = after.transition_rows
    np.testing.assert_array_equal(after.observations(rows), before.observations(before.transition_rows))
    np.testing.assert_array_equal(after.actions(rows), before.actions(before.transition_rows))
    np.testing.assert_array_equal(after.terminations(rows), before.terminations(before.transition_rows))
    np.testing.assert_allclose(after.rewards(rows), frame["recovered"], atol=1e-6)
    assert not np.allclose(after.rewards(rows), before.rewards(before.transition_rows))
    assert record["relabelled"]["form"] == "canonical"
    assert record["relabelled"]["checkpoint_sha256"] == run.manifest["checkpoint_sha256"]


def test_relabelling_again_changes_nothing(run, tmp_path):
    """Relabelling again leaves what is there and another run is refused."""
    to = tmp_path / "relabelled.hdf5"
    first = relabel_dataset(run, RelabelRequest(RANDOM, to, "d4rl"))
    stamp = to.stat().st_mtime_ns
    assert relabel_dataset(run, RelabelRequest(RANDOM, to, "d4rl")) == first
    assert to.stat().st_mtime_ns == stamp
    with pytest.raises(ConfigError, match="exists, and is not this conversion"):
        relabel_dataset(run, RelabelRequest(RANDOM, to, "d4rl", "implicit"))


def some_rows(path, dataset, rows, actions=None):
    """A file of those steps, all of one episode; other actions where they are given."""
    path.parent.mkdir(exist_ok=True)
    table = open_dataset(dataset)
    taken = table.transition_rows[rows]
    arrays = {"observations": table.observations(taken), "rewards": table.rewards(taken)}
    ends = np.arange(len(taken)) == len(taken) - 1
    arrays |= {"actions": table.actions(taken) if actions is None else actions, "timeouts": ends, "terminals": 0 * ends}
    return str(write_hdf5(path, arrays))


def test_earlier_distillation_is_not_overwritten(run, tmp_path):
    """Relabelling over the rewards of an earlier distillation is refused."""
    request = RelabelRequest(RANDOM, tmp_path / "out.hdf5", "d4rl", "distilled")
    distil_reward(run, DistilRequest((DEMO,), updates=20), ignore)
    first = relabel_dataset(run, request)
    assert relabel_dataset(run, request) == first
    distil_reward(run, DistilRequest((DEMO,), updates=40), ignore)
    with pytest.raises(ConfigError, match="exists, and is not this conversion"):
        relabel_dataset(run, request)


def test_rewards_fitted_elsewhere_are_not_overwritten(run, tmp_path):
    """Relabelling over rewards fitted to other data of the same name is refused."""
    fitted_to = [
        some_rows(tmp_path / part / "some.hdf5", RANDOM, slice(at, at + 40)) for part, at in (("a", 0), ("b", 40))
    ]
    assert {open_dataset(path).info.name for path in fitted_to} == {open_dataset(fitted_to[0]).info.name}
    first, second = (RelabelRequest(RANDOM, tmp_path / "out.hdf5", "d4rl", "linear", (path,)) for path in fitted_to)
    relabel_dataset(run, first)
    with pytest.raises(ConfigError, match="exists, and is not this conversion"):
        relabel_dataset(run, second)


def test_data_of_another_task_are_refused(run, discrete, tmp_path, monkeypatch):
    """Data of another task are refused with what they are and what was learnt."""
    wide = some_rows(tmp_path / "wide.hdf5", RANDOM, slice(20), np.zeros((20, 3), np.float32))
    more = some_rows(tmp_path / "more.hdf5", "demo/cartpole/random-v0", slice(20), np.arange(20) % 3)
    for asked, dataset, told in (
        (run, wide, r"wide has observations of 8 numbers and 3 continuous actions; .* 8 numbers and 2 continuous"),
        (discrete, more, r"more has observations of 4 numbers and 3 discrete actions; .* 4 numbers and 2 discrete"),
        (discrete, RANDOM, r"8 numbers and 2 continuous actions; .* 4 numbers and 2 discrete actions"),
    ):
        with pytest.raises(ConfigError, match=told):
            recover_reward(asked, RewardRequest((dataset,)), ignore, ignore)
        with pytest.raises(ConfigError, match=told):
            distil_reward(asked, DistilRequest((dataset,)), ignore)
        with pytest.raises(ConfigError, match=told):
            relabel_dataset(asked, RelabelRequest(dataset, tmp_path / "out.hdf5", "d4rl"))
    policy = run.policy()
    policy.layout = ObservationLayout(4, ((2, 2),))
    monkeypatch.setattr(RunFolder, "policy", lambda _: policy)
    with pytest.raises(ConfigError, match=r"8 numbers and .* trained on .* 4 numbers with pictures \(2, 2\) and 2"):
        recover_reward(run, RewardRequest((RANDOM,)), ignore, ignore)


def test_fewer_discrete_actions_are_the_same_task(discrete, tmp_path):
    """Fewer discrete actions than a run knows are no other task."""
    one = some_rows(tmp_path / "one.hdf5", "demo/cartpole/random-v0", slice(20), np.zeros(20, np.int64))
    assert open_dataset(one).action_space.count == 1
    check_task(discrete, open_dataset(one))


def test_step_without_successor_repeats_the_reward(run, tmp_path):
    """A last step without a known successor takes the reward before it and is counted."""
    import h5py

    source = tmp_path / "plain.hdf5"
    table = open_dataset(RANDOM)
    rows = table.transition_rows[:40]
    with h5py.File(source, "w") as file:
        file["observations"], file["actions"] = table.observations(rows), table.actions(rows)
        file["rewards"], file["terminals"] = table.rewards(rows), np.zeros(40, dtype=bool)
        file["timeouts"] = np.arange(40) % 20 == 19
    record = relabel_dataset(run, RelabelRequest(str(source), tmp_path / "out.hdf5", "d4rl"))
    assert record["relabelled"]["steps_without_successor"] == 2
    written = open_dataset(str(tmp_path / "out.hdf5"))
    rewards = written.rewards(written.transition_rows)
    assert rewards[19] == rewards[18]
    assert rewards[39] == rewards[38]


def test_distilled_reward_needs_no_critic(run):
    """A distilled reward explains the recovered one and needs no critic."""
    report = distil_reward(run, DistilRequest((DEMO, RANDOM), updates=400), ignore)
    assert report["held_out"]["r2"] > 0.5
    assert report["inputs"] == "sa"
    _, frame = recovered(run, "normalised")
    _, distilled = recovered(run, "distilled")
    assert np.corrcoef(frame["recovered"], distilled["recovered"])[0, 1] > 0.7


def test_missing_distilled_reward_names_the_command(discrete):
    """A distilled reward that is not there names the command that makes it."""
    with pytest.raises(RunError, match="has no explicit reward") as refused:
        recovered(discrete, "distilled", "demo/cartpole/expert-v0")
    assert "iq-offline distil" in refused.value.remedy


def test_state_reward_ignores_the_action(discrete):
    """A state reward sees no action and a wrong input is refused."""
    distil_reward(discrete, DistilRequest(inputs="s", updates=50), ignore)
    _, frame = recovered(discrete, "distilled", "demo/cartpole/random-v0")
    assert np.ptp(frame["recovered"].to_numpy()) > 0
    with pytest.raises(ConfigError, match="--inputs action"):
        distil_reward(discrete, DistilRequest(inputs="action"), ignore)


def test_without_scale_report_is_canonical(run, tmp_path, monkeypatch):
    """Without a scale the report is of the canonical form and nothing is written down."""
    monkeypatch.setattr("iq_offline.stages.rewarder.normalisation", lambda *_: Normalisation(1.0, 0.5))
    warnings = []
    report = recover_reward(run, RewardRequest((RANDOM,)), ignore, warnings.append)
    assert report["form"] == "canonical"
    assert "no more than uniform ones" in warnings[0]
    with pytest.raises(RunError, match="no scale"):
        relabel_dataset(run, RelabelRequest(RANDOM, tmp_path / "out.hdf5", "d4rl"))
    assert not (tmp_path / "out.hdf5").exists()

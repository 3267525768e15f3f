"""Categories and absolute values from a recorded dataset to a policy, its returns, its reward and its export."""

import json
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete, Text, Tuple
from tests_support import requested

from iq_offline.data.categories import DeclaredSpace
from iq_offline.data.environments import categories_of, described_space
from iq_offline.data.summary import summarise
from iq_offline.errors import InvalidEpisode, RunError
from iq_offline.export.formats import codec, format_of
from iq_offline.stages.eval import EvalRequest, evaluate_run
from iq_offline.stages.export import export_run
from iq_offline.stages.fetch import open_dataset
from iq_offline.stages.reward import RewardRequest, recover_reward
from iq_offline.stages.train import train_run
from iq_offline.tracking.mirror import Tracker
from iq_offline.training.run_folder import RunFolder

PLACES, START = 12, 5


class Scrambled(gymnasium.Env[Any, Any]):
    """Places numbered from START; the right action of a place is drawn once, so no smooth function will do.

    A step is worth 1 if its action was right.
    """

    observation_space = Tuple((Discrete(PLACES, start=START), Dict({"flag": Discrete(2)})))
    action_space = Discrete(3)
    right = np.random.default_rng(3).integers(0, 3, PLACES)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self._steps = 0
        return self._next(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward = float(action == self.right[self.place])
        self._steps += 1
        return self._next(), reward, False, False, {}

    def _next(self) -> Any:
        self.place = int(self.np_random.integers(PLACES))
        return self.place + START, {"flag": np.int64(self._steps % 2)}


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch):
    from iq_offline.stages import train

    monkeypatch.setattr(train, "start_tracking", lambda *_: Tracker())
    gymnasium.register("Scrambled-v0", entry_point=lambda **_: Scrambled(), max_episode_steps=24)
    gymnasium.register("Endless-v0", entry_point=lambda **_: Scrambled())
    yield
    for name in ("Scrambled-v0", "Endless-v0"):
        gymnasium.registry.pop(name)


def write_minari(folder: Path, episodes: list[dict[str, Any]], space: dict[str, Any], env_id: str | None) -> Path:
    """A Minari dataset of those episodes: observations by path, actions, rewards."""
    (folder / "data").mkdir(parents=True)
    with h5py.File(folder / "data" / "main_data.hdf5", "w") as file:
        for number, episode in enumerate(episodes):
            group = file.create_group(f"episode_{number}")
            steps = len(episode["actions"])
            for path, array in episode["observations"].items():
                group[f"observations/{path}".rstrip("/")] = array
            group["actions"], group["rewards"] = episode["actions"], episode["rewards"]
            group["terminations"], group["truncations"] = np.zeros(steps, bool), np.arange(steps) == steps - 1
    spec = {} if env_id is None else {"env_spec": json.dumps({"id": env_id, "kwargs": {}})}
    actions = {"type": "Discrete", "dtype": "int64", "start": 0, "n": 3}
    described = {"observation_space": json.dumps(space), "action_space": json.dumps(actions)}
    metadata = {"total_episodes": len(episodes), "total_steps": 1, "data_format": "hdf5"} | described | spec
    (folder / "data" / "metadata.json").write_text(json.dumps(metadata))
    return folder


def scrambled(folder: Path, env_id: str = "Scrambled-v0", steps: int = 24) -> Path:
    """The right actions at random places."""
    environment, episodes = Scrambled(), []
    for seed in range(12):
        observation, _ = environment.reset(seed=seed)
        places, flags, actions = [observation[0]], [observation[1]["flag"]], []
        for _ in range(steps):
            actions.append(environment.right[environment.place])
            observation, *_ = environment.step(actions[-1])
            places.append(observation[0])
            flags.append(observation[1]["flag"])
        observations = {"_index_0": np.array(places), "_index_1/flag": np.array(flags)}
        episodes.append({"observations": observations, "actions": np.array(actions), "rewards": np.ones(steps)})
    return write_minari(folder, episodes, described_space(Scrambled.observation_space), env_id)


def trained(
    dataset: Path,
    out: Path,
    method: str = "bc",
    updates: int = 300,
    warnings: list[str] | None = None,
    overrides: tuple[str, ...] = (),
) -> RunFolder:
    request = requested(str(dataset), method, updates=updates, device="cpu", out=out, overrides=overrides)
    return train_run(*request, lambda _: None, (warnings if warnings is not None else []).append)


def evaluated(run: RunFolder, warnings: list[str] | None = None, **options: Any) -> dict[str, Any]:
    return evaluate_run(run, EvalRequest(4, **options), lambda *_: None, (warnings or []).append)


def test_categories_are_learnt_and_evaluated(tmp_path: Path):
    """Discrete with a start, inside a Tuple and a Dict: a scrambled map of places is cloned without a mistake."""
    run = trained(scrambled(tmp_path / "places-v0"), tmp_path / "run")
    policy = run.policy()
    assert policy.layout.categories == (PLACES, 2)
    assert policy.layout.offset == (START, 0)
    assert evaluated(run)["return_mean"] == 24


@pytest.mark.parametrize("suffix", [".pt", ".pt2", pytest.param(".onnx", marks=pytest.mark.slow)])
def test_exported_policy_takes_raw_categories(tmp_path: Path, suffix: str):
    """An exported policy takes the numbers that the environment gives, start included."""
    run = trained(scrambled(tmp_path / "places-v0"), tmp_path / "run")
    to = tmp_path / f"policy{suffix}"
    export_run(run, to, None, lambda _: None)
    act = codec(format_of(to, None)).run(to.read_bytes())
    raw = np.stack([np.arange(PLACES) + START, np.zeros(PLACES)], axis=1).astype(np.float64)
    np.testing.assert_array_equal(act(raw), Scrambled.right)


def test_reward_recovery_reads_categories(tmp_path: Path):
    """iq learns from categories, and its reward is recovered from the same table."""
    run = trained(scrambled(tmp_path / "places-v0"), tmp_path / "run", "iq", 20, overrides=("prior.updates=20",))
    report = recover_reward(run, RewardRequest(), lambda _: None, lambda _: None)
    assert report["transition"]["n"] == 12 * 24


def test_other_categories_are_refused(tmp_path: Path):
    """An environment with other categories than the policy's is no environment for it."""
    run = trained(scrambled(tmp_path / "places-v0"), tmp_path / "run", updates=5)
    gymnasium.register("Smaller-v0", entry_point=lambda **_: Smaller())
    try:
        with pytest.raises(RunError, match="7, 2 categories, but the policy was trained on 12, 2"):
            evaluated(run, env_id="Smaller-v0")
    finally:
        gymnasium.registry.pop("Smaller-v0")


class Smaller(Scrambled):
    """Seven places."""

    observation_space = Tuple((Discrete(7), Dict({"flag": Discrete(2)})))


def test_values_outside_declared_space_are_refused(tmp_path: Path):
    """A Discrete(3) observation of 3 is named with its episode."""
    episode = {"observations": {"": np.array([0, 1, 3])}, "actions": np.zeros(2, int), "rewards": np.zeros(2)}
    data = write_minari(tmp_path / "odd-v0", [episode], {"type": "Discrete", "n": 3, "start": 0}, None)
    with pytest.raises(InvalidEpisode, match="episode 0 has the value 3"):
        open_dataset(str(data))


def test_spaces_are_described_as_minari_does():
    """MultiDiscrete with two dimensions and starts, Discrete in nested spaces, texts beside them."""
    nested = Dict({"b": MultiDiscrete([[2, 3], [4, 5]]), "a": Tuple((Text(5), Discrete(4, start=-1), Box(0, 1, (2,))))})
    found = DeclaredSpace.of(described_space(nested), "here").categories()
    assert found["b"].counts == (2, 3, 4, 5)
    assert found["a/_index_1"].starts == (-1,)
    assert categories_of(nested) == (4, 0, 0, 2, 3, 4, 5)


def test_unseen_category_counts_as_nearest_seen(tmp_path: Path):
    """A category that the data never show gives the action of the nearest one that they do, the lower of two."""
    seen = np.array([2, 6, 7] * 20)
    episode = {"observations": {"": np.append(seen, 2)}, "actions": np.tile([0, 1, 2], 20), "rewards": np.ones(60)}
    data = write_minari(tmp_path / "few-v0", [episode], {"type": "Discrete", "n": 10, "start": 0}, None)
    policy = trained(data, tmp_path / "run", updates=200).policy()
    assert policy.act(torch.arange(10.0)[:, None]).tolist() == [0, 0, 0, 0, 0, 1, 1, 2, 2, 2]


def numbers(write_d4rl: Any, observations: np.ndarray, name: str, **more: Any) -> Path:
    """Three episodes with those observations, (300, D); the action is the difference from their mean, clipped."""
    count = len(observations)
    way = (observations - observations.mean(axis=0))[:, :1].astype(np.float64)
    arrays = {
        "observations": observations,
        "actions": np.clip(-way, -1, 1).astype(np.float32),
        "rewards": np.ones(count),
        "terminals": np.zeros(count, bool),
        "timeouts": np.arange(count) % 100 == 99,
    }
    return write_d4rl(arrays | more, name=name)


def test_absolute_values_train_as_centred_ones(tmp_path: Path, write_d4rl: Any):
    """Coordinates of 4.2e6 that vary by 0.3 give the very tensors that the same ones less 4.2e6 give."""
    near = np.random.default_rng(5).normal(size=(300, 2)) * 0.3
    far = near + np.array([500_000.0, 4_200_000.0])
    exact = far - np.array([500_000.0, 4_200_000.0])
    runs = [
        trained(numbers(write_d4rl, values, f"{name}.hdf5", actions=np.clip(-near, -1, 1)), tmp_path / name)
        for name, values in (("far", far), ("near", exact))
    ]
    assert runs[0].manifest["policy_sha256"] == runs[1].manifest["policy_sha256"]
    assert runs[0].policy().layout.offset == (500_000.0, 4_200_000.0)


@pytest.mark.parametrize(
    "values",
    [1.7e9 + 0.05 * np.arange(300)[:, None], 2**40 + np.arange(300)[:, None], 2**62 + np.arange(300)[:, None]],
    ids=["clock", "ids", "large ids"],
)
def test_large_values_keep_their_differences(write_d4rl: Any, values: np.ndarray):
    """300 distinct values stay 300, and none of the dimensions is called constant."""
    table = open_dataset(str(numbers(write_d4rl, values, "large.hdf5")))
    kept = table.observations(table.transition_rows)
    np.testing.assert_allclose(np.diff(kept[:, 0]), np.diff(values[:, 0] - values[0, 0]), rtol=1e-3)
    defects = {defect["kind"] for defect in summarise(table)["defects"]}
    assert not defects & {"constant_observation", "lost_values"}


def test_lost_distinct_values_are_counted(tmp_path: Path, write_d4rl: Any):
    """Where no offset helps, for there are zeros among the times, `inspect` and `train` tell what is lost."""
    values = 1.7e9 + 0.05 * np.arange(300)[:, None]
    values[::100] = 0
    data = numbers(write_d4rl, values, "reset.hdf5")
    found = {defect["kind"]: defect for defect in summarise(open_dataset(str(data)))["defects"]}
    assert found["lost_values"]["count"] == 298 - 2
    warnings: list[str] = []
    trained(data, tmp_path / "run", updates=5, warnings=warnings)
    assert any("distinct values lost in 32 bits (observations[0] 298 to 2)" in line for line in warnings)


def test_ordinary_64_bit_values_are_only_narrowed(write_d4rl: Any):
    """Values that fit well in 32 bits are their 32-bit neighbours, bit for bit."""
    values = np.random.default_rng(0).normal(size=(300, 3)) * [1, 100, 1e-3] + [0, 250, 1.2]
    table = open_dataset(str(numbers(write_d4rl, values, "ordinary.hdf5")))
    assert table.offset == ()
    np.testing.assert_array_equal(table.observations(table.transition_rows), values.astype(np.float32))


def test_undeclared_integers_are_noted(tmp_path: Path, write_d4rl: Any):
    """A column of whole numbers from 0 to 99 that no space declares: training warns."""
    warnings: list[str] = []
    data = numbers(write_d4rl, (np.arange(300) % 100)[:, None], "whole.hdf5")
    trained(data, tmp_path / "run", updates=5, warnings=warnings)
    assert any("whole numbers from 0 to 99 that no space declares" in line for line in warnings)


def test_endless_episode_names_a_step_limit(tmp_path: Path):
    """Evaluation in an environment without a time limit ends with an option that the command accepts."""
    run = trained(scrambled(tmp_path / "endless-v0", "Endless-v0", steps=30), tmp_path / "run", updates=5)
    with pytest.raises(RunError) as raised:
        evaluated(run)
    assert """--env-kwargs '{"max_episode_steps": 30}'""" in raised.value.remedy
    assert evaluated(run, env_kwargs={"max_episode_steps": 30})["length_mean"] == 30


def test_foreign_watchers_are_left_out(tmp_path: Path):
    """A wrapper of another package that by its name only watches is not loaded, and a warning names it."""
    run, warnings = trained(scrambled(tmp_path / "places-v0"), tmp_path / "run", updates=5), []
    wrapper = {"name": "Monitor", "entry_point": "nowhere.at_all:Monitor", "kwargs": None}
    evaluate_run(run, EvalRequest(1, env_kwargs={"additional_wrappers": [wrapper]}), lambda *_: None, warnings.append)
    assert any("Monitor (nowhere.at_all:Monitor)" in line for line in warnings)


def test_duplicate_pictures_are_compared_whole(tmp_path: Path):
    """Steps with equal actions and rewards but other pictures are no duplicates; shape and range are told."""
    pictures = np.random.default_rng(0).integers(1, 200, (11, 8, 8, 3)).astype(np.uint8)
    pictures[6] = pictures[5]
    episode = {"observations": {"": pictures}, "actions": np.zeros(10, int), "rewards": np.zeros(10)}
    space = {"type": "Box", "dtype": "uint8", "shape": [8, 8, 3], "low": 0, "high": 255}
    found = summarise(open_dataset(str(write_minari(tmp_path / "pictures-v0", [episode], space, None))))
    assert found["duplicates"]["transitions"] == 1
    assert found["observation_shape"] == [8, 8, 3]
    assert found["observation_range"] == [float(pictures.min()), float(pictures.max())]

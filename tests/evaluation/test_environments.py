"""The environment that a dataset describes is the one that it was recorded in, or it is said why not."""

import json
import sys
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.wrappers import NormalizeObservation, RecordEpisodeStatistics, RescaleAction

from iq_offline.data.environments import (
    environment_action_space,
    environment_of_spec,
    environment_spec_json,
    make_environment,
    make_raw_environment,
    step_limit,
)
from iq_offline.data.episodes import DatasetInfo
from iq_offline.data.formats import d4rl, minari
from iq_offline.errors import DatasetUnreadable, EnvironmentMissing

LOOP = {"name": "Loop", "entry_point": "my.package:Loop", "kwargs": {}}


def described(environment: gymnasium.Env[Any, Any]) -> tuple[str | None, dict[str, Any]]:
    """As Minari keeps it, and as it is read."""
    assert environment.spec is not None
    return environment_of_spec(json.loads(environment.spec.to_json()))


def minari_info(folder: Path, source: Path, **metadata: Any) -> DatasetInfo:
    """Of a Minari dataset with these entries in its metadata."""
    minari.write(d4rl.read(source, "x"), folder / "x-v0")
    path = folder / "x-v0" / "data" / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | metadata))
    return minari.read(folder / "x-v0", "x").info


def test_registered_limit_is_no_argument():
    """The registered limit is no argument and another is."""
    assert described(gymnasium.make("Pendulum-v1")) == ("Pendulum-v1", {})
    env_id, env_kwargs = described(gymnasium.make("Pendulum-v1", max_episode_steps=50))
    assert (env_id, env_kwargs) == ("Pendulum-v1", {"max_episode_steps": 50})
    assert make_raw_environment("Pendulum-v1", env_kwargs).step_limit == step_limit("Pendulum-v1", env_kwargs) == 50


@pytest.mark.filterwarnings("ignore:.*precision lowered:UserWarning")
def test_recorded_wrappers_are_applied():
    """The wrappers that data were recorded through are applied."""
    recorded = RecordEpisodeStatistics(RescaleAction(gymnasium.make("Pendulum-v1", max_episode_steps=50), -1.0, 1.0))
    env_id, env_kwargs = described(recorded)
    again = make_raw_environment(str(env_id), env_kwargs)
    recorded.reset(seed=3), again.reset(seed=3)
    for step in range(1, 51):
        (_, left, *_), (_, right, _, truncated, _) = recorded.step(np.ones(1)), again.step(np.ones(1))
        assert (left, step == 50) == (right, truncated)
    space = environment_action_space(str(env_id), env_kwargs)
    assert space is not None
    assert space.to_json()["high"] == [1.0]


def test_a_wrapper_that_cannot_be_applied_is_named():
    env_id, env_kwargs = described(NormalizeObservation(gymnasium.make("Pendulum-v1", g=9.0)))
    with pytest.raises(EnvironmentMissing, match=r"the wrapper NormalizeObservation(.|\n)*--env-kwargs '{\"g\": 9.0}'"):
        make_environment(str(env_id), env_kwargs)
    with pytest.raises(EnvironmentMissing, match=r"through the wrapper Loop \(my\.package:Loop\)"):
        make_environment("Pendulum-v1", {"additional_wrappers": [LOOP]})
    with pytest.raises(EnvironmentMissing, match="is not as Gymnasium writes it"):
        make_environment("Pendulum-v1", {"additional_wrappers": [3]})
    assert environment_action_space("Pendulum-v1", {"additional_wrappers": [LOOP]}) is None


@pytest.mark.filterwarnings("ignore:.*precision lowered:UserWarning")
def test_limit_and_wrappers_are_written_for_gymnasium():
    """Limit and wrappers are written where gymnasium looks for them."""
    recorded = RescaleAction(gymnasium.make("Pendulum-v1", max_episode_steps=50, g=9.0), -1.0, 1.0)
    env_id, env_kwargs = described(recorded)
    spec = EnvSpec.from_json(environment_spec_json(str(env_id), env_kwargs) or "")
    again = gymnasium.make(spec)
    assert (spec.max_episode_steps, spec.kwargs, again.action_space.high.tolist()) == (50, {"g": 9.0}, [1.0])  # type: ignore[attr-defined]
    assert environment_of_spec(json.loads(spec.to_json())) == (env_id, env_kwargs)


def test_limit_survives_conversion(numbered, write_d4rl, tmp_path: Path):
    """The limit survives a conversion and arguments of null are none."""
    arrays = numbered([3], terminated=[True])
    source = write_d4rl(arrays, env_id="CartPole-v1", env_kwargs={"max_episode_steps": 8})
    assert minari_info(tmp_path / "a", source).env_kwargs == {"max_episode_steps": 8}
    null = json.dumps({"id": "CartPole-v1", "kwargs": None, "max_episode_steps": 500})
    assert minari_info(tmp_path / "b", source, env_spec=null).env_kwargs == {}
    other = json.dumps({"id": "CartPole-v1", "kwargs": {"sutton_barto_reward": True}})
    assert minari_info(tmp_path / "c", source, eval_env_spec=other).env_kwargs == {"sutton_barto_reward": True}
    with pytest.raises(DatasetUnreadable, match="not as Minari writes it"):
        minari_info(tmp_path / "d", source, env_spec=json.dumps({"id": 3}))


def test_equal_reference_scores_are_none(numbered, write_d4rl, tmp_path: Path):
    source = write_d4rl(numbered([3], terminated=[True]))
    assert minari_info(tmp_path, source, ref_min_score=5.0, ref_max_score=5.0).reference is None


def test_plug_in_registers_before_lookup(tmp_path: Path, monkeypatch):
    """A plug in registers its environments before they are looked up."""
    (tmp_path / "minigrid.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('MiniGrid-Test-v0', 'gymnasium.envs.classic_control:CartPoleEnv', max_episode_steps=7)\n"
    )
    monkeypatch.setitem(sys.modules, "minigrid", None)  # absent
    with pytest.raises(EnvironmentMissing, match=r"MiniGrid-Test(.|\n)*\(pip install minigrid\)"):
        make_environment("MiniGrid-Test-v0", {})
    assert step_limit("MiniGrid-Test-v0", {}) is None
    monkeypatch.delitem(sys.modules, "minigrid")
    monkeypatch.syspath_prepend(tmp_path)
    assert step_limit("MiniGrid-Test-v0", {}) == 7
    assert make_raw_environment("MiniGrid-Test-v0", {}).step_limit == 7
    spec = json.loads(environment_spec_json("MiniGrid-Test-v0", {}) or "")
    assert environment_of_spec(spec)[1] == {"max_episode_steps": 7}  # the same whether it is imported or not
    del gymnasium.registry["MiniGrid-Test-v0"], sys.modules["minigrid"]


def test_no_data_file_has_a_module_imported(numbered, write_d4rl):
    sys.modules.pop("this", None)
    info = d4rl.read(write_d4rl(numbered([3], terminated=[True]), env_id="this:X-v0"), "x").info
    assert info.env_id == "X-v0"
    assert environment_action_space(info.env_id, {}) is None
    assert "this" not in sys.modules


@pytest.mark.parametrize(
    ("env_id", "env_kwargs", "told"),
    [
        ("Hopper-v5", {"xml_file": "/nowhere/hopper.xml"}, r"'/nowhere/hopper\.xml'}: OSError"),
        ("Hopper-v5", {"frame_skip": "x"}, "{'frame_skip': 'x'}: TypeError"),
        ("CartPole-v1", {"nosuch": 1}, "{'nosuch': 1}: TypeError"),
        ("FrozenLake-v1", {"map_name": "9x9"}, "{'map_name': '9x9'}: KeyError"),
        ("CartPole-v1", {"id": "x"}, "{'id': 'x'}: TypeError"),
    ],
)
def test_refused_arguments_are_named(env_id: str, env_kwargs: dict[str, Any], told: str):
    """Arguments that an environment does not like are named."""
    assert environment_action_space(env_id, env_kwargs) is None
    with pytest.raises(EnvironmentMissing, match=told):
        make_environment(env_id, env_kwargs)


def test_no_window_is_opened_because_data_say_so():
    assert make_environment("CartPole-v1", {"render_mode": "human"}).render_mode is None
    assert make_environment("CartPole-v1", {"render_mode": "nosuch"}, {"render_mode": "rgb_array"}).render_mode


@pytest.mark.parametrize("limit", [0, -1, 2.5, "9", True])
def test_a_limit_that_is_no_count_is_refused(limit: object):
    for ask in (step_limit, make_environment, environment_spec_json):
        with pytest.raises(EnvironmentMissing, match=r"max_episode_steps is .*, not a number of steps"):
            ask("CartPole-v1", {"max_episode_steps": limit})


def test_a_limit_of_null_is_none_told():
    assert step_limit("CartPole-v1", {"max_episode_steps": None}) == 500
    assert make_raw_environment("CartPole-v1", {"max_episode_steps": None}).step_limit == 500


def test_id_not_utf8_is_refused(numbered, write_d4rl):
    """An id that is not utf 8 is refused."""
    path = write_d4rl(numbered([3], terminated=[True]))
    for kind in (None, h5py.string_dtype()):
        with h5py.File(path, "r+") as file:
            file.attrs.create("env_id", np.bytes_(b"\xff\xfe"), dtype=kind)
        with pytest.raises(DatasetUnreadable, match="not UTF-8"):
            d4rl.read(path, "x")

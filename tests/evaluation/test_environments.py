"""The environment that a dataset describes is the one that it was recorded in, or it is said why not."""

import importlib
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium
import h5py
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.wrappers import NormalizeObservation, RecordEpisodeStatistics, RescaleAction

from iq_offline.data.environments import (
    APPLIED_OF_MINIGRID,
    FITTING_VERSIONS,
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
    with pytest.raises(EnvironmentMissing, match=r"MiniGrid-Test-v0 needs the package minigrid\n.*iq-offline\[env"):
        make_environment("MiniGrid-Test-v0", {})
    assert step_limit("MiniGrid-Test-v0", {}) is None
    monkeypatch.delitem(sys.modules, "minigrid")
    monkeypatch.syspath_prepend(tmp_path)
    assert step_limit("MiniGrid-Test-v0", {}) == 7
    assert make_raw_environment("MiniGrid-Test-v0", {}).step_limit == 7
    spec = json.loads(environment_spec_json("MiniGrid-Test-v0", {}) or "")
    assert environment_of_spec(spec)[1] == {"max_episode_steps": 7}  # the same whether it is imported or not
    del gymnasium.registry["MiniGrid-Test-v0"], sys.modules["minigrid"]


def test_broken_plug_in_is_no_absent_one(tmp_path: Path, monkeypatch):
    """A plug-in that cannot be imported is reported with its own error, never as one to be installed."""
    (tmp_path / "minigrid.py").write_text("from gymnasium import there_is_no_such_name\n")
    monkeypatch.delitem(sys.modules, "minigrid", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    assert step_limit("MiniGrid-Test-v0", {}) is None
    with pytest.raises(EnvironmentMissing, match=r"cannot be imported: ImportError: .*there_is_no_such_name") as caught:
        make_environment("MiniGrid-Test-v0", {})
    assert caught.value.remedy == FITTING_VERSIONS
    (tmp_path / "minigrid.py").write_text("import there_is_no_such_module\n")
    importlib.invalidate_caches()
    with pytest.raises(EnvironmentMissing, match="minigrid, which is installed and cannot be imported: ModuleNotFound"):
        make_environment("MiniGrid-Test-v0", {"additional_wrappers": []})


def test_plug_in_that_registers_nothing_is_told(monkeypatch):
    """ale_py catches the error of a Gymnasium that it does not fit, and registers nothing: the versions are named."""
    for name in [name for name in gymnasium.registry if name.startswith("ALE/") or "NoFrameskip" in name]:
        monkeypatch.delitem(gymnasium.registry, name)
    monkeypatch.setattr("iq_offline.data.environments.PLUG_INS", {"ale_py": re.compile("ALE/")})
    monkeypatch.setitem(sys.modules, "ale_py", ModuleType("ale_py"))
    with pytest.raises(
        EnvironmentMissing, match=r"registers nothing .*\(gymnasium \d.*\n.*versions that work together"
    ):
        make_environment("ALE/Pong-v5", {})


def test_environment_broken_without_arguments_blames_versions(monkeypatch):
    """Arguments are blamed only where the environment can be made without them."""

    def constructor(**_: Any) -> gymnasium.Env[Any, Any]:
        raise AssertionError

    for env_id in ("FrankaKitchen-v99", "Broken-v0"):
        spec = EnvSpec(env_id, constructor)
        monkeypatch.setitem(gymnasium.registry, env_id, spec)
    monkeypatch.setitem(sys.modules, "gymnasium_robotics", ModuleType("gymnasium_robotics"))
    with pytest.raises(EnvironmentMissing, match=r"broken in the versions .*AssertionError") as caught:
        make_environment("FrankaKitchen-v99", {"tasks_to_complete": ["kettle"]})
    assert caught.value.remedy == FITTING_VERSIONS
    with pytest.raises(EnvironmentMissing, match=r"--env-id"):
        make_environment("Broken-v0", {})


def arranged(**kwargs: Any) -> dict[str, Any]:
    """Environment arguments that arrange the observation so."""
    entry_point = "iq_offline.data.environments:arranged_observation"
    return {"additional_wrappers": [{"name": "arranged", "entry_point": entry_point, "kwargs": kwargs}]}


def test_observation_is_arranged():
    """The columns are chosen, the first of them shifted, and constants appended; bad arguments are named."""
    plain, _ = make_environment("CartPole-v1", {}).reset(seed=5)
    kwargs = arranged(columns=[3, 0], offset=[10.0], appended=[7.0])
    values, _ = make_environment("CartPole-v1", kwargs).reset(seed=5)
    np.testing.assert_allclose(values, [plain[3] + 10, plain[0], 7])
    assert make_raw_environment("CartPole-v1", kwargs).observation_size == 3
    spec = EnvSpec.from_json(environment_spec_json("CartPole-v1", kwargs) or "")
    np.testing.assert_array_equal(gymnasium.make(spec).reset(seed=5)[0], values)
    for wrong, error in (
        ({"rows": [1]}, "TypeError"),
        ({"columns": [4]}, "IndexError"),
        ({"offset": [0] * 5}, "ValueE"),
    ):
        with pytest.raises(EnvironmentMissing, match=rf"cannot be made with the arguments .*{error}"):
            make_environment("CartPole-v1", arranged(**wrong))


MINIGRID = {"name": "FullyObsWrapper", "entry_point": "minigrid.wrappers:FullyObsWrapper", "kwargs": {}}


def test_wrappers_of_minigrid_are_applied():
    """Those that only transform observations are applied, those that change the task are refused."""
    pytest.importorskip("minigrid", reason="needs minigrid")
    env_id = "MiniGrid-Empty-Random-6x6-v0"
    whole = make_environment(env_id, {"additional_wrappers": [MINIGRID]})
    assert whole.observation_space["image"].shape == (6, 6, 3)  # type: ignore[index]
    for name in APPLIED_OF_MINIGRID:
        kwargs: dict[str, Any] = {"agent_view_size": 5} if name == "ViewSizeWrapper" else {}
        wrapper = MINIGRID | {"name": name, "entry_point": f"minigrid.wrappers:{name}", "kwargs": kwargs}
        make_environment(env_id, {"additional_wrappers": [wrapper]}).reset(seed=0)
    for name, entry_point in (("ReseedWrapper", "minigrid.wrappers:ReseedWrapper"), ("FullyObsWrapper", "os:system")):
        wrapper = MINIGRID | {"name": name, "entry_point": entry_point}
        with pytest.raises(EnvironmentMissing, match="which cannot be applied here"):
            make_environment(env_id, {"additional_wrappers": [wrapper]})


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

"""The worlds' experts reach their goals, and what Minari's DataCollector records of them trains and evaluates."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.record import worlds
from iq_offline.data.catalogue import Located
from iq_offline.data.environments import UNCHECKED, make_environment
from iq_offline.data.table import open_table
from iq_offline.stages.run import RunRequest, run_pipeline


@pytest.mark.parametrize(
    ("name", "package", "least"),
    [("point-maze", "gymnasium_robotics", 1.0), ("minigrid", "minigrid", 0.95), ("kitchen", "gymnasium_robotics", 1.0)],
)
def test_scripted_expert_reaches_the_goal(name: str, package: str, least: float):
    """A scripted expert solves its task from every start that is tried."""
    pytest.importorskip(package, reason=f"needs {package}")
    world = worlds.WORLDS[name]
    environment = make_environment(world.env_id, world.env_kwargs, UNCHECKED)
    for seed in range(1 if name == "kitchen" else 5):
        observation, _ = environment.reset(seed=seed)
        act, total, ended = world.expert(environment), 0.0, False
        while not ended:
            action = act(observation)
            if environment.action_space.shape:
                action = np.clip(action, -1, 1).astype(environment.action_space.dtype)
            observation, reward, terminated, truncated, _ = environment.step(action)
            total, ended = total + float(reward), terminated or truncated
        assert total >= least
    environment.close()


def test_search_finds_what_earns_more():
    """The searched policy earns more than the one that it starts from, which does nothing."""
    environment = make_environment("Pendulum-v1", {})

    def earned(policy) -> float:
        total = 0.0
        for seed in range(5):
            observation, _ = environment.reset(seed=seed)
            for _ in range(100):
                observation, reward, *_ = environment.step(policy(observation))
                total += float(reward)
        return total

    assert earned(worlds.searched(environment, 8, 100, None)) > earned(worlds.searched(environment, 0, 100, None)) + 50


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a few episodes of MiniGrid's shortest ways, as Minari's DataCollector records them."""
    pytest.importorskip("minigrid", reason="needs minigrid")
    pytest.importorskip("jax", reason="Minari's DataCollector needs jax: pip install 'minari[create]'")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    returns = worlds.record("minigrid", tmp_path / "data", 12, 0)
    assert len(returns) == 12
    return tmp_path / "data"


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_recording_names_its_environment_and_wrapper(recorded: Path):
    """The recorded environment is what evaluation simulates: the whole grid is observed."""
    info = open_table(Located("x", recorded / "minigrid" / "expert-v0")).info
    assert info.env_id == "MiniGrid-Empty-Random-6x6-v0"
    assert [wrapper["name"] for wrapper in info.env_kwargs["additional_wrappers"]] == ["FullyObsWrapper"]
    assert info.notes == ("left out, being texts: observations/mission",)  # which says the same in all episodes


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_world_goes_through_the_whole_line(recorded: Path, tmp_path: Path):
    """From a recorded world to the report: fetched, trained, evaluated, its reward recovered."""
    table = tmp_path / "one-world.yaml"
    table.write_text(
        "name: one-world\nmethods: {bc: {updates: 300}}\nepisodes: 5\n"
        'datasets: {minigrid: "{data}/minigrid/expert-v0"}\n'
    )
    out = tmp_path / "out"
    run_pipeline(RunRequest(str(table), data=recorded, out=out, cores=1), lambda _: None)
    (evaluation,) = (out / "done").glob("*.eval.json")
    assert json.loads(evaluation.read_text())["runs"][0]["return_mean"] > 0
    assert (out / "report" / "report.html").is_file()

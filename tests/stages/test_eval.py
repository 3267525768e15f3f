"""eval: one run filmed, several evaluated, and the same numbers whatever is asked beside them."""

import json
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from iq_offline.cli import app
from iq_offline.errors import ConfigError, PackageMissing
from iq_offline.evaluation.simulation import SimulatedEpisode, simulate
from iq_offline.stages import eval as stage
from iq_offline.stages.eval import EvalRequest, evaluate_run
from iq_offline.training.run_folder import RunFolder

TASK = "demo/cartpole/expert-v0"


@pytest.fixture
def runs(tmp_path) -> Path:
    """Two clones of two demonstrations, hardly trained."""
    arguments = ["train", "--device", "cpu", "--dataset", TASK, "--method", "bc", "--demos", "2", "--updates", "5"]
    for seed in ("0", "1"):
        out = str(tmp_path / "runs" / f"seed-{seed}")
        result = CliRunner().invoke(app, [*arguments, "--seed", seed, "--out", out])
        assert result.exit_code == 0, result.output + str(result.exception)
    return tmp_path / "runs"


def filmed_as(episode: SimulatedEpisode | None = None):
    """A camera that writes the steps told to it, and shows `episode` or the first one."""

    def film(env_id, env_kwargs, policy, destination, on_steps, bound):
        on_steps(1234)
        destination.write_bytes(b"film")
        return episode or next(simulate(env_id, env_kwargs, policy, 1, bound=bound))

    return film


def evaluate(run: Path, request: EvalRequest):
    progress, warnings = [], []
    result = evaluate_run(RunFolder.open(run), request, lambda *told: progress.append(told), warnings.append)
    return result, progress, warnings


def test_film_changes_no_number(runs, tmp_path, monkeypatch):
    """A film is named in the answer and changes no number."""
    monkeypatch.setattr(stage, "film", filmed_as())
    plain, progress, _ = evaluate(runs / "seed-0", EvalRequest(episodes=12))
    assert progress[-1] == (12, "")
    result, progress, warnings = evaluate(runs / "seed-0", EvalRequest(episodes=12, video=tmp_path / "film.mp4"))
    assert result == plain | {"video": str(tmp_path / "film.mp4")}
    assert progress[0] == (0, "filming, 1,234 steps")
    assert not [warning for warning in warnings if "filmed" in warning]
    assert json.loads((runs / "seed-0" / "evaluation.json").read_text())["video"] == result["video"]


def test_different_filmed_episode_is_warned_of(runs, tmp_path, monkeypatch):
    """A filmed episode that is another is warned of."""
    monkeypatch.setattr(stage, "film", filmed_as(SimulatedEpisode(0, 1_000_000, 1, 1.0)))
    _, _, warnings = evaluate(runs / "seed-0", EvalRequest(episodes=1, video=tmp_path / "film.mp4"))
    assert any("the filmed episode is not the evaluated one" in warning for warning in warnings)


def test_more_episodes_keep_first_returns(runs):
    """More episodes keep the returns of the first ones."""
    returns = []
    for episodes in (5, 45):
        evaluate(runs / "seed-0", EvalRequest(episodes=episodes))
        returns.append(pl.read_parquet(runs / "seed-0" / "returns.parquet"))
    assert returns[1]["episode"].to_list() == list(range(45))
    assert returns[1].head(5).equals(returns[0])


def test_a_film_of_several_runs_is_refused(runs, tmp_path):
    result = CliRunner().invoke(app, ["eval", str(runs), "--video", str(tmp_path / "film.mp4")])
    assert isinstance(result.exception, ConfigError)
    assert "films one run, and these are 2" in str(result.exception)


def test_where_nothing_can_film_nothing_is_evaluated(runs, tmp_path, monkeypatch):
    def film(*_):
        raise PackageMissing("a video needs moviepy", "pip install moviepy")

    monkeypatch.setattr(stage, "film", film)
    result = CliRunner().invoke(app, ["eval", str(runs / "seed-0"), "--video", str(tmp_path / "film.mp4")])
    assert isinstance(result.exception, PackageMissing)
    assert not (runs / "seed-0" / "evaluation.json").exists()

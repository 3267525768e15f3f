"""gridworld: the paper's figure 4 by the command line, its bars, its picture, and its mistakes."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from typer.testing import CliRunner, Result

from iq_offline import console
from iq_offline.cli import app
from iq_offline.errors import ConfigError
from iq_offline.stages.gridworld import GridworldRequest, run_gridworld
from iq_offline.tabular.gridworld import PAPER_VALUES


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["gridworld", *map(str, arguments)])


@pytest.mark.parametrize("seed", range(3))
def test_the_bars_are_met_at_the_default_length(seed: int):
    found = run_gridworld(GridworldRequest(seed=seed))
    assert found["setting"]["steps"] == 4000
    assert found["reward"]["up_to_shaping"] >= 0.95
    assert found["value"] >= 0.95
    assert found["occupancy"] <= 0.02
    assert all(bar["met"] for bar in found["bars"].values())


def test_missed_bar_is_reported():
    """A bar that is missed is said to be."""
    found = run_gridworld(GridworldRequest(steps=100))
    assert found["occupancy"] > 0.02
    assert not found["bars"]["occupancy"]["met"]
    printed = call("--steps", 100)
    assert [line.split()[-1] for line in printed.stdout.splitlines()[-3:]] == ["NO", "yes", "NO"]


def test_json_has_documented_keys_and_repeats():
    """The json is one object with the keys of the docs and the same twice."""
    first, second = call("--json", "--steps", 50), call("--json", "--steps", 50)
    assert first.exit_code == 0
    assert first.stdout == second.stdout
    found = json.loads(first.stdout)
    assert set(found) == {
        *{"grid", "seed", "setting", "reward", "value", "occupancy"},
        *{"null_visits", "null_cloning", "bars", "panels"},
    }
    assert set(found["reward"]) == set(found["null_visits"]["reward"]) == {"raw", "up_to_shaping", "partial"}
    assert list(found["panels"]) == ["true_reward", "recovered_reward", "true_value", "recovered_value"]
    np.testing.assert_array_equal(np.round(found["panels"]["true_value"], 1), PAPER_VALUES)
    shown = found["panels"]["true_reward"], found["panels"]["recovered_reward"]
    assert np.corrcoef(np.ravel(shown[0]), np.ravel(shown[1]))[0, 1] == pytest.approx(found["reward"]["raw"])


def test_people_see_the_grids_side_by_side():
    lines = call().stdout.splitlines()
    assert lines[0].split("  ")[0] == "true reward"
    assert lines[0].endswith("recovered reward")
    assert [float(cell) for cell in lines[1].split()[:5]] == [0, 0, 0, 0, 1]
    assert [float(cell) for cell in lines[8].split()[:5]] == list(PAPER_VALUES[0])
    assert "-0.0" not in "\n".join(lines)


def test_on_a_terminal_the_cells_are_shaded(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    console.show_grids({"true_value": [[0.0, 1.0]], "flat": [[2.0, 2.0]]})
    told = capsys.readouterr().out
    assert "true value" in told
    assert "2.0" in told


@pytest.mark.slow
def test_the_windy_grid_tells_the_regularisers_apart():
    found = json.loads(call("--windy", "--json").stdout)
    windy = {name: returns["windy"] for name, returns in found["returns"].items()}
    assert windy["iq, expert only"] == pytest.approx(windy["behavioural cloning"], rel=0.01)
    for mended in (" and value", ", suppression", ", conservative gap"):
        assert windy[f"iq, mixture penalty{mended}"] > 0.8 * windy["expert"]
    printed = call("--windy", "--steps", 20).stdout.splitlines()
    assert printed[0].split()[-2:] == ["calm", "windy"]
    assert len(printed) == 1 + len(windy)


def test_short_windy_demonstrations_are_refused():
    """Windy demonstrations too short for an optimum are refused with the remedy."""
    refused = call("--windy", "--steps", 1)
    assert isinstance(refused.exception, ConfigError)
    assert "1 steps, seed 0, determine no optimum: gradient" in refused.exception.problem
    assert refused.exception.remedy == "give more --steps (by default 100)"


def test_the_picture_is_one_and_has_four_panels(tmp_path: Path):
    assert call("--steps", 50, "--plot", tmp_path / "grid.png").exit_code == 0
    pixels = imread(tmp_path / "grid.png")
    assert min(pixels.shape[:2]) > 800
    assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 20
    assert call("--steps", 50, "--plot", tmp_path / "grid.svg").exit_code == 0
    assert (tmp_path / "grid.svg").read_text().count('id="axes_') == 4
    assert call("--steps", 50, "--plot", tmp_path / "grid.pdf").exit_code == 0
    assert (tmp_path / "grid.pdf").read_bytes().startswith(b"%PDF")
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["grid.pdf", "grid.png", "grid.svg"]


MISTAKES = {
    "a name that is no picture's": (("--plot", "grid.gif"), "is no picture's name"),
    "a folder that is not there": (("--plot", "nowhere/grid.png"), "is no folder"),
    "a picture of the windy grid": (("--windy", "--plot", "grid.png"), "no picture"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_before_anything_is_computed(mistake: str, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("iq_offline.stages.gridworld.paper_experiment", None)
    arguments, message = MISTAKES[mistake]
    result = call(*arguments)
    assert isinstance(result.exception, ConfigError), result.output
    assert message in result.exception.problem
    assert not [path for path in tmp_path.iterdir() if path.is_file()]


@pytest.mark.parametrize("steps", [-3, 0])
def test_demonstrations_without_a_step_are_refused(steps: int):
    assert call("--steps", steps).exit_code == 2
    with pytest.raises(ConfigError, match="at least 1"):
        GridworldRequest(steps=steps)

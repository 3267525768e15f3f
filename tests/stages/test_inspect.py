"""inspect: what a dataset holds, counted the slow way too."""

import json
from pathlib import Path

import numpy as np
import pytest

from iq_offline.data.catalogue import Located
from iq_offline.data.summary import per_episode, summarise
from iq_offline.data.table import open_table
from iq_offline.errors import ConfigError
from iq_offline.stages.inspect import inspect_dataset


@pytest.fixture
def recording(numbered, write_d4rl) -> Path:
    """Four episodes, the third of which repeats the first; some actions at their bounds."""
    arrays = numbered([3, 4, 3, 5], terminated=[True, False, True, False])
    for key in ("observations", "next_observations", "actions", "rewards"):
        arrays[key][7:10] = arrays[key][:3]
    arrays["actions"][3:5, 0] = 1.0
    arrays["actions"][5, 1] = -1.0
    arrays["actions"][6, 0] = 0.999
    arrays["observations"][:, 2] = arrays["next_observations"][:, 2] = 4.0
    return write_d4rl(arrays | {"metadata/algorithm": np.zeros(2)}, env_id="")


def test_saturation_ranges_and_duplicates_match_plain_loops(recording: Path):
    """Saturation ranges and duplicates are those of the slow way."""
    table = open_table(Located("x", recording))
    summary = summarise(table)
    actions = table.actions(table.transition_rows)
    low, high = np.array(table.action_space.low), np.array(table.action_space.high)
    for column, told in enumerate(summary["actions"]):
        assert told["min"] == actions[:, column].min()
        assert told["max"] == actions[:, column].max()
        assert told["mean"] == pytest.approx(actions[:, column].mean(), abs=1e-6)
        assert told["std"] == pytest.approx(actions[:, column].std(), abs=1e-6)
        assert told["at_high"] == np.mean(actions[:, column] >= high[column] - 1e-6 * (high - low)[column])
        assert told["at_low"] == np.mean(actions[:, column] <= low[column] + 1e-6 * (high - low)[column])
    assert summary["duplicates"] == {"transitions": 3, "episodes": 1}
    assert summary["observation_layout"] == {"observations": ["float32", 3]}
    kinds = {defect["kind"]: defect["count"] for defect in summary["defects"]}
    assert kinds == {"constant_observation": 1, "duplicate_episode": 1}
    left_out, whole_numbers = summary["notes"]
    assert left_out == "left out, being no step's data: metadata"
    assert "whole numbers from 0 to 305 that no space declares" in whole_numbers
    json.dumps(summary, allow_nan=False)


def test_bounds_from_the_data_saturate_nothing(numbered, write_d4rl, tmp_path: Path):
    """Bounds that are the data's own range saturate nothing."""
    arrays = numbered([3], terminated=[True])
    arrays["actions"] = arrays["actions"] * 1000
    table = open_table(Located("x", write_d4rl(arrays)))
    assert [action["at_high"] for action in summarise(table)["actions"]] == [None, None]
    assert "saturated_share" not in per_episode(table).columns
    inspect_dataset(str(write_d4rl(arrays)), tmp_path / "plot.png")


def test_every_episode_is_listed(recording: Path):
    listed = per_episode(open_table(Located("x", recording))).to_dicts()
    assert [row["steps"] for row in listed] == [3, 4, 3, 5]
    assert [row["return"] for row in listed] == [3.0, 8.0, 3.0, 20.0]
    shares = [row["saturated_share"] for row in listed]
    assert shares == [pytest.approx(share) for share in (0.0, 3 / 4, 0.0, 0.0)]


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_a_picture_is_written_whole(suffix: str, recording: Path, tmp_path: Path):
    inspect_dataset(str(recording), tmp_path / f"plot{suffix}")
    starts = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}
    assert (tmp_path / f"plot{suffix}").read_bytes().startswith(starts[suffix])


def test_a_picture_of_discrete_actions(numbered, write_d4rl, tmp_path: Path):
    arrays = numbered([4], terminated=[True]) | {"actions": np.array([0, 2, 2, 1])}
    summary = inspect_dataset(str(write_d4rl(arrays)), tmp_path / "plot.png", episodes=True)
    assert summary["actions"] is None
    assert len(summary["per_episode"]) == 1
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_a_bad_picture_name_fails_before_reading(tmp_path: Path):
    """A name that is no picture is refused before the data are read."""
    with pytest.raises(ConfigError, match="is no picture's name"):
        inspect_dataset("nowhere", tmp_path / "plot.txt")

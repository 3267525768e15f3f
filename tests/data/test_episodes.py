"""An episode's invariants."""

import numpy as np
import pytest

from iq_offline.data.episodes import Episode
from iq_offline.errors import InvalidEpisode


def episode(**changes: object) -> Episode:
    values: dict[str, object] = {
        "index": 7,
        "observations": np.zeros((4, 2)),
        "actions": np.zeros((3, 1)),
        "rewards": np.array([1.0, 2.0, 3.0]),
        "terminated": False,
        "truncated": True,
        "source": "file.hdf5",
    }
    return Episode(**(values | changes))  # type: ignore[arg-type]


def test_an_episode_of_three_steps_has_four_observations_and_sums_its_rewards():
    assert len(episode()) == 3
    assert episode().episode_return == 6.0


def test_an_episode_may_be_terminated_and_truncated_at_once():
    assert episode(terminated=True).terminated


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"observations": np.zeros((3, 2))}, r"observations of shape \(3, 2\) for 3 actions, not 4"),
        ({"rewards": np.zeros(2)}, r"rewards of shape \(2,\) for 3 actions"),
        ({"observations": np.array([[0, 0], [0, 0], [0, np.nan], [0, 0]])}, "not finite in observations at its step 2"),
        ({"rewards": np.array([0, np.inf, 0])}, "not finite in rewards at its step 1"),
        ({"truncated": False}, "neither terminated nor truncated"),
        ({"actions": np.zeros((0, 1)), "observations": np.zeros((1, 2)), "rewards": np.zeros(0)}, "no steps"),
        ({"observations": {"a": np.zeros((4, 2)), "b": np.zeros((3, 2))}}, r"observations\['b'\] of shape \(3, 2\)"),
    ],
)
def test_a_broken_episode_is_refused_with_its_file_number_and_fault(changes: dict[str, object], message: str):
    with pytest.raises(InvalidEpisode, match=f"file.hdf5: episode 7 .*{message}"):
        episode(**changes)

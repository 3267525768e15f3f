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


def test_three_steps_have_four_observations():
    """An episode of three steps has four observations and sums its rewards."""
    assert len(episode()) == 3
    assert episode().episode_return == 6.0


def test_terminated_and_truncated_may_both_be_set():
    """An episode may be terminated and truncated at once."""
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
def test_a_broken_episode_is_refused_by_name(changes: dict[str, object], message: str):
    """A broken episode is refused with its file number and fault."""
    with pytest.raises(InvalidEpisode, match=f"file.hdf5: episode 7 .*{message}"):
        episode(**changes)

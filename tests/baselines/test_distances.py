"""Distances to demonstrations: by hand, beside a slow twin, and what no scaling may change."""

import numpy as np
import pytest

from iq_offline.baselines.distances import Scaling, left_out_distances, nearest_distances, similarity
from iq_offline.baselines.sources import Recorded
from iq_offline.data.spaces import ContinuousActions, DiscreteActions
from iq_offline.errors import ConfigError

RNG = np.random.default_rng(0)


def slow_nearest(points: np.ndarray, demonstrated: np.ndarray) -> np.ndarray:
    """All pairs, one after the other."""
    return np.array([min(float(np.sqrt(((p - q) ** 2).sum())) for q in demonstrated) for p in points])


def slow_left_out(demonstrated: np.ndarray, episodes: np.ndarray) -> np.ndarray:
    """Each step against the steps of the other demonstrations."""
    found = []
    for point, episode in zip(demonstrated, episodes, strict=True):
        others = [q for q, other in zip(demonstrated, episodes, strict=True) if other != episode]
        found.append(slow_nearest(point[None], np.array(others))[0])
    return np.array(found)


def part(observations: np.ndarray, actions: np.ndarray) -> Recorded:
    """Transitions whose next observation is ten more."""
    observations, actions = observations.astype(np.float32), actions.astype(np.float32)
    return Recorded(observations, actions, observations + 10, np.zeros(len(actions), dtype=np.int64))


def test_nearest_distance_by_hand():
    """The distance to the nearest of two points by hand."""
    distances = nearest_distances(np.array([[3.0, 4.0], [9.0, 0.0]]), np.array([[0.0, 0.0], [10.0, 0.0]]))
    np.testing.assert_allclose(distances, [5.0, 1.0])


def test_nearest_distances_equal_their_slow_twin():
    points, demonstrated = RNG.normal(size=(40, 5)), RNG.normal(size=(17, 5))
    np.testing.assert_allclose(nearest_distances(points, demonstrated), slow_nearest(points, demonstrated), rtol=1e-12)


def test_a_demonstration_is_no_neighbour_of_itself():
    steps = np.array([[0.0], [0.1], [5.0], [7.0]])
    np.testing.assert_allclose(left_out_distances(steps, np.array([0, 0, 1, 1])), [5.0, 4.9, 4.9, 6.9])


def test_left_out_distances_equal_their_slow_twin():
    steps, episodes = RNG.normal(size=(30, 4)), np.repeat([0, 1, 2], [5, 15, 10])
    np.testing.assert_allclose(left_out_distances(steps, episodes), slow_left_out(steps, episodes), rtol=1e-12)


def test_single_demonstration_uses_its_own_other_steps():
    """A single demonstration is measured by its own other steps."""
    np.testing.assert_allclose(left_out_distances(np.array([[0.0], [1.0], [4.0]]), np.zeros(3, dtype=int)), [1, 1, 3])
    with pytest.raises(ConfigError, match="single demonstrated transition"):
        left_out_distances(np.zeros((1, 2)), np.zeros(1, dtype=int))


def test_similarity_is_a_gaussian_kernel():
    """Similarity is one on a demonstration and falls as a gaussian."""
    np.testing.assert_allclose(similarity(np.array([0.0, 2.0, 4.0]), bandwidth=2.0), np.exp([0.0, -0.5, -2.0]))


def test_scaling_takes_expert_and_supplementary_steps_together():
    space = ContinuousActions((-2.0,), (2.0,), "dataset")
    first = part(np.array([[1.0, 0.0], [3.0, 0.0]]), np.array([[1.0], [1.0]]))
    second = part(np.array([[1.0, 0.0], [3.0, 0.0]]), np.array([[-1.0], [-1.0]]))
    scaling = Scaling.fit([first, second], space)
    # Mean 2 and deviation 1; a column that never varies is divided by a thousandth; actions by their deviation, 1.
    np.testing.assert_allclose(scaling.pairs(first), [[-1.0, 0.0, 1.0], [1.0, 0.0, 1.0]])
    np.testing.assert_allclose(scaling.triples(second)[0], [-1.0, 0.0, -1.0, 9.0, 10 / 1e-3])


def test_discrete_actions_are_one_hot_and_never_rescaled():
    same = np.zeros((3, 2))
    scaling = Scaling.fit([part(same, np.array([[0], [2], [1]]))], DiscreteActions(3))
    pairs = scaling.pairs(part(same, np.array([[0], [2], [1]])))
    np.testing.assert_array_equal(pairs[:, 2:], [[1, 0, 0], [0, 0, 1], [0, 1, 0]])


def test_units_of_an_observation_change_no_distance():
    space = ContinuousActions((-1.0,), (1.0,), "unit")
    observations, actions = RNG.normal(size=(20, 3)), RNG.uniform(-1, 1, size=(20, 1))
    found = []
    for unit in (1.0, 1000.0):
        whole = part(observations * unit, actions)
        pairs = Scaling.fit([whole], space).pairs(whole)
        found.append(nearest_distances(pairs[5:], pairs[:5]))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4)

"""Rewards by labellers: by hand, beside slow twins, and their greatest value on a copy of a demonstration."""

import math
import sys

import numpy as np
import pytest

from iq_offline.baselines.reward_labelling import (
    cosine_costs,
    otr_rewards,
    seabo_rewards,
    thinned,
    transport_costs,
    uds_rewards,
)
from iq_offline.config.baselines import OTRConfig, SEABOConfig
from iq_offline.errors import PackageMissing

RNG = np.random.default_rng(0)


def slow_seabo(triples: np.ndarray, demonstrated: np.ndarray, action_size: int) -> list[float]:
    """Over all pairs."""
    return [
        math.exp(-0.5 * min(math.dist(triple, other) for other in demonstrated) / action_size) for triple in triples
    ]


def slow_transport_costs(costs: np.ndarray, regularisation: float, iterations: int) -> list[float]:
    """Sinkhorn in logarithms, mass by mass, until it no longer moves; each step's mean cost."""
    rows, columns = costs.shape
    f, g = np.zeros(rows), np.zeros(columns)
    for _ in range(iterations):
        for j in range(columns):
            inside = [(f[i] - costs[i, j]) / regularisation for i in range(rows)]
            g[j] = regularisation * (-math.log(columns) - np.logaddexp.reduce(inside))
        for i in range(rows):
            inside = [(g[j] - costs[i, j]) / regularisation for j in range(columns)]
            f[i] = regularisation * (-math.log(rows) - np.logaddexp.reduce(inside))
    found = []
    for i in range(rows):
        plan = [math.exp((f[i] + g[j] - costs[i, j]) / regularisation) for j in range(columns)]
        found.append(sum(p * c for p, c in zip(plan, costs[i], strict=True)) / sum(plan))
    return found


def test_a_seabo_reward_by_hand():
    rewards = seabo_rewards(SEABOConfig(), np.array([[3.0, 4.0]]), np.zeros((1, 2)), action_size=2)
    np.testing.assert_allclose(rewards, [math.exp(-0.5 * 5 / 2)])


def test_seabo_rewards_equal_their_slow_twin():
    triples, demonstrated = RNG.normal(size=(20, 6)), RNG.normal(size=(9, 6))
    rewards = seabo_rewards(SEABOConfig(), triples, demonstrated, action_size=3)
    np.testing.assert_allclose(rewards, slow_seabo(triples, demonstrated, 3), rtol=1e-12)


def test_copied_transition_earns_greatest_seabo_reward():
    """A copy of a demonstrated transition earns the greatest seabo reward."""
    demonstrated = RNG.normal(size=(9, 6))
    supplementary = np.concatenate([RNG.normal(size=(20, 6)), demonstrated[4:5]])
    rewards = seabo_rewards(SEABOConfig(scale=3.0), supplementary, demonstrated, action_size=2)
    assert rewards.argmax() == 20
    assert rewards[20] == 3.0


def test_cosine_costs_by_hand():
    first = np.array([[1.0, 0.0], [0.0, 0.0]])
    second = np.array([[5.0, 0.0], [0.0, 2.0], [-1.0, 0.0], [1.0, 1.0]])
    expected = [[0, 1, 2, 1 - math.sqrt(0.5)], [1, 1, 1, 1]]
    np.testing.assert_allclose(cosine_costs(first, second), expected, atol=1e-12)


def test_one_step_transports_to_all_demonstrated_steps():
    """One step is carried to all steps of a demonstration."""
    demonstration = np.array([[1.0, 0.0], [0.0, 1.0]])
    rewards = otr_rewards(OTRConfig(), np.array([[1.0, 0.0]]), [demonstration])
    np.testing.assert_allclose(rewards, [5 * math.exp(-5 * 0.5)])


def test_transport_costs_equal_their_slow_twin():
    episode, demonstration = RNG.normal(size=(6, 3)), RNG.normal(size=(4, 3))
    found = transport_costs(OTRConfig(regularisation=0.1, iterations=1000), episode, demonstration)
    slow = slow_transport_costs(cosine_costs(episode, demonstration), 0.1, iterations=1000)
    np.testing.assert_allclose(found, slow, rtol=1e-6)


def test_copied_demonstration_earns_greatest_otr_reward():
    """A copy of a demonstration earns the greatest otr reward at every step."""
    demonstrations = [np.eye(4), RNG.normal(size=(6, 4))]
    np.testing.assert_allclose(otr_rewards(OTRConfig(), np.eye(4), demonstrations), [5.0] * 4)
    assert otr_rewards(OTRConfig(), RNG.normal(size=(5, 4)), demonstrations).max() < 5.0


def test_otr_uses_the_demonstration_nearest_overall():
    """An episode is measured against the demonstration nearest to all of it."""
    episode, near, far = np.eye(3), np.eye(3), -np.eye(3)
    alone = otr_rewards(OTRConfig(), episode, [near])
    np.testing.assert_array_equal(otr_rewards(OTRConfig(), episode, [far, near]), alone)
    assert otr_rewards(OTRConfig(), episode, [far]).max() < alone.min()


def test_repeated_steps_do_not_change_costs():
    """Twice the steps do not change what one costs."""
    demonstration, episode = RNG.normal(size=(5, 3)), RNG.normal(size=(4, 3))
    config = OTRConfig(regularisation=0.1, iterations=2000)
    once, twice = (transport_costs(config, steps, demonstration) for steps in (episode, np.repeat(episode, 2, axis=0)))
    np.testing.assert_allclose(np.repeat(once, 2), twice, rtol=1e-6)


def test_long_demonstrations_are_thinned_evenly_with_both_ends():
    np.testing.assert_array_equal(thinned(np.arange(11.0)[:, None], 3)[:, 0], [0, 5, 10])
    np.testing.assert_array_equal(thinned(np.arange(3.0)[:, None], 3)[:, 0], [0, 1, 2])


def test_costs_stay_finite_where_every_step_is_opposite():
    costs = transport_costs(OTRConfig(regularisation=0.005), np.ones((30, 3)), -np.ones((20, 3)))
    np.testing.assert_allclose(costs, 2.0)


def test_unlabelled_data_sharing_pays_one_and_nothing():
    np.testing.assert_array_equal(uds_rewards(2, expert=True), [1, 1])
    np.testing.assert_array_equal(uds_rewards(2, expert=False), [0, 0])


def test_without_pot_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ot", None)
    with pytest.raises(PackageMissing, match=r"pip install 'iq-offline\[baselines\]'"):
        otr_rewards(OTRConfig(), np.eye(2), [np.eye(2)])

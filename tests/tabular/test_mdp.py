"""Decision processes refuse what is not one; solvers agree with slow and obvious loops."""

from dataclasses import replace

import numpy as np
import pytest
from decision_processes import random_mdp, with_absorbing_state

from iq_offline.tabular.mdp import (
    MDP,
    expected_return,
    greedy_policy,
    hard_value_iteration,
    occupancy,
    policy_q,
    soft_value_iteration,
    soft_values,
    softmax_policy,
    total_variation,
)


@pytest.fixture
def mdp() -> MDP:
    return random_mdp(5, 3, 0.9, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dynamics": np.full((5, 3, 5), 0.3)}, "dynamics must sum to one over its last axis, found a sum of 1.5"),
        ({"dynamics": np.full((5, 3, 4), 0.25)}, r"dynamics must be \(states, actions, states\), got \(5, 3, 4\)"),
        ({"dynamics": np.full((5, 5), 0.2)}, r"dynamics must be \(states, actions, states\), got \(5, 5\)"),
        ({"rewards": np.zeros((5, 2))}, r"rewards must be \(5, 3\), got \(5, 2\)"),
        ({"rewards": np.full((5, 3), np.nan)}, "rewards must be finite"),
        ({"initial": np.ones(4) / 4}, r"initial must be \(5,\), got \(4,\)"),
        ({"initial": np.array([1.5, -0.5, 0, 0, 0])}, "initial has a probability that is negative"),
        ({"gamma": 1.0}, "gamma must be at least 0 and less than 1, got 1.0"),
    ],
)
def test_what_is_no_decision_process_is_refused(mdp: MDP, change: dict[str, np.ndarray], message: str):
    with pytest.raises(ValueError, match=message):
        replace(mdp, **change)


def test_terminal_states_are_never_left_and_pay_nothing():
    """Terminal states of a random process keep what arrives and pay nothing."""
    mdp = random_mdp(5, 3, 0.9, np.random.default_rng(0), terminal_states=2)
    np.testing.assert_array_equal(mdp.dynamics[3:, :, 3:], np.broadcast_to(np.eye(2)[:, None], (2, 3, 2)))
    assert np.abs(mdp.rewards[3:]).sum() == 0
    assert mdp.initial[3:].sum() == 0
    assert np.abs(hard_value_iteration(mdp)[3:]).max() == 0


def test_absorbing_state_takes_arrivals_at_terminal_states(mdp: MDP):
    """An absorbing state takes all arrivals at terminal states."""
    mdp = replace(mdp, initial=np.array([1.0, 0, 0, 0, 0]))
    larger = with_absorbing_state(mdp, np.arange(5) >= 3, reward=-2.0)
    np.testing.assert_allclose(larger.dynamics[:5, :, 5], mdp.dynamics[:, :, 3:].sum(axis=-1))
    assert larger.dynamics[:, :, 3:5].sum() == 0
    assert hard_value_iteration(larger)[5] == pytest.approx(-2 / (1 - 0.9))
    with pytest.raises(ValueError, match="cannot start in a terminal state"):
        with_absorbing_state(mdp, np.arange(5) < 1, reward=0.0)
    with pytest.raises(ValueError, match="booleans of shape"):
        with_absorbing_state(mdp, np.arange(5), reward=0.0)


@pytest.mark.parametrize("temperature", [1e-3, 0.1, 1.0, 100.0])
@pytest.mark.parametrize("gamma", [0.0, 0.9, 0.999])
def test_soft_value_iteration_is_a_fixed_point(temperature: float, gamma: float):
    """Soft value iteration is a fixed point to rounding."""
    mdp = random_mdp(8, 4, gamma, np.random.default_rng(1))
    q = soft_value_iteration(mdp, temperature)
    residual = np.abs(mdp.rewards + gamma * mdp.dynamics @ soft_values(q, temperature) - q).max()
    assert residual <= 1e-12 * max(1, np.abs(q).max()), f"residual {residual:.3g}, greatest {np.abs(q).max():.3g}"


def test_value_iteration_agrees_with_the_plain_loop(mdp: MDP):
    q = np.zeros_like(mdp.rewards)
    for _ in range(500):
        q = mdp.rewards + 0.9 * mdp.dynamics @ q.max(axis=-1)
    np.testing.assert_allclose(hard_value_iteration(mdp), q, rtol=0, atol=1e-12)


def test_occupancy_is_discounted_sum_over_time(mdp: MDP):
    """Occupancy is the discounted sum over time and gives the return."""
    policy = np.random.default_rng(2).dirichlet(np.ones(3), size=5)
    states, summed = mdp.initial, np.zeros((5, 3))
    for step in range(400):
        summed += 0.1 * 0.9**step * states[:, None] * policy
        states = np.einsum("s,sa,sat->t", states, policy, mdp.dynamics)
    np.testing.assert_allclose(occupancy(mdp, policy), summed, rtol=0, atol=1e-12)
    assert occupancy(mdp, policy).sum() == pytest.approx(1, abs=1e-14)
    values = (policy * policy_q(mdp, policy)).sum(axis=-1)
    assert expected_return(mdp, policy) == pytest.approx(mdp.initial @ values, abs=1e-12)


def test_greedy_policies_share_ties():
    q = np.array([[1.0, 1.0 + 1e-12, 0.0], [0.0, 2.0, 1.0]])
    np.testing.assert_array_equal(greedy_policy(q), [[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]])


def test_soft_values_survive_large_numbers_and_impossible_actions():
    assert soft_values(np.array([[1e6, 0.0]]), 1e-3)[0] == 1e6
    np.testing.assert_array_equal(softmax_policy(np.array([[-1e6, 1e6]]), 1e-3), [[0.0, 1.0]])
    prior = np.array([[1.0, 0.0]])
    assert soft_values(np.array([[2.0, 50.0]]), 0.5, prior)[0] == 2.0
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        soft_values(np.zeros((1, 2)), 0)


def test_total_variation_by_hand():
    assert total_variation(np.array([0.5, 0.5, 0.0]), np.array([0.25, 0.25, 0.5])) == 0.5
    with pytest.raises(ValueError, match="shapes"):
        total_variation(np.ones(1), np.ones((1, 1)))

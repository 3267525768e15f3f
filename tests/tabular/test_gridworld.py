"""The paper's GridWorld to its last printed digit, what demonstrations recover in it, and wind."""

import numpy as np
import pytest
from decision_processes import shaping_null

from iq_offline.tabular.experiments import PaperSetting, Recovery, paper_experiment, paper_expert, windy_experiment
from iq_offline.tabular.gridworld import (
    PAPER_VALUES,
    cloned_policy,
    demonstrations,
    from_transitions,
    paper_gridworld,
    windy_gridworld,
)
from iq_offline.tabular.mdp import greedy_policy, hard_value_iteration, occupancy
from iq_offline.tabular.shaping import correlation_up_to_shaping

SEEDS = range(10)


@pytest.fixture(scope="module")
def recovered() -> list[Recovery]:
    return [paper_experiment(seed).recovery for seed in SEEDS]


def test_value_iteration_reproduces_the_papers_values():
    """Value iteration reproduces all 25 values of the papers picture."""
    values = hard_value_iteration(paper_gridworld()).max(axis=1).reshape(5, 5)
    np.testing.assert_array_equal(values.round(1), PAPER_VALUES)


def test_the_reward_is_recovered_up_to_shaping(recovered: list[Recovery]):
    found = [one.reward for one in recovered]
    assert min(found) >= 0.95, [f"{one:.3f}" for one in found]
    strict = [one.reward_partial for one in recovered]
    assert min(strict) >= 0.95, [f"{one:.3f}" for one in strict]


def test_that_is_far_from_what_fitting_alone_achieves(recovered: list[Recovery]):
    mdp = paper_gridworld()
    null = [abs(fit.pearson) for fit in shaping_null(mdp.rewards, mdp, np.random.default_rng(0), draws=300)]
    assert np.quantile(null, 0.99) < 0.5 < min(one.reward for one in recovered)


def test_visit_counts_pass_the_bar_too(recovered: list[Recovery]):
    """Rewarded corners are where the expert stays: 0.95 is a low bar in this GridWorld."""
    mdp = paper_gridworld()
    visits = occupancy(mdp, paper_expert(mdp, PaperSetting())).sum(axis=1)
    taken_for_reward = np.repeat(visits[:, None], mdp.actions, axis=1)
    null = correlation_up_to_shaping(mdp.rewards, taken_for_reward, mdp)
    assert 0.95 < null.pearson < min(one.reward for one in recovered), f"{null.pearson:.4f}"


def test_the_value_is_recovered(recovered: list[Recovery]):
    found = [one.value for one in recovered]
    assert min(found) >= 0.95, [f"{one:.3f}" for one in found]


def test_the_learnt_policy_goes_where_the_expert_goes(recovered: list[Recovery]):
    found = [one.occupancy for one in recovered]
    assert max(found) <= 0.02, [f"{one:.4f}" for one in found]


def test_iq_learn_is_no_worse_than_cloning():
    """From 100 steps sampling alone costs more than 002 and iq learn no more than cloning."""
    found = [paper_experiment(seed, PaperSetting(steps=100)).recovery for seed in SEEDS]
    assert min(one.occupancy_cloned for one in found) > 0.02, [f"{one.occupancy_cloned:.3f}" for one in found]
    differences = [one.occupancy - one.occupancy_cloned for one in found]
    assert max(differences) < 0.005, [f"{one:+.3f}" for one in differences]


def test_greedy_experts_reward_is_not_identified():
    """A greedy experts reward is not identified though its policy is matched."""
    setting = PaperSetting(steps=100, temperature=0.3, soft_expert=False)
    found = [paper_experiment(seed, setting).recovery for seed in range(3)]
    assert max(one.reward for one in found) < 0.95, [f"{one.reward:.3f}" for one in found]
    assert max(one.occupancy for one in found) < 0.06, [f"{one.occupancy:.3f}" for one in found]


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_supplementary_transitions_mend_brittleness_in_wind(seed: int):
    """Iq learn from the expert alone is as brittle as cloning and transitions mend it."""
    found = windy_experiment(seed)
    cloned, plain, mended = (
        found[name] for name in ("behavioural cloning", "iq, expert only", "iq, mixture penalty, suppression")
    )
    numbers = f"expert {found['expert']}, cloned {cloned}, plain {plain}, mended {mended}"
    assert plain.windy == pytest.approx(cloned.windy, rel=0.01), numbers
    assert cloned.calm > 0.95 * found["expert"].calm, numbers
    assert cloned.windy < 0.3 * found["expert"].windy, numbers
    assert mended.windy > 0.9 * found["expert"].windy, numbers
    assert mended.calm > 0.95 * found["expert"].calm, numbers


def test_wind_changes_the_dynamics_and_nothing_else():
    calm, windy = windy_gridworld(0.0), windy_gridworld()
    np.testing.assert_array_equal(calm.rewards, windy.rewards)
    np.testing.assert_array_equal(calm.initial, windy.initial)
    right_from_the_start = 3
    assert calm.dynamics[0, right_from_the_start, 1] == pytest.approx(0.99)
    assert windy.dynamics[0, right_from_the_start, 11] == pytest.approx(0.3 * 0.99)
    with pytest.raises(ValueError, match="wind must be a probability, got 2"):
        windy_gridworld(2)


def test_demonstrations_are_chains_that_follow_policy_and_dynamics():
    mdp = paper_gridworld()
    policy = greedy_policy(hard_value_iteration(mdp))
    states, actions, next_states = demonstrations(mdp, policy, 200, 100, np.random.default_rng(0))
    chains = states.reshape(200, 100), next_states.reshape(200, 100)
    np.testing.assert_array_equal(chains[0][:, 1:], chains[1][:, :-1])
    assert (policy[states, actions] > 0).all()
    assert (mdp.dynamics[states, actions, next_states] > 0).all()

    discounts = np.tile(0.9 ** np.arange(100), 200)
    visits = np.zeros_like(mdp.rewards)
    np.add.at(visits, (states, actions), discounts / discounts.sum())
    np.testing.assert_allclose(visits, occupancy(mdp, policy), atol=0.02)
    with pytest.raises(ValueError, match="at least 1, got 0 and 5"):
        demonstrations(mdp, policy, 0, 5, np.random.default_rng(0))


def test_counting_by_hand():
    shares, dynamics = from_transitions(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 0]), np.array([0, 1, 1, 0]), (3, 2))
    np.testing.assert_array_equal(shares, [[0.5, 0.25], [0.25, 0.0], [0.0, 0.0]])
    np.testing.assert_array_equal(dynamics[0], [[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]])
    np.testing.assert_array_equal(dynamics[2], [[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    np.testing.assert_allclose(cloned_policy(shares), [[2 / 3, 1 / 3], [1.0, 0.0], [0.5, 0.5]])

"""Theorems of [IQ21], and of what is added to it, on random small decision processes, against exact solutions."""

from dataclasses import replace

import numpy as np
import pytest
from decision_processes import bounded_reward, random_mdp, shaped, with_absorbing_state

from iq_offline.tabular.inverse import (
    Divergence,
    IQProblem,
    Pieces,
    ValueTerm,
    chi_squared,
    exact_iq_optimum,
    exact_transitions,
    implicit_reward,
    linear,
    sampled_transitions,
)
from iq_offline.tabular.mdp import (
    MDP,
    NotConverged,
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
from iq_offline.tabular.shaping import correlation_up_to_shaping

STATES, ACTIONS, GAMMA, TEMPERATURE = 6, 3, 0.9, 0.7
SEEDS = range(5)


def process(seed: int) -> tuple[MDP, np.random.Generator]:
    rng = np.random.default_rng(seed)
    return random_mdp(STATES, ACTIONS, GAMMA, rng), rng


def expert_of(mdp: MDP) -> np.ndarray:
    return softmax_policy(soft_value_iteration(mdp, TEMPERATURE), TEMPERATURE)


def exact_problem(mdp: MDP, divergence: Divergence, value_term: ValueTerm = ValueTerm.INITIAL) -> IQProblem:
    expert = exact_transitions(mdp.dynamics, occupancy(mdp, expert_of(mdp)))
    return IQProblem(expert, ACTIONS, GAMMA, TEMPERATURE, divergence, value_term, initial=mdp.initial)


def everything_on(mdp: MDP, rng: np.random.Generator) -> IQProblem:
    """All terms at once, on recorded transitions, with a prior."""
    rows = [rng.integers(size, size=40) for size in (STATES, ACTIONS, STATES)]
    others = [rng.integers(size, size=60) for size in (STATES, ACTIONS, STATES)]
    return IQProblem(
        sampled_transitions(*rows, STATES),
        ACTIONS,
        GAMMA,
        TEMPERATURE,
        chi_squared(0.5),
        ValueTerm.MIXTURE,
        initial=mdp.initial,
        supplementary=sampled_transitions(*others, STATES),
        supplementary_share=0.3,
        prior=rng.dirichlet(np.ones(ACTIONS), size=STATES),
        pieces=Pieces(conservative_weight=0.4, mixture_penalty=0.8, suppression_weight=0.2),
    )


@pytest.mark.parametrize("prior", [False, True], ids=["entropy", "kl"])
@pytest.mark.parametrize("seed", SEEDS)
def test_implied_reward_has_q_as_soft_optimum(seed: int, prior: bool):
    """The reward implied by any Q has that Q as its soft optimum, with a prior and without."""
    mdp, rng = process(seed)
    q = rng.normal(size=(STATES, ACTIONS))
    measured_against = rng.dirichlet(np.ones(ACTIONS), size=STATES) if prior else None
    reward = implicit_reward(q, mdp, TEMPERATURE, measured_against)
    again = soft_value_iteration(replace(mdp, rewards=reward), TEMPERATURE, measured_against)
    np.testing.assert_allclose(again, q, rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_value_difference_under_occupancy_is_initial_value(seed: int):
    """Of any policy and any V."""
    mdp, rng = process(seed)
    measure, v = occupancy(mdp, rng.dirichlet(np.ones(ACTIONS), size=STATES)), rng.normal(size=STATES)
    telescoped = (measure * (v[:, None] - GAMMA * mdp.dynamics @ v)).sum()
    assert telescoped == pytest.approx((1 - GAMMA) * mdp.initial @ v, abs=1e-13)


@pytest.mark.parametrize("seed", SEEDS)
def test_value_terms_agree_over_exact_occupancies(seed: int):
    """Over recorded transitions they part."""
    mdp, rng = process(seed)
    q = rng.normal(size=(STATES, ACTIONS))
    problem = replace(
        exact_problem(mdp, linear()),
        supplementary=exact_transitions(mdp.dynamics, occupancy(mdp, np.full((STATES, ACTIONS), 1 / ACTIONS))),
    )
    losses = [replace(problem, value_term=term).loss(q)[0] for term in ValueTerm]
    np.testing.assert_allclose(losses, losses[0], rtol=0, atol=1e-12)

    recorded = replace(problem, expert=everything_on(mdp, rng).expert)
    assert abs(replace(recorded, value_term=ValueTerm.EXPERT).loss(q)[0] - recorded.loss(q)[0]) > 1e-3


@pytest.mark.parametrize("seed", SEEDS)
def test_loss_without_penalty_is_cloning_cross_entropy(seed: int):
    """Times the temperature."""
    mdp, rng = process(seed)
    problem = replace(everything_on(mdp, rng), divergence=linear(), value_term=ValueTerm.EXPERT, pieces=Pieces())
    problem = replace(problem, prior=None)
    q, rows = rng.normal(size=(STATES, ACTIONS)), problem.expert
    log_policy = np.log(softmax_policy(q, TEMPERATURE))[rows.states, rows.actions]
    assert problem.loss(q)[0] == pytest.approx(-TEMPERATURE * rows.weights @ log_policy, abs=1e-12)


@pytest.mark.parametrize("value_term", list(ValueTerm))
@pytest.mark.parametrize("divergence", [chi_squared(0.5), bounded_reward(0.3), linear()], ids=["chi2", "tv", "linear"])
def test_gradient_is_the_finite_difference(divergence: Divergence, value_term: ValueTerm):
    mdp, rng = process(0)
    problem = replace(everything_on(mdp, rng), divergence=divergence, value_term=value_term)
    q, step = rng.normal(size=(STATES, ACTIONS)), 1e-6
    numeric = np.zeros_like(q)
    for pair in np.ndindex(q.shape):
        nudge = np.zeros_like(q)
        nudge[pair] = step
        numeric[pair] = (problem.loss(q + nudge)[0] - problem.loss(q - nudge)[0]) / (2 * step)
    np.testing.assert_allclose(problem.loss(q)[1], numeric, rtol=0, atol=1e-8)


@pytest.mark.parametrize("divergence", [chi_squared(0.5), bounded_reward(0.3), linear()], ids=["chi2", "tv", "linear"])
def test_phi_prime_is_the_falling_slope_of_phi(divergence: Divergence):
    """So phi is concave."""
    rewards, step = np.linspace(-2.003, 2.003, 41), 1e-6
    numeric = (divergence.phi(rewards + step) - divergence.phi(rewards - step)) / (2 * step)
    np.testing.assert_allclose(divergence.phi_prime(rewards), numeric, rtol=0, atol=1e-8)
    assert (np.diff(divergence.phi_prime(rewards)) <= 0).all()
    assert divergence.phi(np.zeros(1)) == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_objective_concave_in_q_below_twice_c(seed: int):
    """Prop. 3.5 needs the softmax policy to be the inner minimum, which holds while phi' is not negative."""
    mdp, rng = process(seed)
    problem = exact_problem(mdp, chi_squared(2.0))
    for _ in range(50):
        ends = [rng.normal(size=(STATES, ACTIONS)) for _ in range(2)]
        middle = (ends[0] + ends[1]) / 2
        assert max(problem.rewards(q, problem.expert).max() for q in (*ends, middle)) < 4
        assert problem.loss(middle)[0] <= (problem.loss(ends[0])[0] + problem.loss(ends[1])[0]) / 2 + 1e-12


def test_objective_not_concave_in_q_beyond_twice_c():
    """One state, two actions, the expert takes the first. Along the direction that leaves its reward r as it is to
    first order, the objective's curvature is V'' (gamma r / (2c) - 1): positive as soon as r > 2c / gamma."""
    coefficient, height = 0.5, 30.0
    problem = IQProblem(
        exact_transitions(np.ones((1, 2, 1)), np.array([[1.0, 0.0]])), 2, GAMMA, TEMPERATURE, chi_squared(coefficient)
    )
    q, direction = np.full((1, 2), height), np.array([[1.0, 2 / GAMMA - 1]])
    (reward,) = problem.rewards(q, problem.expert)
    assert reward == pytest.approx((1 - GAMMA) * height - GAMMA * TEMPERATURE * np.log(2))
    value_curvature = ((direction[0, 1] - direction[0, 0]) / 2) ** 2 / TEMPERATURE
    ahead, here, behind = (-problem.loss(q + step * direction)[0] for step in (1e-3, 0, -1e-3))
    expected = value_curvature * (GAMMA * reward / (2 * coefficient) - 1)
    assert expected == pytest.approx(0.0231, abs=1e-3)
    assert (ahead - 2 * here + behind) / 1e-6 == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("seed", SEEDS)
def test_objective_is_concave_in_the_reward_everywhere(seed: int):
    """For exact dynamics Q and reward are a bijection (lemma 3.1), and E[phi(r)] - (1 - gamma) V_r(s0) is concave."""
    mdp, rng = process(seed)
    problem = exact_problem(mdp, chi_squared(0.05))

    def loss(reward: np.ndarray) -> float:
        return problem.loss(soft_value_iteration(replace(mdp, rewards=reward), TEMPERATURE))[0]

    for _ in range(20):
        ends = [5 * rng.normal(size=(STATES, ACTIONS)) for _ in range(2)]
        assert loss((ends[0] + ends[1]) / 2) <= (loss(ends[0]) + loss(ends[1])) / 2 + 1e-9
    optima = [exact_iq_optimum(problem, 5 * rng.normal(size=(STATES, ACTIONS))).q for _ in range(3)]
    np.testing.assert_allclose(optima[1:], [optima[0]] * 2, rtol=0, atol=1e-4)


@pytest.mark.parametrize("coefficient", [0.5, 5.0, 500.0])
@pytest.mark.parametrize("seed", SEEDS)
def test_phi_prime_at_optimum_is_ratio_of_occupancies(seed: int, coefficient: float):
    """phi'(r) rho_expert = rho_policy: so chi-squared's optimum misses the expert by exactly E_expert|r| / (4c)."""
    mdp, _ = process(seed)
    divergence, expert = chi_squared(coefficient), occupancy(mdp, expert_of(mdp))
    optimum = exact_iq_optimum(exact_problem(mdp, divergence))
    learnt, reward = occupancy(mdp, optimum.policy), implicit_reward(optimum.q, mdp, TEMPERATURE)
    np.testing.assert_allclose(divergence.phi_prime(reward) * expert, learnt, rtol=0, atol=1e-5)
    missed = (expert * np.abs(reward)).sum() / (4 * coefficient)
    assert total_variation(learnt, expert) == pytest.approx(missed, abs=1e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_exact_optimum_tends_to_expert_and_its_reward(seed: int):
    """With true occupancy and dynamics."""
    mdp, _ = process(seed)
    optimum = exact_iq_optimum(exact_problem(mdp, chi_squared(2000.0)))
    np.testing.assert_allclose(optimum.policy, expert_of(mdp), rtol=0, atol=2e-3)
    fit = correlation_up_to_shaping(mdp.rewards, implicit_reward(optimum.q, mdp, TEMPERATURE), mdp)
    assert fit.pearson > 0.9999, f"{fit.pearson:.6f}"
    assert fit.partial > 0.9999, f"{fit.partial:.6f}"
    assert fit.scale == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("seed", SEEDS)
def test_shaping_changes_neither_policy_nor_correlation(seed: int):
    mdp, rng = process(seed)
    disguised = shaped(mdp.rewards, rng.normal(size=STATES), mdp)
    np.testing.assert_allclose(expert_of(replace(mdp, rewards=disguised)), expert_of(mdp), rtol=0, atol=1e-10)
    fit = correlation_up_to_shaping(mdp.rewards, 3 * disguised, mdp)
    assert (fit.pearson, fit.partial, fit.scale) == pytest.approx((1, 1, 3), abs=1e-10)


@pytest.mark.parametrize("seed", SEEDS)
def test_recovered_reward_is_log_policy_up_to_shaping(seed: int):
    """r = t log policy + V(s) - gamma E V(s'): so the correlation judges the policy, however Q was found."""
    mdp, rng = process(seed)
    q = rng.normal(size=(STATES, ACTIONS))
    reward, log_policy = implicit_reward(q, mdp, TEMPERATURE), TEMPERATURE * np.log(softmax_policy(q, TEMPERATURE))
    np.testing.assert_allclose(shaped(reward, soft_values(q, TEMPERATURE), mdp), log_policy, rtol=0, atol=1e-12)
    fits = [correlation_up_to_shaping(mdp.rewards, candidate, mdp) for candidate in (reward, log_policy)]
    assert fits[0].pearson == pytest.approx(fits[1].pearson, abs=1e-10)


@pytest.mark.parametrize("reward", [0.0, 1.0, -TEMPERATURE * np.log(ACTIONS)])
@pytest.mark.parametrize("seed", SEEDS)
def test_termination_is_an_absorbing_state(seed: int, reward: float):
    """The value after a termination is (reward + temperature log A) / (1 - gamma): zero for the last reward here."""
    mdp, rng = process(seed)
    mdp = replace(mdp, initial=np.append(rng.dirichlet(np.ones(STATES - 1)), 0.0))
    terminal = np.arange(STATES) == STATES - 1
    after = (reward + TEMPERATURE * np.log(ACTIONS)) / (1 - GAMMA)
    q = np.zeros((STATES, ACTIONS))
    for _ in range(600):
        v = TEMPERATURE * np.log(np.exp(q / TEMPERATURE).sum(axis=-1))
        q = mdp.rewards + GAMMA * mdp.dynamics @ np.where(terminal, after, v)

    explicit = soft_value_iteration(with_absorbing_state(mdp, terminal, reward), TEMPERATURE)
    np.testing.assert_allclose(explicit[:-1], q, rtol=0, atol=1e-9)
    assert soft_values(explicit, TEMPERATURE)[-1] == pytest.approx(after, abs=1e-9)


def test_cold_is_hard_optimum_and_hot_is_uniform():
    """Temperatures tending to zero and to infinity."""
    mdp, _ = process(0)
    hard = hard_value_iteration(mdp)
    for temperature in (1e-1, 1e-2, 1e-3):
        excess = soft_value_iteration(mdp, temperature) - hard
        assert excess.min() >= -1e-9
        assert excess.max() <= GAMMA * temperature * np.log(ACTIONS) / (1 - GAMMA)
    cold = softmax_policy(soft_value_iteration(mdp, 1e-3), 1e-3)
    assert expected_return(mdp, cold) == pytest.approx(expected_return(mdp, greedy_policy(hard)), abs=1e-6)
    hot = softmax_policy(soft_value_iteration(mdp, 1e6), 1e6)
    np.testing.assert_allclose(hot, 1 / ACTIONS, rtol=0, atol=1e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_uniform_prior_takes_log_actions_off_value(seed: int):
    """Times the temperature."""
    mdp, rng = process(seed)
    q, uniform = rng.normal(size=(STATES, ACTIONS)), np.full((STATES, ACTIONS), 1 / ACTIONS)
    less = soft_values(q, TEMPERATURE) - TEMPERATURE * np.log(ACTIONS)
    np.testing.assert_allclose(soft_values(q, TEMPERATURE, uniform), less, rtol=0, atol=1e-14)
    np.testing.assert_allclose(softmax_policy(q, TEMPERATURE, uniform), softmax_policy(q, TEMPERATURE), atol=1e-15)
    apart = soft_value_iteration(mdp, TEMPERATURE) - soft_value_iteration(mdp, TEMPERATURE, uniform)
    np.testing.assert_allclose(apart, GAMMA * TEMPERATURE * np.log(ACTIONS) / (1 - GAMMA), rtol=0, atol=1e-10)


@pytest.mark.parametrize("seed", SEEDS)
def test_soft_value_is_greatest_q_less_kl(seed: int):
    """Over all policies; the KL is to the prior."""
    _, rng = process(seed)
    q, prior = rng.normal(size=(STATES, ACTIONS)), rng.dirichlet(np.ones(ACTIONS), size=STATES)

    def regularised(policy: np.ndarray) -> np.ndarray:
        return (policy * (q - TEMPERATURE * np.log(policy / prior))).sum(axis=-1)

    greatest = soft_values(q, TEMPERATURE, prior)
    np.testing.assert_allclose(regularised(softmax_policy(q, TEMPERATURE, prior)), greatest, rtol=0, atol=1e-12)
    for policy in rng.dirichlet(np.ones(ACTIONS), size=(20, STATES)):
        assert (regularised(policy) <= greatest).all()


def test_soft_q_of_policy_is_operator_fixed_point():
    """With a KL to a prior."""
    mdp, rng = process(0)
    policy, prior = (rng.dirichlet(np.ones(ACTIONS), size=STATES) for _ in range(2))
    q = policy_q(mdp, policy, TEMPERATURE, prior)
    v = (policy * (q - TEMPERATURE * np.log(policy / prior))).sum(axis=-1)
    np.testing.assert_allclose(mdp.rewards + GAMMA * mdp.dynamics @ v, q, rtol=0, atol=1e-12)


OFF = {
    "conservative": Pieces(conservative_weight=0.0),
    "mixture": Pieces(mixture_penalty=np.inf),
    "suppression": Pieces(suppression_weight=0.0),
}


@pytest.mark.parametrize("off", OFF.values(), ids=OFF.keys())
def test_weight_zero_gives_the_plain_optimum(off: Pieces):
    """To the bit."""
    mdp, rng = process(0)
    weighted = replace(everything_on(mdp, rng), pieces=off)
    plain = exact_iq_optimum(replace(weighted, pieces=Pieces()))
    np.testing.assert_array_equal(exact_iq_optimum(weighted).q, plain.q)


@pytest.mark.parametrize("pieces", [Pieces(suppression_weight=0.2), Pieces(conservative_weight=0.2)])
def test_suppression_without_penalty_has_no_optimum(pieces: Pieces):
    """Values of states that only supplementary data visit fall for ever, and the loss with them, in proportion."""
    mdp, rng = process(0)
    seen = np.zeros(10, dtype=int)
    bottomless = replace(
        everything_on(mdp, rng),
        expert=sampled_transitions(seen, seen, seen, STATES),
        value_term=ValueTerm.EXPERT,
        pieces=pieces,
    )
    losses = []
    for depth in (0, 10, 100):
        q = np.zeros((STATES, ACTIONS))
        q[1:] = -depth
        losses.append(bottomless.loss(q)[0])
    assert losses[0] - losses[1] > 1
    assert losses[1] - losses[2] == pytest.approx(9 * (losses[0] - losses[1]), rel=1e-9)
    with pytest.raises(NotConverged, match="gradient"):
        exact_iq_optimum(bottomless)
    bounded = replace(bottomless, pieces=replace(pieces, mixture_penalty=0.5))
    assert np.isfinite(exact_iq_optimum(bounded).q).all()

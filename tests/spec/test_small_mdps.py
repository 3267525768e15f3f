"""Theorems of [IQ21] on random small MDPs, solved exactly with numpy; then the learner against the exact answer."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from iq_offline.algorithms.build import NetworkSpec
from iq_offline.algorithms.divergences import ChiSquared
from iq_offline.algorithms.encoders import ObservationLayout
from iq_offline.algorithms.losses import implicit_reward, soft_value, telescoped_value
from iq_offline.algorithms.networks import Standardiser
from iq_offline.algorithms.soft_q import SoftQLearner
from iq_offline.batch import Batch
from iq_offline.config.iq import DiscreteIQConfig, DiscreteIQPaperConfig
from iq_offline.config.soft_q import SoftQConfig
from iq_offline.config.sprinql import DiscreteSPRINQLConfig
from iq_offline.tabular.inverse import IQProblem, Pieces, ValueTerm, exact_iq_optimum, linear, sampled_transitions
from iq_offline.training.learnt import build_learner

STATES, ACTIONS, GAMMA = 6, 3, 0.9
TEMPERATURE, COEFFICIENT = 0.5, 0.5


def random_dynamics(seed: int) -> np.ndarray:
    """P(s' | s, a), shape (S, A, S)."""
    return np.random.default_rng(seed).dirichlet(np.ones(STATES), size=(STATES, ACTIONS))


def soft_values(q: np.ndarray, temperature: float) -> np.ndarray:
    return temperature * np.log(np.exp(q / temperature).sum(axis=-1))


def soft_optimum(dynamics: np.ndarray, reward: np.ndarray, temperature: float) -> np.ndarray:
    """Soft value iteration to its fixed point, shape (S, A)."""
    q = np.zeros_like(reward)
    for _ in range(600):
        q = reward + GAMMA * dynamics @ soft_values(q, temperature)
    return q


@pytest.mark.parametrize("seed", range(5))
def test_implied_reward_has_q_as_soft_optimum(seed: int):
    """The reward implied by any Q has that Q as its soft optimum."""
    dynamics, temperature = random_dynamics(seed), 0.7
    q = np.random.default_rng(100 + seed).normal(size=(STATES, ACTIONS))
    reward = q - GAMMA * dynamics @ soft_values(q, temperature)
    np.testing.assert_allclose(soft_optimum(dynamics, reward, temperature), q, atol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_value_difference_under_occupancy_is_initial_value(seed: int):
    """Of any policy and any V."""
    rng, dynamics = np.random.default_rng(seed), random_dynamics(seed)
    policy = rng.dirichlet(np.ones(ACTIONS), size=STATES)
    initial, v = rng.dirichlet(np.ones(STATES)), rng.normal(size=STATES)
    moves = np.einsum("sa,sat->st", policy, dynamics)
    occupancy = np.linalg.solve(np.eye(STATES) - GAMMA * moves.T, (1 - GAMMA) * initial)
    assert occupancy.sum() == pytest.approx(1)
    telescoped = occupancy @ (v - GAMMA * moves @ v)
    assert telescoped == pytest.approx((1 - GAMMA) * initial @ v, abs=1e-12)


def learnt(model: type[SoftQConfig], batch: Batch, **choices: Any) -> tuple[float, np.ndarray, np.ndarray]:
    """Loss, Q and policy (S, A) of tables (one-hot observations, no hidden layer) learnt from that one batch.

    With the full gradient through V(s'), nothing decayed, nothing bounded.
    """
    plain = {"polyak_rate": None, "target_bound": None, "weight_decay": 0, "hidden_sizes": ()}
    config = model(
        temperature=TEMPERATURE,
        reward_penalty=COEFFICIENT,
        gamma=GAMMA,
        learning_rate=0.1,
        updates=2000,
        **plain,
        **choices,
    )
    spec = NetworkSpec(ObservationLayout(STATES), Standardiser(torch.zeros(STATES), torch.ones(STATES)), ACTIONS)
    learner = build_learner(config, spec, None)
    assert isinstance(learner, SoftQLearner)
    for table in learner.function.networks:
        for parameter in table.parameters():
            torch.nn.init.zeros_(parameter)
    for _ in range(config.updates):
        loss = learner.update(batch)["loss"]
    with torch.no_grad():
        q = learner.function.q(torch.eye(STATES)).numpy()
    return loss.item(), q, policy_of(q)


def policy_of(q: np.ndarray) -> np.ndarray:
    return np.exp((q - soft_values(q, TEMPERATURE)[:, None]) / TEMPERATURE)


def batch_of(states: np.ndarray, actions: np.ndarray, next_states: np.ndarray, terminations: np.ndarray) -> Batch:
    one_hot = torch.eye(STATES)
    return Batch(
        one_hot[states], torch.from_numpy(actions), one_hot[next_states], torch.from_numpy(terminations).float()
    )


@pytest.mark.parametrize("model", [DiscreteIQPaperConfig, DiscreteIQConfig], ids=["one network", "value and policy"])
def test_learner_reaches_exact_minimum_of_equation_12(model: type[SoftQConfig]):
    """A tabular Q against a convex solver's minimum over all Q tables: the loss, every Q that the data identify, and
    the policy. State 0 has one recorded action; its others fall for ever, and their Q is not identified."""
    rng = np.random.default_rng(0)
    states, actions = rng.integers(STATES, size=200), rng.integers(ACTIONS, size=200)
    actions[states == 0] = 1
    next_states, terminations = rng.integers(STATES, size=200), (rng.random(200) < 0.2).astype(float)

    def objective(flat: torch.Tensor) -> torch.Tensor:
        q = flat.reshape(STATES, ACTIONS)
        v = soft_value(q, TEMPERATURE)
        discounts = GAMMA * (1 - torch.from_numpy(terminations))
        rewards = implicit_reward(q[states, actions], v[next_states], discounts)
        value = telescoped_value(v[states], v[next_states], discounts)
        return value - ChiSquared(COEFFICIENT).phi(rewards).mean()

    def value_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        parameters = torch.from_numpy(flat).requires_grad_(True)
        value = objective(parameters)
        value.backward()
        assert parameters.grad is not None
        return value.item(), parameters.grad.numpy()

    exact = minimize(value_and_gradient, np.zeros(STATES * ACTIONS), jac=True, method="L-BFGS-B", tol=1e-14)
    exact_q = exact.x.reshape(STATES, ACTIONS)
    recorded = np.zeros((STATES, ACTIONS), dtype=bool)
    recorded[states, actions] = True
    assert recorded.sum() == STATES * ACTIONS - 2

    batch = batch_of(states, actions, next_states, terminations)
    loss, q, policy = learnt(model, batch)
    assert loss == pytest.approx(exact.fun, abs=1e-4)
    np.testing.assert_allclose(q[recorded], exact_q[recorded], rtol=0, atol=2e-3)
    np.testing.assert_allclose(policy, policy_of(exact_q), rtol=0, atol=2e-3)
    assert np.ptp(exact_q[recorded]) > 0.3
    assert policy[0].argmax() == 1


@pytest.mark.slow
def test_learner_reaches_exact_optimum_over_the_mixture():
    """Value term and penalty over expert and supplementary transitions, against `IQProblem`: every pair is recorded.

    This is the objective after SPRINQL with references of zero.
    """
    rng = np.random.default_rng(0)
    states, next_states = rng.integers(STATES, size=(2, 150))
    actions = np.where(rng.random(150) < 0.7, states % ACTIONS, rng.integers(ACTIONS, size=150))
    others = [rng.integers(size, size=300) for size in (STATES, ACTIONS, STATES)]
    problem = IQProblem(
        sampled_transitions(states, actions, next_states, STATES),
        ACTIONS,
        GAMMA,
        TEMPERATURE,
        linear(),
        ValueTerm.MIXTURE,
        supplementary=sampled_transitions(*others, STATES),
        pieces=Pieces(mixture_penalty=COEFFICIENT),
    )
    exact = exact_iq_optimum(problem)

    expert, supplementary = batch_of(states, actions, next_states, np.zeros(150)), batch_of(*others, np.zeros(300))
    batch = replace(expert, supplementary=supplementary)
    loss, q, policy = learnt(DiscreteSPRINQLConfig, batch, reward_reference=(0.0, 0.0), cql=None)
    assert loss == pytest.approx(exact.loss, abs=1e-5)
    np.testing.assert_allclose(q, exact.q, rtol=0, atol=5e-3)
    np.testing.assert_allclose(policy, exact.policy, rtol=0, atol=1e-4)
    cloned = exact_iq_optimum(IQProblem(problem.expert, ACTIONS, GAMMA, TEMPERATURE, linear()))
    assert np.abs(cloned.policy - exact.policy).max() > 0.1

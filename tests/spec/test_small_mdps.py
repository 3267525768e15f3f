"""Theorems of [IQ21] on random small MDPs, solved exactly with numpy; then the learner against the exact answer."""

import numpy as np
import pytest
import torch

from iq_offline.algorithms.divergences import ChiSquared
from iq_offline.algorithms.encoders import ObservationLayout
from iq_offline.algorithms.iq_discrete import DiscreteIQLearner, DiscreteNetworks
from iq_offline.algorithms.losses import implicit_reward, iq_expert_loss, soft_value
from iq_offline.algorithms.networks import DiscretePolicy, Standardiser, ValueNetwork
from iq_offline.batch import Batch
from iq_offline.config import DiscreteIQConfig

STATES, ACTIONS, GAMMA = 6, 3, 0.9


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
def test_the_reward_implied_by_any_q_has_that_q_as_its_soft_optimum(seed: int):
    dynamics, temperature = random_dynamics(seed), 0.7
    q = np.random.default_rng(100 + seed).normal(size=(STATES, ACTIONS))
    reward = q - GAMMA * dynamics @ soft_values(q, temperature)
    np.testing.assert_allclose(soft_optimum(dynamics, reward, temperature), q, atol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_the_value_difference_under_any_policys_occupancy_is_the_initial_value(seed: int):
    rng, dynamics = np.random.default_rng(seed), random_dynamics(seed)
    policy = rng.dirichlet(np.ones(ACTIONS), size=STATES)
    initial, v = rng.dirichlet(np.ones(STATES)), rng.normal(size=STATES)
    moves = np.einsum("sa,sat->st", policy, dynamics)
    occupancy = np.linalg.solve(np.eye(STATES) - GAMMA * moves.T, (1 - GAMMA) * initial)
    assert occupancy.sum() == pytest.approx(1)
    telescoped = occupancy @ (v - GAMMA * moves @ v)
    assert telescoped == pytest.approx((1 - GAMMA) * initial @ v, abs=1e-12)


@pytest.mark.parametrize("separate_value", [False, True], ids=["one network", "value and policy"])
def test_the_learner_reaches_the_exact_minimum_of_equation_12(separate_value: bool):
    """A tabular Q (one-hot observations, no hidden layer) against a convex solver's minimum over all Q tables."""
    from scipy.optimize import minimize

    rng, temperature, coefficient = np.random.default_rng(0), 0.5, 0.5
    states, actions = rng.integers(STATES, size=200), rng.integers(ACTIONS, size=200)
    actions[states == 0] = 1
    next_states, terminations = rng.integers(STATES, size=200), (rng.random(200) < 0.2).astype(float)

    def objective(flat: torch.Tensor) -> torch.Tensor:
        q = flat.reshape(STATES, ACTIONS)
        v = soft_value(q, temperature)
        discounts = GAMMA * (1 - torch.from_numpy(terminations))
        rewards = implicit_reward(q[states, actions], v[next_states], discounts)
        return iq_expert_loss(rewards, v[states], v[next_states], discounts, ChiSquared(coefficient).phi)

    def value_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        parameters = torch.from_numpy(flat).requires_grad_(True)
        value = objective(parameters)
        value.backward()
        assert parameters.grad is not None
        return value.item(), parameters.grad.numpy()

    exact = minimize(value_and_gradient, np.zeros(STATES * ACTIONS), jac=True, method="L-BFGS-B", tol=1e-14)

    one_hot = torch.eye(STATES)
    policy = DiscretePolicy(Standardiser(torch.zeros(STATES), torch.ones(STATES)), ACTIONS, (), "tanh")
    config = DiscreteIQConfig(
        temperature=temperature,
        reward_penalty=coefficient,
        gamma=GAMMA,
        learning_rate=3e-2,
        weight_decay=0,
        updates=4000,
        polyak_rate=None,
        target_bound=None,
        separate_value=separate_value,
    )
    state_value = ValueNetwork(ObservationLayout(STATES), (), "tanh", norm=False) if separate_value else None
    learner = DiscreteIQLearner(config, DiscreteNetworks(policy, state_value=state_value))
    batch = Batch(
        one_hot[states], torch.from_numpy(actions), one_hot[next_states], torch.from_numpy(terminations).float()
    )
    for _ in range(4000):
        loss = learner.update(batch)["loss"]
    assert loss.item() == pytest.approx(exact.fun, abs=1e-4)
    assert policy.act(one_hot[:1]).item() == 1

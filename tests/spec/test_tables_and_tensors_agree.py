"""The loss that learners minimise and the one solved exactly are the same function, checked against each other."""

import numpy as np
import pytest
import torch

from iq_offline.algorithms.divergences import ChiSquared
from iq_offline.algorithms.losses import implicit_reward, prior_soft_value, soft_value, telescoped_value
from iq_offline.tabular.inverse import IQProblem, chi_squared, sampled_transitions
from iq_offline.tabular.mdp import soft_values

STATES, ACTIONS, GAMMA, TEMPERATURE, COEFFICIENT = 6, 3, 0.9, 0.7, 0.5


@pytest.mark.parametrize("seed", range(5))
def test_equation_12_and_gradient_agree_in_both(seed: int):
    rng = np.random.default_rng(seed)
    states, actions, next_states = (rng.integers(size, size=50) for size in (STATES, ACTIONS, STATES))
    table = rng.normal(size=(STATES, ACTIONS))
    problem = IQProblem(
        sampled_transitions(states, actions, next_states, STATES), ACTIONS, GAMMA, TEMPERATURE, chi_squared(COEFFICIENT)
    )
    exact, exact_gradient = problem.loss(table)

    q = torch.from_numpy(table).requires_grad_(True)
    v, discounts = soft_value(q, TEMPERATURE), torch.full((50,), GAMMA, dtype=torch.float64)
    rewards = implicit_reward(q[states, actions], v[next_states], discounts)
    loss = telescoped_value(v[states], v[next_states], discounts) - ChiSquared(COEFFICIENT).phi(rewards).mean()
    (gradient,) = torch.autograd.grad(loss, q)
    assert loss.item() == pytest.approx(exact, abs=1e-12)
    np.testing.assert_allclose(gradient.numpy(), exact_gradient, rtol=0, atol=1e-12)


def test_soft_values_with_prior_agree_in_both():
    rng = np.random.default_rng(0)
    q, prior = rng.normal(size=(STATES, ACTIONS)), rng.dirichlet(np.ones(ACTIONS), size=STATES)
    tensors = prior_soft_value(torch.from_numpy(q), torch.from_numpy(np.log(prior)), TEMPERATURE)
    np.testing.assert_allclose(tensors.numpy(), soft_values(q, TEMPERATURE, prior), rtol=0, atol=1e-13)

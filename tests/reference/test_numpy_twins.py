"""A slow, obvious numpy version of values, of equation 12 over tables, and of the cloning error."""

import numpy as np
import torch

from iq_offline.algorithms.bc import censored_residuals
from iq_offline.algorithms.divergences import ChiSquared
from iq_offline.algorithms.losses import implicit_reward, prior_soft_value, soft_value, telescoped_value


def discrete_objective(q, next_q, actions, terminations, gamma, temperature, coefficient):
    """[IQ21] eq. 12, one transition at a time."""
    total = 0.0
    for i, action in enumerate(actions):
        v = temperature * np.log(np.sum(np.exp(q[i] / temperature)))
        next_v = temperature * np.log(np.sum(np.exp(next_q[i] / temperature)))
        reward = q[i, action] - gamma * (0.0 if terminations[i] else next_v)
        total += -(q[i, action] - v) + reward**2 / (4 * coefficient)
    return total / len(actions)


def test_discrete_objective_equals_its_twin():
    rng = np.random.default_rng(1)
    q, next_q = rng.normal(size=(2, 40, 3))
    actions, terminations = rng.integers(3, size=40), rng.random(40) < 0.3
    all_q, all_next_q = torch.from_numpy(q), torch.from_numpy(next_q)
    v, next_v = soft_value(all_q, 0.3), soft_value(all_next_q, 0.3)
    discounts = 0.95 * (1 - torch.from_numpy(terminations.astype(float)))
    rewards = implicit_reward(all_q[torch.arange(40), torch.from_numpy(actions)], next_v, discounts)
    loss = telescoped_value(v, next_v, discounts) - ChiSquared(0.6).phi(rewards).mean()
    twin = discrete_objective(q, next_q, actions, terminations, 0.95, 0.3, 0.6)
    np.testing.assert_allclose(loss.item(), twin, rtol=1e-12)


def test_censored_error_equals_its_twin():
    rng = np.random.default_rng(2)
    means, actions = rng.normal(scale=2, size=(30, 2)), np.clip(rng.normal(size=(30, 2)), -1, 1)
    total = 0.0
    for mean, action in zip(means.ravel(), actions.ravel(), strict=True):
        beyond = (action == 1 and mean > 1) or (action == -1 and mean < -1)
        total += 0.0 if beyond else (mean - action) ** 2
    loss = censored_residuals(torch.from_numpy(means), torch.from_numpy(actions)).square().mean()
    np.testing.assert_allclose(loss.item(), total / 60, rtol=1e-12)


def test_prior_soft_value_equals_its_twin():
    """[CSIL23] sec. 3: the soft maximum weighted by the prior."""
    rng = np.random.default_rng(3)
    q, prior = rng.normal(size=(20, 4)), rng.dirichlet(np.ones(4), size=20)
    twin = [0.3 * np.log(sum(prior[row, one] * np.exp(q[row, one] / 0.3) for one in range(4))) for row in range(20)]
    found = prior_soft_value(torch.from_numpy(q), torch.from_numpy(np.log(prior)), 0.3)
    np.testing.assert_allclose(found.numpy(), twin, rtol=1e-12)

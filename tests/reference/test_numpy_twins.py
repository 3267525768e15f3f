"""A slow, obvious numpy version next to each objective that training minimises."""

import numpy as np
import torch

from iq_offline.algorithms.divergences import ChiSquared
from iq_offline.algorithms.losses import censored_squared_error, implicit_reward, iq_expert_loss, soft_value


def discrete_objective(q, next_q, actions, terminations, gamma, temperature, coefficient):
    """[IQ21] eq. 12, one transition at a time."""
    total = 0.0
    for i, action in enumerate(actions):
        v = temperature * np.log(np.sum(np.exp(q[i] / temperature)))
        next_v = temperature * np.log(np.sum(np.exp(next_q[i] / temperature)))
        reward = q[i, action] - gamma * (0.0 if terminations[i] else next_v)
        total += -(q[i, action] - v) + reward**2 / (4 * coefficient)
    return total / len(actions)


def test_the_discrete_objective_equals_its_twin():
    rng = np.random.default_rng(1)
    q, next_q = rng.normal(size=(2, 40, 3))
    actions, terminations = rng.integers(3, size=40), rng.random(40) < 0.3
    all_q, all_next_q = torch.from_numpy(q), torch.from_numpy(next_q)
    v, next_v = soft_value(all_q, 0.3), soft_value(all_next_q, 0.3)
    discounts = 0.95 * (1 - torch.from_numpy(terminations.astype(float)))
    rewards = implicit_reward(all_q[torch.arange(40), torch.from_numpy(actions)], next_v, discounts)
    loss = iq_expert_loss(rewards, v, next_v, discounts, ChiSquared(0.6).phi)
    twin = discrete_objective(q, next_q, actions, terminations, 0.95, 0.3, 0.6)
    np.testing.assert_allclose(loss.item(), twin, rtol=1e-12)


def test_the_censored_error_equals_its_twin():
    rng = np.random.default_rng(2)
    means, actions = rng.normal(scale=2, size=(30, 2)), np.clip(rng.normal(size=(30, 2)), -1, 1)
    total = 0.0
    for mean, action in zip(means.ravel(), actions.ravel(), strict=True):
        beyond = (action == 1 and mean > 1) or (action == -1 and mean < -1)
        total += 0.0 if beyond else (mean - action) ** 2
    loss = censored_squared_error(torch.from_numpy(means), torch.from_numpy(actions))
    np.testing.assert_allclose(loss.item(), total / 60, rtol=1e-12)

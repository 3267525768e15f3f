"""The linear reward: ridge regression in which each source counts alike, against a slow one and by hand."""

import numpy as np
import pytest
import torch

from iq_offline.algorithms.linear_reward import CLIPPED_AT, RIDGE, fit_linear_reward


def source(n: int, centre: list[float], seed: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(n, len(centre), generator=random) + torch.tensor(centre)


def test_reward_half_way_between_sources_is_half():
    demonstrated, other = source(4000, [2.0, 0.0], 0), source(1000, [-2.0, 0.0], 1)
    found = fit_linear_reward([(demonstrated, torch.ones(4000)), (other, torch.zeros(1000))])
    rewards = found(torch.tensor([[2.0, 0.0], [0.0, 0.0], [-2.0, 0.0], [0.0, 1.0]]))
    assert rewards.tolist() == pytest.approx([0.9, 0.5, 0.1, 0.5], abs=0.05)
    assert found.explained == pytest.approx(0.8, abs=0.05)  # between-group share of the variance


def test_equals_regression_on_sources_of_equal_length():
    """Sources are repeated to one length in the slow twin."""
    first, second = source(30, [0.0, 1.0, 0.0], 2), source(10, [1.0, -1.0, 3.0], 3)
    rewards = [torch.rand(30, generator=torch.Generator().manual_seed(4)), torch.zeros(10)]
    found = fit_linear_reward([(first, rewards[0]), (second, rewards[1])])
    x = np.concatenate([first.numpy(), *[second.numpy()] * 3]).astype(float)
    y = np.concatenate([rewards[0].numpy(), np.zeros(30)])
    z = np.clip((x - x.mean(0)) / x.std(0), -CLIPPED_AT, CLIPPED_AT)
    centred = z - z.mean(0)
    ridge = RIDGE * len(z) * np.diag(centred.var(0))
    slopes = np.linalg.solve(centred.T @ centred + ridge, centred.T @ (y - y.mean()))
    expected = np.clip(y.mean() + centred[:30] @ slopes, 0, 1)
    np.testing.assert_allclose(found(first), expected, atol=1e-6)


def test_weights_are_the_chi_squared_optimum():
    demonstrated, other = source(5000, [1.0, 0.5], 5), source(5000, [0.0, -1.0], 6)
    found = fit_linear_reward([(demonstrated, torch.ones(5000)), (other, torch.zeros(5000))])
    numbers = (torch.cat([demonstrated, other]).double() - found.mean) / found.deviation
    moments = numbers.T @ numbers / len(numbers)
    answer = torch.linalg.solve(moments, numbers[:5000].mean(dim=0) - numbers[5000:].mean(dim=0))
    directions = [vector / vector.norm() for vector in (found.weights, answer)]
    assert float(directions[0] @ directions[1]) > 0.9999


def test_constant_numbers_and_rewards_stay_finite():
    still = torch.zeros(20, 2)
    found = fit_linear_reward([(still, torch.full((20,), 0.25))])
    assert found.explained is None
    assert found(still).tolist() == [0.25] * 20
    assert torch.isfinite(found(torch.full((1, 2), 1e9))).all()

"""Each conservative piece: a number worked out by hand, a slow twin, the sign of its gradient, and its limits."""

import math

import numpy as np
import pytest
import torch

from iq_offline.algorithms.awr import advantage_weights, weighted_cloning
from iq_offline.algorithms.conservative.actors import scaled_q
from iq_offline.algorithms.conservative.ensembles import lower_confidence
from iq_offline.algorithms.networks import pessimistic
from iq_offline.algorithms.regularisers import cosine_similarity, interpolated
from iq_offline.algorithms.conservative.penalties import hinge_gradient_penalty, two_sided_gradient_penalty
from iq_offline.algorithms.regularisers import cql_gap, sampled_cql_gap
from iq_offline.algorithms.conservative.values import expectile_loss, value_suppression
from iq_offline.algorithms.recoil import gumbel_loss
from iq_offline.algorithms.losses import bellman_error, initial_value, prior_soft_value, reward_penalty, soft_value
from iq_offline.config.q_learning import Pessimism

close = torch.testing.assert_close


def test_the_gap_of_two_equal_actions_is_temperature_times_log_two():
    close(cql_gap(torch.tensor([[3.0, 3.0]]), torch.tensor([3.0]), 0.5), torch.tensor(0.5 * math.log(2)))


def test_the_gap_lowers_the_greatest_action_and_raises_the_recorded_one():
    q = torch.tensor([[2.0, 0.0]], requires_grad=True)
    cql_gap(q, q[:, 1], 1.0).backward()
    assert q.grad is not None
    assert q.grad[0, 0] > 0
    assert q.grad[0, 1] < 0


def test_the_sampled_gap_tends_to_the_integral_over_actions():
    """Q = -a^2 on [-1, 1]: the log integral is known, and the policy's samples come from a density of another shape."""
    rng, count = np.random.default_rng(0), 200_000
    uniform = torch.from_numpy(rng.uniform(-1, 1, (count, 1)))
    policy = torch.from_numpy(rng.triangular(-1, 0, 1, (count, 1)))
    log_prob = torch.log(1 - policy.abs())
    exact = math.log(math.sqrt(math.pi) * math.erf(1))
    gap = sampled_cql_gap(-uniform.square(), -policy.square(), log_prob, torch.zeros(1, dtype=torch.float64), 1.0, 1)
    assert gap.item() == pytest.approx(exact, abs=0.01)


def test_the_sampled_gap_equals_its_slow_twin():
    rng = np.random.default_rng(1)
    uniform, policy, log_prob, data = (rng.normal(size=shape) for shape in [(4, 3), (4, 3), (4, 3), (3,)])
    total = 0.0
    for state in range(3):
        inside = sum(math.exp(q / 0.7 + 2 * math.log(2)) for q in uniform[:, state])
        inside += sum(math.exp(q / 0.7 - lp) for q, lp in zip(policy[:, state], log_prob[:, state], strict=True))
        total += 0.7 * math.log(inside / 8) - data[state]
    tensors = [torch.from_numpy(array) for array in (uniform, policy, log_prob, data)]
    assert sampled_cql_gap(*tensors, 0.7, 2).item() == pytest.approx(total / 3, rel=1e-12)


def test_suppression_is_the_difference_of_means():
    close(value_suppression(torch.tensor([1.0, 3.0]), torch.tensor([5.0])), torch.tensor(-3.0))


def test_the_expectile_at_one_half_is_half_the_squared_error_and_higher_ones_pull_v_up():
    v, q = torch.tensor([0.0, 0.0], requires_grad=True), torch.tensor([2.0, -2.0])
    close(expectile_loss(v, q, 0.5), torch.tensor(2.0))
    expectile_loss(v, q, 0.9).backward()
    assert v.grad is not None
    close(v.grad, torch.tensor([-0.9 * 2, 0.1 * 2]))


def test_the_expectile_of_a_sample_is_where_the_loss_is_least():
    q = torch.tensor([0.0, 1.0, 5.0], dtype=torch.float64)
    grid = torch.linspace(0, 5, 5001, dtype=torch.float64)
    losses = torch.stack([expectile_loss(v.expand(3), q, 0.7) for v in grid])
    v = grid[losses.argmin()].item()
    weights = np.where(q.numpy() < v, 0.3, 0.7)
    assert v == pytest.approx((weights * q.numpy()).sum() / weights.sum(), abs=2e-3)


def test_the_gumbel_losss_minimum_is_the_soft_maximum_of_the_sample():
    q, temperature = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64), 0.8
    grid = torch.linspace(0, 3, 30001, dtype=torch.float64)
    losses = torch.stack([gumbel_loss(v.expand(3), q, temperature, 20.0) for v in grid])
    exact = temperature * math.log(np.mean(np.exp(q.numpy() / temperature)))
    assert grid[losses.argmin()].item() == pytest.approx(exact, abs=2e-4)


def test_the_gumbel_loss_stays_finite_and_its_gradient_right_beyond_the_largest_exponent():
    v = torch.zeros(1, requires_grad=True)
    loss = gumbel_loss(v, torch.tensor([1000.0]), 1.0, 7.0)
    loss.backward()
    assert torch.isfinite(loss)
    assert v.grad is not None
    assert v.grad.item() == pytest.approx(1 - math.exp(7), rel=1e-5)


def test_gradient_penalties_by_hand():
    gradients = torch.tensor([[3.0, 4.0], [0.0, 0.5]])
    close(two_sided_gradient_penalty(gradients, 1.0), torch.tensor((16 + 0.25) / 2))
    close(hinge_gradient_penalty(gradients, 1.0), torch.tensor(9 / 2))


def test_interpolated_points_lie_between():
    between = interpolated(torch.tensor([[1.0, 1.0]]), torch.tensor([[0.0, -1.0]]), torch.tensor([[0.25]]))
    close(between, torch.tensor([[0.25, -0.5]]))


def test_diversity_is_the_mean_cosine_over_pairs():
    gradients = torch.tensor([[[1.0, 0.0]], [[0.0, 2.0]], [[3.0, 0.0]]])
    cosines = [0.0, 1.0, 0.0]
    close(cosine_similarity(gradients), torch.tensor(sum(cosines) / 3))


def test_an_ensembles_value_is_its_mean_minimum_or_bound():
    q = torch.tensor([[1.0], [3.0]])
    close(pessimistic(q, Pessimism.MEAN, 9.0), torch.tensor([2.0]))
    close(pessimistic(q, Pessimism.MINIMUM, 9.0), torch.tensor([1.0]))
    close(pessimistic(q, Pessimism.BOUND, 2.0), torch.tensor([0.0]))
    close(lower_confidence(q, 0.0), torch.tensor([2.0]))


def test_one_critic_is_itself_under_any_pessimism():
    q = torch.tensor([[1.5, 2.5]])
    for how in Pessimism:
        assert torch.equal(pessimistic(q, how, 3.0), q[0])


def test_advantage_weights_grow_with_the_advantage_up_to_the_largest():
    weights = advantage_weights(torch.tensor([0.0, 1.0, 50.0]), 1.0, 100.0)
    close(weights, torch.tensor([1.0, math.e, 100.0]))


def test_weights_of_one_give_plain_cloning_to_the_bit():
    errors = torch.rand(64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(weighted_cloning(errors, torch.ones(64)), errors.mean())


def test_scaled_q_has_the_mean_size_that_is_asked_and_none_leaves_it():
    q = torch.tensor([-4.0, 2.0])
    close(scaled_q(q, 2.5).abs().mean(), torch.tensor(2.5))
    assert scaled_q(q, None) is q


def test_the_value_against_a_uniform_prior_is_the_soft_value_less_temperature_log_actions():
    q = torch.tensor([[1.0, 2.0, 0.5]])
    log_prior = torch.full((1, 3), -math.log(3))
    close(prior_soft_value(q, log_prior, 0.7), soft_value(q, 0.7) - 0.7 * math.log(3))


def test_the_penalty_draws_to_its_reference():
    rewards = torch.tensor([1.0, 3.0], requires_grad=True)
    loss = reward_penalty(rewards, 2.0, 0.5)
    close(loss, torch.tensor(0.5))
    loss.backward()
    assert rewards.grad is not None
    close(rewards.grad, torch.tensor([-0.5, 0.5]))


def test_the_bellman_error_by_hand_and_the_initial_term():
    error = bellman_error(torch.tensor([3.0]), 2.0, torch.tensor([10.0]), torch.tensor([0.9]))
    close(error, torch.tensor(64 / 2.0))
    close(initial_value(torch.tensor([1.0, 3.0]), 0.9), torch.tensor(0.2))

"""Each conservative piece: a number worked out by hand, a slow twin, the sign of its gradient, and its limits."""

import math

import numpy as np
import pytest
import torch

from iq_offline.algorithms.awr import advantage_weights, weighted_cloning
from iq_offline.algorithms.losses import bellman_error, initial_value, prior_soft_value, reward_penalty, soft_value
from iq_offline.algorithms.networks import pessimistic
from iq_offline.algorithms.recoil import gumbel_loss
from iq_offline.algorithms.regularisers import cosine_similarity, cql_gap, interpolated, sampled_cql_gap, steepness
from iq_offline.config.q_learning import Pessimism
from iq_offline.config.regularisers import GradientPenaltyConfig, GradientPenaltyKind

close = torch.testing.assert_close


def test_gap_of_equal_actions_is_temperature_log_two():
    close(cql_gap(torch.tensor([[3.0, 3.0]]), torch.tensor([3.0]), 0.5), torch.tensor(0.5 * math.log(2)))


def test_gap_lowers_greatest_and_raises_recorded_action():
    q = torch.tensor([[2.0, 0.0]], requires_grad=True)
    cql_gap(q, q[:, 1], 1.0).backward()
    assert q.grad is not None
    assert q.grad[0, 0] > 0
    assert q.grad[0, 1] < 0


def test_sampled_gap_tends_to_integral_over_actions():
    """Q = -a^2 on [-1, 1]: the log integral is known, and the policy's samples come from a density of another shape."""
    rng, count = np.random.default_rng(0), 200_000
    uniform = torch.from_numpy(rng.uniform(-1, 1, (count, 1)))
    policy = torch.from_numpy(rng.triangular(-1, 0, 1, (count, 1)))
    log_prob = torch.log(1 - policy.abs())
    exact = math.log(math.sqrt(math.pi) * math.erf(1))
    gap = sampled_cql_gap(-uniform.square(), -policy.square(), log_prob, torch.zeros(1, dtype=torch.float64), 1.0, 1)
    assert gap.item() == pytest.approx(exact, abs=0.01)


def test_sampled_gap_equals_slow_twin():
    rng = np.random.default_rng(1)
    uniform, policy, log_prob, data = (rng.normal(size=shape) for shape in [(4, 3), (4, 3), (4, 3), (3,)])
    total = 0.0
    for state in range(3):
        inside = sum(math.exp(q / 0.7 + 2 * math.log(2)) for q in uniform[:, state])
        inside += sum(math.exp(q / 0.7 - lp) for q, lp in zip(policy[:, state], log_prob[:, state], strict=True))
        total += 0.7 * math.log(inside / 8) - data[state]
    tensors = [torch.from_numpy(array) for array in (uniform, policy, log_prob, data)]
    assert sampled_cql_gap(*tensors, 0.7, 2).item() == pytest.approx(total / 3, rel=1e-12)


def test_gumbel_minimum_is_soft_maximum_of_sample():
    q, temperature = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64), 0.8
    grid = torch.linspace(0, 3, 30001, dtype=torch.float64)
    losses = torch.stack([gumbel_loss(v.expand(3), q, temperature, 20.0) for v in grid])
    exact = temperature * math.log(np.mean(np.exp(q.numpy() / temperature)))
    assert grid[losses.argmin()].item() == pytest.approx(exact, abs=2e-4)


def test_gumbel_loss_finite_beyond_largest_exponent():
    """Its gradient there is that of the tangent."""
    v = torch.zeros(1, requires_grad=True)
    loss = gumbel_loss(v, torch.tensor([1000.0]), 1.0, 7.0)
    loss.backward()
    assert torch.isfinite(loss)
    assert v.grad is not None
    assert v.grad.item() == pytest.approx(1 - math.exp(7), rel=1e-5)


def test_gradient_penalties_by_hand():
    """Two-sided: of the norms 5 and 0.5; hinge: of the largest components 4 and 0.5."""
    gradients = torch.tensor([[3.0, 4.0], [0.0, 0.5]])
    two_sided = GradientPenaltyConfig(kind=GradientPenaltyKind.TWO_SIDED, target=1.0)
    close(steepness(two_sided, gradients), torch.tensor((16 + 0.25) / 2))
    hinge = GradientPenaltyConfig(kind=GradientPenaltyKind.HINGE, target=1.0)
    close(steepness(hinge, gradients), torch.tensor(9 / 2))


def test_two_sided_penalty_at_no_slope_is_finite():
    """The norm's own gradient at zero is zero, not 0 / 0."""
    gradients = torch.zeros(2, 3, requires_grad=True)
    steepness(GradientPenaltyConfig(kind=GradientPenaltyKind.TWO_SIDED), gradients).backward()
    assert gradients.grad is not None
    assert gradients.grad.count_nonzero() == 0


def test_interpolated_points_lie_between():
    between = interpolated(torch.tensor([[1.0, 1.0]]), torch.tensor([[0.0, -1.0]]), torch.tensor([[0.25]]))
    close(between, torch.tensor([[0.25, -0.5]]))


def test_diversity_is_mean_cosine_over_pairs():
    gradients = torch.tensor([[[1.0, 0.0]], [[0.0, 2.0]], [[3.0, 0.0]]])
    cosines = [0.0, 1.0, 0.0]
    close(cosine_similarity(gradients), torch.tensor(sum(cosines) / 3))


def test_diversity_of_one_critic_is_refused():
    with pytest.raises(ValueError, match="two members or more"):
        cosine_similarity(torch.ones(1, 4, 2))


def test_ensemble_value_is_mean_minimum_or_bound():
    q = torch.tensor([[1.0], [3.0]])
    close(pessimistic(q, Pessimism.MEAN, 9.0), torch.tensor([2.0]))
    close(pessimistic(q, Pessimism.MINIMUM, 9.0), torch.tensor([1.0]))
    close(pessimistic(q, Pessimism.BOUND, 2.0), torch.tensor([0.0]))
    close(pessimistic(q, Pessimism.BOUND, 0.0), torch.tensor([2.0]))


def test_one_critic_is_itself_under_any_pessimism():
    q = torch.tensor([[1.5, 2.5]])
    for how in Pessimism:
        assert torch.equal(pessimistic(q, how, 3.0), q[0])


def test_advantage_weights_grow_up_to_largest():
    weights = advantage_weights(torch.tensor([0.0, 1.0, 50.0]), 1.0, 100.0)
    close(weights, torch.tensor([1.0, math.e, 100.0]))


def test_weights_of_one_are_plain_cloning():
    """To the bit."""
    errors = torch.rand(64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(weighted_cloning(errors, torch.ones(64)), errors.mean())


def test_uniform_prior_takes_log_actions_off_value():
    q = torch.tensor([[1.0, 2.0, 0.5]])
    log_prior = torch.full((1, 3), -math.log(3))
    close(prior_soft_value(q, log_prior, 0.7), soft_value(q, 0.7) - 0.7 * math.log(3))


def test_penalty_draws_rewards_to_reference():
    rewards = torch.tensor([1.0, 3.0], requires_grad=True)
    loss = reward_penalty(rewards, 2.0, 0.5)
    close(loss, torch.tensor(0.5))
    loss.backward()
    assert rewards.grad is not None
    close(rewards.grad, torch.tensor([-0.5, 0.5]))


def test_bellman_error_and_initial_term_by_hand():
    error = bellman_error(torch.tensor([3.0]), 2.0, torch.tensor([10.0]), torch.tensor([0.9]))
    close(error, torch.tensor(64 / 2.0))
    close(initial_value(torch.tensor([1.0, 3.0]), 0.9), torch.tensor(0.2))

"""Each loss: a number worked out by hand, the sign of its gradient, and its limits."""

import math

import pytest
import torch

from iq_offline.algorithms.regularisers import squared_slope
from iq_offline.algorithms.distributions import gaussian_kl
from iq_offline.algorithms.divergences import ChiSquared
from iq_offline.algorithms.losses import (
    actor_loss,
    bounded,
    censored_squared_error,
    cloning_cross_entropy,
    implicit_reward,
    iq_expert_loss,
    kl_soft_value,
    soft_value,
)

close = torch.testing.assert_close


def test_termination_stops_the_bootstrap_and_truncation_does_not():
    q, next_v, terminations = torch.ones(2), torch.full((2,), 10.0), torch.tensor([1.0, 0.0])
    reward = implicit_reward(q, next_v, discounts=0.99 * (1 - terminations))
    close(reward, torch.tensor([1.0, 1.0 - 9.9]))


def test_a_column_vector_is_refused_instead_of_broadcast():
    with pytest.raises(ValueError, match=r"\(2, 1\)"):
        implicit_reward(torch.ones(2), torch.ones(2, 1), torch.ones(2))


def test_soft_value_of_two_equal_actions_is_their_value_plus_temperature_times_log_two():
    close(soft_value(torch.tensor([[3.0, 3.0]]), 0.5), torch.tensor([3.0 + 0.5 * math.log(2)]))


def test_soft_value_tends_to_the_maximum_as_the_temperature_falls():
    close(soft_value(torch.tensor([[1.0, 2.0]]), 1e-3), torch.tensor([2.0]))


def test_kl_of_equal_width_gaussians_is_the_squared_distance_over_twice_the_variance():
    close(gaussian_kl(torch.tensor([[0.3, 0.0]]), 0.5, torch.tensor([[0.0, 0.4]]), 0.5), torch.tensor([0.5]))


def test_a_bounded_value_is_clipped_on_both_sides_and_no_bound_changes_nothing():
    values = torch.tensor([-7.0, 1.0, 9.0])
    close(bounded(values, 5.0), torch.tensor([-5.0, 1.0, 5.0]))
    assert bounded(values, None) is values


def test_kl_soft_value_at_temperature_zero_is_q():
    close(kl_soft_value(torch.tensor([2.0]), torch.tensor([7.0]), 0.0), torch.tensor([2.0]))


def test_phi_prime_is_the_derivative_of_phi_and_phi_is_greatest_at_twice_the_coefficient():
    divergence = ChiSquared(0.5)
    rewards = torch.linspace(-3, 3, 13, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(divergence.phi(rewards).sum(), rewards)
    close(slope, divergence.phi_prime(rewards.detach()))
    close(divergence.phi_prime(torch.tensor([1.0])), torch.tensor([0.0]))


def test_expert_loss_by_hand():
    # r = (1, 2), phi = r - r^2/2 = (0.5, 0), V - discount V' = (3 - 1, 3 - 0): 2.5 - 0.25.
    loss = iq_expert_loss(
        torch.tensor([1.0, 2.0]),
        torch.tensor([3.0, 3.0]),
        torch.tensor([2.0, 5.0]),
        torch.tensor([0.5, 0.0]),
        ChiSquared(0.5).phi,
    )
    close(loss, torch.tensor(2.25))


def test_expert_loss_is_equation_12_once_the_next_values_cancel():
    generator = torch.Generator().manual_seed(0)
    q, v, next_v = torch.randn(3, 50, generator=generator, dtype=torch.float64)
    discounts, coefficient = torch.full((50,), 0.9, dtype=torch.float64), 0.7
    rewards = implicit_reward(q, next_v, discounts)
    equation_12 = -(q - v).mean() + rewards.square().mean() / (4 * coefficient)
    close(iq_expert_loss(rewards, v, next_v, discounts, ChiSquared(coefficient).phi), equation_12)


def test_expert_loss_pulls_the_experts_q_up_and_the_value_down():
    q = torch.zeros(1, requires_grad=True)
    v = torch.zeros(1, requires_grad=True)
    discounts = torch.full((1,), 0.9)
    rewards = implicit_reward(q, torch.zeros(1), discounts)
    iq_expert_loss(rewards, v, torch.zeros(1), discounts, ChiSquared(0.5).phi).backward()
    assert q.grad is not None
    assert v.grad is not None
    assert q.grad.item() == -1.0
    assert v.grad.item() == 1.0


def test_action_gradient_penalty_of_a_plane_is_its_squared_slope():
    actions = torch.zeros(5, 2, requires_grad=True)
    penalty = squared_slope(actions @ torch.tensor([3.0, -4.0]), actions)
    close(penalty, torch.tensor(25.0))


def test_actor_loss_falls_with_q_and_rises_with_distance_from_the_prior():
    q, kl = torch.tensor([1.0], requires_grad=True), torch.tensor([0.5], requires_grad=True)
    loss = actor_loss(q, kl, 3.0)
    loss.backward()
    close(loss, torch.tensor(0.5))
    assert q.grad is not None
    assert kl.grad is not None
    assert (q.grad.item(), kl.grad.item()) == (-1.0, 3.0)


def test_censored_error_is_plain_inside_the_bounds_and_free_beyond_a_reached_one():
    means = torch.tensor([[1.7, -1.7, 0.5, 1.5, 0.8, -1.5]], requires_grad=True)
    actions = torch.tensor([[1.0, -1.0, 0.3, 0.5, 1.0, 1.0]])
    loss = censored_squared_error(means, actions)
    close(loss, torch.tensor((0 + 0 + 0.04 + 1.0 + 0.04 + 6.25) / 6))
    loss.backward()
    assert means.grad is not None
    assert means.grad[0, :2].tolist() == [0.0, 0.0]
    assert means.grad[0, 3] > 0


def test_cross_entropy_of_a_coin_is_log_two():
    close(cloning_cross_entropy(torch.zeros(4, 2), torch.tensor([0, 1, 0, 1])), torch.tensor(math.log(2)))

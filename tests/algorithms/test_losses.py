"""Each loss: a number worked out by hand, the sign of its gradient, and its limits."""

import math

import pytest
import torch

from iq_offline.algorithms.bc import censored_residuals, cloning_errors, cloning_loss
from iq_offline.algorithms.distributions import gaussian_kl
from iq_offline.algorithms.divergences import ChiSquared
from iq_offline.algorithms.losses import (
    actor_loss,
    bootstrap,
    bounded,
    implicit_reward,
    initial_value,
    mixed,
    reward_penalty,
    soft_value,
    telescoped_value,
)
from iq_offline.algorithms.networks import ActionScale, ContinuousPolicy, DiscretePolicy, Standardiser
from iq_offline.algorithms.regularisers import squared_slope
from iq_offline.batch import Batch
from iq_offline.config.base import Activation
from iq_offline.config.cloning import CloningLoss

PLAIN = Standardiser(torch.zeros(3), torch.ones(3))
close = torch.testing.assert_close


def test_termination_stops_bootstrap_and_truncation_does_not():
    q, next_v, terminations = torch.ones(2), torch.full((2,), 10.0), torch.tensor([1.0, 0.0])
    reward = implicit_reward(q, next_v, discounts=0.99 * (1 - terminations))
    close(reward, torch.tensor([1.0, 1.0 - 9.9]))


def test_absorbing_value_stands_behind_terminations_alone():
    """It is discounted as any other; without one, next values pass and the discount of a termination is zero."""
    next_v, terminations = torch.tensor([10.0, 20.0]), torch.tensor([1.0, 0.0])
    found, discounts = bootstrap(next_v, terminations, 0.9, -5.0)
    close(found, torch.tensor([-5.0, 20.0]))
    close(discounts, torch.full((2,), 0.9))
    found, discounts = bootstrap(next_v, terminations, 0.9, None)
    assert found is next_v
    close(discounts, torch.tensor([0.0, 0.9]))


@pytest.mark.parametrize("loss", [implicit_reward, telescoped_value])
def test_column_vectors_are_refused_instead_of_broadcast(loss):
    with pytest.raises(ValueError, match=r"\(2, 1\)"):
        loss(torch.ones(2), torch.ones(2, 1), torch.ones(2))


@pytest.mark.parametrize("loss", [lambda v: initial_value(v, 0.9), lambda r: reward_penalty(r, 0.0, 0.5)])
def test_single_column_is_refused(loss):
    with pytest.raises(ValueError, match=r"\(2, 1\)"):
        loss(torch.ones(2, 1))


def test_soft_value_of_equal_actions_adds_log_two():
    close(soft_value(torch.tensor([[3.0, 3.0]]), 0.5), torch.tensor([3.0 + 0.5 * math.log(2)]))


def test_soft_value_tends_to_maximum_when_cold():
    close(soft_value(torch.tensor([[1.0, 2.0]]), 1e-3), torch.tensor([2.0]))


def test_kl_of_equal_widths_by_hand():
    """The squared distance over twice the variance."""
    close(gaussian_kl(torch.tensor([[0.3, 0.0]]), 0.5, torch.tensor([[0.0, 0.4]]), 0.5), torch.tensor([0.5]))


def test_bounded_values_are_clipped_on_both_sides():
    """No bound changes nothing."""
    values = torch.tensor([-7.0, 1.0, 9.0])
    close(bounded(values, 5.0), torch.tensor([-5.0, 1.0, 5.0]))
    assert bounded(values, None) is values


def test_mixture_is_half_of_each_source():
    expert, other = torch.tensor(3.0), torch.tensor(1.0)
    close(mixed(expert, other), torch.tensor(2.0))
    assert mixed(expert, None) is expert


def test_phi_is_greatest_at_twice_the_coefficient():
    close(ChiSquared(0.5).phi_prime(torch.tensor([1.0])), torch.tensor([0.0]))


def expert_loss(rewards, v, next_v, discounts, phi):
    """The value term on expert transitions less E[phi(r)], as `iq.IQLearner` descends it."""
    return telescoped_value(v, next_v, discounts) - phi(rewards).mean()


def test_expert_loss_by_hand():
    """r = (1, 2), phi = r - r^2/2 = (0.5, 0), V - discount V' = (3 - 1, 3 - 0): 2.5 - 0.25."""
    loss = expert_loss(
        torch.tensor([1.0, 2.0]),
        torch.tensor([3.0, 3.0]),
        torch.tensor([2.0, 5.0]),
        torch.tensor([0.5, 0.0]),
        ChiSquared(0.5).phi,
    )
    close(loss, torch.tensor(2.25))


def test_expert_loss_is_equation_12():
    """Once the next values cancel."""
    generator = torch.Generator().manual_seed(0)
    q, v, next_v = torch.randn(3, 50, generator=generator, dtype=torch.float64)
    discounts, coefficient = torch.full((50,), 0.9, dtype=torch.float64), 0.7
    rewards = implicit_reward(q, next_v, discounts)
    equation_12 = -(q - v).mean() + rewards.square().mean() / (4 * coefficient)
    close(expert_loss(rewards, v, next_v, discounts, ChiSquared(coefficient).phi), equation_12)


def test_expert_loss_raises_q_and_lowers_value():
    q = torch.zeros(1, requires_grad=True)
    v = torch.zeros(1, requires_grad=True)
    discounts = torch.full((1,), 0.9)
    rewards = implicit_reward(q, torch.zeros(1), discounts)
    expert_loss(rewards, v, torch.zeros(1), discounts, ChiSquared(0.5).phi).backward()
    assert q.grad is not None
    assert v.grad is not None
    assert q.grad.item() == -1.0
    assert v.grad.item() == 1.0


def test_action_gradient_of_plane_is_squared_slope():
    actions = torch.zeros(5, 2, requires_grad=True)
    penalty = squared_slope(actions @ torch.tensor([3.0, -4.0]), actions)
    close(penalty, torch.tensor(25.0))


def test_actor_loss_weighs_q_against_kl():
    q, kl = torch.tensor([1.0], requires_grad=True), torch.tensor([0.5], requires_grad=True)
    loss = actor_loss(q, kl, 3.0)
    loss.backward()
    close(loss, torch.tensor(0.5))
    assert q.grad is not None
    assert kl.grad is not None
    assert (q.grad.item(), kl.grad.item()) == (-1.0, 3.0)


def test_actor_loss_at_temperature_zero_is_minus_q():
    close(actor_loss(torch.tensor([2.0]), torch.tensor([7.0]), 0.0), torch.tensor(-2.0))


def test_censored_error_is_free_beyond_a_reached_bound():
    """Inside the bounds it is the plain one."""
    means = torch.tensor([[1.7, -1.7, 0.5, 1.5, 0.8, -1.5]], requires_grad=True)
    actions = torch.tensor([[1.0, -1.0, 0.3, 0.5, 1.0, 1.0]])
    loss = censored_residuals(means, actions).square().mean()
    close(loss, torch.tensor((0 + 0 + 0.04 + 1.0 + 0.04 + 6.25) / 6))
    loss.backward()
    assert means.grad is not None
    assert means.grad[0, :2].tolist() == [0.0, 0.0]
    assert means.grad[0, 3] > 0


def constant(policy, outputs: list[float]):
    """The same outputs at every observation."""
    with torch.no_grad():
        policy.network[0].weight.zero_()
        policy.network[0].bias.copy_(torch.tensor(outputs))
    return policy


@pytest.mark.parametrize(("kind", "errors"), [(CloningLoss.CENSORED, [0.18, 0.34]), (CloningLoss.ABSOLUTE, [0.3, 0.5])])
def test_cloning_loss_is_mean_error_by_kind(kind: CloningLoss, errors: list[float]):
    """Means (0.5, 1.2) for (-0.1, 1) and (0.3, 0.4), so residuals (0.6, 0) and (0.2, 0.8): squared 0.18 and 0.34."""
    policy = ContinuousPolicy(PLAIN, ActionScale.of_bounds([-1.0] * 2, [1.0] * 2), (), Activation.TANH)
    policy = constant(policy, [0.5, 1.2])
    actions = torch.tensor([[-0.1, 1.0], [0.3, 0.4]])
    batch = Batch(torch.zeros(2, 3), actions, torch.zeros(2, 3), torch.zeros(2))
    expected = torch.tensor(errors)
    close(cloning_errors(policy, batch, kind), expected)
    close(cloning_loss(policy, batch, kind), expected.mean())


def test_cross_entropy_of_a_coin_is_log_two():
    policy = constant(DiscretePolicy(PLAIN, 2, (), Activation.TANH), [0.0, 0.0])
    batch = Batch(torch.randn(4, 3), torch.tensor([0, 1, 0, 1]), torch.zeros(4, 3), torch.zeros(4))
    close(cloning_loss(policy, batch), torch.tensor(math.log(2)))
    close(cloning_errors(policy, batch), torch.full((4,), math.log(2)))

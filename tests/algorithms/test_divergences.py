"""Each divergence: phi' is phi's derivative, the expert's slope has the right sign, and no reward is out of bounds."""

import math

import pytest
import torch

from iq_offline.algorithms import divergences as d

ALL = [
    d.ChiSquared(0.5),
    d.Linear(),
    d.TotalVariation(1.0),
    d.KL(),
    d.KLDual(),
    d.KLDonskerVaradhan(),
    d.ForwardKL(),
    d.JensenShannon(),
    d.Hellinger(),
]
GUARDED = [d.KL(), d.KLDual(), d.ForwardKL(), d.JensenShannon(), d.Hellinger()]
name = lambda divergence: type(divergence).__name__  # noqa: E731
close = torch.testing.assert_close


@pytest.mark.parametrize("divergence", ALL, ids=name)
def test_phi_prime_is_the_derivative_of_phi(divergence: d.Divergence):
    rewards = torch.linspace(-6, 6, 97, dtype=torch.float64).add(1e-3).requires_grad_(True)
    (slope,) = torch.autograd.grad(divergence.phi(rewards).sum(), rewards)
    close(slope, divergence.phi_prime(rewards.detach()))


@pytest.mark.parametrize("divergence", ALL, ids=name)
def test_raising_expert_reward_lowers_loss_at_zero(divergence: d.Divergence):
    rewards = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    (-divergence.phi(rewards).mean()).backward()
    assert rewards.grad is not None
    assert (rewards.grad < 0).all()


@pytest.mark.parametrize("divergence", ALL, ids=name)
def test_phi_is_concave(divergence: d.Divergence):
    left, right = torch.linspace(-6, 5, 60, dtype=torch.float64), torch.linspace(-5, 6, 60, dtype=torch.float64)
    middle = torch.cat([divergence.phi(((left + right) / 2)[i : i + 1]) for i in range(60)])
    ends = torch.cat([(divergence.phi(left[i : i + 1]) + divergence.phi(right[i : i + 1])) / 2 for i in range(60)])
    assert (middle >= ends - 1e-12).all()


@pytest.mark.parametrize("divergence", GUARDED, ids=name)
def test_phi_follows_steepest_tangent_beyond_its_domain(divergence: d.Divergence):
    rewards = torch.tensor([-1e6, -30.0, -2 * math.log(d.STEEPEST)], dtype=torch.float64)
    assert torch.isfinite(divergence.phi(rewards)).all()
    close(divergence.phi_prime(rewards), torch.full((3,), d.STEEPEST, dtype=torch.float64))


@pytest.mark.parametrize(
    ("divergence", "reward", "phi"),
    [
        (d.ChiSquared(0.5), 2.0, 0.0),
        (d.TotalVariation(1.0), 0.7, 0.7),
        (d.TotalVariation(1.0), 1.5, 1.5 - 10 * 0.25),
        (d.KL(), math.log(2), 0.5),
        (d.KLDual(), 0.0, -math.exp(-1)),
        (d.ForwardKL(), 1.0, 1.0),
        (d.JensenShannon(), 0.0, 0.0),
        (d.JensenShannon(), math.log(2), math.log(1.5)),
        (d.Hellinger(), 1.0, 0.5),
    ],
    ids=str,
)
def test_phi_by_hand(divergence: d.Divergence, reward: float, phi: float):
    close(divergence.phi(torch.tensor([reward], dtype=torch.float64)), torch.tensor([phi], dtype=torch.float64))


def test_donsker_varadhan_takes_log_of_batch_mean():
    rewards = torch.tensor([0.0, math.log(3.0)])
    close(d.KLDonskerVaradhan().phi(rewards), torch.full((2,), -math.log(2 / 3)))
    close(d.KLDonskerVaradhan().phi_prime(rewards).mean(), torch.tensor(1.0))

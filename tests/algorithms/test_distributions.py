"""Action distributions: probabilities sum to one, divergences are what they are defined as, actions stay in bounds."""

import math

import pytest
import torch

from iq_offline.algorithms.csil import bounded_log_density
from iq_offline.algorithms.distributions import ClippedGaussian, TanhGaussian, gaussian_kl

close = torch.testing.assert_close


def log_likelihood(policy: ClippedGaussian | TanhGaussian, actions: torch.Tensor) -> torch.Tensor:
    """Log likelihood of actions, nats, (B,): censored at the bounds, or of the density behind the tanh."""
    if isinstance(policy, TanhGaussian):
        inside = actions.clamp(-1 + 1e-6, 1 - 1e-6)
        density = torch.distributions.Normal(policy.mean, policy.std).log_prob(inside.atanh())
        return (density - torch.log1p(-inside.square())).sum(dim=-1)
    inside = torch.distributions.Normal(policy.mean, policy.std).log_prob(actions)
    above = torch.special.log_ndtr((policy.mean - 1) / policy.std)
    below = torch.special.log_ndtr((-1 - policy.mean) / policy.std)
    return torch.where(actions >= 1 - 1e-6, above, torch.where(actions <= -1 + 1e-6, below, inside)).sum(dim=-1)


def test_clipped_gaussian_density_and_masses_sum_to_one():
    here = ClippedGaussian(torch.full((20001, 1), 0.8), torch.full((20001, 1), 0.5))
    inside = torch.linspace(-1, 1, 20001).unsqueeze(-1)[1:-1]
    density = log_likelihood(ClippedGaussian(here.mean[1:-1], here.std[1:-1]), inside).exp()
    ends = log_likelihood(ClippedGaussian(torch.full((2, 1), 0.8), 0.5), torch.tensor([[-1.0], [1.0]])).exp()
    assert (density.sum() * 1e-4 + ends.sum()).item() == pytest.approx(1, abs=1e-3)


def test_tanh_gaussian_density_integrates_to_one():
    inside = torch.linspace(-1, 1, 200001, dtype=torch.float64).unsqueeze(-1)[1:-1]
    here = TanhGaussian(torch.full_like(inside, 0.3), torch.full_like(inside, 0.4))
    assert (log_likelihood(here, inside).exp().sum() * 1e-5).item() == pytest.approx(1, abs=1e-4)


def test_samples_lie_in_bounds_around_the_mode():
    """Without noise they are the mode."""
    mean, noise = torch.tensor([[1.7, -0.2]]), torch.tensor([[2.0, -9.0]])
    for here in (ClippedGaussian(mean, 0.5), TanhGaussian(mean, 0.5)):
        assert here.sample(noise).abs().max() <= 1
        close(here.sample(torch.zeros(1, 2)), here.mode())


def test_log_density_of_draw_is_its_actions():
    noise = torch.linspace(-2, 2, 41, dtype=torch.float64).unsqueeze(-1)
    here = TanhGaussian(torch.full_like(noise, 0.3), torch.full_like(noise, 0.4))
    actions, log_prob = here.sample_with_log_prob(noise)
    close(actions, here.sample(noise))
    close(log_prob, log_likelihood(here, actions))


@pytest.mark.parametrize("mean", [0.0, 0.9, 1.0, 3.0])
def test_clipped_gaussian_entropy_pays_for_width_only(mean: float):
    """It moves no mean."""
    at, width = (torch.full((2000, 1), value, dtype=torch.float64, requires_grad=True) for value in (mean, 0.1))
    noise = torch.randn(2000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    here = ClippedGaussian(at, width)
    actions, log_prob = here.sample_with_log_prob(noise)
    close(actions, here.sample(noise))
    if mean == 0:
        close(log_prob.mean(), log_likelihood(here, actions).mean(), rtol=0, atol=0.05)
    of_mean, of_width = torch.autograd.grad(log_prob.sum(), [at, width], allow_unused=True, materialize_grads=True)
    assert of_mean.count_nonzero() == 0
    close(of_width, torch.full_like(width, -10.0))


@pytest.mark.parametrize("mean", [6.0, 20.0, 1e4])
def test_tanh_gaussian_entropy_draws_far_means_back(mean: float):
    """Draws are the denser the farther out the mean."""
    at = torch.tensor([[mean], [-mean]], requires_grad=True)
    actions, log_prob = TanhGaussian(at, 0.5).sample_with_log_prob(torch.zeros(2, 1))
    assert actions.abs().max() <= 1
    slope = 2 * (mean - math.log(2))
    expected = slope - math.log(0.5) - 0.5 * math.log(2 * math.pi)
    close(log_prob, torch.full((2,), expected), rtol=1e-5, atol=1e-4)
    (gradient,) = torch.autograd.grad(log_prob.sum(), at)
    close(gradient, torch.tensor([[2.0], [-2.0]]), rtol=0, atol=1e-4)


def test_kl_against_sampling():
    generator = torch.Generator().manual_seed(0)
    mean, std = torch.full((400_000, 1), 0.1), torch.full((400_000, 1), 0.2)
    first = TanhGaussian(mean, std)
    second = TanhGaussian(torch.full_like(mean, 0.3), torch.full_like(std, 0.5))
    actions = first.sample(torch.randn(mean.shape, generator=generator))
    sampled = (log_likelihood(first, actions) - log_likelihood(second, actions)).mean().item()
    assert first.kl(second)[0].item() == pytest.approx(sampled, abs=5e-3)


def test_kl_of_equal_widths_as_number_or_tensor():
    mean, other = torch.tensor([[0.3, 0.0]]), torch.tensor([[0.0, 0.4]])
    wide = torch.full((1, 2), 0.5)
    close(gaussian_kl(mean, wide, other, wide), gaussian_kl(mean, 0.5, other, 0.5))


def test_entropy_of_a_unit_gaussian():
    close(ClippedGaussian(torch.zeros(1, 1), 1.0).entropy(), torch.tensor([0.5 * math.log(2 * math.pi * math.e)]))


def test_bounded_density_greatest_beyond_a_reached_bound():
    actions = torch.tensor([[1.0], [1.0], [0.5]])
    density = bounded_log_density(torch.tensor([[1.0], [3.0], [0.5]]), 0.2, actions)
    close(density, torch.full((3,), -math.log(0.2) - 0.5 * math.log(2 * math.pi)))

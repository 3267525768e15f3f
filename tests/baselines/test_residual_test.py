"""The residual test tells whose an episode is, however noisy, and median cloning sees through the noise."""

from math import erf, exp, pi, sqrt

import numpy as np
import pytest
import torch

from iq_offline.algorithms.bc import censored_residuals
from iq_offline.algorithms.encoders import initialise
from iq_offline.algorithms.networks import ActionScale, ContinuousPolicy, Standardiser
from iq_offline.baselines.residual_test import (
    Residuals,
    bounds_reached,
    residuals,
    sign_predictability,
    soft_signs,
)
from iq_offline.baselines.sources import Recorded
from iq_offline.config.base import Activation
from iq_offline.config.baselines import ResidualTestConfig
from iq_offline.data.spaces import ContinuousActions

TEST = ResidualTestConfig()
SPACE = ContinuousActions((-1.0, -1.0), (1.0, 1.0), "test")


def censored_absolute_error(means: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    return censored_residuals(means, actions).abs().mean()


def censored_squared_error(means: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    return censored_residuals(means, actions).square().mean()


def a_policy(seed: int, scale: float = 1.0) -> ContinuousPolicy:
    """Acts in [-2 scale, 2 scale] on four standard normal observations; the half range of actions is 2."""
    policy = ContinuousPolicy(
        Standardiser(torch.zeros(4), torch.ones(4)),
        ActionScale.of_bounds((-2.0, -2.0), (2.0, 2.0)),
        (32,),
        Activation.TANH,
    )
    initialise(policy, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        policy.network[-1].weight *= 6 * scale
    return policy


def episodes_of(policy: ContinuousPolicy, noises: list[float], steps: int = 400, arbitrary: float = 0.0) -> Recorded:
    """An episode a noise level: the policy's action plus Gaussian noise, clipped; some steps arbitrary altogether."""
    random = np.random.default_rng(0)
    observations = random.normal(size=(len(noises) * steps, 4)).astype(np.float32)
    with torch.no_grad():
        actions = policy.act(torch.from_numpy(observations)).numpy()
    spread = np.repeat(noises, steps)[:, None]
    actions = np.clip(actions + 2 * spread * random.normal(size=actions.shape), -2, 2)
    odd = random.random(len(actions)) < arbitrary
    actions[odd] = random.uniform(-2, 2, size=(int(odd.sum()), 2))
    return Recorded(
        observations,
        actions.astype(np.float32),
        observations,
        np.repeat(np.arange(len(noises)), steps).astype(np.int64),
    )


def test_own_policy_passes_at_any_noise():
    """An episode of the clones own policy passes at any noise and anothers at none."""
    expert, other = a_policy(0), a_policy(1)
    noises = [0.0, 0.15, 0.5, 1.0]
    own = residuals(TEST, expert, episodes_of(expert, noises, arbitrary=0.1))
    foreign = residuals(TEST, expert, episodes_of(other, noises, arbitrary=0.1))
    assert own.passed(TEST).tolist() == [True] * 4
    assert foreign.passed(TEST).tolist() == [False] * 4
    assert own.predictability.max() < 0.03
    assert foreign.predictability.min() > 0.1
    assert (np.diff(own.size) > 0.02).all()  # what noise adds is measured, and is no ground for refusal


def test_small_error_of_clone_passes():
    """A small error of the clone itself is no ground for refusal."""
    expert = a_policy(0)
    clone = a_policy(0)
    with torch.no_grad():
        clone.network[-1].bias += 0.02
    found = residuals(TEST, clone, episodes_of(expert, [0.0]))
    assert found.passed(TEST).all()
    assert (
        not residuals(TEST.model_copy(update={"negligible_residual": 0.001}), clone, episodes_of(expert, [0.0]))
        .passed(TEST)
        .any()
    )


def test_short_episodes_are_left_out():
    expert = a_policy(0)
    assert not residuals(TEST, expert, episodes_of(expert, [0.1, 0.1], steps=99)).passed(TEST).any()
    assert residuals(TEST, expert, episodes_of(expert, [0.1, 0.1], steps=100)).passed(TEST).all()


def test_what_is_foretold_by_hand():
    feature = np.tile([[-1.0], [-1.0], [1.0], [1.0]], (250, 1))
    free = np.zeros((1000, 1))
    # 500 known steps with feature +-1: the slope is 500 / (500 + ridge 10), so 1 - (10/510)^2 of the square is gone.
    assert sign_predictability(feature, feature, free) == pytest.approx(1 - (10 / 510) ** 2)
    noise = np.random.default_rng(0).choice([-1.0, 1.0], size=(1000, 3))
    assert abs(sign_predictability(feature, noise, np.zeros((1000, 3)))) < 0.02
    assert sign_predictability(feature, np.zeros((1000, 2)), np.zeros((1000, 2))) == 0


def test_bound_counts_signs_inwards_above_half():
    """At a bound more than half of the signs inwards count."""
    nothing, at_the_top = np.zeros((1000, 1)), np.ones((1000, 1))
    half_inwards = np.repeat([[0.0], [-1.0], [-1.0], [0.0]], 250, axis=0)
    all_inwards = np.full((1000, 1), -1.0)
    assert abs(sign_predictability(nothing, half_inwards, at_the_top)) < 1e-3
    # The target is 1/2 throughout, and 500 known steps make the foretold 1/2 * 500/510 of it.
    assert sign_predictability(nothing, all_inwards, at_the_top) == pytest.approx(0.25 * (1 - (10 / 510) ** 2))
    assert sign_predictability(nothing, -all_inwards, -at_the_top) == pytest.approx(0.25 * (1 - (10 / 510) ** 2))
    assert sign_predictability(nothing, 0 * all_inwards, at_the_top) == 0  # clean, on the bound: nothing points inwards


def test_bound_counts_predictable_signs_inwards():
    """At a bound it counts where observations predict most of them inwards."""
    feature = np.tile([[-1.0], [-1.0], [1.0], [1.0]], (250, 1))
    inwards_on_one_side = np.where(feature > 0, -1.0, 0.0)
    assert sign_predictability(feature, inwards_on_one_side, np.ones((1000, 1))) == pytest.approx(0.125, abs=0.01)


def expected_soft_sign(shift: float, noise: float, small: float) -> float:
    """E of clip(x / small, -1, 1), x normal about `shift`, in closed form."""

    def below(x: float) -> float:
        return 0.5 * (1 + erf((x - shift) / (noise * sqrt(2))))

    def density(x: float) -> float:
        return exp(-0.5 * ((x - shift) / noise) ** 2) / (noise * sqrt(2 * pi))

    within = below(small) - below(-small)
    inside = shift * within - noise**2 * (density(small) - density(-small))
    return inside / small + 1 - below(small) - below(-small)


@pytest.mark.parametrize("noise", [0.05, 0.3, 1.0])
def test_statistic_on_table_is_its_exact_value(noise):
    """Of states told apart without error it is the mean square of what is expected: exactly 0 of the clone's own."""
    clone, steps = np.array([-0.6, -0.2, 0.0, 0.3, 0.7]), 40_000
    random = np.random.default_rng(0)
    for shifts in (np.zeros(5), np.array([0.4, -0.1, 0.0, -0.3, 0.2])):
        states = random.integers(5, size=steps)
        actions = np.clip((clone + shifts)[states] + noise * random.normal(size=steps), -1, 1)[:, None]
        acted = clone[states][:, None]
        found = sign_predictability(
            np.eye(5)[states],
            soft_signs(actions, acted, TEST.negligible_residual),
            bounds_reached(acted, TEST.negligible_residual),
        )
        exact = np.mean([expected_soft_sign(shift, noise, TEST.negligible_residual) ** 2 for shift in shifts])
        assert found == pytest.approx(exact, abs=0.01)
        assert (found <= TEST.max_predictability) == (not shifts.any() or exact <= TEST.max_predictability)
        assert exact == 0 if not shifts.any() else exact > 0.03


def test_soft_signs_and_bounds_by_hand():
    clone = np.array([0.5, 0.5, 0.5, 0.5, 0.95, -1.0])
    actions = np.array([0.2, 0.45, 0.5, 0.6, 1.0, 0.0])
    np.testing.assert_allclose(soft_signs(actions, clone, 0.1), [-1, -0.5, 0, 1, 0.5, 1])
    np.testing.assert_array_equal(bounds_reached(clone, 0.1), [0, 0, 0, 0, 1, -1])


def test_weights_are_inverse_sizes_of_those_chosen():
    found = Residuals(np.zeros(4), np.array([0.2, 0.1, 0.4, 0.05]), np.full(4, 100))
    np.testing.assert_allclose(found.weights(np.array([True, True, True, False])), [0.5, 1, 0.25, 0])


def test_weights_of_noiseless_episodes_are_numbers():
    found = Residuals(np.zeros(2), np.array([0.0, 0.1]), np.full(2, 100))
    assert np.isfinite(found.weights(np.array([True, True]))).all()


@pytest.mark.parametrize("wanted", [0.0, 0.5, 0.9])
def test_median_cloning_is_exact_under_clipped_noise(wanted):
    """Median cloning sees through clipped noise exactly where the mean does not."""
    noisy = np.clip(wanted + 0.6 * np.random.default_rng(0).normal(size=200_001), -1, 1)
    actions = torch.tensor(noisy).unsqueeze(1)
    grid = torch.linspace(-1, 1, 401, dtype=torch.float64)

    def best(loss) -> float:
        return float(grid[torch.stack([loss(mean.expand_as(actions), actions) for mean in grid]).argmin()])

    assert best(censored_absolute_error) == pytest.approx(wanted, abs=0.01)
    if wanted:
        # E[clip(w + 0.6 z)] lies below w; the censored square makes up for a part of that.
        plain = float(noisy.mean())
        assert plain < wanted - 0.04
        assert abs(best(censored_absolute_error) - wanted) < abs(best(censored_squared_error) - wanted)


def test_median_under_arbitrary_actions_is_the_mixtures():
    """(1 - share) Phi((m - a) / sigma) + share (m + 1) / 2 = 1/2 has the solution m that the loss finds."""
    wanted, sigma, share = 0.5, 0.3, 0.2
    random = np.random.default_rng(1)
    noisy = np.clip(wanted + sigma * random.normal(size=400_000), -1, 1)
    odd = random.random(len(noisy)) < share
    noisy[odd] = random.uniform(-1, 1, size=int(odd.sum()))

    def below(m: float) -> float:
        return (1 - share) * (1 + erf((m - wanted) / (sigma * sqrt(2)))) / 2 + share * (m + 1) / 2

    low, high = -1.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) < 0.5 else (low, middle)
    assert float(np.median(noisy)) == pytest.approx(low, abs=0.005)
    assert wanted - low < (wanted - noisy.mean()) * 0.5  # half the mean's error, or less
    actions = torch.tensor(noisy).unsqueeze(1)
    mean = torch.tensor([[low]], dtype=torch.float64, requires_grad=True)
    censored_absolute_error(mean.expand_as(actions), actions).backward()
    assert abs(float(mean.grad)) < 0.01


def test_the_absolute_error_by_hand_and_in_numpy():
    means = torch.tensor([[1.5, 0.2], [-0.5, -1.4]], requires_grad=True)
    actions = torch.tensor([[1.0, 0.5], [0.0, -1.0]])
    loss = censored_absolute_error(means, actions)
    loss.backward()
    assert loss.item() == pytest.approx((0 + 0.3 + 0.5 + 0) / 4)
    torch.testing.assert_close(means.grad, torch.tensor([[0.0, -0.25], [-0.25, 0.0]]))
    random = np.random.default_rng(0)
    many, recorded_ones = random.normal(size=(50, 3)), np.clip(random.normal(size=(50, 3)), -1, 1)
    slow = np.mean(
        [
            0.0 if (a == 1 and m > 1) or (a == -1 and m < -1) else abs(m - a)
            for m, a in zip(many.ravel(), recorded_ones.ravel(), strict=True)
        ]
    )
    fast = censored_absolute_error(torch.from_numpy(many), torch.from_numpy(recorded_ones))
    assert fast.item() == pytest.approx(slow)
    assert censored_residuals(torch.from_numpy(many), torch.from_numpy(recorded_ones)).shape == (50, 3)

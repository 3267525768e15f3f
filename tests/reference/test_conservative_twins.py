"""The conservative pieces, element by element in numpy; gradients by finite differences."""

import math
from itertools import permutations

import numpy as np
import pytest
import torch

from iq_offline.algorithms.awr import advantage_weights, weighted_cloning
from iq_offline.algorithms.networks import pessimistic
from iq_offline.algorithms.regularisers import squared_slope, cosine_similarity
from iq_offline.algorithms.conservative.values import expectile_loss, value_suppression
from iq_offline.algorithms.recoil import gumbel_loss
from iq_offline.algorithms.critic_pieces import action_gradient_between
from iq_offline.algorithms.encoders import ObservationLayout
from iq_offline.algorithms.networks import Critic, CriticEnsemble
from iq_offline.algorithms.noise import Played
from iq_offline.algorithms.pieces import gradient_penalty_at
from iq_offline.config.base import Activation
from iq_offline.config.q_learning import Pessimism
from iq_offline.config.regularisers import GradientPenaltyConfig, GradientPenaltyKind

STEP = 1e-6


def random_arrays(seed: int, *shapes: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape) for shape in shapes]


def tensors(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(array) for array in arrays]


def small_critics(members: int) -> CriticEnsemble:
    """Critics of 3 numbers and 2 actions, smooth everywhere, in double precision."""
    torch.manual_seed(0)
    layout = ObservationLayout(3)
    return CriticEnsemble([Critic(layout, 2, (5,), Activation.TANH, norm=True) for _ in range(members)]).double()


def difference_quotients(critic: Critic, observation: np.ndarray, action: np.ndarray) -> np.ndarray:
    """dQ / d(observation, action) at one point, one component at a time."""
    point = np.concatenate([observation, action])
    slopes = np.zeros_like(point)
    for component in range(len(point)):
        ends = []
        for sign in (1, -1):
            moved = point.copy()
            moved[component] += sign * STEP
            ends.append(critic(*tensors(moved[None, :3], moved[None, 3:])).item())
        slopes[component] = (ends[0] - ends[1]) / (2 * STEP)
    return slopes


@pytest.mark.parametrize("expectile", [0.5, 0.7, 0.95])
def test_the_expectile_loss_equals_its_twin(expectile: float):
    v, q = random_arrays(0, (40,), (40,))
    total = 0.0
    for value, recorded in zip(v, q, strict=True):
        total += (expectile if recorded >= value else 1 - expectile) * (recorded - value) ** 2
    assert expectile_loss(*tensors(v, q), expectile).item() == pytest.approx(total / 40, rel=1e-6)


def test_the_gumbel_loss_equals_its_twin_and_goes_on_along_its_tangent_beyond_the_largest_exponent():
    v, q = random_arrays(1, (40,), (40,))
    q[:5] += 10
    temperature, largest, total, beyond = 0.5, 3.0, 0.0, 0
    for value, recorded in zip(v, q, strict=True):
        z = (recorded - value) / temperature
        if z <= largest:
            total += math.exp(z) - z - 1
        else:
            total += math.exp(largest) - largest - 1 + (math.exp(largest) - 1) * (z - largest)
            beyond += 1
    assert 5 <= beyond < 20
    assert gumbel_loss(*tensors(v, q), temperature, largest).item() == pytest.approx(total / 40, rel=1e-12)


def test_the_gumbel_loss_beyond_the_largest_exponent_by_hand():
    # z = 9 with a tangent from 7: e^7 - 8 + (e^7 - 1) 2 = 3 e^7 - 10.
    loss = gumbel_loss(torch.zeros(1, dtype=torch.float64), torch.tensor([4.5], dtype=torch.float64), 0.5, 7.0)
    assert loss.item() == pytest.approx(3 * math.exp(7) - 10, rel=1e-12)


def test_advantage_weighted_cloning_equals_its_twin():
    advantages, errors = random_arrays(2, (40,), (40,))
    total, capped = 0.0, 0
    for advantage, error in zip(advantages, errors, strict=True):
        weight = math.exp(advantage / 0.4)
        capped += weight > 5
        total += min(weight, 5.0) * error
    assert 0 < capped < 40
    weights = advantage_weights(torch.from_numpy(advantages), 0.4, 5.0)
    assert weighted_cloning(torch.from_numpy(errors), weights).item() == pytest.approx(total / 40, rel=1e-6)


def test_advantage_weights_carry_no_gradient():
    advantages = torch.tensor([0.5], requires_grad=True)
    assert not advantage_weights(advantages, 1.0, 100.0).requires_grad


def test_value_suppression_equals_its_twin():
    supplementary, expert = random_arrays(3, (30,), (20,))
    twin = sum(supplementary) / 30 - sum(expert) / 20
    assert value_suppression(*tensors(supplementary, expert)).item() == pytest.approx(twin, rel=1e-12)


def test_diversity_is_the_cosine_of_each_ordered_pair_of_members():
    (gradients,) = random_arrays(4, (4, 10, 3))
    total = 0.0
    for sample in range(10):
        for i, j in permutations(range(4), 2):
            one, other = gradients[i, sample], gradients[j, sample]
            total += one @ other / (math.sqrt(one @ one) * math.sqrt(other @ other))
    assert cosine_similarity(torch.from_numpy(gradients)).item() == pytest.approx(total / (10 * 4 * 3), rel=1e-10)


@pytest.mark.parametrize("how", list(Pessimism))
def test_the_pessimistic_value_equals_its_twin(how: Pessimism):
    (q,) = random_arrays(5, (4, 10))
    for sample, value in enumerate(pessimistic(torch.from_numpy(q), how, 1.5)):
        column = list(q[:, sample])
        mean = sum(column) / 4
        deviation = math.sqrt(sum((one - mean) ** 2 for one in column) / 4)
        twin = {Pessimism.MEAN: mean, Pessimism.MINIMUM: min(column), Pessimism.BOUND: mean - 1.5 * deviation}[how]
        assert value.item() == pytest.approx(twin, rel=1e-12)


def test_the_action_gradient_penalty_is_the_squared_difference_quotient():
    (critic,) = small_critics(1).members
    observations, actions = random_arrays(6, (4, 3), (4, 2))
    total = 0.0
    for observation, action in zip(observations, actions, strict=True):
        of_action = difference_quotients(critic, observation, action)[3:]
        total += of_action @ of_action
    points = torch.from_numpy(actions).requires_grad_(True)
    penalty = squared_slope(critic(torch.from_numpy(observations), points), points)
    assert penalty.item() == pytest.approx(total / 4, rel=1e-7)


def test_the_action_gradient_between_two_actions_equals_its_twin():
    """Two critics, a point at a drawn share of each way."""
    critics = small_critics(2)
    observations, expert, policy, shares = random_arrays(8, (4, 3), (4, 2), (4, 2), (4, 1))
    shares = 1 / (1 + np.exp(-shares))
    total = 0.0
    for critic in critics.members:
        for row in range(4):
            point = shares[row] * expert[row] + (1 - shares[row]) * policy[row]
            of_action = difference_quotients(critic, observations[row], point)[3:]
            total += of_action @ of_action
    penalty = action_gradient_between(critics, *tensors(observations, expert, policy), Played(tensors(shares)))
    assert penalty.item() == pytest.approx(total / 8, rel=1e-7)


@pytest.mark.parametrize("weight", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("steepness", [0.1, 3.0, 100.0])
def test_between_two_actions_q_falls_by_no_more_than_the_penalty_allows(weight: float, steepness: float):
    """E[Q(s, a) - Q(s, a')] <= weight E |dQ/da|^2 + E |a - a'|^2 / (4 weight), the mean slope from 40 even shares."""
    critics = small_critics(1)
    observations, expert, policy = tensors(*random_arrays(9, (50, 3), (50, 2), (50, 2)))
    shares = (torch.arange(40, dtype=torch.float64) + 0.5) / 40

    def q(*points: torch.Tensor) -> torch.Tensor:
        return steepness * critics(*points)

    penalties = [
        action_gradient_between(q, observations, expert, policy, Played([share.expand(50, 1)])) for share in shares
    ]
    falls, way = q(observations, expert) - q(observations, policy), (expert - policy).square().sum(dim=-1).mean()
    allowed = weight * torch.stack(penalties).mean() + way / (4 * weight)
    assert falls.abs().mean().item() <= allowed.item()


@pytest.mark.parametrize("kind", list(GradientPenaltyKind))
def test_the_gradient_penalty_is_taken_between_the_experts_action_and_the_policys(kind: GradientPenaltyKind):
    """Two critics, points at drawn shares of the way; the target is among the slopes, so that the hinge does bind."""
    critics = small_critics(2)
    observations, expert, policy, shares = random_arrays(7, (4, 3), (4, 2), (4, 2), (4, 1))
    shares = 1 / (1 + np.exp(-shares))
    slopes = [
        difference_quotients(critic, observations[row], shares[row] * expert[row] + (1 - shares[row]) * policy[row])
        for critic in critics.members
        for row in range(4)
    ]
    steepest = [max(abs(slope) for slope in point) for point in slopes]
    target = sorted(steepest)[3]
    if kind is GradientPenaltyKind.HINGE:
        total = sum(max(slope - target, 0) ** 2 for slope in steepest)
    else:
        total = sum((math.sqrt(point @ point) - target) ** 2 for point in slopes)
    penalty = gradient_penalty_at(
        GradientPenaltyConfig(kind=kind, target=target),
        critics,
        *tensors(observations, expert, policy),
        Played(tensors(shares)),
    )
    assert penalty.item() == pytest.approx(total / 8, rel=1e-6)

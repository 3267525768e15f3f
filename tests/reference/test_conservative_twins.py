"""The conservative pieces, element by element in numpy; gradients by finite differences."""

import math
from itertools import permutations

import numpy as np
import pytest
import torch

from iq_offline.algorithms.actor_critic import CriticInputs
from iq_offline.algorithms.awr import advantage_weights, weighted_cloning
from iq_offline.algorithms.encoders import ObservationLayout
from iq_offline.algorithms.networks import (
    ActionScale,
    ContinuousPolicy,
    Critic,
    CriticEnsemble,
    DiscretePolicy,
    Standardiser,
    pessimistic,
)
from iq_offline.algorithms.noise import Draw, Noise
from iq_offline.algorithms.recoil import gumbel_loss
from iq_offline.algorithms.regularisers import (
    DiscreteCriticInputs,
    action_gradient,
    behavioural_cloning,
    cosine_similarity,
    cql,
    discrete_cql,
    discrete_value_suppression,
    diversity,
    gradient_penalty,
    observation_noise,
    squared_slope,
    value_suppression,
)
from iq_offline.algorithms.soft_q import SoftQ
from iq_offline.batch import Batch
from iq_offline.config.base import Activation
from iq_offline.config.q_learning import Pessimism
from iq_offline.config.regularisers import (
    ActionGradientAt,
    ActionGradientConfig,
    BehaviouralCloningConfig,
    CQLConfig,
    DiversityConfig,
    GradientPenaltyConfig,
    GradientPenaltyKind,
    ObservationNoiseConfig,
    Source,
    ValueSuppressionConfig,
)
from iq_offline.training.compile.tracing import ReplayedDraws

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


def small_policy(std: float = 0.3) -> ContinuousPolicy:
    """Of the same sizes; raw observations and actions are standardised and scaled ones."""
    torch.manual_seed(1)
    scale = ActionScale.of_bounds([-1.0] * 2, [1.0] * 2)
    return ContinuousPolicy(plain(), scale, (5,), Activation.TANH, std=std).double()


def plain() -> Standardiser:
    return Standardiser(torch.zeros(3), torch.ones(3))


def critic_inputs(
    critics: CriticEnsemble,
    observations: np.ndarray,
    actions: np.ndarray,
    drawn: np.ndarray | None,
    noise: Noise,
    supplementary: Batch | None = None,
    policy: ContinuousPolicy | None = None,
) -> CriticInputs:
    """Of a critic step that has drawn such actions of the policy, or none."""
    seen, recorded = torch.from_numpy(observations), torch.from_numpy(actions).requires_grad_(True)
    batch = Batch(seen, recorded.detach(), seen, torch.zeros(len(seen)), supplementary=supplementary)
    policy_actions = None if drawn is None else torch.from_numpy(drawn)
    policy = policy or small_policy()
    return CriticInputs(policy, critics, batch, seen, recorded, critics(seen, recorded), policy_actions, noise)


def transitions(observations: np.ndarray, actions: np.ndarray) -> Batch:
    """As supplementary data; their next observations are not read."""
    seen = torch.from_numpy(observations)
    return Batch(seen, torch.from_numpy(actions), seen, torch.zeros(len(seen)))


def drawn_actions(policy: ContinuousPolicy, observations: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Clipped Gaussian draws, from standard normal numbers."""
    with torch.no_grad():
        means = policy(torch.from_numpy(observations)).numpy()
    return np.clip(means + policy.std * noise, -1, 1)


def value(critic: Critic, observation: np.ndarray, action: np.ndarray) -> float:
    """Q of one critic at one point."""
    return critic(*tensors(observation[None], action[None])).item()


def within(noise: np.ndarray) -> np.ndarray:
    """Numbers between -1 and 1."""
    return np.tanh(noise)


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


def test_gumbel_loss_equals_its_twin():
    """Beyond the largest exponent it goes on along its tangent."""
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


def test_gumbel_loss_beyond_largest_exponent_by_hand():
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
    """Mean Q of drawn actions at supplementary observations less that of the expert's, two critics."""
    critics, policy = small_critics(2), small_policy()
    seen, recorded, elsewhere, others, noise = random_arrays(3, (4, 3), (4, 2), (6, 3), (6, 2), (6, 2))
    drawn = drawn_actions(policy, elsewhere, noise)
    twin = 0.0
    for critic in critics.members:
        twin += sum(value(critic, *row) for row in zip(elsewhere, drawn, strict=True)) / 12
        twin -= sum(value(critic, *row) for row in zip(seen, recorded, strict=True)) / 8
    played = ReplayedDraws(tensors(noise))
    inputs = critic_inputs(critics, seen, recorded, None, played, transitions(elsewhere, others), policy)
    assert value_suppression(ValueSuppressionConfig(), inputs).item() == pytest.approx(twin, rel=1e-10)
    alone = critic_inputs(critics, seen, recorded, None, ReplayedDraws([]))
    assert value_suppression(ValueSuppressionConfig(), alone).item() == 0


class Recorded(ReplayedDraws):
    """Plays numbers, and keeps what was asked for."""

    def __init__(self, *arrays: np.ndarray) -> None:
        super().__init__(tensors(*arrays))
        self.asked: list[str] = []

    def draw(self, draw: Draw) -> torch.Tensor:
        """The next numbers."""
        self.asked.append(draw.kind)
        return super().draw(draw)


@pytest.mark.parametrize("on", list(Source))
def test_sampled_cql_equals_its_twin(on: Source):
    """Two critics, three draws of the policy and three uniform ones at each observation of either source."""
    critics, policy, temperature = small_critics(2), small_policy(0.8), 0.7
    sources = [random_arrays(4, (4, 3), (4, 2)), random_arrays(5, (5, 3), (5, 2))]
    numbers: list[np.ndarray] = []
    gaps = []
    for seed, (seen, recorded) in enumerate(sources):
        noise, flat = random_arrays(20 + seed, (3, len(seen), 2), (3, len(seen), 2))
        uniform = within(flat)
        numbers += [noise, uniform]
        total = 0.0
        with torch.no_grad():
            means = policy(torch.from_numpy(seen)).numpy()
        for critic in critics.members:
            for row, observation in enumerate(seen):
                integral = 0.0
                for draw in range(3):
                    integral += math.exp(value(critic, observation, uniform[draw, row]) / temperature) * 2**2
                    action = means[row] + 0.8 * noise[draw, row]
                    if abs(action).max() > 1:
                        continue  # a draw outside the box weighs nothing
                    density = math.exp(-0.5 * noise[draw, row] @ noise[draw, row]) / (2 * math.pi * 0.8**2)
                    integral += math.exp(value(critic, observation, action) / temperature) / density
                total += temperature * math.log(integral / 6) - value(critic, observation, recorded[row])
        gaps.append(total / (2 * len(seen)))
    twin = gaps[0] if on is Source.EXPERT else sum(gaps) / 2
    noise_source = Recorded(*numbers)
    inputs = critic_inputs(critics, *sources[0], None, noise_source, transitions(*sources[1]), policy)
    found = cql(CQLConfig(actions=3, temperature=temperature, on=on), inputs)
    assert found.item() == pytest.approx(twin, rel=1e-6)
    assert noise_source.asked == ["normal", "symmetric"] * (1 if on is Source.EXPERT else 2)


def discrete_inputs(supplementary: bool) -> tuple[DiscreteCriticInputs, SoftQ]:
    """A Q-function of three actions at random transitions."""
    torch.manual_seed(2)
    function = SoftQ(DiscretePolicy(plain(), 3, (5,), Activation.TANH).double(), 0.6)
    seen, elsewhere = tensors(*random_arrays(6, (4, 3), (6, 3)))
    other = Batch(elsewhere, torch.tensor([0, 0, 1, 2, 1, 0]), elsewhere, torch.zeros(6)) if supplementary else None
    batch = Batch(seen, torch.tensor([2, 0, 1, 1]), seen, torch.zeros(4), supplementary=other)
    q = function.q(seen)[torch.arange(4), batch.actions]
    return DiscreteCriticInputs(function.q, function.probabilities, torch.ones(3), batch, q), function


@pytest.mark.parametrize("on", list(Source))
def test_discrete_cql_equals_its_twin(on: Source):
    """The exact soft maximum of each observation's Q less Q of the recorded action."""
    inputs, function = discrete_inputs(supplementary=True)
    assert inputs.batch.supplementary is not None
    gaps = []
    for source in (inputs.batch, inputs.batch.supplementary):
        total = 0.0
        for q, action in zip(function.q(source.observations).tolist(), source.actions, strict=True):
            total += 0.7 * math.log(sum(math.exp(one / 0.7) for one in q)) - q[action]
        gaps.append(total / len(source.actions))
    twin = gaps[0] if on is Source.EXPERT else sum(gaps) / 2
    assert discrete_cql(CQLConfig(temperature=0.7, on=on), inputs).item() == pytest.approx(twin, rel=1e-10)


def test_discrete_value_suppression_equals_its_twin():
    """The policy is softmax(Q / 0.6); its expectation is exact."""
    inputs, function = discrete_inputs(supplementary=True)
    assert inputs.batch.supplementary is not None
    twin = -sum(inputs.q.tolist()) / 4
    for q in function.q(inputs.batch.supplementary.observations).tolist():
        weights = [math.exp(one / 0.6) for one in q]
        twin += sum(weight * one for weight, one in zip(weights, q, strict=True)) / sum(weights) / 6
    found = discrete_value_suppression(ValueSuppressionConfig(), inputs)
    assert found.item() == pytest.approx(twin, rel=1e-10)
    alone, _ = discrete_inputs(supplementary=False)
    assert discrete_value_suppression(ValueSuppressionConfig(), alone).item() == 0


def test_diversity_is_cosine_of_each_ordered_pair():
    (gradients,) = random_arrays(4, (4, 10, 3))
    total = 0.0
    for sample in range(10):
        for i, j in permutations(range(4), 2):
            one, other = gradients[i, sample], gradients[j, sample]
            total += one @ other / (math.sqrt(one @ one) * math.sqrt(other @ other))
    assert cosine_similarity(torch.from_numpy(gradients)).item() == pytest.approx(total / (10 * 4 * 3), rel=1e-10)


def test_diversity_term_is_mean_over_both_sources():
    """Cosines of difference quotients of three critics, half of each source."""
    critics = small_critics(3)
    sources = [random_arrays(12, (2, 3), (2, 2)), random_arrays(13, (3, 3), (3, 2))]
    means = []
    for seen, recorded in sources:
        total = 0.0
        for observation, action in zip(seen, recorded, strict=True):
            slopes = [difference_quotients(critic, observation, action)[3:] for critic in critics.members]
            for one, other in permutations(slopes, 2):
                total += one @ other / math.sqrt((one @ one) * (other @ other)) / 6
        means.append(total / len(seen))
    inputs = critic_inputs(critics, *sources[0], None, ReplayedDraws([]), transitions(*sources[1]))
    assert diversity(DiversityConfig(), inputs).item() == pytest.approx(sum(means) / 2, rel=1e-6)


def test_observation_noise_equals_its_twin():
    """The squared change of each critic's Q, two critics."""
    critics = small_critics(2)
    seen, recorded, noise = random_arrays(14, (4, 3), (4, 2), (4, 3))
    total = 0.0
    for critic in critics.members:
        for row in range(4):
            moved = value(critic, seen[row] + 0.2 * noise[row], recorded[row])
            total += (moved - value(critic, seen[row], recorded[row])) ** 2
    inputs = critic_inputs(critics, seen, recorded, None, ReplayedDraws(tensors(noise)))
    assert observation_noise(ObservationNoiseConfig(std=0.2), inputs).item() == pytest.approx(total / 8, rel=1e-9)


@pytest.mark.parametrize("power", [2, 1], ids=["censored", "absolute"])
def test_actor_cloning_equals_its_twin(power: int):
    """Of the actor's mean, one action number at a time; free where a reached bound is passed."""
    policy = small_policy()
    seen, recorded = random_arrays(15, (30, 3), (30, 2))
    recorded = np.clip(2 * recorded, -1, 1)
    with torch.no_grad():
        policy.network[-1].weight *= 4
        means = policy(torch.from_numpy(seen)).numpy()
    total, free = 0.0, 0
    for mean, action in zip(means.ravel(), recorded.ravel(), strict=True):
        beyond = (action == 1 and mean > 1) or (action == -1 and mean < -1)
        total, free = total + (0 if beyond else abs(mean - action) ** power), free + beyond
    assert 0 < free < 30
    settings = BehaviouralCloningConfig(loss="censored" if power == 2 else "absolute")
    assert behavioural_cloning(settings, policy, transitions(seen, recorded)).item() == pytest.approx(
        total / 60, rel=1e-9
    )


@pytest.mark.parametrize("how", list(Pessimism))
def test_pessimistic_value_equals_its_twin(how: Pessimism):
    (q,) = random_arrays(5, (4, 10))
    for sample, value in enumerate(pessimistic(torch.from_numpy(q), how, 1.5)):
        column = list(q[:, sample])
        mean = sum(column) / 4
        deviation = math.sqrt(sum((one - mean) ** 2 for one in column) / 4)
        twin = {Pessimism.MEAN: mean, Pessimism.MINIMUM: min(column), Pessimism.BOUND: mean - 1.5 * deviation}[how]
        assert value.item() == pytest.approx(twin, rel=1e-12)


def test_action_gradient_is_squared_difference_quotient():
    (critic,) = small_critics(1).members
    observations, actions = random_arrays(6, (4, 3), (4, 2))
    total = 0.0
    for observation, action in zip(observations, actions, strict=True):
        of_action = difference_quotients(critic, observation, action)[3:]
        total += of_action @ of_action
    points = torch.from_numpy(actions).requires_grad_(True)
    penalty = squared_slope(critic(torch.from_numpy(observations), points), points)
    assert penalty.item() == pytest.approx(total / 4, rel=1e-7)


def test_action_gradient_between_actions_equals_its_twin():
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
    inputs = critic_inputs(critics, observations, expert, policy, ReplayedDraws(tensors(shares)))
    penalty = action_gradient(ActionGradientConfig(at=ActionGradientAt.BETWEEN), inputs)
    assert penalty.item() == pytest.approx(total / 8, rel=1e-7)


class Steeper(CriticEnsemble):
    """Critics whose values are multiplied."""

    def __init__(self, critics: CriticEnsemble, factor: float) -> None:
        super().__init__(list(critics.members))
        self.factor = factor

    def forward(self, observations: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """As those of the members."""
        return self.factor * super().forward(observations, actions)


@pytest.mark.parametrize("weight", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("steepness", [0.1, 3.0, 100.0])
def test_fall_between_actions_is_bounded_by_penalty(weight: float, steepness: float):
    """E[Q(s, a) - Q(s, a')] <= weight E |dQ/da|^2 + E |a - a'|^2 / (4 weight), the mean slope from 40 even shares."""
    critics = Steeper(small_critics(1), steepness)
    arrays = random_arrays(9, (50, 3), (50, 2), (50, 2))
    observations, expert, policy = tensors(*arrays)
    shares = (torch.arange(40, dtype=torch.float64) + 0.5) / 40
    penalties = [
        action_gradient(ActionGradientConfig(), critic_inputs(critics, *arrays, ReplayedDraws([share.expand(50, 1)])))
        for share in shares
    ]
    falls, way = (
        critics(observations, expert) - critics(observations, policy),
        (expert - policy).square().sum(dim=-1).mean(),
    )
    allowed = weight * torch.stack(penalties).mean() + way / (4 * weight)
    assert falls.abs().mean().item() <= allowed.item()


@pytest.mark.parametrize("kind", list(GradientPenaltyKind))
def test_gradient_penalty_is_taken_between_actions(kind: GradientPenaltyKind):
    """Two critics, points at drawn shares of the way; the target is among the slopes, so that the hinge does bind."""
    critics = small_critics(2)
    observations, expert, noise, shares = random_arrays(7, (4, 3), (4, 2), (4, 2), (4, 1))
    actor = small_policy()
    policy = drawn_actions(actor, observations, noise)
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
    settings = GradientPenaltyConfig(kind=kind, target=target)
    inputs = critic_inputs(critics, observations, expert, None, ReplayedDraws(tensors(noise, shares)), policy=actor)
    assert gradient_penalty(settings, inputs).item() == pytest.approx(total / 8, rel=1e-6)

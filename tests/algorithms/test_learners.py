"""Single updates of the learners whose pieces can be worked out: Q of zero, difference quotients, a tiny table."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from iq_offline.algorithms.encoders import ObservationLayout
from iq_offline.algorithms.iq import IQLearner
from iq_offline.algorithms.iq_continuous import ContinuousNetworks
from iq_offline.algorithms.iq_discrete import DiscreteIQLearner, DiscreteNetworks, q_values
from iq_offline.algorithms.networks import (
    ActionScale,
    ContinuousPolicy,
    Critic,
    CriticEnsemble,
    DiscretePolicy,
    Standardiser,
    ValueNetwork,
)
from iq_offline.algorithms.recovery import ContinuousRecovery, DiscreteRecovery
from iq_offline.batch import Batch
from iq_offline.config.MISSING import AbsorbingValue, ContinuousIQConfig, EntropyReference, ObjectiveKind
from iq_offline.config.base import ActionHead, Activation
from iq_offline.config.cloning import ContinuousBCConfig
from iq_offline.config.iq import DiscreteIQConfig
from iq_offline.config.q_learning import EnsembleConfig
from iq_offline.config.regularisers import ActionGradientAt, CQLConfig, GradientPenaltyConfig, GradientPenaltyKind

SIZE, ACTIONS = 3, 2
PLAIN = Standardiser(torch.zeros(SIZE), torch.ones(SIZE))
LAYOUT = ObservationLayout(SIZE)


def constant_policy(mean: float, std: float, head: ActionHead = ActionHead.CLIPPED_GAUSSIAN) -> ContinuousPolicy:
    """The same mean, before clipping or squashing, in every dimension at every observation."""
    scale = ActionScale.of_bounds([-1.0] * ACTIONS, [1.0] * ACTIONS)
    policy = ContinuousPolicy(PLAIN, scale, (), Activation.TANH, head=head, std=std)
    with torch.no_grad():
        policy.network[0].weight.zero_()
        policy.network[0].bias.fill_(mean)
    return policy


def zero_critic() -> CriticEnsemble:
    """Q = 0 everywhere."""
    critic = CriticEnsemble([Critic(LAYOUT, ACTIONS, (), Activation.RELU, norm=False)])
    for parameter in critic.parameters():
        torch.nn.init.zeros_(parameter)
    return critic


def one_transition(action: list[float] | int, *, terminated: bool = False) -> Batch:
    """From zero to zero."""
    actions = torch.tensor([action])
    return Batch(torch.zeros(1, SIZE), actions, torch.zeros(1, SIZE), torch.tensor([float(terminated)]))


def gap_where_q_is_zero(policy: ContinuousPolicy, draws: int) -> float:
    """CQL's gap from so many draws of the policy and as many uniform ones."""
    config = ContinuousIQConfig(
        prior=None,
        entropy=EntropyReference.OFF,
        policy_head=policy.head,
        action_gradient_weight=0,
        cql=CQLConfig(weight=1.0, actions=draws),
    )
    networks = ContinuousNetworks(policy, None, zero_critic())
    learner = IQLearner(config, networks, torch.Generator().manual_seed(0))
    return learner.update(one_transition([0.3, -0.4]))["cql_gap"].item()


HEADS = [ActionHead.CLIPPED_GAUSSIAN, ActionHead.TANH_GAUSSIAN]


@pytest.mark.parametrize("mean", [0.0, 1.0], ids=["mean at 0", "mean at the bound"])
@pytest.mark.parametrize("head", HEADS)
def test_where_q_is_zero_the_sampled_gap_is_the_log_volume_of_the_box(head: ActionHead, mean: float):
    """A log 2, from 100,000 draws of the policy and as many uniform ones: 0.004 or less of standard error."""
    gap = gap_where_q_is_zero(constant_policy(mean, 1.0, head), 100_000)
    assert gap == pytest.approx(ACTIONS * math.log(2), abs=0.02)


@pytest.mark.parametrize("head", HEADS)
def test_draws_of_a_narrow_policy_cover_little_of_the_box_and_the_gap_is_low_by_log_2_at_most(head: ActionHead):
    gap = gap_where_q_is_zero(constant_policy(0.0, 0.135, head), 10)
    assert (ACTIONS - 1) * math.log(2) < gap < ACTIONS * math.log(2) - 0.2


@pytest.mark.parametrize("entropy", [EntropyReference.UNIFORM, EntropyReference.PRIOR])
@pytest.mark.parametrize("kind", list(GradientPenaltyKind))
def test_the_discrete_gradient_penalty_is_of_q_itself_in_standardised_observations(
    kind: GradientPenaltyKind, entropy: EntropyReference
):
    """Q is value and policy together, as by default; steps are a standard deviation's share, so far from the raw."""
    torch.manual_seed(0)
    standardiser = Standardiser(torch.tensor([1.0, -2.0, 0.0]), torch.tensor([10.0, 0.1, 1.0]))
    q = DiscretePolicy(standardiser, 4, (6,), Activation.TANH).double()
    value = ValueNetwork(LAYOUT, (6,), Activation.TANH, norm=False).double()
    penalty = GradientPenaltyConfig(weight=1.0, kind=kind, target=0.1)
    config = DiscreteIQConfig(temperature=0.7, entropy=entropy, gradient_penalty=penalty)
    assert config.separate_value
    prior = DiscretePolicy(standardiser, 4, (5,), Activation.TANH).double()
    networks = DiscreteNetworks(q, prior=prior, state_value=value)
    standardised = torch.randn(5, SIZE, dtype=torch.float64)
    observations = standardiser.mean + standardiser.std * standardised
    actions = torch.tensor([0, 3, 1, 2, 2])

    def of_action(points: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return q_values(config, networks, points)[torch.arange(5), actions]

    step, slopes = 1e-6, []
    for component in range(SIZE):
        move = torch.zeros(SIZE, dtype=torch.float64)
        move[component] = step * standardiser.std[component]
        slopes.append((of_action(observations + move) - of_action(observations - move)) / (2 * step))
    gradients = torch.stack(slopes, dim=-1).numpy()
    sizes = np.abs(gradients).max(axis=1) if kind is GradientPenaltyKind.HINGE else np.linalg.norm(gradients, axis=1)
    expected = np.maximum(sizes - 0.1, 0) if kind is GradientPenaltyKind.HINGE else sizes - 0.1

    batch = Batch(observations, actions, observations.flip(0), torch.zeros(5, dtype=torch.float64))
    found = DiscreteIQLearner(config, networks).update(batch)["gradient_penalty"]
    assert found.item() == pytest.approx((expected**2).mean(), rel=1e-6)


def test_adding_to_q_what_depends_on_the_observation_alone_leaves_cqls_gap():
    """The gap moves the policy towards the recorded actions; it does not lower Q as a whole."""
    torch.manual_seed(0)
    q = DiscretePolicy(PLAIN, 3, (), Activation.TANH)
    value = ValueNetwork(LAYOUT, (), Activation.TANH, norm=False)
    config = DiscreteIQConfig(cql=CQLConfig(weight=1.0))
    batch = Batch(torch.randn(8, SIZE), torch.arange(8) % 3, torch.randn(8, SIZE), torch.zeros(8))
    gaps = []
    for shift in (0.0, 50.0):
        networks = copy.deepcopy(DiscreteNetworks(q, state_value=value))
        with torch.no_grad():
            networks.state_value.network[0].bias += shift  # type: ignore[union-attr]
        gaps.append(DiscreteIQLearner(config, networks).update(batch)["cql_gap"].item())
    assert gaps[0] == pytest.approx(gaps[1], abs=1e-4)


def coherent_loss(clone: ContinuousPolicy, action: list[float], **choices: float) -> float:
    """(Q - r - gamma V')^2 / 2 at Q = V' = 0: half the square of the coherent reward."""
    head = ContinuousBCConfig(head=clone.head)
    config = ContinuousIQConfig(
        objective=ObjectiveKind.COHERENT, policy_head=clone.head, prior=head, action_gradient_weight=0, **choices
    )
    networks = ContinuousNetworks(copy.deepcopy(clone), clone, zero_critic())
    learner = IQLearner(config, networks, torch.Generator().manual_seed(0))
    return learner.update(one_transition(action))["loss"].item()


def log_normal(residual: float, std: float) -> float:
    return -0.5 * (residual / std) ** 2 - math.log(std) - 0.5 * math.log(2 * math.pi)


def test_the_coherent_reward_is_the_log_ratio_of_the_clones_density_to_the_uniform_one():
    """Mean 0.2 in both dimensions, width 0.5, the recorded action (0.7, -0.1): half the log ratio, by 1 / A."""
    ratio = log_normal(0.5, 0.5) + log_normal(0.3, 0.5) + 2 * math.log(2)
    loss = coherent_loss(constant_policy(0.2, 0.5), [0.7, -0.1])
    assert loss == pytest.approx((ratio / 2) ** 2 / 2, rel=1e-5)
    weighed = coherent_loss(constant_policy(0.2, 0.5), [0.7, -0.1], coherence=2.0)
    assert weighed == pytest.approx((2 * ratio) ** 2 / 2, rel=1e-5)


def test_a_squashed_clones_coherent_reward_has_the_density_behind_the_tanh():
    mean, action, ratio = 0.2, [0.7, -0.1], 2 * math.log(2)
    for one in action:
        ratio += log_normal(math.atanh(one) - mean, 0.5) - math.log(1 - one**2)
    loss = coherent_loss(constant_policy(mean, 0.5, ActionHead.TANH_GAUSSIAN), action)
    assert loss == pytest.approx((ratio / 2) ** 2 / 2, rel=1e-4)


def test_the_coherent_reward_is_bounded_as_a_sum_over_dimensions():
    """One dimension at -60 nats, the other right: the sum stops at -2 * 6.45, by 1 / A at -6.45."""
    assert coherent_loss(constant_policy(0.0, 0.09), [0.99, 0.0]) == pytest.approx(6.45**2 / 2, rel=1e-5)


def test_a_recorded_action_on_the_bound_and_a_mean_beyond_it_are_coherent_to_the_full():
    ratio = 2 * (log_normal(0.0, 0.5) + math.log(2))
    assert coherent_loss(constant_policy(1.4, 0.5), [1.0, 1.0]) == pytest.approx((ratio / 2) ** 2 / 2, rel=1e-5)


@pytest.mark.parametrize(("action", "reward"), [(0, math.log(4 * 0.7)), (1, math.log(4 * 0.1)), (3, -6.45)])
def test_the_discrete_coherent_reward_is_log_actions_times_the_cloned_probability(action: int, reward: float):
    clone = DiscretePolicy(PLAIN, 4, (), Activation.TANH)
    with torch.no_grad():
        clone.network[0].weight.zero_()
        clone.network[0].bias.copy_(torch.tensor([0.7, 0.1, 0.2 - 1e-9, 1e-9]).log())
    config = DiscreteIQConfig(objective=ObjectiveKind.COHERENT, entropy=EntropyReference.PRIOR, separate_value=False)
    learner = DiscreteIQLearner(config, DiscreteNetworks(copy.deepcopy(clone), prior=clone))
    assert learner.update(one_transition(action))["loss"].item() == pytest.approx(reward**2 / 2, rel=1e-5)


def table_rows(states: list[int], next_states: list[int], terminations: list[float], count: int) -> Batch:
    rows = torch.eye(count)
    return Batch(
        rows[states], torch.zeros(len(states), dtype=torch.long), rows[next_states], torch.tensor(terminations)
    )


def test_a_learnt_absorbing_value_reaches_its_exact_value_in_600_updates():
    """`ls-iq` on a table where Q fits every target, so that only the absorbing state's own two halves compete.

    At gamma = 1/2 a termination's tail weighs as much as the termination. All of the expert's transitions end, half of
    the supplementary ones do: shares 1/2 and 1/3 of the halves' means, which draw its reward to 2 and to -2:
    2 (1/2 - 1/3) / (1/2 + 1/3) = 0.4, for ever 0.8.
    """
    expert = table_rows([0, 1], [0, 0], [1.0, 1.0], 4)
    supplementary = table_rows([2, 3], [3, 3], [0.0, 1.0], 4)
    config = DiscreteIQConfig(
        gamma=0.5,
        objective=ObjectiveKind.LEAST_SQUARES,
        absorbing_value=AbsorbingValue.LEARNED,
        learning_rate=0.1,
        weight_decay=0,
        polyak_rate=1.0,
        separate_value=False,
        temperature=1.0,
        updates=600,
        prior=None,
    )
    policy = DiscretePolicy(Standardiser(torch.zeros(4), torch.ones(4)), 2, (), Activation.TANH)
    learner = DiscreteIQLearner(config, policy)
    batch = Batch(
        expert.observations, expert.actions, expert.next_observations, expert.terminations, supplementary=supplementary
    )
    for _ in range(600):
        learner.update(batch)
    assert learner.diagnostics(batch)["absorbing_value"].item() == pytest.approx(0.8, abs=0.01)


def test_at_the_default_discount_a_learnt_absorbing_value_of_200_is_reached_in_400_updates():
    """Its parameter is the reward, 2 here: as the value itself it would have moved by what the rates sum to, 4."""
    batch = table_rows([0, 1], [0, 0], [1.0, 1.0], 2)
    config = DiscreteIQConfig(
        objective=ObjectiveKind.LEAST_SQUARES,
        absorbing_value=AbsorbingValue.LEARNED,
        target_bound=200.0,
        learning_rate=0.02,
        updates=400,
        prior=None,
    )
    policy = DiscretePolicy(Standardiser(torch.zeros(2), torch.ones(2)), 2, (), Activation.TANH)
    learner = DiscreteIQLearner(config, policy)
    for _ in range(400):
        learner.update(batch)
    assert learner.diagnostics(batch)["absorbing_value"].item() == pytest.approx(200, rel=0.03)


@pytest.mark.parametrize(("objective", "reward"), [(ObjectiveKind.LEAST_SQUARES, 2.0), (ObjectiveKind.INVERSE, 5.0)])
def test_recovered_rewards_are_clamped_to_the_fixed_ones_where_there_are_such(objective: ObjectiveKind, reward: float):
    """Q = 5 before a termination."""
    critic = zero_critic()
    with torch.no_grad():
        critic.members[0].network[0].bias.fill_(5.0)
    continuous = ContinuousIQConfig(objective=objective, prior=None, entropy=EntropyReference.OFF)
    networks = ContinuousNetworks(constant_policy(0.0, 0.1), None, critic)
    batch = one_transition([0.3, -0.4], terminated=True)
    noise = torch.Generator().manual_seed(0)
    assert ContinuousRecovery(networks, continuous, noise)(batch).rewards.tolist() == [reward]

    q = DiscretePolicy(PLAIN, 2, (), Activation.TANH)
    with torch.no_grad():
        q.network[0].weight.zero_()
        q.network[0].bias.fill_(5.0)
    discrete = DiscreteIQConfig(objective=objective, temperature=1.0, separate_value=False)
    recovery = DiscreteRecovery(DiscreteNetworks(q), discrete)
    assert recovery(one_transition(1, terminated=True)).rewards.tolist() == [reward]


WEIGHT, STD = 0.1, 0.135


def advantage_after(where: ActionGradientAt, updates: int) -> float:
    """Mean of Q(s, a) - Q(s, a'), a' the policy's, after so many updates of a critic on 32 recorded transitions."""
    torch.manual_seed(0)
    observations, actions = torch.randn(32, SIZE), torch.rand(32, ACTIONS) - 0.5
    config = ContinuousIQConfig(
        prior=None,
        entropy=EntropyReference.OFF,
        updates=updates,
        critic_learning_rate=1e-2,
        actor_learning_rate=1e-9,
        action_gradient_weight=WEIGHT,
        action_gradient_at=where,
    )
    critic = CriticEnsemble([Critic(LAYOUT, ACTIONS, (64, 64), Activation.RELU, norm=True)])
    networks = ContinuousNetworks(constant_policy(0.0, STD), None, critic)
    learner = IQLearner(config, networks, torch.Generator().manual_seed(0))
    batch = Batch(observations, actions, torch.randn(32, SIZE), torch.ones(32))
    for _ in range(updates):
        learner.update(batch)
    drawn = STD * torch.randn(1000, 32, ACTIONS)
    with torch.no_grad():
        return (critic(observations, actions) - critic(observations.expand(1000, 32, -1), drawn)).mean().item()


def test_a_penalty_between_the_actions_bounds_the_advantage_and_one_at_the_recorded_action_does_not():
    """Each recorded action is the policy's mean or up to 0.7 off it; the bound is E |a - a'|^2 / (4 weight), doubled.

    For Q that minimises value term and penalty alone the two parts of the bound are equal.
    """
    way = 2 * (1 / 12 + STD**2)
    bound = 2 * way / (4 * WEIGHT)
    assert advantage_after(ActionGradientAt.BETWEEN, 150) < bound
    assert advantage_after(ActionGradientAt.RECORDED, 150) > 3 * bound


@pytest.mark.parametrize("members", [1, 3])
def test_the_value_of_first_observations_is_every_critics(members: int):
    torch.manual_seed(0)
    critic = Critic(LAYOUT, ACTIONS, (8,), Activation.RELU, norm=False)
    ensemble = CriticEnsemble([copy.deepcopy(critic) for _ in range(members)])
    config = ContinuousIQConfig(
        value_term="initial",
        polyak_rate=None,
        temperature=0.0,
        entropy="uniform",
        prior=None,
        ensemble=EnsembleConfig(members=members, pessimism="mean"),
    )
    networks = ContinuousNetworks(constant_policy(0.3, 0.135), None, ensemble)
    learner = IQLearner(config, networks, torch.Generator().manual_seed(0))
    learner.update(replace(one_transition([0.1, -0.4]), initial_observations=torch.randn(4, SIZE)))
    first, *others = ensemble.members
    assert (first.network[0].weight != critic.network[0].weight).any()
    for other in others:
        assert all(map(torch.equal, first.parameters(), other.parameters()))

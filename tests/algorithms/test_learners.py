"""Single updates of the learners whose pieces can be worked out: Q of zero, difference quotients, a tiny table."""

import copy
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from iq_offline.algorithms.actor_critic import ActorCritic, SampledEntropy
from iq_offline.algorithms.awr import NoEntropy
from iq_offline.algorithms.build import NetworkSpec
from iq_offline.algorithms.build_iq import VALUE_TERMS, phi_of
from iq_offline.algorithms.csil import CSILLearner, DiscreteCSILLearner
from iq_offline.algorithms.encoders import ObservationLayout
from iq_offline.algorithms.iq import IQLearner
from iq_offline.algorithms.iq_discrete import DiscreteIQLearner
from iq_offline.algorithms.ls_iq import DiscreteLSIQLearner
from iq_offline.algorithms.networks import (
    ActionScale,
    ContinuousPolicy,
    Critic,
    CriticEnsemble,
    DiscretePolicy,
    Standardiser,
    ValueNetwork,
)
from iq_offline.algorithms.recovery import recovery_of
from iq_offline.algorithms.regularisers import DISCRETE, chosen, regularisers_of
from iq_offline.algorithms.soft_q import QWithActor, SoftQ
from iq_offline.batch import Batch
from iq_offline.config.base import ActionHead, Activation
from iq_offline.config.csil import CSILConfig, DiscreteCSILConfig
from iq_offline.config.iq import DiscreteIQConfig, IQPaperConfig
from iq_offline.config.ls_iq import DiscreteLSIQConfig
from iq_offline.config.q_learning import EnsembleConfig
from iq_offline.config.regularisers import (
    ActionGradientAt,
    ActionGradientConfig,
    CQLConfig,
    GradientPenaltyConfig,
    GradientPenaltyKind,
)
from iq_offline.config.train import algorithm_config
from iq_offline.training.learnt import build_learner

SIZE, ACTIONS = 3, 2
PLAIN = Standardiser(torch.zeros(SIZE), torch.ones(SIZE))
LAYOUT = ObservationLayout(SIZE)
SCALE = ActionScale.of_bounds([-1.0] * ACTIONS, [1.0] * ACTIONS)


def constant_policy(mean: float, std: float, head: ActionHead = ActionHead.CLIPPED_GAUSSIAN) -> ContinuousPolicy:
    """The same mean, before clipping or squashing, in every dimension at every observation."""
    policy = ContinuousPolicy(PLAIN, SCALE, (), Activation.TANH, head=head, std=std)
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


def iq_learner(config: IQPaperConfig, policy: ContinuousPolicy, critic: CriticEnsemble, entropy: Any) -> IQLearner:
    """IQ-Learn of given networks."""
    return IQLearner(
        config,
        policy,
        critic,
        torch.Generator().manual_seed(0),
        entropy,
        regularisers_of(config),
        phi=phi_of(config),
        value_term=VALUE_TERMS[config.value_term],
    )


def discrete_iq_learner(config: DiscreteIQConfig, function: SoftQ) -> DiscreteIQLearner:
    """The same for discrete actions."""
    term = VALUE_TERMS[config.value_term]
    return DiscreteIQLearner(config, function, chosen(DISCRETE, config), phi=phi_of(config), value_term=term)


def gap_where_q_is_zero(policy: ContinuousPolicy, draws: int) -> float:
    """CQL's gap from so many draws of the policy and as many uniform ones."""
    config = IQPaperConfig(cql=CQLConfig(actions=draws))
    learner = iq_learner(config, policy, zero_critic(), SampledEntropy())
    return learner.update(one_transition([0.3, -0.4]))["cql"].item()


HEADS = [ActionHead.CLIPPED_GAUSSIAN, ActionHead.TANH_GAUSSIAN]


@pytest.mark.parametrize("mean", [0.0, 1.0], ids=["mean at 0", "mean at the bound"])
@pytest.mark.parametrize("head", HEADS)
def test_sampled_gap_of_zero_q_is_log_volume(head: ActionHead, mean: float):
    """A log 2, from 100,000 draws of the policy and as many uniform ones: 0.004 or less of standard error."""
    gap = gap_where_q_is_zero(constant_policy(mean, 1.0, head), 100_000)
    assert gap == pytest.approx(ACTIONS * math.log(2), abs=0.02)


@pytest.mark.parametrize("head", HEADS)
def test_narrow_policy_gap_within_log_2(head: ActionHead):
    """Its draws cover little of the box, and the gap is low by log 2 at most."""
    gap = gap_where_q_is_zero(constant_policy(0.0, 0.135, head), 10)
    assert (ACTIONS - 1) * math.log(2) < gap < ACTIONS * math.log(2) - 0.2


@pytest.mark.parametrize("kind_of_q", ["value and policy", "relative to a prior", "beside an actor"])
@pytest.mark.parametrize("kind", list(GradientPenaltyKind))
def test_discrete_gradient_penalty_is_of_q_itself(kind: GradientPenaltyKind, kind_of_q: str):
    """In standardised observations: steps are a standard deviation's share, so far from the raw."""
    torch.manual_seed(0)
    standardiser = Standardiser(torch.tensor([1.0, -2.0, 0.0]), torch.tensor([10.0, 0.1, 1.0]))
    q, other = (DiscretePolicy(standardiser, 4, (size,), Activation.TANH).double() for size in (6, 5))
    value = ValueNetwork(LAYOUT, (6,), Activation.TANH, norm=False).double()
    function = {
        "value and policy": SoftQ(q, 0.7, value),
        "relative to a prior": SoftQ(q, 0.7, value, other),
        "beside an actor": QWithActor(q, 0.7, actor=other),
    }[kind_of_q]
    config = DiscreteIQConfig(
        temperature=0.7, gradient_penalty=GradientPenaltyConfig(weight=1.0, kind=kind, target=0.1)
    )
    standardised = torch.randn(5, SIZE, dtype=torch.float64)
    observations = standardiser.mean + standardiser.std * standardised
    actions = torch.tensor([0, 3, 1, 2, 2])

    def of_action(points: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return function.q(points)[torch.arange(5), actions]

    step, slopes = 1e-6, []
    for component in range(SIZE):
        move = torch.zeros(SIZE, dtype=torch.float64)
        move[component] = step * standardiser.std[component]
        slopes.append((of_action(observations + move) - of_action(observations - move)) / (2 * step))
    gradients = torch.stack(slopes, dim=-1).numpy()
    sizes = np.abs(gradients).max(axis=1) if kind is GradientPenaltyKind.HINGE else np.linalg.norm(gradients, axis=1)
    expected = np.maximum(sizes - 0.1, 0) if kind is GradientPenaltyKind.HINGE else sizes - 0.1

    batch = Batch(observations, actions, observations.flip(0), torch.zeros(5, dtype=torch.float64))
    found = discrete_iq_learner(config, function).update(batch)["gradient_penalty"]
    assert found.item() == pytest.approx((expected**2).mean(), rel=1e-6)


def test_adding_a_state_value_leaves_cql_gap():
    """The gap moves the policy towards the recorded actions; it does not lower Q as a whole."""
    torch.manual_seed(0)
    q = DiscretePolicy(PLAIN, 3, (), Activation.TANH)
    value = ValueNetwork(LAYOUT, (), Activation.TANH, norm=False)
    config = DiscreteIQConfig(cql=CQLConfig(weight=1.0))
    batch = Batch(torch.randn(8, SIZE), torch.arange(8) % 3, torch.randn(8, SIZE), torch.zeros(8))
    gaps = []
    for shift in (0.0, 50.0):
        function = SoftQ(copy.deepcopy(q), config.temperature, copy.deepcopy(value))
        with torch.no_grad():
            function.value.network[0].bias += shift  # type: ignore[union-attr]
        gaps.append(discrete_iq_learner(config, function).update(batch)["cql"].item())
    assert gaps[0] == pytest.approx(gaps[1], abs=1e-4)


def make_zero(*modules: torch.nn.Module) -> None:
    for module in modules:
        for parameter in module.parameters():
            torch.nn.init.zeros_(parameter)


def coherent_loss(clone: ContinuousPolicy, action: list[float], **choices: float) -> float:
    """(Q - r - gamma V')^2 / 2 at Q = V' = 0: half the square of the coherent reward."""
    config = CSILConfig(policy_std=clone.std, action_gradient=None, hidden_sizes=(), **choices)
    learner = CSILLearner(config, NetworkSpec.of_policy(clone), clone)
    make_zero(learner.critic, learner.target_critic)
    return learner.update(one_transition(action))["loss"].item()


def log_normal(residual: float, std: float) -> float:
    return -0.5 * (residual / std) ** 2 - math.log(std) - 0.5 * math.log(2 * math.pi)


def test_coherent_reward_is_log_ratio_of_densities():
    """Mean 0.2 in both dimensions, width 0.5, the recorded action (0.7, -0.1): half the log ratio, by 1 / A."""
    ratio = log_normal(0.5, 0.5) + log_normal(0.3, 0.5) + 2 * math.log(2)
    loss = coherent_loss(constant_policy(0.2, 0.5), [0.7, -0.1])
    assert loss == pytest.approx((ratio / 2) ** 2 / 2, rel=1e-5)
    weighed = coherent_loss(constant_policy(0.2, 0.5), [0.7, -0.1], coherence=2.0)
    assert weighed == pytest.approx((2 * ratio) ** 2 / 2, rel=1e-5)


def test_coherent_reward_is_bounded_as_a_sum():
    """One dimension at -60 nats, the other right: the sum stops at -2 * 6.45, by 1 / A at -6.45."""
    assert coherent_loss(constant_policy(0.0, 0.09), [0.99, 0.0]) == pytest.approx(6.45**2 / 2, rel=1e-5)


def test_means_beyond_a_reached_bound_are_coherent():
    ratio = 2 * (log_normal(0.0, 0.5) + math.log(2))
    assert coherent_loss(constant_policy(1.4, 0.5), [1.0, 1.0]) == pytest.approx((ratio / 2) ** 2 / 2, rel=1e-5)


@pytest.mark.parametrize(("action", "reward"), [(0, math.log(4 * 0.7)), (1, math.log(4 * 0.1)), (3, -6.45)])
def test_discrete_coherent_reward_is_log_probability_ratio(action: int, reward: float):
    """Of the clone to a uniform policy."""
    clone = DiscretePolicy(PLAIN, 4, (), Activation.TANH)
    with torch.no_grad():
        clone.network[0].weight.zero_()
        clone.network[0].bias.copy_(torch.tensor([0.7, 0.1, 0.2 - 1e-9, 1e-9]).log())
    learner = DiscreteCSILLearner(DiscreteCSILConfig(), NetworkSpec.of_policy(clone), clone)
    make_zero(learner.function.value, learner.target_function.value)  # type: ignore[arg-type]
    assert learner.update(one_transition(action))["loss"].item() == pytest.approx(reward**2 / 2, rel=1e-5)


def table_rows(states: list[int], next_states: list[int], terminations: list[float], count: int) -> Batch:
    rows = torch.eye(count)
    return Batch(
        rows[states], torch.zeros(len(states), dtype=torch.long), rows[next_states], torch.tensor(terminations)
    )


def table_spec(count: int) -> NetworkSpec:
    """Of one-hot observations and two actions."""
    return NetworkSpec(ObservationLayout(count), Standardiser(torch.zeros(count), torch.ones(count)), 2)


def test_absorbing_value_reaches_its_exact_value():
    """`ls-iq` on a table where Q fits every target, so that only the absorbing state's own two halves compete.

    At gamma = 1/2 a termination's tail weighs as much as the termination. All of the expert's transitions end, half of
    the supplementary ones do: shares 1/2 and 1/3 of the halves' means, which draw its reward to 2 and to -2:
    2 (1/2 - 1/3) / (1/2 + 1/3) = 0.4, for ever 0.8.
    """
    expert = table_rows([0, 1], [0, 0], [1.0, 1.0], 4)
    supplementary = table_rows([2, 3], [3, 3], [0.0, 1.0], 4)
    config = DiscreteLSIQConfig(
        gamma=0.5, learning_rate=0.1, weight_decay=0, polyak_rate=1.0, updates=600, hidden_sizes=()
    )
    learner = DiscreteLSIQLearner(config, table_spec(4))
    batch = Batch(
        expert.observations, expert.actions, expert.next_observations, expert.terminations, supplementary=supplementary
    )
    for _ in range(600):
        learner.update(batch)
    assert learner.diagnostics(batch)["absorbing_value"].item() == pytest.approx(0.8, abs=0.01)


def test_absorbing_value_is_reached_at_default_discount():
    """Its parameter is the reward, 2 here: as the value itself it would have moved by what the rates sum to, 4."""
    batch = table_rows([0, 1], [0, 0], [1.0, 1.0], 2)
    config = DiscreteLSIQConfig(learning_rate=0.02, updates=400, hidden_sizes=())
    learner = DiscreteLSIQLearner(config, table_spec(2))
    for _ in range(400):
        learner.update(batch)
    assert learner.diagnostics(batch)["absorbing_value"].item() == pytest.approx(200, rel=0.03)


@pytest.mark.parametrize(
    ("method", "reward"), [("ls-iq", 2.0), ("recoil", 2.0), ("iq-paper", 5.0), ("iq-awr", 5.0), ("sprinql", 5.0)]
)
@pytest.mark.parametrize("discrete", [False, True])
def test_recovered_rewards_lie_within_fixed_ones(method: str, reward: float, discrete: bool):
    """Where a method has such; Q = 5 before a termination."""
    config: Any = algorithm_config(method, discrete=discrete, overrides=["hidden_sizes=[]"])
    spec = NetworkSpec(LAYOUT, PLAIN, 2 if discrete else SCALE)
    learner = build_learner(config, spec, None)
    if isinstance(learner, ActorCritic):
        make_zero(learner.critic)
        for member in learner.critic.members:
            torch.nn.init.constant_(member.network[-1].bias, 5.0)
    else:
        function = learner.function
        make_zero(*function.networks)
        if isinstance(function, QWithActor):
            torch.nn.init.constant_(function.logits.network[-1].bias, 5.0)
        elif function.value is not None:
            torch.nn.init.constant_(function.value.network[-1].bias, 5 + config.temperature * math.log(2))
        else:
            torch.nn.init.constant_(function.logits.network[-1].bias, 5 / config.temperature)
    batch = one_transition(1 if discrete else [0.3, -0.4], terminated=True)
    found = recovery_of(learner, torch.Generator().manual_seed(0))(batch)
    assert found.rewards.tolist() == pytest.approx([reward])


WEIGHT, STD = 0.1, 0.135


def advantage_after(where: ActionGradientAt, updates: int) -> float:
    """Mean of Q(s, a) - Q(s, a'), a' the policy's, after so many updates of a critic on 32 recorded transitions."""
    torch.manual_seed(0)
    observations, actions = torch.randn(32, SIZE), torch.rand(32, ACTIONS) - 0.5
    config = IQPaperConfig(
        updates=updates,
        critic_learning_rate=1e-2,
        actor_learning_rate=1e-9,
        action_gradient=ActionGradientConfig(weight=WEIGHT, at=where),
    )
    critic = CriticEnsemble([Critic(LAYOUT, ACTIONS, (64, 64), Activation.RELU, norm=True)])
    learner = iq_learner(config, constant_policy(0.0, STD), critic, NoEntropy())
    batch = Batch(observations, actions, torch.randn(32, SIZE), torch.ones(32))
    for _ in range(updates):
        learner.update(batch)
    drawn = STD * torch.randn(1000, 32, ACTIONS)
    with torch.no_grad():
        return (critic(observations, actions) - critic(observations.expand(1000, 32, -1), drawn)).mean().item()


def test_penalty_between_actions_bounds_the_advantage():
    """Each recorded action is the policy's mean or up to 0.7 off it; the bound is E |a - a'|^2 / (4 weight), doubled.

    For Q that minimises value term and penalty alone the two parts of the bound are equal.
    """
    way = 2 * (1 / 12 + STD**2)
    bound = 2 * way / (4 * WEIGHT)
    assert advantage_after(ActionGradientAt.BETWEEN, 150) < bound
    assert advantage_after(ActionGradientAt.RECORDED, 150) > 3 * bound


@pytest.mark.parametrize("members", [1, 3])
def test_initial_value_trains_every_critic(members: int):
    torch.manual_seed(0)
    critic = Critic(LAYOUT, ACTIONS, (8,), Activation.RELU, norm=False)
    ensemble = CriticEnsemble([copy.deepcopy(critic) for _ in range(members)])
    config = IQPaperConfig(
        value_term="initial",
        polyak_rate=None,
        temperature=0.0,
        ensemble=EnsembleConfig(members=members, pessimism="mean"),
    )
    learner = iq_learner(config, constant_policy(0.3, 0.135), ensemble, SampledEntropy())
    learner.update(replace(one_transition([0.1, -0.4]), initial_observations=torch.randn(4, SIZE)))
    first, *others = ensemble.members
    assert (first.network[0].weight != critic.network[0].weight).any()
    for other in others:
        assert all(map(torch.equal, first.parameters(), other.parameters()))

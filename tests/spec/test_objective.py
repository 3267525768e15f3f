"""The objectives by hand and against each other: value terms, references, given rewards, the absorbing state."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from iq_offline.algorithms.actor_critic import TransitionValues
from iq_offline.algorithms.build_iq import phi_of
from iq_offline.algorithms.divergences import ChiSquared
from iq_offline.algorithms.iq import expert_value, mixture_value
from iq_offline.algorithms.losses import bellman_error, bootstrap, implicit_reward, reward_penalty
from iq_offline.algorithms.ls_iq import AbsorbingState, least_squares
from iq_offline.algorithms.recoil import fixed_reward_error
from iq_offline.algorithms.sprinql import referenced_objective
from iq_offline.batch import Batch
from iq_offline.config.iq import DivergenceKind, IQConfig
from iq_offline.config.ls_iq import DiscreteLSIQConfig, LSIQConfig
from iq_offline.config.recoil import ReCOILConfig
from iq_offline.config.sprinql import SPRINQLConfig

GAMMA = 0.9
close = torch.testing.assert_close


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def ended(count: int) -> Tensor:
    """A third of the transitions terminate."""
    return (torch.arange(count) % 3 == 0).double()


def values(seed: int, count: int = 6, absorbing: Tensor | None = None) -> TransitionValues:
    """Made-up values of one source, with the absorbing value, or zero, behind its terminations."""
    q, v, next_v = torch.randn(3, count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return TransitionValues(q, v, *bootstrap(next_v, ended(count), GAMMA, absorbing))


def one(q: float, next_v: float) -> TransitionValues:
    """A single transition that does not end."""
    return TransitionValues(number(q)[None], number(1.0)[None], number(next_v)[None], number(GAMMA)[None])


def batch_of(count: int, supplementary: int | None = None, *, terminations: Tensor | None = None) -> Batch:
    """Transitions of which only the terminations are read."""
    nothing = torch.zeros(count, 1)
    flags = ended(count) if terminations is None else terminations
    other = None if supplementary is None else batch_of(supplementary, terminations=terminations)
    return Batch(nothing, nothing, nothing, flags, supplementary=other)


def test_offline_loss_is_value_term_less_phi():
    """The default's loss is -E[Q - V] + E[r^2] / (4c), [IQ21] eq. 12, where the value behind terminations is zero."""
    expert = values(0)
    loss = expert_value(expert, None) - phi_of(IQConfig())(expert.rewards).mean()
    close(loss, -(expert.q - expert.v).mean() + expert.rewards.square().mean() / 2)


def test_mixture_without_supplementary_is_the_experts_own():
    expert = values(2)
    assert torch.equal(mixture_value(expert, None), expert_value(expert, None))
    own = SPRINQLConfig(gamma=GAMMA, reward_reference=(0.0, 0.0))
    plain = expert_value(expert, None) - ChiSquared(0.5).phi(expert.rewards).mean()
    close(referenced_objective(own, expert, None), plain)


def test_expert_value_reads_no_supplementary_transitions():
    expert, other = values(2), values(3)
    assert torch.equal(expert_value(expert, other), expert_value(expert, None))


def test_mixture_takes_half_of_each_source():
    expert, other = values(3), values(4, count=12)
    config = SPRINQLConfig(gamma=GAMMA, reward_reference=(0.0, 0.0), reward_penalty=0.25)
    telescoped = [(s.v - s.discounts * s.next_v).mean() for s in (expert, other)]
    squares = [s.rewards.square().mean() for s in (expert, other)]
    close(mixture_value(expert, other), sum(telescoped, number(0)) / 2)
    loss = referenced_objective(config, expert, other)
    close(loss, sum(telescoped, number(0)) / 2 - expert.rewards.mean() + sum(squares, number(0)) / 2)


def test_penalty_draws_each_source_to_its_reference():
    """At the reference the penalty is zero, and the loss is value term and expert reward alone."""
    expert, other = values(5), values(6)
    config = SPRINQLConfig(gamma=GAMMA, reward_reference=(1.0, -1.0))
    penalty = ((expert.rewards - 1).square().mean() + (other.rewards + 1).square().mean()) / 2 / 2
    value = mixture_value(expert, other)
    close(referenced_objective(config, expert, other), value - expert.rewards.mean() + penalty)
    at_reference = replace(expert, q=1 + expert.discounts * expert.next_v)
    there = replace(other, q=-1 + other.discounts * other.next_v)
    close(referenced_objective(config, at_reference, there), mixture_value(expert, other) - 1)


def test_fixed_rewards_by_hand():
    """Q = 15 for 2 / (1 - 0.9) = 20; Q = 3 for -2 + 0.9 * 10 = 7."""
    expert, other = one(15, 1), one(3, 10)
    config, absorbing = LSIQConfig(gamma=GAMMA), AbsorbingState(GAMMA, None)
    going_on = torch.zeros(1, dtype=torch.float64)
    alone, both = batch_of(1, terminations=going_on), batch_of(1, 1, terminations=going_on)
    close(least_squares(config, absorbing, alone, expert, None), number(12.5))
    close(least_squares(config, absorbing, both, expert, other), number((12.5 + 8.0) / 2))
    own = ReCOILConfig(gamma=GAMMA)
    close(fixed_reward_error(own, expert, []), number(12.5))
    close(fixed_reward_error(own, expert, [other]), number((12.5 + 8.0) / 2))


def test_papers_fixed_rewards_are_the_inverse_objective():
    """-r + r^2 / (4c) = (r - 2c)^2 / (4c) - c: on the expert alone the fixed reward is 2c.

    With the penalty on the mixture and -E_S[r], S's own value term, against it, 4c and -4c, and the constant 4c: the
    rewards 2 and -2 of [LSIQ23] at c = 1/2.
    """
    expert, other = values(7), values(13, count=10)

    def error(source: TransitionValues, reward: float) -> Tensor:
        return bellman_error(source.q, reward, source.next_v, source.discounts)

    alone = -ChiSquared(0.7).phi(expert.rewards).mean()
    close(error(expert, 1.4) / 1.4, alone + 0.7)

    penalty = (reward_penalty(expert.rewards, 0.0, 0.5) + reward_penalty(other.rewards, 0.0, 0.5)) / 2
    over_both = penalty - expert.rewards.mean() + other.rewards.mean()
    close((error(expert, 2.0) + error(other, -2.0)) / 2, over_both + 2)


def test_coherent_rewards_are_the_targets():
    """The Bellman error is zero exactly where recovered rewards equal the given ones."""
    expert, given = values(8), torch.full((6,), 0.5, dtype=torch.float64)
    loss = bellman_error(expert.q, given, expert.next_v, expert.discounts)
    close(loss, (expert.rewards - 0.5).square().mean() / 2)
    coherent = given + expert.discounts * expert.next_v
    close(bellman_error(coherent, given, expert.next_v, expert.discounts), number(0.0))


def test_recovered_rewards_are_the_inverse_operator():
    expert = values(9)
    assert torch.equal(expert.rewards, implicit_reward(expert.q, expert.next_v, expert.discounts))


@pytest.mark.parametrize("kind", list(DivergenceKind))
def test_every_divergence_has_a_phi(kind: DivergenceKind):
    """Its slope at zero, the weight of the expert's reward, is positive and no larger than its tangent's."""
    config = IQConfig(gamma=GAMMA, divergence=kind, gradient_penalty={"weight": 1.0})
    rewards = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(phi_of(config)(rewards).sum(), rewards)
    assert ((slope > 0) & (slope <= 20)).all()


def test_options_of_a_divergence_reach_its_phi():
    rewards = torch.tensor([1.5, -2.5], dtype=torch.float64)
    chi_squared = phi_of(IQConfig(reward_penalty=2.0))
    close(chi_squared(rewards), rewards - rewards.square() / 8)
    total_variation = phi_of(IQConfig(divergence="total-variation", reward_bound=2.0))
    close(total_variation(rewards), torch.tensor([1.5, -2.5 - 10 * 0.25], dtype=torch.float64))


@pytest.mark.parametrize("config", [LSIQConfig(gamma=GAMMA), DiscreteLSIQConfig(gamma=GAMMA)])
def test_absorbing_value_equals_absorbing_states_in_data(config: LSIQConfig | DiscreteLSIQConfig):
    """The self-transitions, each weighted gamma^k, summed one by one over 400 steps, and all weights to one.

    Of the absorbing state Q is its value, so the expert's squared distance from 2 / (1 - gamma) is told in rewards.
    """
    absorbing = AbsorbingState(GAMMA, None).double()
    torch.nn.init.constant_(absorbing.reward, 0.17)
    value = absorbing.value.detach()
    expert, other = values(10, absorbing=value), values(11, absorbing=value)
    learnt = least_squares(config, absorbing, batch_of(6, 6), expert, other)

    weight = sum(GAMMA**k for k in range(1, 400)) * ended(6).mean()
    of_expert = (expert.q - 20).square().mean() / 2
    of_other = bellman_error(other.q, -2.0, other.next_v, other.discounts)
    step = TransitionValues(value[None], value[None], value[None], number(GAMMA)[None])
    halves = [
        (of_expert + weight * bellman_error(step.q, 2.0, step.next_v, step.discounts)) / (1 + weight),
        (of_other + weight * bellman_error(step.q, -2.0, step.next_v, step.discounts)) / (1 + weight),
    ]
    close(learnt.detach(), (halves[0] + halves[1]) / 2)


def test_absorbing_reward_is_drawn_to_the_experts():
    """From zero upwards to 2, by the weight of the expert's terminations."""
    absorbing = AbsorbingState(GAMMA, None).double()
    loss = least_squares(LSIQConfig(gamma=GAMMA), absorbing, batch_of(6), values(12), None)
    (gradient,) = torch.autograd.grad(loss, absorbing.reward)
    weight = GAMMA / (1 - GAMMA) / 3
    close(gradient, number(-2.0 * weight / (1 + weight)))


def test_absorbing_value_stays_within_the_bound():
    """Of targets; the reward itself is free."""
    absorbing = AbsorbingState(GAMMA, 5.0)
    torch.nn.init.constant_(absorbing.reward, 2.0)
    close(absorbing.value, torch.tensor(20.0))
    close(absorbing.bounded_value, torch.tensor(5.0))

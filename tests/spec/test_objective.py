"""The objective's choices: value terms, where penalties are taken, fixed and coherent rewards, the absorbing state."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from iq_offline.algorithms.divergences import ChiSquared
from iq_offline.algorithms.losses import iq_expert_loss
from iq_offline.algorithms.objective import SourceValues, critic_loss, divergence_of
from iq_offline.algorithms.losses import bootstrap
from iq_offline.config.MISSING import ObjectiveKind
from iq_offline.config.iq import DiscreteIQConfig, DivergenceKind, IQConfig, ValueTerm
from iq_offline.config.regularisers import Source

GAMMA = 0.9
close = torch.testing.assert_close


def values(seed: int, count: int = 6) -> SourceValues:
    """Made-up values of one source, a third of it terminations with the value zero behind them."""
    q, v, next_v = torch.randn(3, count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    terminations = (torch.arange(count) % 3 == 0).double()
    return SourceValues(q, v, next_v, GAMMA * (1 - terminations), terminations, GAMMA)


def loss_of(config: IQConfig, expert: SourceValues, supplementary: SourceValues | None = None) -> torch.Tensor:
    """The objective with first observations of value 2."""
    initial = torch.full((3,), 2.0, dtype=torch.float64)
    return critic_loss(config, divergence_of(config).phi, expert, supplementary, initial)


def test_the_default_is_the_papers_offline_loss():
    expert = values(0)
    plain = iq_expert_loss(expert.rewards, expert.v, expert.next_v, expert.discounts, ChiSquared(0.5).phi)
    assert torch.equal(loss_of(IQConfig(gamma=GAMMA), expert), plain)


def test_the_initial_term_is_one_minus_gamma_times_the_first_value():
    expert = values(1)
    loss = loss_of(IQConfig(gamma=GAMMA, value_term=ValueTerm.INITIAL, polyak_rate=None), expert)
    close(loss, 0.1 * 2.0 - ChiSquared(0.5).phi(expert.rewards).mean())


def test_a_mixture_without_supplementary_data_is_the_experts_own():
    config = IQConfig(gamma=GAMMA, value_term=ValueTerm.MIXTURE, penalty_on=Source.MIXTURE)
    close(loss_of(config, values(2)), loss_of(IQConfig(gamma=GAMMA), values(2)))


def test_the_mixture_takes_half_of_each_source():
    expert, other = values(3), values(4)
    config = IQConfig(gamma=GAMMA, value_term=ValueTerm.MIXTURE, penalty_on=Source.MIXTURE, reward_penalty=0.25)
    telescoped = [(s.v - s.discounts * s.next_v).mean() for s in (expert, other)]
    squares = [s.rewards.square().mean() for s in (expert, other)]
    close(loss_of(config, expert, other), sum(telescoped) / 2 - expert.rewards.mean() + sum(squares) / 2)


def test_a_reference_is_what_the_penalty_draws_to():
    expert, other = values(5), values(6)
    config = IQConfig(gamma=GAMMA, penalty_on=Source.MIXTURE, reward_reference=(1.0, -1.0))
    penalty = ((expert.rewards - 1).square().mean() + (other.rewards + 1).square().mean()) / 2 / 2
    value = (expert.v - expert.discounts * expert.next_v).mean()
    close(loss_of(config, expert, other), value - expert.rewards.mean() + penalty)


def test_least_squares_by_hand():
    one = torch.ones(1, dtype=torch.float64)
    expert = SourceValues(15 * one, one, one, GAMMA * one, 0 * one, GAMMA)
    other = SourceValues(3 * one, one, 10 * one, GAMMA * one, 0 * one, GAMMA)
    config = IQConfig(gamma=GAMMA, objective=ObjectiveKind.LEAST_SQUARES)
    close(loss_of(config, expert), torch.tensor(12.5, dtype=torch.float64))
    close(loss_of(config, expert, other), torch.tensor((12.5 + 8.0) / 2, dtype=torch.float64))
    bootstrapped = config.model_copy(update={"expert_target_fixed": False})
    close(loss_of(bootstrapped, expert), torch.tensor((15 - 2 - 0.9) ** 2 / 2, dtype=torch.float64))


def test_least_squares_with_the_papers_rewards_is_the_inverse_objective_up_to_a_constant():
    """-r + r^2 / (4c) = (r - 2c)^2 / (4c) - c: on the expert alone the fixed reward is 2c.

    With the penalty on the mixture and -E_S[r], S's own value term, against it, 4c and -4c, and the constant 4c: the
    rewards 2 and -2 of [LSIQ23] at c = 1/2.
    """
    expert, other = values(7), values(13, count=10)

    def least_squares(rewards: tuple[float, float]) -> IQConfig:
        kind = ObjectiveKind.LEAST_SQUARES
        return IQConfig(gamma=GAMMA, objective=kind, fixed_rewards=rewards, expert_target_fixed=False)

    value = (expert.v - expert.discounts * expert.next_v).mean()
    alone = loss_of(IQConfig(gamma=GAMMA, reward_penalty=0.7), expert) - value
    close(loss_of(least_squares((1.4, -1.4)), expert) / 1.4, alone + 0.7)

    over_both = loss_of(IQConfig(gamma=GAMMA, penalty_on=Source.MIXTURE), expert, other) - value + other.rewards.mean()
    close(loss_of(least_squares((2.0, -2.0)), expert, other), over_both + 2)


def test_coherent_rewards_are_the_targets():
    expert = replace(values(8), coherent_rewards=torch.full((6,), 0.5, dtype=torch.float64))
    config = IQConfig(gamma=GAMMA, objective=ObjectiveKind.COHERENT)
    close(loss_of(config, expert), (expert.rewards - 0.5).square().mean() / 2)


@pytest.mark.parametrize("kind", list(DivergenceKind))
def test_every_divergence_is_the_objectives_phi(kind: DivergenceKind):
    penalty = {"weight": 1.0} if kind is DivergenceKind.WASSERSTEIN else None
    config = IQConfig(gamma=GAMMA, divergence=kind, gradient_penalty=penalty)
    expert = values(9)
    phi = divergence_of(config).phi
    plain = (expert.v - expert.discounts * expert.next_v).mean() - phi(expert.rewards).mean()
    close(loss_of(config, expert), plain)


INVERSE_WITH_TAIL = {"penalty_on": Source.MIXTURE, "reward_reference": (0.3, 0.0)}


@pytest.mark.parametrize(
    "choices",
    [
        INVERSE_WITH_TAIL | {"value_term": ValueTerm.EXPERT},
        INVERSE_WITH_TAIL | {"value_term": ValueTerm.MIXTURE},
        {"objective": ObjectiveKind.LEAST_SQUARES, "expert_target_fixed": False},
    ],
    ids=["expert", "mixture", "least squares"],
)
def test_a_learnt_absorbing_value_equals_writing_the_absorbing_state_into_the_data(choices: dict[str, Any]):
    """The self-transitions, each weighted gamma^k, summed one by one over 400 steps, and all weights to one."""
    config = IQConfig(gamma=GAMMA, **choices)
    absorbing = torch.tensor(1.7, dtype=torch.float64)

    def known(seed: int) -> SourceValues:
        source = values(seed)
        next_v, discounts = bootstrap(source.next_v, source.terminations, GAMMA, absorbing)
        return replace(source, next_v=next_v, discounts=discounts)

    plain = loss_of(config, known(10), known(11))
    short = replace(known(10), tail=absorbing)
    learnt = loss_of(config, short, replace(known(11), tail=absorbing))

    one = torch.ones(1, dtype=torch.float64)
    step = SourceValues(absorbing * one, absorbing * one, absorbing * one, GAMMA * one, 0 * one, GAMMA)
    share = short.terminations.mean()
    weight = sum(GAMMA**k for k in range(1, 400)) * share
    close(learnt, (plain + weight * loss_of(config, step, step)) / (1 + weight))


def test_a_learnt_absorbing_value_receives_a_gradient_and_zero_does_not_need_one():
    absorbing = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    source = values(12)
    next_v, discounts = bootstrap(source.next_v, source.terminations, GAMMA, absorbing)
    expert = replace(source, next_v=next_v, discounts=discounts, tail=absorbing)
    loss_of(IQConfig(gamma=GAMMA), expert).backward()
    assert absorbing.grad is not None
    assert absorbing.grad.item() != 0
    next_v, discounts = bootstrap(source.next_v, source.terminations, GAMMA, None)
    assert next_v is source.next_v
    assert discounts[0].item() == 0


def test_wasserstein_needs_a_gradient_penalty():
    with pytest.raises(ValueError, match="needs a gradient penalty"):
        DiscreteIQConfig(divergence=DivergenceKind.WASSERSTEIN)

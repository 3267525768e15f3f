"""The critic's objective: which losses, over which transitions, a configuration asks for."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from iq_offline.algorithms import divergences
from iq_offline.algorithms.losses import bellman_error, implicit_reward, initial_value, reward_penalty, telescoped_value
from iq_offline.config import DivergenceKind, IQConfig, ObjectiveKind, Source, ValueTerm

CHI = DivergenceKind.CHI_SQUARED


@dataclass(frozen=True)
class SourceValues:
    """What the networks say of one source's transitions; those of several critics one after the other.

    Shapes: all (N B,). `tail`: the value of the absorbing state, (), where that is learnt; a termination is followed
    by its self-transitions, whose discounted occupancy is gamma / (1 - gamma) of its own ([LSIQ23] sec. 4).
    """

    q: Tensor
    v: Tensor
    next_v: Tensor
    discounts: Tensor
    terminations: Tensor
    gamma: float
    tail: Tensor | None = None
    coherent_rewards: Tensor | None = None

    @property
    def rewards(self) -> Tensor:
        """Recovered rewards, (N B,)."""
        return implicit_reward(self.q, self.next_v, self.discounts)

    def with_tail(self, mean: Tensor, of_reward: Callable[[Tensor], Tensor]) -> Tensor:
        """The mean over transitions and the absorbing self-transitions behind terminations together."""
        if self.tail is None:
            return mean
        weight = self.gamma / (1 - self.gamma) * self.terminations.mean()
        return (mean + weight * of_reward((1 - self.gamma) * self.tail)) / (1 + weight)


def divergence_of(config: IQConfig) -> divergences.Divergence:
    """The phi that the expert's rewards pass through. A penalty that is no expert-only r^2 is a term of its own."""
    kinds: dict[DivergenceKind, divergences.Divergence] = {
        CHI: divergences.Linear() if _penalised_apart(config) else divergences.ChiSquared(config.reward_penalty),
        DivergenceKind.TOTAL_VARIATION: divergences.TotalVariation(config.reward_bound),
        DivergenceKind.WASSERSTEIN: divergences.Linear(),
        DivergenceKind.KL: divergences.KL(),
        DivergenceKind.KL_DUAL: divergences.KLDual(),
        DivergenceKind.KL_DONSKER_VARADHAN: divergences.KLDonskerVaradhan(),
        DivergenceKind.FORWARD_KL: divergences.ForwardKL(),
        DivergenceKind.JENSEN_SHANNON: divergences.JensenShannon(),
        DivergenceKind.HELLINGER: divergences.Hellinger(),
    }
    return kinds[config.divergence]


def critic_loss(
    config: IQConfig,
    phi: Callable[[Tensor], Tensor],
    expert: SourceValues,
    supplementary: SourceValues | None,
    initial_v: Tensor | None,
) -> Tensor:
    """The objective without its regularisers, (); without supplementary data a mixture is the expert's alone."""
    if config.objective is ObjectiveKind.LEAST_SQUARES:
        return _least_squares(config, expert, supplementary)
    if config.objective is ObjectiveKind.COHERENT:
        return mixed(_coherent(expert), None if supplementary is None else _coherent(supplementary))
    return _inverse(config, phi, expert, supplementary, initial_v)


def mixed(expert: Tensor, supplementary: Tensor | None) -> Tensor:
    """Half of each, or the expert's where there is no other."""
    return expert if supplementary is None else (expert + supplementary) / 2


def _inverse(
    config: IQConfig,
    phi: Callable[[Tensor], Tensor],
    expert: SourceValues,
    supplementary: SourceValues | None,
    initial_v: Tensor | None,
) -> Tensor:
    """[IQ21] eq. 9, as a loss."""
    loss = _value_term(config, expert, supplementary, initial_v)
    loss = loss - expert.with_tail(phi(expert.rewards).mean(), phi)
    if not _penalised_apart(config):
        return loss
    penalty = _penalty(config, expert, config.reward_reference[0])
    if config.penalty_on is Source.MIXTURE and supplementary is not None:
        penalty = mixed(penalty, _penalty(config, supplementary, config.reward_reference[1]))
    return loss + penalty


def _value_term(
    config: IQConfig, expert: SourceValues, supplementary: SourceValues | None, initial_v: Tensor | None
) -> Tensor:
    if config.value_term is ValueTerm.INITIAL:
        assert initial_v is not None
        return initial_value(initial_v, config.gamma)
    value = _telescoped(expert)
    if config.value_term is ValueTerm.MIXTURE and supplementary is not None:
        return mixed(value, _telescoped(supplementary))
    return value


def _telescoped(source: SourceValues) -> Tensor:
    return source.with_tail(telescoped_value(source.v, source.next_v, source.discounts), lambda reward: reward)


def _penalty(config: IQConfig, source: SourceValues, reference: float) -> Tensor:
    def of(rewards: Tensor) -> Tensor:
        return reward_penalty(rewards.reshape(-1), reference, config.reward_penalty)

    return source.with_tail(of(source.rewards), of)


def _least_squares(config: IQConfig, expert: SourceValues, supplementary: SourceValues | None) -> Tensor:
    """[LSIQ23]: the expert's Q to its target, bootstrapped or fixed; supplementary data to the lowest reward."""
    best, worst = config.fixed_rewards
    if config.expert_target_fixed:
        loss = (expert.q - best / (1 - config.gamma)).square().mean() / 2
    else:
        loss = bellman_error(expert.q, best, expert.next_v, expert.discounts)
    loss = expert.with_tail(loss, lambda reward: (reward - best).square() / 2)
    if supplementary is None:
        return loss
    other = bellman_error(supplementary.q, worst, supplementary.next_v, supplementary.discounts)
    return mixed(loss, supplementary.with_tail(other, lambda reward: (reward - worst).square() / 2))


def _coherent(source: SourceValues) -> Tensor:
    assert source.coherent_rewards is not None
    error = bellman_error(source.q, source.coherent_rewards, source.next_v, source.discounts)
    return source.with_tail(error, lambda reward: reward.square() / 2)


def _penalised_apart(config: IQConfig) -> bool:
    plain = config.penalty_on is Source.EXPERT and config.reward_reference[0] == 0
    return config.divergence is CHI and not plain


def flat(values: Tensor, members: int) -> Tensor:
    """(B,) as often as there are critics, or (N, B): one vector (N B,)."""
    return values.expand(members, -1).reshape(-1)


def bootstrap(
    next_v: Tensor, terminations: Tensor, gamma: float, absorbing: Tensor | float | None
) -> tuple[Tensor, Tensor]:
    """Next values and discounts, with the absorbing state's value behind terminations; None: that value is zero.

    Shapes: (B,) -> (B,), (B,).
    """
    if absorbing is None:
        return next_v, gamma * (1 - terminations)
    return torch.where(terminations > 0, absorbing, next_v), torch.full_like(terminations, gamma)

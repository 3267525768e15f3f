"""The reward behind a learnt Q-function: r = Q(s, a) - discount * V(s'), [IQ21] eq. 11, and what can be said of it.

Two things are open in any recovered reward. Potential-based shaping: two rewards that differ by it have the same
optimal policy. The canonical form takes out the learnt V as potential, which leaves Q(s, a) - V(s). And a constant:
where no demonstration ends, adding one is shaping, too. The normalised form fixes it by what the demonstrations say: 0
is what uniform actions earn at the demonstrated observations, 1 what the demonstrated actions earn there.

Off the data Q says nothing, and several critics disagree. So the normalised form takes a lower bound of them, and is
itself bounded, by 0 and 1: what is worse than chance or better than the demonstrations is beyond what they can tell.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from iq_offline.algorithms.distributions import ContinuousActionDistribution
from iq_offline.algorithms.iq_continuous import ContinuousNetworks
from iq_offline.algorithms.iq_discrete import DiscreteNetworks, q_values, soft_state_value
from iq_offline.algorithms.losses import implicit_reward
from iq_offline.algorithms.objective import bootstrap
from iq_offline.algorithms.pieces import within_fixed
from iq_offline.batch import Batch
from iq_offline.config import ContinuousIQConfig, DiscreteIQConfig, EntropyReference

VALUE_SAMPLES = 16
"""Actions that a stochastic policy's V is the mean over; half of them mirror the other half."""
DEVIATIONS = 0.5
"""Below the critics' mean, where the normalised form takes its lower bound."""
SMALLEST_GAP = 1e-6
"""Between the rewards of demonstrated and uniform actions, where the normalised form is still defined."""


@dataclass(frozen=True)
class Recovered:
    """Of each transition, (B,): the reward, its canonical form, and how sure they are.

    `uncertainty`: standard deviation over critics of each one's canonical reward, zero for a single one. `value_error`:
    standard error of the discounted V(s') from the actions that it was averaged over, zero where it is closed form.
    """

    rewards: Tensor
    canonical: Tensor
    uncertainty: Tensor
    value_error: Tensor


@dataclass(frozen=True)
class Normalisation:
    """Canonical rewards at demonstrated observations: of uniform actions in the mean, and of the demonstrated ones.

    `deviations`: standard deviations over critics that the lower bound lies below their mean.
    """

    uniform: float
    demonstrated: float
    deviations: float = DEVIATIONS

    @property
    def exists(self) -> bool:
        """Whether demonstrated actions earn more than uniform ones: else there is no such scale."""
        return self.demonstrated - self.uniform > SMALLEST_GAP

    def __call__(self, found: Recovered) -> Tensor:
        """0 for what uniform actions earn, 1 for what demonstrated ones do, bounded by these; shape (B,)."""
        assert self.exists
        gap = self.demonstrated - self.uniform
        bound = found.canonical - self.deviations * found.uncertainty
        return ((bound - self.uniform) / gap).clamp(0, 1)


class Recovery(Protocol):
    """Recovers the rewards of a batch of raw transitions."""

    def __call__(self, batch: Batch) -> Recovered: ...

    def uniform(self, batch: Batch) -> Tensor:
        """Canonical reward of uniform actions at the batch's observations, (B,)."""
        ...


@dataclass(frozen=True)
class ContinuousRecovery:
    """Of an actor and critics. V is the in-sample value, or the policy's: a mean over VALUE_SAMPLES of its actions.

    The entropy's part of V is in closed form where it is measured against the prior, sampled against the uniform one.
    `absorbing`: the value behind a termination, zero for None.
    """

    networks: ContinuousNetworks
    config: ContinuousIQConfig
    noise: torch.Generator
    absorbing: Tensor | float | None = None

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Recovered:
        """Rewards are means over critics.

        Where a transition's successor is the batch's next one, V(s') is that one's V(s), same actions drawn: half the
        work for whole episodes.
        """
        q = self._q(batch.observations, self.networks.policy.scale_actions(batch.actions))
        v, error = self._values(batch.observations)
        next_v, error = v.roll(-1, dims=-1), error.roll(-1)
        alone = torch.ones_like(error, dtype=torch.bool)
        alone[:-1] = (batch.next_observations[:-1] != batch.observations[1:]).flatten(1).any(dim=1)
        if alone.any():
            next_v[:, alone], error[alone] = self._values(batch.next_observations[alone])
        return _recovered(self.config, q, (v, next_v), error, batch, self.absorbing)

    @torch.no_grad()
    def uniform(self, batch: Batch) -> Tensor:
        """Each observation with one uniform action."""
        actions = torch.rand(batch.actions.shape, generator=self.noise) * 2 - 1
        v, _ = self._values(batch.observations)
        return (self._q(batch.observations, actions) - v).mean(dim=0)

    def _q(self, observations: Tensor, scaled_actions: Tensor) -> Tensor:
        q: Tensor = self.networks.critic(self.networks.policy.standardise(observations), scaled_actions)
        return q

    def _values(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """V of each critic, (N, B), and the standard error of their mean, (B,)."""
        if self.networks.value is not None:
            value: Tensor = self.networks.value(self.networks.policy.standardise(observations))
            return value.unsqueeze(0), torch.zeros_like(value)
        here = self.networks.policy.distribution(observations)
        pairs = torch.stack([self._pair(here, observations) for _ in range(VALUE_SAMPLES // 2)])
        cost = torch.zeros_like(pairs[0, 0])
        if self.config.entropy is EntropyReference.PRIOR:
            assert self.networks.prior is not None
            cost = here.kl(self.networks.prior.distribution(observations))  # type: ignore[arg-type]
        error = pairs.mean(dim=1).std(dim=0) / len(pairs) ** 0.5
        return pairs.mean(dim=0) - self.config.temperature * cost, error

    def _pair(self, here: ContinuousActionDistribution, observations: Tensor) -> Tensor:
        """Mean over an action and its mirror image of Q, less a sampled entropy's cost; of each critic, (N, B)."""
        offset = torch.empty_like(here.mean).normal_(generator=self.noise)
        total = torch.zeros(())
        for noise in (offset, -offset):
            if self.config.entropy is EntropyReference.UNIFORM:
                actions, log_prob = here.sample_with_log_prob(noise)
                total = total + (self._q(observations, actions) - self.config.temperature * log_prob) / 2
            else:
                total = total + self._q(observations, here.sample(noise)) / 2
        return total


@dataclass(frozen=True)
class DiscreteRecovery:
    """Of a soft Q-function: V is closed form. `absorbing`: the value behind a termination, zero for None."""

    networks: DiscreteNetworks
    config: DiscreteIQConfig
    absorbing: Tensor | float | None = None

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Recovered:
        """Of one Q-function: there is no uncertainty to state."""
        all_q, v = self._at(batch.observations)
        q = all_q.gather(-1, batch.actions.unsqueeze(-1)).squeeze(-1)
        _, next_v = self._at(batch.next_observations)
        values = (v.unsqueeze(0), next_v.unsqueeze(0))
        return _recovered(self.config, q.unsqueeze(0), values, torch.zeros_like(q), batch, self.absorbing)

    @torch.no_grad()
    def uniform(self, batch: Batch) -> Tensor:
        """The mean over all actions."""
        all_q, v = self._at(batch.observations)
        return all_q.mean(dim=-1) - v

    def _at(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        all_q = q_values(self.config, self.networks, observations)
        if self.networks.value is not None:
            return all_q, self.networks.value(self.networks.q.standardise(observations))
        return all_q, soft_state_value(self.config, self.networks, all_q, observations)


def normalisation(recovery: Recovery, demonstrated: Batch) -> Normalisation:
    """From the demonstrated transitions, whose rewards are not read."""
    return Normalisation(
        uniform=float(recovery.uniform(demonstrated).mean()),
        demonstrated=float(recovery(demonstrated).canonical.mean()),
    )


def _recovered(
    config: ContinuousIQConfig | DiscreteIQConfig,
    q: Tensor,
    values: tuple[Tensor, Tensor],
    error: Tensor,
    batch: Batch,
    absorbing: Tensor | float | None,
) -> Recovered:
    """From each critic's Q and its V at s and s', (N, B)."""
    v, next_v = values
    found = [bootstrap(one, batch.terminations, config.gamma, absorbing) for one in next_v]
    next_v, discounts = torch.stack([one for one, _ in found]), found[0][1]
    behind = next_v if len(next_v) == len(q) else next_v.expand_as(q)
    each = torch.stack([within_fixed(config, implicit_reward(a, b, discounts)) for a, b in zip(q, behind, strict=True)])
    canonical = each + discounts * next_v - v
    return Recovered(
        rewards=each.mean(dim=0),
        canonical=canonical.mean(dim=0),
        uncertainty=canonical.std(dim=0, correction=0),
        value_error=discounts * error,
    )

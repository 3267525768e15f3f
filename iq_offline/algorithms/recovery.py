"""The reward behind a learnt Q-function: r = Q(s, a) - discount * V(s'), [IQ21] eq. 11, and what can be said of it.

Two things are open in any recovered reward. Potential-based shaping: two rewards that differ by it have the same
optimal policy. The canonical form takes out the learnt V as potential, which leaves Q(s, a) - V(s). And a constant:
where no demonstration ends, adding one is shaping, too. The normalised form fixes it by what the demonstrations say: 0
is what uniform actions earn at the demonstrated observations, 1 what the demonstrated actions earn there.

Off the data Q says nothing, and several critics disagree. So the normalised form takes a lower bound of them, and is
itself bounded, by 0 and 1: what is worse than chance or better than the demonstrations is beyond what they can tell.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from iq_offline.algorithms.actor_critic import ActorCritic
from iq_offline.algorithms.losses import bootstrap, implicit_reward
from iq_offline.algorithms.noise import Draw
from iq_offline.algorithms.soft_q import SoftQLearner
from iq_offline.batch import Batch

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


@dataclass(frozen=True)
class ContinuousRecovery:
    """Of an actor and critics. V is the in-sample value, or the policy's: a mean over VALUE_SAMPLES of its actions."""

    learner: ActorCritic
    noise: torch.Generator

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Recovered:
        """Rewards of a batch of raw transitions, as means over critics.

        Where a transition's successor is the batch's next one, V(s') is that one's V(s), same actions drawn: half the
        work for whole episodes.
        """
        q = self._q(batch.observations, self.learner.policy.scale_actions(batch.actions))
        v, error = self._values(batch.observations)
        next_v, error = v.roll(-1, dims=-1), error.roll(-1)
        alone = torch.ones_like(error, dtype=torch.bool)
        alone[:-1] = (batch.next_observations[:-1] != batch.observations[1:]).flatten(1).any(dim=1)
        if alone.any():
            next_v[:, alone], error[alone] = self._values(batch.next_observations[alone])
        return _recovered(self.learner, q, (v, next_v), error, batch)

    @torch.no_grad()
    def uniform(self, batch: Batch) -> Tensor:
        """Canonical reward of a uniform action at each observation, (B,)."""
        actions = torch.rand(batch.actions.shape, generator=self.noise) * 2 - 1
        v, _ = self._values(batch.observations)
        return (self._q(batch.observations, actions) - v).mean(dim=0)

    def _q(self, observations: Tensor, scaled_actions: Tensor) -> Tensor:
        q: Tensor = self.learner.critic(self.learner.policy.standardise(observations), scaled_actions)
        return q

    def _values(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """V of each critic, (N, B), and the standard error of their mean, (B,)."""
        noise, critic = _Mirrored(self.noise), self.learner.critic
        pairs = []
        for _ in range(VALUE_SAMPLES // 2):
            first = self.learner.soft_value(observations, critic, noise)
            if noise.last is None:  # in-sample: no action is drawn
                return first, torch.zeros_like(first[0])
            pairs.append((first + self.learner.soft_value(observations, critic, noise)) / 2)
        each = torch.stack(pairs)
        return each.mean(dim=0), each.mean(dim=1).std(dim=0) / len(pairs) ** 0.5


class _Mirrored:
    """Normal numbers, each draw followed by its mirror image."""

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator
        self._mirror = False
        self.last: Tensor | None = None

    def draw(self, draw: Draw) -> Tensor:
        """Fresh numbers, or the last ones with their sign changed."""
        if not self._mirror or self.last is None:
            self.last = draw.make(self._generator)
        else:
            self.last = -self.last
        self._mirror = not self._mirror
        return self.last


@dataclass(frozen=True)
class DiscreteRecovery:
    """Of a soft Q-function, whose V is in closed form: there is no uncertainty to state."""

    learner: SoftQLearner

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Recovered:
        """Rewards of a batch of raw transitions."""
        all_q, v = self._at(batch.observations)
        q = all_q.gather(-1, batch.actions.unsqueeze(-1)).squeeze(-1)
        _, next_v = self._at(batch.next_observations)
        values = (v.unsqueeze(0), next_v.unsqueeze(0))
        return _recovered(self.learner, q.unsqueeze(0), values, torch.zeros_like(q), batch)

    @torch.no_grad()
    def uniform(self, batch: Batch) -> Tensor:
        """Mean canonical reward of all actions at each observation, (B,)."""
        all_q, v = self._at(batch.observations)
        return all_q.mean(dim=-1) - v

    def _at(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        q = self.learner.function.q(observations)
        return q, self.learner.soft_value(observations, self.learner.function, q)


Recovery = ContinuousRecovery | DiscreteRecovery


def recovery_of(learner: ActorCritic | SoftQLearner, noise: torch.Generator) -> Recovery:
    """How rewards are recovered from a learner."""
    return ContinuousRecovery(learner, noise) if isinstance(learner, ActorCritic) else DiscreteRecovery(learner)


def normalisation(recovery: Recovery, demonstrated: Batch) -> Normalisation:
    """From the demonstrated transitions, whose rewards are not read."""
    return Normalisation(
        uniform=float(recovery.uniform(demonstrated).mean()),
        demonstrated=float(recovery(demonstrated).canonical.mean()),
    )


def _recovered(
    learner: ActorCritic | SoftQLearner, q: Tensor, values: tuple[Tensor, Tensor], error: Tensor, batch: Batch
) -> Recovered:
    """From each critic's Q and its V at s and s', (N, B)."""
    v, next_v = values
    gamma, absorbing = learner.config.gamma, learner.recovery_absorbing_value
    found = [bootstrap(one, batch.terminations, gamma, absorbing) for one in next_v]
    next_v, discounts = torch.stack([one for one, _ in found]), found[0][1]
    each = torch.stack([implicit_reward(a, b, discounts) for a, b in zip(q, next_v.expand_as(q), strict=True)])
    if learner.reward_bounds is not None:
        each = each.clamp(*learner.reward_bounds)
    canonical = each + discounts * next_v - v
    return Recovered(
        rewards=each.mean(dim=0),
        canonical=canonical.mean(dim=0),
        uncertainty=canonical.std(dim=0, correction=0),
        value_error=discounts * error,
    )

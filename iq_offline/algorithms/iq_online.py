"""IQ-Learn that acts: the learners of `iq.py` and `iq_discrete.py` on demonstrations and replay, half each.

Source: [IQ21] sec. 5.1 and 5.3. Three things differ from offline learning. The chi-squared penalty covers both halves:

    E_expert[r] - E_mixture[r^2] / (4c) - (1 - gamma) E V(s0),   r = Q(s, a) - discount V(s'),

so that every reward is bounded, and Q is learnt where the policy goes. The value behind a termination is learnt. And
training may start from the policy of an offline run, whose Q-function says nothing off the data: the policy then waits
until a new one is learnt, and is drawn back to its start by a KL divergence whose weight halves again and again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from iq_offline.algorithms.actor_critic import PolicyActions, PriorEntropy, SampledEntropy, TransitionValues
from iq_offline.algorithms.adam import Adam, Changed
from iq_offline.algorithms.build import NetworkSpec, actor_and_critics, soft_q_function
from iq_offline.algorithms.build_iq import VALUE_TERMS, phi_of
from iq_offline.algorithms.distributions import ContinuousActionDistribution
from iq_offline.algorithms.iq import IQLearner
from iq_offline.algorithms.iq_discrete import DiscreteIQLearner
from iq_offline.algorithms.losses import Metrics, mixed
from iq_offline.algorithms.ls_iq import AbsorbingState
from iq_offline.algorithms.networks import ContinuousPolicy, DiscretePolicy
from iq_offline.algorithms.noise import Stream, generator
from iq_offline.algorithms.regularisers import DISCRETE, chosen, regularisers_of
from iq_offline.batch import Batch
from iq_offline.config.iq import DivergenceKind, ValueTerm
from iq_offline.config.online import DiscreteOnlineIQConfig, OnlineIQConfig, StartConfig

ABSORBING_RATE = 1e-2
"""Learning rate of the absorbing state's reward, which is one number."""
ValueOf = Callable[[TransitionValues], Tensor]


class ActingLearner:
    """What the learners for continuous and for discrete actions add alike: objective, absorbing state, anchor."""

    config: OnlineIQConfig | DiscreteOnlineIQConfig
    expert_ends: Tensor | None = None
    """Share of the expert's steps that a termination follows, (); None: that of each batch. See `online_objective`."""
    start: "Anchor | None"
    """The anchor to the policy that training starts from."""
    modules: dict[str, nn.Module]
    value_term: Callable[[TransitionValues, TransitionValues | None], Tensor] | None
    initial_value: Callable[[Batch], Tensor]

    def learn_absorbing(self, device: torch.device) -> Adam:
        """Make the absorbing state; returns its optimiser."""
        self.absorbing = AbsorbingState(self.config.gamma, self.config.target_bound).to(device)
        self.modules["absorbing"] = self.absorbing
        return Adam([self.absorbing], ABSORBING_RATE, 0.0, self.config.updates)

    @property
    def absorbing_value(self) -> Tensor:
        """Learnt, within the bound of targets; without a gradient, as the target critics have none."""
        return self.absorbing.bounded_value.detach()

    @property
    def changed(self) -> list[Changed]:
        """And the anchor's count."""
        offline: list[Changed] = super().changed  # type: ignore[misc]
        return offline if self.start is None else [*offline, self.start]

    def update(self, batch: Batch) -> Metrics:
        """As without acting; then the anchor is weaker."""
        metrics: Metrics = super().update(batch)  # type: ignore[misc]
        if self.start is None:
            return metrics
        metrics |= {"anchor_weight": self.start.weight()}
        self.start.step()
        return metrics

    def diagnostics(self, batch: Batch) -> Metrics:
        """And the absorbing value."""
        metrics: Metrics = super().diagnostics(batch)  # type: ignore[misc]
        return metrics | {"absorbing_value": self.absorbing.value.detach()}

    def objective(self, batch: Batch, expert: TransitionValues, supplementary: TransitionValues | None) -> Tensor:
        """That of `online_objective`, with this learner's value at first observations where the settings have that."""
        first = self.initial_value(batch) if self.value_term is None else None
        return online_objective(self.config, self.absorbing, batch, expert, supplementary, first, self.expert_ends)


class OnlineIQLearner(ActingLearner, IQLearner):  # type: ignore[misc]  # a property where IQLearner has a field
    """Each update takes the three steps of `IQLearner`. `start`: the anchor to the policy that it starts from."""

    config: OnlineIQConfig

    def __init__(self, config: OnlineIQConfig, spec: NetworkSpec, prior: ContinuousPolicy | None = None) -> None:
        self.start = None if prior is None else Anchor(config.start, spec.device)
        super().__init__(
            config,
            *actor_and_critics(config, spec, prior),
            generator(spec.seed, Stream.ACTIONS, spec.device),
            SampledEntropy()
            if prior is None or self.start is None
            else AnchoredEntropy(prior, anchor=self.start, temperature=config.temperature),
            regularisers_of(config),
            phi=phi_of(config),
            value_term=VALUE_TERMS[config.value_term],
        )
        self.critic_optimisers.append(self.learn_absorbing(spec.device))
        self.adams.insert(1, self.critic_optimisers[1])

    def soft_actor_loss(
        self, batch: Batch, drawn: PolicyActions, supplementary: PolicyActions | None
    ) -> tuple[Tensor, Tensor]:
        """As `ActorCritic`; without a gradient to the policy while that waits."""
        loss, cost = super().soft_actor_loss(batch, drawn, supplementary)
        return (loss if self.start is None else loss * self.start.moves()), cost


class DiscreteOnlineIQLearner(ActingLearner, DiscreteIQLearner):  # type: ignore[misc]
    """Each update takes the two steps of `DiscreteIQLearner`. `start`: the anchor to the policy that it starts from."""

    config: DiscreteOnlineIQConfig

    def __init__(self, config: DiscreteOnlineIQConfig, spec: NetworkSpec, prior: DiscretePolicy | None = None) -> None:
        self.start = None if prior is None else Anchor(config.start, spec.device)
        super().__init__(
            config,
            soft_q_function(config, spec, prior, separate_value=prior is not None),
            chosen(DISCRETE, config),
            phi=phi_of(config),
            value_term=VALUE_TERMS[config.value_term],
            prior=prior,
        )
        self.adams.append(self.learn_absorbing(spec.device))

    def regularised(self, loss: Tensor, batch: Batch, q: Tensor) -> tuple[Tensor, Metrics]:
        """With KL(policy || start) at the observations of both halves."""
        total, terms = super().regularised(loss, batch, q)
        if self.start is None:
            return total, terms
        kl = mixed(self._kl(batch), None if batch.supplementary is None else self._kl(batch.supplementary))
        return total + self.start.weight() * kl, terms | {"kl_to_start": kl.detach()}

    def _kl(self, batch: Batch) -> Tensor:
        start: Any = self.modules["prior"]
        log_policy = torch.log_softmax(self.policy(batch.observations), dim=-1)
        with torch.no_grad():
            log_start = torch.log_softmax(start(batch.observations), dim=-1)
        return (log_policy.exp() * (log_policy - log_start)).sum(dim=-1).mean()


class Anchor:
    """The weight of KL(policy || start), and whether the policy moves yet: functions of the updates made.

    The count is a tensor that an update changes, so that a compiled update reads it anew.
    """

    def __init__(self, config: StartConfig, device: torch.device) -> None:
        self._config, self._count = config, torch.zeros((), device=device)

    def pieces(self) -> list[Tensor]:
        """The count."""
        return [self._count]

    def hold(self, pieces: Sequence[Tensor]) -> None:
        """Count on from these."""
        (self._count,) = pieces

    def weight(self) -> Tensor:
        """Halves every `anchor_half_life` updates, ()."""
        return self._config.anchor_weight * torch.exp2(-self._count / self._config.anchor_half_life)

    def moves(self) -> Tensor:
        """0 in the first `policy_waits` updates, then 1, ()."""
        return (self._count >= self._config.policy_waits).float()

    @torch.no_grad()
    def step(self) -> None:
        """An update was made."""
        self._count.add_(1)


@dataclass(frozen=True)
class AnchoredEntropy(PriorEntropy):
    """The cost is KL(policy || start), so scaled that its weight in the soft value is the anchor's."""

    name: str = "weighted_kl_to_start"
    anchor: Anchor = field(kw_only=True)
    temperature: float = field(kw_only=True)

    def __call__(self, policy: ContinuousActionDistribution, observations: Tensor, drawn: Tensor) -> PolicyActions:
        found = super().__call__(policy, observations, drawn)
        return PolicyActions(found.actions, found.entropy_cost * (self.anchor.weight() / self.temperature))


def online_objective(
    config: OnlineIQConfig | DiscreteOnlineIQConfig,
    absorbing: AbsorbingState,
    batch: Batch,
    expert: TransitionValues,
    experienced: TransitionValues | None,
    initial_value: Tensor | None,
    expert_ends: Tensor | None = None,
) -> Tensor:
    """(1 - gamma) E V(s0) - E_expert[r] + E_mixture[r^2] / (4c), to be minimised, (). Source: [IQ21] sec. 5.3.

    A termination is followed by self-transitions of the absorbing state, whose reward V(s) - gamma V(s) is learnt, with
    their discounted occupancy ([LSIQ23] sec. 4). Were its value zero, a policy whose rewards are negative would end its
    episodes. `expert_ends`: how often the whole demonstrations terminate, a step; every k-th of their transitions may
    leave out the only one that does. `experienced`: values of the replay. Another divergence than chi-squared is of the
    expert's rewards alone.
    """
    assert batch.supplementary is not None
    assert experienced is not None
    ends = batch.terminations.mean() if expert_ends is None else expert_ends
    halves = (expert, ends), (experienced, batch.supplementary.terminations.mean())
    reward = (1 - config.gamma) * absorbing.value

    def mean(values: TransitionValues, ends: Tensor, of_value: ValueOf, of_absorbing: Tensor) -> Tensor:
        weight = config.gamma / (1 - config.gamma) * ends
        return (of_value(values).mean() + weight * of_absorbing) / (1 + weight)

    def telescoped(values: TransitionValues) -> Tensor:
        return values.v - values.discounts * values.next_v

    value = initial_value
    if value is None:
        over = halves if config.value_term is ValueTerm.MIXTURE else halves[:1]
        value = torch.stack([mean(*half, telescoped, reward) for half in over]).mean()
    if config.divergence is not DivergenceKind.CHI_SQUARED:
        phi = phi_of(config)
        return value - mean(*halves[0], lambda values: phi(values.rewards), phi(reward))
    squares = [mean(*half, lambda values: values.rewards.square(), reward.square()) for half in halves]
    matched = mean(*halves[0], lambda values: values.rewards, reward)
    return value - matched + torch.stack(squares).mean() / (4 * config.reward_penalty)

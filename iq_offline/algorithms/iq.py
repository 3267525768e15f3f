"""Offline IQ-Learn for continuous actions: critic step, actor step, target step. Source: [IQ21] eq. 9 and 12.

Plain actor-critic IQ-Learn is unbounded offline: with a deterministic expert the advantage Q(s, a) - V(s) can grow
without limit, as Q sharpens at the recorded actions. The default settings bound it: an entropy relative to the
behavioural clone (leaving the clone costs), the action-gradient penalty (no spikes of Q), and LayerNorm in the critic.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from iq_offline.algorithms.actor_critic import ActorCritic, Entropy, PolicyActions, Regularisers, TransitionValues
from iq_offline.algorithms.losses import Metrics, initial_value, mixed, telescoped_value
from iq_offline.algorithms.networks import ContinuousPolicy, CriticEnsemble
from iq_offline.batch import Batch
from iq_offline.config.q_learning import ActorCriticConfig

ValueTerm = Callable[[TransitionValues, TransitionValues | None], Tensor]


class IQLearner(ActorCritic):
    """Each update takes three steps: critics, actor, target critics.

    `phi`: concave function of the recovered rewards, (N B,), which the divergence determines. `value_term`: estimates
    (1 - gamma) E V(s0) from expert and supplementary transitions; None: from the first observations of episodes.
    """

    def __init__(
        self,
        config: ActorCriticConfig,
        policy: ContinuousPolicy,
        critic: CriticEnsemble,
        noise: torch.Generator,
        entropy: Entropy,
        regularisers: Regularisers,
        *,
        phi: Callable[[Tensor], Tensor],
        value_term: ValueTerm | None,
    ) -> None:
        super().__init__(config, policy, critic, noise, entropy, regularisers)
        self.phi, self.value_term = phi, value_term

    def update(self, batch: Batch) -> Metrics:
        """Critic, actor and target step. V(s) and the actor's loss share one sample of the policy's actions."""
        expert = self.policy_actions(batch)
        supplementary = None if batch.supplementary is None else self.policy_actions(batch.supplementary)
        metrics = self._update_critics(batch, expert, supplementary)
        metrics |= self._update_actor(batch, expert, supplementary)
        self.update_target()
        return metrics

    def _update_critics(self, batch: Batch, expert: PolicyActions, supplementary: PolicyActions | None) -> Metrics:
        """Minimise (1 - gamma) E V(s0) - E phi(r) plus regularisers, with r = Q(s, a) - discount V(s') of the expert.

        V(s') is the target critics', without a gradient; with `polyak_rate=none` the critics' own, with a gradient.
        """
        actions = self.recorded_actions(batch)
        values, others = self.values(batch, expert, actions=actions), None
        if batch.supplementary is not None:
            others = self.values(batch.supplementary, supplementary)
        loss = self.objective(batch, values, others)
        return self.descend_critics(loss, batch, actions, values.q, expert)

    def objective(self, batch: Batch, expert: TransitionValues, supplementary: TransitionValues | None) -> Tensor:
        """(1 - gamma) E V(s0) - E phi(r), to be minimised; r of the expert's transitions."""
        value = self.initial_value(batch) if self.value_term is None else self.value_term(expert, supplementary)
        return value - self.phi(expert.rewards).mean()

    def _update_actor(self, batch: Batch, expert: PolicyActions, supplementary: PolicyActions | None) -> Metrics:
        """Minimise -E V(s) plus regularisers over the policy; Q is that of the critics after their step."""
        loss, entropy_cost = self.soft_actor_loss(batch, expert, supplementary)
        return self.descend_actor(loss, batch) | {self.entropy.name: entropy_cost}

    def initial_value(self, batch: Batch) -> Tensor:
        """(1 - gamma) E V(s0) at the batch's first observations of episodes."""
        assert batch.initial_observations is not None
        v = self.soft_value(batch.initial_observations, self.critic, self.drawing)
        return initial_value(v.reshape(-1), self.config.gamma)


def expert_value(expert: TransitionValues, supplementary: TransitionValues | None) -> Tensor:
    """E[V(s) - discount V(s')] over expert transitions, in place of (1 - gamma) E V(s0). Source: [IQ21] cor. 2.1."""
    del supplementary
    return telescoped_value(expert.v, expert.next_v, expert.discounts)


def mixture_value(expert: TransitionValues, supplementary: TransitionValues | None) -> Tensor:
    """Mean of `expert_value` over expert and over supplementary transitions."""
    return mixed(expert_value(expert, None), None if supplementary is None else expert_value(supplementary, None))

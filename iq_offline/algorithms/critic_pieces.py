"""The regularisers of continuous critics, as a configuration has them: names, weights and values."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from iq_offline.algorithms.conservative.penalties import action_gradient_penalty, diversity_penalty, interpolated
from iq_offline.algorithms.conservative.values import value_suppression
from iq_offline.algorithms.networks import ContinuousPolicy, CriticEnsemble
from iq_offline.algorithms.noise import Noise, normal, share
from iq_offline.algorithms.objective import mixed
from iq_offline.algorithms.pieces import cql_gap_at, gradient_penalty_at
from iq_offline.batch import Batch
from iq_offline.config import ActionGradientAt, ContinuousIQConfig, Source


@dataclass(frozen=True)
class CriticPieces:
    """What is added to the critics' objective."""

    config: ContinuousIQConfig
    policy: ContinuousPolicy
    critic: CriticEnsemble

    def of(
        self, batch: Batch, q: Tensor, actions: Tensor, acting: Tensor | None, noise: Noise
    ) -> Iterator[tuple[str, float, Tensor]]:
        """Name, weight and value of each regulariser that is on.

        `q`: of the expert's transitions by each critic, (N B,), from `actions`, their scaled ones (B, A); `acting`:
        what the policy does at their observations, (B, A), None where it was not asked.
        """
        config = self.config
        if config.action_gradient_weight > 0:
            yield "action_gradient", config.action_gradient_weight, self._slope(batch, q, actions, acting, noise)
        if config.cql is not None and config.cql.weight > 0:
            other = batch.supplementary if config.cql.on is Source.MIXTURE else None
            gap = self._cql_gap(batch, noise)
            yield "cql_gap", config.cql.weight, mixed(gap, None if other is None else self._cql_gap(other, noise))
        suppression = config.value_suppression
        if suppression is not None and suppression.weight > 0 and batch.supplementary is not None:
            observations = batch.supplementary.observations
            theirs = self.critic(self.policy.standardise(observations), self._drawn(observations, noise))
            yield "value_suppression", suppression.weight, value_suppression(theirs, q)
        penalty = config.gradient_penalty
        if penalty is not None and penalty.weight > 0:
            observations, drawn = self.policy.standardise(batch.observations), self._drawn(batch.observations, noise)
            steepness = gradient_penalty_at(penalty, self.critic, observations, actions.detach(), drawn, noise)
            yield "gradient_penalty", penalty.weight, steepness
        if config.ensemble.diversity_weight > 0:
            other = batch.supplementary
            similarity = mixed(self._similarity(batch), None if other is None else self._similarity(other))
            yield "similarity", config.ensemble.diversity_weight, similarity

    def _slope(self, batch: Batch, q: Tensor, actions: Tensor, acting: Tensor | None, noise: Noise) -> Tensor:
        if self.config.action_gradient_at is ActionGradientAt.RECORDED:
            members = q.view(len(self.critic.members), -1)
            return torch.stack([action_gradient_penalty(member, actions) for member in members]).mean()
        theirs = self._drawn(batch.observations, noise) if acting is None else acting
        observations = self.policy.standardise(batch.observations)
        return action_gradient_between(self.critic, observations, actions, theirs, noise)

    def _similarity(self, batch: Batch) -> Tensor:
        actions = self.policy.scale_actions(batch.actions).requires_grad_(True)
        q = self.critic(self.policy.standardise(batch.observations), actions)
        slopes = [torch.autograd.grad(member.sum(), actions, create_graph=True)[0] for member in q]
        return diversity_penalty(torch.stack(slopes))

    def _cql_gap(self, batch: Batch, noise: Noise) -> Tensor:
        """The importance-sampled gap of one source, mean over critics."""
        assert self.config.cql is not None
        with torch.no_grad():
            here = self.policy.distribution(batch.observations)
        observations, actions = self.policy.standardise(batch.observations), self.policy.scale_actions(batch.actions)
        return cql_gap_at(self.config.cql, self.critic, observations, actions, here, noise)

    @torch.no_grad()
    def _drawn(self, observations: Tensor, noise: Noise) -> Tensor:
        """The policy's actions at raw observations, (B, A)."""
        here = self.policy.distribution(observations)
        return here.sample(normal(noise, here.mean))


def action_gradient_between(
    critic: Callable[[Tensor, Tensor], Tensor],
    observations: Tensor,
    expert_actions: Tensor,
    policy_actions: Tensor,
    noise: Noise,
) -> Tensor:
    """E |dQ/da|^2 at a point drawn evenly between the expert's action and the policy's, mean over critics, ().

    Q(s, a) - Q(s, a') is the mean slope on the way times the way; so, whatever the critic, no weighted sum of
    value term and penalty is below -E |a - a'|^2 / (4 weight). Shapes: standardised (B, D), scaled (B, A), (B, A).
    """
    points = interpolated(expert_actions, policy_actions, share(noise, len(observations), 1)).detach()
    points.requires_grad_(True)
    return torch.stack([action_gradient_penalty(q, points) for q in critic(observations, points)]).mean()

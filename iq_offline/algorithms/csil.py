"""Coherent soft imitation learning [CSIL23]: soft Q-learning with the clone's own log-density ratio as reward.

The policy's entropy is relative to the clone, for which that reward is coherent: the clone is its soft optimum.
"""

import torch
from torch import Tensor

from iq_offline.algorithms.actor_critic import ActorCritic, PriorEntropy, TransitionValues
from iq_offline.algorithms.bc import censored_residuals
from iq_offline.algorithms.build import NetworkSpec, actor_and_critics, soft_q_function
from iq_offline.algorithms.distributions import ClippedGaussian, Std, gaussian_log_density
from iq_offline.algorithms.losses import Metrics, bellman_error, mixed
from iq_offline.algorithms.networks import ContinuousPolicy, DiscretePolicy
from iq_offline.algorithms.noise import Stream, generator
from iq_offline.algorithms.regularisers import DISCRETE, chosen, q_of_actions, regularisers_of
from iq_offline.algorithms.soft_q import SoftQ, SoftQLearner
from iq_offline.batch import Batch
from iq_offline.config.csil import CSILConfig, DiscreteCSILConfig

LOG_UNIFORM = 0.6931471805599453
"""-log of the uniform density of one scaled action."""
LARGEST_COHERENT = 6.45
"""Bound of a coherent reward a dimension: -log(1e-5) / 2 + log 2, the paper's."""


class CSILLearner(ActorCritic):
    """Each update moves the critics, then the actor, then the target critics."""

    config: CSILConfig

    def __init__(self, config: CSILConfig, spec: NetworkSpec, prior: ContinuousPolicy) -> None:
        noise = generator(spec.seed, Stream.ACTIONS, spec.device)
        networks = actor_and_critics(config, spec, prior)
        super().__init__(config, *networks, noise, PriorEntropy(prior), regularisers_of(config))
        self.prior = prior

    def update(self, batch: Batch) -> Metrics:
        """One gradient step; the policy acts once: the critics' and the actor's loss see the same actions."""
        expert = self.policy_actions(batch)
        supplementary = None if batch.supplementary is None else self.policy_actions(batch.supplementary)
        actions = self.recorded_actions(batch)
        values = self.values(batch, expert, actions=actions)
        others = None
        if batch.supplementary is not None:
            others = self._error(batch.supplementary, self.values(batch.supplementary, supplementary))
        loss = mixed(self._error(batch, values), others)
        metrics = self.descend_critics(loss, batch, actions, values.q, expert)

        loss, entropy_cost = self.soft_actor_loss(batch, expert, supplementary)
        metrics |= self.descend_actor(loss, batch) | {self.entropy.name: entropy_cost}

        self.update_target()
        return metrics

    def _error(self, batch: Batch, values: TransitionValues) -> Tensor:
        """The Bellman error with the coherent reward, ()."""
        members = len(self.critic.members)
        rewards = self.coherent_rewards(batch).expand(members, -1).reshape(-1)
        return bellman_error(values.q, rewards, values.next_v, values.discounts)

    @torch.no_grad()
    def coherent_rewards(self, batch: Batch) -> Tensor:
        """coherence * log(density of the clone / uniform density) of recorded actions, bounded, (B,)."""
        actions = self.policy.scale_actions(batch.actions)
        clone, size = self.prior.distribution(batch.observations), actions.shape[-1]
        assert isinstance(clone, ClippedGaussian)
        density = bounded_log_density(clone.mean, clone.std, actions)
        return coherent_reward(density + size * LOG_UNIFORM, self.config.coherence, size)


class DiscreteCSILLearner(SoftQLearner):
    """Each update moves Q; then the target follows."""

    config: DiscreteCSILConfig

    def __init__(self, config: DiscreteCSILConfig, spec: NetworkSpec, prior: DiscretePolicy) -> None:
        function = soft_q_function(config, spec, prior)
        self.prior = prior.requires_grad_(False)
        relative = SoftQ(function.logits, function.temperature, function.value, self.prior)
        super().__init__(config, relative, chosen(DISCRETE, config))
        self.modules["prior"] = self.prior

    def update(self, batch: Batch) -> Metrics:
        """One gradient step on the Bellman error with the coherent reward, and the regularisers."""
        values, others = self.values(batch), None
        if batch.supplementary is not None:
            others = self._error(batch.supplementary, self.values(batch.supplementary))
        return self.descend(mixed(self._error(batch, values), others), batch, values.q)

    def _error(self, batch: Batch, values: TransitionValues) -> Tensor:
        return bellman_error(values.q, self.coherent_rewards(batch), values.next_v, values.discounts)

    @torch.no_grad()
    def coherent_rewards(self, batch: Batch) -> Tensor:
        """coherence * log(probability of the clone * actions) of recorded actions, bounded, (B,)."""
        log_prior = torch.log_softmax(self.prior(batch.observations), dim=-1)
        ratio = q_of_actions(log_prior, batch.actions) + torch.tensor(float(log_prior.shape[-1])).log()
        return coherent_reward(ratio, self.config.coherence, 1)


def coherent_reward(log_ratio: Tensor, coherence: float | None, size: int) -> Tensor:
    """Coherence (1 / size if None) * log(cloned density / uniform density), bounded.

    Shapes: log_ratio (B,) -> (B,); `size` is the number of action dimensions, 1 for discrete actions.
    """
    bound = size * LARGEST_COHERENT
    return (coherence or 1 / size) * log_ratio.clamp(-bound, bound)


def bounded_log_density(mean: Tensor, std: Std, actions: Tensor) -> Tensor:
    """Log density of scaled actions under a Gaussian, its residual censored at the bounds; nats, summed over actions.

    Where the recorded action lies on a bound and the mean beyond it, the residual is zero. Bounded above by the density
    at the mean, and comparable between actions inside and on the bounds, which a mixture of densities and masses is
    not. Shapes: (B, A) -> (B,).
    """
    return gaussian_log_density(censored_residuals(mean, actions), std, torch.zeros_like(actions)).sum(dim=-1)

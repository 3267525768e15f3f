"""Soft Q imitation learning that acts [SQIL20]: reward 1 for the expert's transitions and 0 for experienced ones.

Soft Q-learning, and for continuous actions SAC, on demonstrations and replay, half each. Departures: twin critics and
a bound on targets, as the other methods here have; the expert's Bellman error and the replay's weigh alike.
"""

from torch import Tensor

from iq_offline.algorithms.actor_critic import ActorCritic, SampledEntropy, TransitionValues
from iq_offline.algorithms.build import NetworkSpec, actor_and_critics, soft_q_function
from iq_offline.algorithms.losses import Metrics, bellman_error, mixed
from iq_offline.algorithms.noise import Stream, generator
from iq_offline.algorithms.regularisers import DISCRETE, chosen, regularisers_of
from iq_offline.algorithms.soft_q import SoftQLearner
from iq_offline.batch import Batch
from iq_offline.config.sqil_online import DiscreteOnlineSQILConfig, OnlineSQILConfig, SourceRewardsConfig


class OnlineSQILLearner(ActorCritic):
    """Each update moves the critics, then the actor, then the target critics."""

    config: OnlineSQILConfig

    def __init__(self, config: OnlineSQILConfig, spec: NetworkSpec) -> None:
        noise = generator(spec.seed, Stream.ACTIONS, spec.device)
        super().__init__(config, *actor_and_critics(config, spec), noise, SampledEntropy(), regularisers_of(config))

    def update(self, batch: Batch) -> Metrics:
        """One gradient step; the policy acts once: the critics' and the actor's loss see the same actions."""
        assert batch.supplementary is not None
        expert, experienced = self.policy_actions(batch), self.policy_actions(batch.supplementary)
        actions = self.recorded_actions(batch)
        values = self.values(batch, expert, actions=actions)
        loss = source_error(self.config, values, self.values(batch.supplementary, experienced))
        metrics = self.descend_critics(loss, batch, actions, values.q, expert)

        loss, entropy_cost = self.soft_actor_loss(batch, expert, experienced)
        metrics |= self.descend_actor(loss, batch) | {self.entropy.name: entropy_cost}

        self.update_target()
        return metrics


class DiscreteOnlineSQILLearner(SoftQLearner):
    """Each update moves Q; then the target follows."""

    config: DiscreteOnlineSQILConfig

    def __init__(self, config: DiscreteOnlineSQILConfig, spec: NetworkSpec) -> None:
        function = soft_q_function(config, spec, separate_value=False)
        super().__init__(config, function, chosen(DISCRETE, config))

    def update(self, batch: Batch) -> Metrics:
        """One gradient step on the squared Bellman error of both sources."""
        assert batch.supplementary is not None
        values = self.values(batch)
        return self.descend(source_error(self.config, values, self.values(batch.supplementary)), batch, values.q)


def source_error(config: SourceRewardsConfig, expert: TransitionValues, experienced: TransitionValues) -> Tensor:
    """Mean of the squared Bellman errors with each source's reward, (). Source: [SQIL20] eq. 1."""
    best, other = config.source_rewards
    return mixed(
        bellman_error(expert.q, best, expert.next_v, expert.discounts),
        bellman_error(experienced.q, other, experienced.next_v, experienced.discounts),
    )

"""After SPRINQL [SPRINQL24]: IQ-Learn on the mixture of both sources, the reward of each drawn to a reference.

Two levels of quality only (expert, supplementary), and references that are given, not learnt.
"""

from torch import Tensor

from iq_offline.algorithms.actor_critic import ActorCritic, SampledEntropy, TransitionValues
from iq_offline.algorithms.build import NetworkSpec, actor_and_critics, soft_q_function
from iq_offline.algorithms.iq import mixture_value
from iq_offline.algorithms.losses import Metrics, mixed, reward_penalty
from iq_offline.algorithms.noise import Stream, generator
from iq_offline.algorithms.regularisers import DISCRETE, chosen, regularisers_of
from iq_offline.algorithms.soft_q import SoftQLearner
from iq_offline.batch import Batch
from iq_offline.config.sprinql import DiscreteSPRINQLConfig, ReferenceRewardsConfig, SPRINQLConfig


class SPRINQLLearner(ActorCritic):
    """Each update moves the critics, then the actor, then the target critics."""

    config: SPRINQLConfig

    def __init__(self, config: SPRINQLConfig, spec: NetworkSpec) -> None:
        noise = generator(spec.seed, Stream.ACTIONS, spec.device)
        super().__init__(config, *actor_and_critics(config, spec), noise, SampledEntropy(), regularisers_of(config))

    def update(self, batch: Batch) -> Metrics:
        """One gradient step; the policy acts once: the critics' and the actor's loss see the same actions."""
        expert = self.policy_actions(batch)
        supplementary = None if batch.supplementary is None else self.policy_actions(batch.supplementary)
        actions = self.recorded_actions(batch)
        values, others = self.values(batch, expert, actions=actions), None
        if batch.supplementary is not None:
            others = self.values(batch.supplementary, supplementary)
        loss = referenced_objective(self.config, values, others)
        metrics = self.descend_critics(loss, batch, actions, values.q, expert)

        loss, entropy_cost = self.soft_actor_loss(batch, expert, supplementary)
        metrics |= self.descend_actor(loss, batch) | {self.entropy.name: entropy_cost}

        self.update_target()
        return metrics


class DiscreteSPRINQLLearner(SoftQLearner):
    """Each update moves Q; then the target follows."""

    config: DiscreteSPRINQLConfig

    def __init__(self, config: DiscreteSPRINQLConfig, spec: NetworkSpec) -> None:
        super().__init__(config, soft_q_function(config, spec), chosen(DISCRETE, config))

    def update(self, batch: Batch) -> Metrics:
        """One gradient step on the objective and the regularisers."""
        values = self.values(batch)
        others = None if batch.supplementary is None else self.values(batch.supplementary)
        return self.descend(referenced_objective(self.config, values, others), batch, values.q)


def referenced_objective(
    config: ReferenceRewardsConfig, expert: TransitionValues, supplementary: TransitionValues | None
) -> Tensor:
    """(1 - gamma) E V(s0) - E_expert[r] + E[(r - reference)^2] / (4c), value and penalty over both sources, ()."""
    penalty = reward_penalty(expert.rewards, config.reward_reference[0], config.reward_penalty)
    if supplementary is not None:
        other = reward_penalty(supplementary.rewards, config.reward_reference[1], config.reward_penalty)
        penalty = mixed(penalty, other)
    return mixture_value(expert, supplementary) - expert.rewards.mean() + penalty

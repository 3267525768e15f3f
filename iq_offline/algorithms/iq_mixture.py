"""IQ-Learn over the mixture of demonstrations and supplementary data. Source: [IQ21] eq. 9, 10.

The paper's online objective takes value term and penalty over the policy's own transitions, too. Here supplementary
transitions stand for those, so that values pass along recorded transitions to states that the expert never visits.
Over the mixture the value term is E[r] + temperature * E[-log policy(a | s)], and the loss therefore is

    E_mixture[r] - E_expert[r] + E_mixture[r^2] / (4c) + temperature * (cloning loss of the mixture)

With discrete actions V is in closed form, and the temperature is thus also the weight of cloning supplementary actions.
With continuous ones V is fitted in-sample, the last term has no gradient to Q, and the rest is least squares:

    (E_expert[(r - 2c)^2] + E_supplementary[(r + 2c)^2]) / (8c) + constant

As in [LSIQ23], the expert's reward goes on for ever: V(s') is 2c / (1 - gamma) behind a demonstrated transition. With
that the critics' loss is ReCOIL's with rewards of 2c and -2c, and its learner is used; its settings clone otherwise.
"""

from torch import Tensor

from iq_offline.algorithms.actor_critic import TransitionValues
from iq_offline.algorithms.build import NetworkSpec, soft_q_function
from iq_offline.algorithms.iq import mixture_value
from iq_offline.algorithms.losses import Metrics, mixed, reward_penalty
from iq_offline.algorithms.regularisers import DISCRETE, chosen
from iq_offline.algorithms.soft_q import SoftQLearner
from iq_offline.batch import Batch
from iq_offline.config.iq_mixture import DiscreteIQMixtureConfig


class DiscreteIQMixtureLearner(SoftQLearner):
    """One gradient step on Q an update; then the target follows, where there is one."""

    config: DiscreteIQMixtureConfig

    def __init__(self, config: DiscreteIQMixtureConfig, spec: NetworkSpec) -> None:
        super().__init__(config, soft_q_function(config, spec, separate_value=False), chosen(DISCRETE, config))

    def update(self, batch: Batch) -> Metrics:
        """Descend the objective and the regularisers."""
        expert = self.values(batch)
        supplementary = None if batch.supplementary is None else self.values(batch.supplementary)
        return self.descend(mixture_objective(expert, supplementary, self.config.reward_penalty), batch, expert.q)


def mixture_objective(expert: TransitionValues, supplementary: TransitionValues | None, coefficient: float) -> Tensor:
    """E_mixture[V(s) - discount V(s')] - E_expert[r] + E_mixture[r^2] / (4c), to be minimised, ().

    The mixture is half expert, half supplementary; the expert alone for None, which is [IQ21] eq. 12.
    """
    penalty = reward_penalty(expert.rewards, 0.0, coefficient)
    other = None if supplementary is None else reward_penalty(supplementary.rewards, 0.0, coefficient)
    return mixture_value(expert, supplementary) - expert.rewards.mean() + mixed(penalty, other)

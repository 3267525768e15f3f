"""IQ-Learn for discrete actions: one soft Q-function is policy, value and reward. Source: [IQ21] alg. 1, eq. 12.

Q(s, a) - V(s) = temperature * log policy(a | s). With `value_term=expert` and the chi-squared divergence the loss is
therefore temperature * (cloning loss) + E[r^2] / (4c), where c is `reward_penalty`. It depends on Q at no observation
outside the data.
"""

from collections.abc import Callable, Sequence

from torch import Tensor

from iq_offline.algorithms.actor_critic import TransitionValues
from iq_offline.algorithms.iq import ValueTerm
from iq_offline.algorithms.losses import Metrics, Regulariser, initial_value
from iq_offline.algorithms.networks import DiscretePolicy
from iq_offline.algorithms.soft_q import SoftQ, SoftQLearner
from iq_offline.batch import Batch
from iq_offline.config.soft_q import SoftQConfig


class DiscreteIQLearner(SoftQLearner):
    """Each update takes two steps: Q, then its target. `phi`, `value_term`: as in `IQLearner`.

    `prior`: the behavioural clone that initialised the policy. It is kept in the checkpoint; the loss does not use it.
    """

    def __init__(
        self,
        config: SoftQConfig,
        function: SoftQ,
        regularisers: Sequence[Regulariser] = (),
        *,
        phi: Callable[[Tensor], Tensor],
        value_term: ValueTerm | None,
        prior: DiscretePolicy | None = None,
    ) -> None:
        super().__init__(config, function, regularisers)
        self.phi, self.value_term = phi, value_term
        if prior is not None:
            self.modules["prior"] = prior.requires_grad_(False)

    def update(self, batch: Batch) -> Metrics:
        """Minimise (1 - gamma) E V(s0) - E phi(r) plus regularisers; r = Q(s, a) - discount V(s') of the expert."""
        expert = self.values(batch)
        supplementary = None if batch.supplementary is None else self.values(batch.supplementary)
        return self.descend(self.objective(batch, expert, supplementary), batch, expert.q)

    def objective(self, batch: Batch, expert: TransitionValues, supplementary: TransitionValues | None) -> Tensor:
        """(1 - gamma) E V(s0) - E phi(r), to be minimised; r of the expert's transitions."""
        value = self.initial_value(batch) if self.value_term is None else self.value_term(expert, supplementary)
        return value - self.phi(expert.rewards).mean()

    def initial_value(self, batch: Batch) -> Tensor:
        """(1 - gamma) E V(s0) at the batch's first observations of episodes."""
        assert batch.initial_observations is not None
        return initial_value(self.soft_value(batch.initial_observations, self.function), self.config.gamma)

"""IQ-Learn for discrete actions: one soft Q-function is policy, value and reward. Source: [IQ21] alg. 1, eq. 12.

Since Q(s, a) - V(s) = temperature * log policy(a | s), the loss is the cloning loss times the temperature plus a
penalty on the recovered reward, and silent about observations off the data.
"""

from collections.abc import Callable, Sequence

from torch import Tensor

from iq_offline.algorithms.iq import ValueTerm
from iq_offline.algorithms.losses import Metrics, Regulariser, initial_value
from iq_offline.algorithms.networks import DiscretePolicy
from iq_offline.algorithms.soft_q import SoftQ, SoftQLearner
from iq_offline.batch import Batch
from iq_offline.config.soft_q import SoftQConfig


class DiscreteIQLearner(SoftQLearner):
    """One gradient step on Q an update; then the target follows. `phi`, `value_term`: as of `IQLearner`.

    `prior`: the clone that the policy started from, which a checkpoint keeps.
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
        """Descend (1 - gamma) E V(s0) - E phi(r), r = Q(s, a) - discount V(s'), and the regularisers."""
        expert = self.values(batch)
        supplementary = None if batch.supplementary is None else self.values(batch.supplementary)
        value = self._initial_value(batch) if self.value_term is None else self.value_term(expert, supplementary)
        loss = value - self.phi(expert.rewards).mean()
        return self.descend(loss, batch, expert.q)

    def _initial_value(self, batch: Batch) -> Tensor:
        assert batch.initial_observations is not None
        return initial_value(self.soft_value(batch.initial_observations, self.function), self.config.gamma)

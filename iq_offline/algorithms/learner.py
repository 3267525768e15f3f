"""What a trainer asks of a learner."""

from typing import Protocol, runtime_checkable

from torch import Tensor

from iq_offline.algorithms.adam import Adam, Changed
from iq_offline.algorithms.losses import Metrics
from iq_offline.algorithms.networks import Policy
from iq_offline.algorithms.noise import Noise
from iq_offline.batch import Batch


class Learner(Protocol):
    """Holds networks and optimisers; `update` makes one gradient step and returns metrics as scalars."""

    @property
    def policy(self) -> Policy:
        """The policy that is being trained."""
        ...

    def update(self, batch: Batch) -> Metrics:
        """One gradient step on a batch of expert transitions."""
        ...

    def diagnostics(self, batch: Batch) -> Metrics:
        """Further metrics on a batch, computed where metrics are logged; changes nothing learnt."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Everything learnt, by name: what a checkpoint holds."""
        ...


@runtime_checkable
class OwnLearner(Learner, Protocol):
    """A learner of this library: it says what an update changes, so that the update can be compiled and resumed."""

    adams: list[Adam]
    """Its optimisers."""
    noise: Noise | None
    """Where its random numbers come from; None for a learner that draws none."""

    @property
    def changed(self) -> list[Changed]:
        """All tensors that an update changes."""
        ...

"""What a trainer and a reward recovery ask of a learner."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from iq_offline.algorithms.adam import Adam, Changed
from iq_offline.algorithms.networks import Policy
from iq_offline.algorithms.noise import Noise
from iq_offline.batch import Batch

Metrics = dict[str, Tensor]


class Regulariser(NamedTuple):
    """A term of a loss: its name in the metrics, its weight, and its function of what the loss has at hand."""

    name: str
    weight: float
    function: Callable[..., Tensor]


def regularised(loss: Tensor, regularisers: Sequence[Regulariser], *inputs: Any) -> tuple[Tensor, Metrics]:
    """The loss plus each weighted term, and the terms by name."""
    metrics: Metrics = {}
    for name, weight, function in regularisers:
        term = function(*inputs)
        metrics[name] = term.detach()
        loss = loss + weight * term
    return loss, metrics


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


def named(prefix: str, module: torch.nn.Module) -> dict[str, Tensor]:
    """A module's tensors, their names behind a prefix."""
    return {f"{prefix}.{name}": tensor.detach() for name, tensor in module.state_dict().items()}

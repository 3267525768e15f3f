"""What a trainer asks of an algorithm, and the random streams that every algorithm draws from."""

from enum import IntEnum
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from iq_offline.algorithms.adam import Adam, Changed
from iq_offline.algorithms.networks import Policy
from iq_offline.algorithms.noise import Noise
from iq_offline.batch import Batch

Metrics = dict[str, Tensor]


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
        """Further metrics on a batch, computed where metrics are logged; decides nothing and changes nothing learnt."""
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


class Stream(IntEnum):
    """Independent random streams of one seed, so that adding draws to one leaves the others as they were."""

    POLICY = 10
    CRITIC = 11
    ACTIONS = 12
    CLONING_BATCHES = 13
    BATCHES = 14
    REWARD = 15
    SUPPLEMENTARY_BATCHES = 16
    INITIAL_BATCHES = 17
    VALUE = 18
    DISTILLED = 19
    DISTILLED_BATCHES = 20


def generator(seed: int, stream: Stream, device: torch.device | None = None) -> torch.Generator:
    """The random generator of a stream: a function of seed and stream alone."""
    import numpy as np

    state = np.random.SeedSequence([seed, int(stream)]).generate_state(1, dtype=np.uint64)
    return torch.Generator(device=device or torch.device("cpu")).manual_seed(int(state[0]) >> 1)


def named(prefix: str, module: torch.nn.Module) -> dict[str, Tensor]:
    """A module's tensors, their names behind a prefix."""
    return {f"{prefix}.{name}": tensor.detach() for name, tensor in module.state_dict().items()}

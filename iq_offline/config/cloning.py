"""Behavioural cloning's settings."""

from enum import StrEnum
from math import ceil
from typing import Literal, Self

from pydantic import Field

from iq_offline.config.base import Activation, AlgorithmConfig, HiddenSizes, Precision

PASSES = 256
FEWEST_UPDATES, MOST_UPDATES = 5000, 20_000


class BCConfig(AlgorithmConfig):
    """Behavioural cloning, whatever the actions."""

    needs_successors = False

    updates: int | None = Field(None, ge=1)
    """Gradient updates; the learning rate falls to zero along a cosine over them.

    none: 256 passes over the transitions that are cloned, but 5000 updates at least, and 20000 at most.
    """
    batch_size: int = Field(256, ge=1)
    """Transitions of an update."""
    learning_rate: float = Field(1e-3, gt=0)
    """At the first update."""
    weight_decay: float = Field(1e-2, ge=0)
    """Decoupled (AdamW)."""
    hidden_sizes: HiddenSizes = (256, 256)
    """Units of each hidden layer."""
    activation: Activation = Activation.TANH
    precision: Precision = Precision.FLOAT32

    @property
    def fewest_updates(self) -> int:
        """Gradient updates, however little is cloned."""
        return FEWEST_UPDATES if self.updates is None else self.updates

    def settled(self, transitions: int) -> Self:
        """The same with its number of updates on so many transitions."""
        passes = ceil(PASSES * transitions / self.batch_size)
        automatic = min(max(passes, FEWEST_UPDATES), MOST_UPDATES)
        return self.with_updates(automatic if self.updates is None else self.updates)

    def with_updates(self, updates: int) -> Self:
        """The same with so many updates."""
        return self.model_copy(update={"updates": updates})


class CloningLoss(StrEnum):
    """Error of an un-squashed mean action, zero beyond a bound that the recorded action lies on.

    CENSORED: squared, least at the mean of the recorded actions. ABSOLUTE: absolute, least at their median, which noise
    of median zero leaves in place.
    """

    CENSORED = "censored"
    ABSOLUTE = "absolute"


class ContinuousBCConfig(BCConfig):
    """Behavioural cloning of continuous actions by the error of an un-squashed mean, censored at the bounds."""

    name: Literal["bc-continuous"] = "bc-continuous"
    learning_rate: float = Field(3e-3, gt=0)
    """At the first update."""
    loss: CloningLoss = CloningLoss.CENSORED


class DiscreteBCConfig(BCConfig):
    """Behavioural cloning of discrete actions by cross entropy."""

    name: Literal["bc-discrete"] = "bc-discrete"
    updates: int | None = Field(5000, ge=1)
    """Gradient updates; none: as with continuous actions."""

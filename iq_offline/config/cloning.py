"""Behavioural cloning's settings."""

from typing import Literal

from pydantic import Field

from iq_offline.config.base import Activation, FrozenModel, HiddenSizes


class BCConfig(FrozenModel):
    """Behavioural cloning, whatever the actions."""

    updates: int = Field(5000, ge=1)
    """Gradient updates; the learning rate falls to zero along a cosine over them."""
    batch_size: int = Field(256, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    """At the first update."""
    weight_decay: float = Field(1e-2, ge=0)
    """Decoupled (AdamW)."""
    hidden_sizes: HiddenSizes = (256, 256)
    activation: Activation = Activation.TANH


class ContinuousBCConfig(BCConfig):
    """Behavioural cloning of continuous actions: censored squared error of an un-squashed mean."""

    name: Literal["bc-continuous"] = "bc-continuous"
    learning_rate: float = Field(3e-3, gt=0)


class DiscreteBCConfig(BCConfig):
    """Behavioural cloning of discrete actions: cross entropy."""

    name: Literal["bc-discrete"] = "bc-discrete"

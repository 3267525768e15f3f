"""Offline IQ-Learn's settings."""

from typing import Literal

from pydantic import Field

from iq_offline.config.base import Activation, FrozenModel, HiddenSizes
from iq_offline.config.cloning import ContinuousBCConfig


class DiscreteIQConfig(FrozenModel):
    """Offline IQ-Learn with a soft Q-function over discrete actions, [IQ21] eq. 12."""

    name: Literal["iq-discrete"] = "iq-discrete"
    updates: int = Field(5000, ge=1)
    """Gradient updates; the learning rate falls to zero along a cosine over them."""
    batch_size: int = Field(256, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-2, ge=0)
    """Decoupled (AdamW)."""
    gamma: float = Field(0.99, ge=0, lt=1)
    """Discount per environment step."""
    temperature: float = Field(0.1, gt=0)
    """Weight of the policy's entropy in the soft value."""
    reward_penalty: float = Field(0.5, gt=0)
    """Chi-squared coefficient c of phi(x) = x - x^2 / (4c)."""
    polyak_rate: float | None = Field(0.005, gt=0, le=1)
    """Share of the Q-function that enters its target at each update; None: no target, a gradient through V(s')."""
    target_bound: float | None = Field(100.0, gt=0)
    """Largest |V(s')|: by default that of rewards up to 2c, where phi is greatest, for ever. None: unbounded."""
    hidden_sizes: HiddenSizes = (256, 256)
    activation: Activation = Activation.TANH


class ContinuousIQConfig(FrozenModel):
    """Offline IQ-Learn with an actor, a KL-to-BC soft value, a LayerNorm critic and an action-gradient penalty."""

    name: Literal["iq-continuous"] = "iq-continuous"
    updates: int = Field(2000, ge=0)
    """Updates of critic and actor together, after the prior's own; both learning rates fall to zero along a cosine."""
    batch_size: int = Field(256, ge=1)
    actor_learning_rate: float = Field(3e-4, gt=0)
    critic_learning_rate: float = Field(3e-4, gt=0)
    gamma: float = Field(0.99, ge=0, lt=1)
    """Discount per environment step."""
    temperature: float = Field(3.0, ge=0)
    """Weight of KL(policy || BC prior) in the soft value and in the actor's loss."""
    policy_std: float = Field(0.135, gt=0)
    """Fixed standard deviation of policy and prior, in units where the action bounds are -1 and 1."""
    reward_penalty: float = Field(0.5, gt=0)
    """Chi-squared coefficient c of phi(x) = x - x^2 / (4c)."""
    action_gradient_weight: float = Field(0.1, ge=0)
    """Weight of E |dQ/da|^2 at the expert's actions (conservative: keeps Q flat around the data)."""
    polyak_rate: float = Field(0.005, gt=0, le=1)
    """Share of the critic that enters its target at each update."""
    target_bound: float | None = Field(100.0, gt=0)
    """Largest |V(s')|: by default that of rewards up to 2c, where phi is greatest, for ever. None: unbounded."""
    hidden_sizes: HiddenSizes = (256, 256)
    critic_activation: Activation = Activation.RELU
    critic_layer_norm: bool = True
    prior: ContinuousBCConfig = ContinuousBCConfig()
    """The cloned policy that starts the actor and anchors the soft value."""

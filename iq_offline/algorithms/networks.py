"""Networks: standardised observations in, action means, logits or Q-values out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from iq_offline.config import Activation, HiddenSizes

ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    Activation.TANH: nn.Tanh,
    Activation.RELU: nn.ReLU,
    Activation.SILU: nn.SiLU,
}
LARGEST_STANDARDISED = 10.0
"""Standardised observations are clipped here: a dimension nearly constant in the data may jump in simulation."""
SMALLEST_STD = 1e-3
"""Dimensions that vary less than this are divided by it, not by their own deviation."""


@dataclass(frozen=True)
class Standardiser:
    """Mean and standard deviation of the training observations, shape (D,) each."""

    mean: Tensor
    std: Tensor

    @classmethod
    def fit(cls, observations: Tensor) -> "Standardiser":
        """From training observations, shape (N, D)."""
        wide = observations.double()
        std = wide.std(dim=0, correction=0).clamp_min(SMALLEST_STD)
        return cls(wide.mean(dim=0).float(), std.float())


@dataclass(frozen=True)
class ActionScale:
    """Centre and half range of the action bounds, shape (A,) each; scaled actions lie between -1 and 1."""

    centre: Tensor
    half_range: Tensor

    @classmethod
    def of_bounds(cls, low: Sequence[float], high: Sequence[float]) -> "ActionScale":
        """From the bounds of each action dimension."""
        low_bound, high_bound = torch.tensor(low), torch.tensor(high)
        return cls((high_bound + low_bound) / 2, (high_bound - low_bound) / 2)


class Policy(nn.Module):
    """A network over raw observations that knows its own scaling: all that a policy file has to hold."""

    observation_mean: Tensor
    observation_std: Tensor

    def __init__(self, standardiser: Standardiser, outputs: int, hidden: HiddenSizes, activation: Activation) -> None:
        super().__init__()
        self.register_buffer("observation_mean", standardiser.mean.clone())
        self.register_buffer("observation_std", standardiser.std.clone())
        self.network = mlp(len(standardiser.mean), outputs, hidden, activation)

    def standardise(self, observations: Tensor) -> Tensor:
        """Raw observations (B, D) as the network sees them."""
        scaled = (observations - self.observation_mean) / self.observation_std
        return scaled.clamp(-LARGEST_STANDARDISED, LARGEST_STANDARDISED)

    def forward(self, observations: Tensor) -> Tensor:
        """Scaled action means (B, A), or logits (B, actions)."""
        outputs: Tensor = self.network(self.standardise(observations))
        return outputs

    def act(self, observations: Tensor) -> Tensor:
        """The deterministic action for each raw observation, in the environment's units."""
        raise NotImplementedError


class ContinuousPolicy(Policy):
    """Un-squashed mean in scaled actions; clipped to the bounds when executed."""

    action_centre: Tensor
    action_half_range: Tensor

    def __init__(
        self, standardiser: Standardiser, scale: ActionScale, hidden: HiddenSizes, activation: Activation
    ) -> None:
        super().__init__(standardiser, len(scale.centre), hidden, activation)
        self.register_buffer("action_centre", scale.centre.clone())
        self.register_buffer("action_half_range", scale.half_range.clone())

    def scale_actions(self, actions: Tensor) -> Tensor:
        """Actions in the environment's units (B, A) as scaled ones."""
        return (actions - self.action_centre) / self.action_half_range

    def act(self, observations: Tensor) -> Tensor:
        """Shape (B, D) -> (B, A)."""
        return self.forward(observations).clamp(-1, 1) * self.action_half_range + self.action_centre


class DiscretePolicy(Policy):
    """Logits over actions, or Q-values, whose greatest is executed."""

    def act(self, observations: Tensor) -> Tensor:
        """Shape (B, D) -> (B,) integers."""
        return self.forward(observations).argmax(dim=-1)


class Critic(nn.Module):
    """Q(s, a) over standardised observations and scaled actions, optionally with LayerNorm [LN16]."""

    def __init__(
        self, observation_size: int, action_size: int, hidden: HiddenSizes, activation: Activation, *, norm: bool
    ):
        super().__init__()
        self.network = mlp(observation_size + action_size, 1, hidden, activation, norm=norm)

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Shapes: (B, D), (B, A) -> (B,)."""
        values: Tensor = self.network(torch.cat([observations, actions], dim=-1))
        return values.squeeze(-1)


def mlp(inputs: int, outputs: int, hidden: HiddenSizes, activation: Activation, *, norm: bool = False) -> nn.Sequential:
    """A multi-layer perceptron; with `norm`, LayerNorm before each activation."""
    layers: list[nn.Module] = []
    width = inputs
    for size in hidden:
        layers.append(nn.Linear(width, size))
        if norm:
            layers.append(nn.LayerNorm(size))
        layers.append(ACTIVATIONS[activation]())
        width = size
    layers.append(nn.Linear(width, outputs))
    return nn.Sequential(*layers)


def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Draw all weights and biases of linear layers anew from `generator`: uniform within 1 / sqrt(inputs)."""
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.Linear):
                bound = 1 / math.sqrt(layer.in_features)
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.uniform_(-bound, bound, generator=generator)

"""The encoder seam: what an observation is made of, and the network that turns it into features.

Everywhere else an observation is one flat vector (B, D): the numbers of all its arrays first, in the order of their
names, then the bytes of its pictures. Only an encoder takes it apart. Vectors need none.
"""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from iq_offline.config.base import Activation, HiddenSizes, Precision

if TYPE_CHECKING:
    from iq_offline.algorithms.categories import OneHot

ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    Activation.TANH: nn.Tanh,
    Activation.RELU: nn.ReLU,
    Activation.SILU: nn.SiLU,
    Activation.ELU: nn.ELU,
}


@dataclass(frozen=True)
class ObservationLayout:
    """A flat observation: `vector` numbers, then pictures of those shapes, as bytes."""

    vector: int
    pictures: tuple[tuple[int, ...], ...] = ()
    categories: tuple[int, ...] = ()
    """How many categories each number tells apart, counted from 0; 0 for a real number. Empty: all are real numbers."""
    offset: tuple[float, ...] = field(default=(), compare=False)
    """What has been subtracted from each recorded number, in 64 bits, before it was narrowed to 32. Empty: nothing."""
    encoded_by: str = field(default="nature", compare=False)
    """The layers for pictures (`PictureEncoder`): a choice of networks, no property of the data."""

    @property
    def size(self) -> int:
        """Numbers and bytes together, D."""
        return self.vector + sum(math.prod(shape) for shape in self.pictures)

    @property
    def vector_features(self) -> int:
        """Features of the numbers: one of a real number, one of each category."""
        return sum(count or 1 for count in self.categories) if self.categories else self.vector

    @property
    def features(self) -> int:
        """Of a standardised observation: those of its numbers, and its pictures' bytes."""
        return self.vector_features + self.size - self.vector

    def one_hot(self, shown: Tensor | None) -> "OneHot":
        """The module that makes categories one-hot; `shown`: those that the training data show."""
        from iq_offline.algorithms.categories import OneHot

        return OneHot(self, shown)

    def encoder(self) -> "Encoder":
        """The identity for vectors; else a network whose `features` is the size of what it gives."""
        from iq_offline.algorithms.pictures import Pictures

        return Pictures(self) if self.pictures else Identity(self.vector_features)


class Encoder(nn.Module):
    """From standardised flat observations (B, D) to features (B, features)."""

    features: int


class Identity(Encoder):
    """Vectors as they are."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features

    def forward(self, observations: Tensor) -> Tensor:
        """The same."""
        return observations


class Perceptron(nn.Sequential):
    """Layers in turn; the products of all linear ones but the last may be of 16-bit factors."""

    precision = Precision.FLOAT32

    def forward(self, features: Tensor) -> Tensor:
        """Shapes: (..., inputs) -> (..., outputs), 32-bit in either precision."""
        last = len(self) - 1
        for number, layer in enumerate(self):
            rounded = self.precision is Precision.BFLOAT16 and number < last and isinstance(layer, nn.Linear)
            features = _product_of_16_bits(layer, features) if rounded else layer(features)
        return features


def _product_of_16_bits(layer: nn.Module, features: Tensor) -> Tensor:
    assert isinstance(layer, nn.Linear)
    return nn.functional.linear(features.bfloat16(), layer.weight.bfloat16()).float() + layer.bias


def with_precision(module: nn.Module, precision: Precision) -> None:
    """Let all perceptrons within compute like that from now on."""
    for part in module.modules():
        if isinstance(part, Perceptron):
            part.precision = precision


def mlp(inputs: int, outputs: int, hidden: HiddenSizes, activation: Activation, *, norm: bool = False) -> Perceptron:
    """A multi-layer perceptron; with `norm`, LayerNorm [LN16] before each activation."""
    layers: list[nn.Module] = []
    width = inputs
    for size in hidden:
        layers.append(nn.Linear(width, size))
        if norm:
            layers.append(nn.LayerNorm(size))
        layers.append(ACTIVATIONS[activation]())
        width = size
    layers.append(nn.Linear(width, outputs))
    return Perceptron(*layers)


def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Draw all weights and biases anew from `generator`: uniform within 1 / sqrt(inputs)."""
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                bound = 1 / math.sqrt(layer.weight[0].numel())
                assert layer.bias is not None
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.uniform_(-bound, bound, generator=generator)

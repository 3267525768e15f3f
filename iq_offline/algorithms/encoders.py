"""The encoder seam: what an observation is made of, and the network that turns it into features.

Everywhere else an observation is one flat vector (B, D): the numbers of all its arrays first, in the order of their
names, then the bytes of its pictures. Only an encoder takes it apart. Vectors need none.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from iq_offline.config import Activation, HiddenSizes, Precision
from iq_offline.errors import ConfigError

ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    Activation.TANH: nn.Tanh,
    Activation.RELU: nn.ReLU,
    Activation.SILU: nn.SiLU,
    Activation.ELU: nn.ELU,
}
PICTURE_FEATURES = 512
SMALLEST_FOR_STRIDES = 36
"""Pictures at least so high and wide go through the strided layers of [DQN15], smaller ones through 3 x 3 layers."""


@dataclass(frozen=True)
class ObservationLayout:
    """A flat observation: `vector` numbers, then pictures of those shapes, as bytes."""

    vector: int
    pictures: tuple[tuple[int, ...], ...] = ()

    @property
    def size(self) -> int:
        """Numbers and bytes together, D."""
        return self.vector + sum(math.prod(shape) for shape in self.pictures)

    def encoder(self) -> "Encoder":
        """The identity for vectors; else a network whose `features` is the size of what it gives."""
        return PictureEncoder(self) if self.pictures else Identity(self.vector)


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


class PictureEncoder(Encoder):
    """The vector as it is, and PICTURE_FEATURES for each picture. Source of the layers: [DQN15]."""

    def __init__(self, layout: ObservationLayout) -> None:
        super().__init__()
        self._layout = layout
        self.convolutions = nn.ModuleList([_convolutions(*channels_first(shape)) for shape in layout.pictures])
        self.features = layout.vector + PICTURE_FEATURES * len(layout.pictures)

    def forward(self, observations: Tensor) -> Tensor:
        """Standardised flat observations (B, D) -> (B, features)."""
        sizes = [self._layout.vector, *(math.prod(shape) for shape in self._layout.pictures)]
        vector, *flat = observations.split_with_sizes(sizes, dim=-1)
        parts = [vector]
        for network, pixels, shape in zip(self.convolutions, flat, self._layout.pictures, strict=True):
            parts.append(network(_planes(pixels, shape)))
        return torch.cat(parts, dim=-1)


def channels_first(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(channels, height, width) of a picture: (H, W), (H, W, C), (C, H, W), or a stack of frames as (F, H, W, C).

    Height and width are the two neighbouring axes with the largest product, the last of equal ones. All others
    together are the channels: those of a stack are those of each of its frames.
    """
    row = _row_axis(shape)
    height, width = shape[row], shape[row + 1]
    return math.prod(shape) // (height * width), height, width


def _row_axis(shape: tuple[int, ...]) -> int:
    """The axis of a picture's rows; the next one is that of its columns."""
    return max(range(len(shape) - 1), key=lambda axis: (shape[axis] * shape[axis + 1], axis))


def _planes(pixels: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Flat pictures (B, D) as (B, channels, height, width)."""
    row = _row_axis(shape)
    others = [axis + 1 for axis in range(len(shape)) if axis not in (row, row + 1)]
    pictures = pixels.reshape(-1, *shape).permute(0, *others, row + 1, row + 2)
    return pictures.reshape(-1, *channels_first(shape))


def _convolutions(channels: int, height: int, width: int) -> nn.Sequential:
    layers = [(32, 8, 4), (64, 4, 2), (64, 3, 1)] if min(height, width) >= SMALLEST_FOR_STRIDES else [(32, 3, 1)] * 2
    modules: list[nn.Module] = []
    size = f"{height} x {width}"
    for filters, side, stride in layers:
        modules += [nn.Conv2d(channels, filters, side, stride), nn.ReLU()]
        channels, height, width = filters, (height - side) // stride + 1, (width - side) // stride + 1
    if min(height, width) < 1:
        problem = f"pictures of {size} pixels are too small for two convolutions of 3 x 3"
        raise ConfigError(problem, "store them as numbers (float32), which are read as a vector")
    return nn.Sequential(*modules, nn.Flatten(), nn.Linear(channels * height * width, PICTURE_FEATURES), nn.ReLU())


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

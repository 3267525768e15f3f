"""The encoder seam: what an observation is made of, and the network that turns it into features.

Everywhere else an observation is one flat vector (B, D): the numbers of all its arrays first, in the order of their
names, then the bytes of its pictures. Only an encoder takes it apart. Vectors need none.
"""

import math
from dataclasses import dataclass, field

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
    categories: tuple[int, ...] = ()
    """How many categories each number tells apart, counted from 0; 0 for a real number. Empty: all are real numbers."""
    offset: tuple[float, ...] = field(default=(), compare=False)
    """What has been subtracted from each recorded number, in 64 bits, before it was narrowed to 32. Empty: nothing."""

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

    def encoder(self) -> "Encoder":
        """The identity for vectors; else a network whose `features` is the size of what it gives."""
        return PictureEncoder(self) if self.pictures else Identity(self.vector_features)


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


class OneHot(nn.Module):
    """Standardised observations with their categories one-hot, in place: (B, D) -> (B, features).

    The tables hold a category as its number; only a batch is ever this wide. A category that the training data never
    show is taken for the nearest number that they do: no weight has learnt anything of its own.
    """

    column: Tensor
    low: Tensor
    high: Tensor
    is_number: Tensor

    def __init__(self, layout: ObservationLayout, shown: Tensor | None = None) -> None:
        """`shown`: least and greatest number that counts as each feature's category, (2, features), of `shown_by`."""
        super().__init__()
        counts = [*layout.categories, *[0] * (layout.size - layout.vector)]
        width = torch.tensor([count or 1 for count in counts])
        column = torch.arange(len(counts)).repeat_interleave(width)
        within = (torch.arange(len(column)) - (width.cumsum(0) - width)[column]).float()
        # neither learnt nor saved: a policy file's header tells the layout
        self.register_buffer("column", column, persistent=False)
        self.register_buffer("is_number", torch.tensor(counts)[column] == 0, persistent=False)
        low, high = (within, within) if shown is None else shown
        self.register_buffer("low", low.clone())
        self.register_buffer("high", high.clone())

    def forward(self, observations: Tensor, standardised: Tensor) -> Tensor:
        """Shapes: (B, D), (B, D) -> (B, features)."""
        number = observations.index_select(-1, self.column)
        chosen = ((number >= self.low) & (number <= self.high)).to(standardised.dtype)
        return torch.where(self.is_number, standardised.index_select(-1, self.column), chosen)


def shown_by(observations: Tensor, layout: ObservationLayout) -> Tensor:
    """What `OneHot` takes for each feature's category, (2, features): the numbers nearest to it; the lower of two.

    Shape of the training observations: (N, vector).
    """
    parts = []
    for column, count in enumerate(layout.categories):
        low, high = torch.full((2, count or 1), -1.0)
        low.fill_(count)  # of a category that is never shown there is no number: low > high
        if count and len(observations):
            shown = torch.unique(observations[:, column])
            between = ((shown[1:] + shown[:-1]) / 2).floor()
            places = shown.long()
            low[places] = torch.cat([torch.zeros(1), between + 1])
            high[places] = torch.cat([between, torch.tensor([count - 1.0])])
        parts.append(torch.stack([low, high]))
    pixels = layout.size - layout.vector
    return torch.cat([*parts, torch.zeros(2, pixels)], dim=1)


class PictureEncoder(Encoder):
    """The vector as it is, and PICTURE_FEATURES for each picture. Source of the layers: [DQN15]."""

    def __init__(self, layout: ObservationLayout) -> None:
        super().__init__()
        self._layout = layout
        self.convolutions = nn.ModuleList([_convolutions(*channels_first(shape)) for shape in layout.pictures])
        self.features = layout.vector_features + PICTURE_FEATURES * len(layout.pictures)

    def forward(self, observations: Tensor) -> Tensor:
        """Standardised flat observations (B, D) -> (B, features)."""
        sizes = [self._layout.vector_features, *(math.prod(shape) for shape in self._layout.pictures)]
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

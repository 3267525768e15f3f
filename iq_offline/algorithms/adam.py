"""Adam on the parameters of some modules, and slow copies of modules: all that an update changes.

Both can compute with other tensors in place of their own (`hold`), so that one update can be traced and compiled.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

FIRST_DECAY, SECOND_DECAY, EPSILON = 0.9, 0.999, 1e-8
"""[ADAM15]'s own."""


class Changed(Protocol):
    """Tensors that an update changes."""

    def pieces(self) -> list[Tensor]:
        """Those tensors, in a fixed order."""
        ...

    def hold(self, pieces: Sequence[Tensor]) -> None:
        """Compute with these from now on."""
        ...


@dataclass(frozen=True)
class Scale:
    """What Adam's k-th update multiplies by: 0-dimensional tensors, or numbers.

    size: rate / (1 - b1^k); correction: 1 / (1 - b2^k); kept: 1 - rate * weight decay.
    """

    size: Tensor | float
    correction: Tensor | float
    kept: Tensor | float

    def numbers(self) -> tuple[float, float, float]:
        """The three as numbers."""
        return float(self.size), float(self.correction), float(self.kept)


class Slots:
    """The parameters of some modules, as places that can hold other tensors."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._places = [
            (part, name)
            for module in modules
            for part in module.modules()
            for name, parameter in part.named_parameters(recurse=False)
            if parameter is not None
        ]

    def tensors(self) -> list[Tensor]:
        """What the places hold."""
        return [part._parameters[name] for part, name in self._places]  # type: ignore[misc]

    def fill(self, tensors: Sequence[Tensor]) -> None:
        """Let the places hold these."""
        for (part, name), tensor in zip(self._places, tensors, strict=True):
            part._parameters[name] = tensor  # type: ignore[assignment]


class Adam:
    """Adam with decoupled weight decay, its rate falling to zero along a cosine. Source: [ADAM15], [ADAMW19].

    The parameters are made views of one vector, and so are their moments: an update is one pass over vectors.
    """

    def __init__(self, modules: Sequence[nn.Module], rate: float, weight_decay: float, updates: int) -> None:
        self._slots = Slots(modules)
        self._rate, self._weight_decay, self._updates = rate, weight_decay, max(updates, 1)
        leaves = self._slots.tensors()
        self._shapes = [leaf.shape for leaf in leaves]
        vector = torch.cat([leaf.detach().reshape(-1) for leaf in leaves])
        for leaf, view in zip(leaves, self._views(vector), strict=True):
            leaf.data = view
        self._first, self._second = [torch.zeros_like(vector)], [torch.zeros_like(vector)]
        self._parameters = [vector]
        self._joined = True
        self.scale: Scale | None = None
        """That of the next update, where it is not a function of `count`."""
        self.count = 0
        """Updates made."""

    def leaves(self) -> list[Tensor]:
        """The parameters, to take gradients with respect to."""
        return self._slots.tensors()

    def pieces(self) -> list[Tensor]:
        """Parameters, first and second moments, by parameter."""
        return [view for held in (self._parameters, self._first, self._second) for view in self._by_parameter(held)]

    def hold(self, pieces: Sequence[Tensor]) -> None:
        """Compute with these, a tensor a parameter."""
        count = len(self._shapes)
        self._parameters = [piece.detach().requires_grad_() for piece in pieces[:count]]
        self._first, self._second = list(pieces[count : 2 * count]), list(pieces[2 * count :])
        self._joined = False
        self._slots.fill(self._parameters)

    def scale_at(self, count: int) -> Scale:
        """That of the `count`-th update, from 1."""
        rate = self._rate * (1 + math.cos(math.pi * (count - 1) / self._updates)) / 2
        return Scale(
            size=rate / (1 - FIRST_DECAY**count),
            correction=1 / (1 - SECOND_DECAY**count),
            kept=1 - rate * self._weight_decay,
        )

    def forget_schedule(self) -> None:
        """Be as any other of these parameters, for updates whose `scale` is given."""
        self._rate, self._updates, self.count = 0.0, 1, 0

    def step(self, gradients: Sequence[Tensor]) -> Tensor:
        """Move the parameters against their gradients; returns the gradients' Euclidean norm, ()."""
        self.count += 1
        scale = self.scale or self.scale_at(self.count)
        if self._joined:
            gradients = [torch.cat([gradient.reshape(-1) for gradient in gradients])]
        squares = torch.zeros((), device=gradients[0].device)
        with torch.no_grad():
            for parameter, gradient, first, second in zip(
                self._parameters, gradients, self._first, self._second, strict=True
            ):
                adam_(parameter, gradient, first, second, scale, decays=self._weight_decay > 0)
                squares = squares + gradient.square().sum()
        return squares.sqrt()

    def _by_parameter(self, held: Sequence[Tensor]) -> Sequence[Tensor]:
        return self._views(held[0]) if self._joined else held

    def _views(self, vector: Tensor) -> list[Tensor]:
        pieces = torch.split(vector, [shape.numel() for shape in self._shapes])
        return [piece.view(shape) for piece, shape in zip(pieces, self._shapes, strict=True)]


def adam_(parameter: Tensor, gradient: Tensor, first: Tensor, second: Tensor, scale: Scale, *, decays: bool) -> None:
    """One update in place, [ADAM15] alg. 1 with [ADAMW19] alg. 2's decay. Shapes: all alike."""
    first.lerp_(gradient, 1 - FIRST_DECAY)
    second.lerp_(gradient.square(), 1 - SECOND_DECAY)
    if decays:
        parameter.mul_(scale.kept)
    parameter.sub_(first / ((second * scale.correction).sqrt_() + EPSILON) * scale.size)


def descend(optimisers: Sequence[Adam], loss: Tensor) -> list[Tensor]:
    """One step of each against the gradient of `loss`; returns the norm of each one's gradient."""
    leaves = [optimiser.leaves() for optimiser in optimisers]
    everything = [leaf for group in leaves for leaf in group]
    found = torch.autograd.grad(loss, everything, allow_unused=True)
    gradients = iter(torch.zeros_like(leaf) if g is None else g for g, leaf in zip(found, everything, strict=True))
    return [
        optimiser.step([next(gradients) for _ in group]) for optimiser, group in zip(optimisers, leaves, strict=True)
    ]


class SlowCopy:
    """Polyak averages of modules' parameters: `slow` follows `fast`."""

    def __init__(self, slow: Sequence[nn.Module], fast: Sequence[nn.Module], polyak_rate: float) -> None:
        self._slow, self._fast, self._polyak_rate = Slots(slow), Slots(fast), polyak_rate

    def pieces(self) -> list[Tensor]:
        """The averages."""
        return self._slow.tensors()

    def hold(self, pieces: Sequence[Tensor]) -> None:
        """Compute with these."""
        self._slow.fill(list(pieces))

    @torch.no_grad()
    def follow(self) -> None:
        """Move each average that share of the way to what it follows."""
        for slow, fast in zip(self._slow.tensors(), self._fast.tensors(), strict=True):
            slow.lerp_(fast, self._polyak_rate)

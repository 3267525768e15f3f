"""Random numbers for an update, drawn or played back, so that an update can be traced as a pure function."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Draw:
    """What was asked for: a shape of standard normal numbers, or of uniform ones between -1 and 1 or 0 and 1."""

    shape: tuple[int, ...]
    kind: str

    def make(self, generator: torch.Generator) -> Tensor:
        """Draw it."""
        numbers = torch.empty(self.shape, device=generator.device)
        if self.kind == NORMAL:
            return numbers.normal_(generator=generator)
        return numbers.uniform_(-1 if self.kind == SYMMETRIC else 0, 1, generator=generator)


NORMAL, SYMMETRIC, SHARE = "normal", "symmetric", "share"


class Noise(Protocol):
    """Where an update's random numbers come from."""

    def draw(self, draw: Draw) -> Tensor:
        """Numbers of that shape and kind."""
        ...


class Drawn:
    """From a generator."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def draw(self, draw: Draw) -> Tensor:
        """Fresh numbers."""
        return draw.make(self.generator)


def normal(noise: Noise, like: Tensor) -> Tensor:
    """Standard normal numbers of that tensor's shape."""
    return noise.draw(Draw(tuple(like.shape), NORMAL))


def symmetric(noise: Noise, *shape: int) -> Tensor:
    """Uniform between -1 and 1."""
    return noise.draw(Draw(shape, SYMMETRIC))


def share(noise: Noise, *shape: int) -> Tensor:
    """Uniform between 0 and 1."""
    return noise.draw(Draw(shape, SHARE))


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
    SHIFTS = 21
    ACTING = 30
    REPLAY_BATCHES = 31


def generator(seed: int, stream: Stream, device: torch.device | None = None) -> torch.Generator:
    """The random generator of a stream: a function of seed and stream alone."""
    import numpy as np

    state = np.random.SeedSequence([seed, int(stream)]).generate_state(1, dtype=np.uint64)
    return torch.Generator(device=device or torch.device("cpu")).manual_seed(int(state[0]) >> 1)

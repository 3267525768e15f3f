"""Networks: raw observations in; actions, Q-values and values out."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from iq_offline.algorithms.distributions import (
    ClippedGaussian,
    ContinuousActionDistribution,
    Deterministic,
    TanhGaussian,
)
from iq_offline.algorithms.encoders import ObservationLayout, OneHot, initialise, mlp, shown_by, with_precision
from iq_offline.config import ActionHead, Activation, HiddenSizes

__all__ = [
    "AbsorbingState",
    "ActionScale",
    "ContinuousPolicy",
    "Critic",
    "CriticEnsemble",
    "DiscretePolicy",
    "Policy",
    "Standardiser",
    "ValueNetwork",
    "initialise",
    "scaled_actions",
    "with_precision",
]

LARGEST_STANDARDISED = 10.0
"""Standardised observations are clipped here: a dimension nearly constant in the data may jump in simulation."""
ROWS_AT_ONCE = 8192
"""Rows that are widened to 64 bits at a time."""
SMALLEST_STD = 1e-3
"""Dimensions that vary less than this are divided by it, not by their own deviation."""
LARGEST_BYTE = 255.0
WIDEST_BOX = 20.0
"""Standard deviations of demonstrated actions that half the range of scaled ones holds, at most."""
BEYOND_FARTHEST = 1.25
"""The box of scaled actions ends so many times as far from the mean as the farthest demonstrated action."""
CONSTANT = 1e-6
"""Of the bounds' half range: what varies less does not vary."""
LOG_STD_BOUNDS = (-5.0, 2.0)
"""Between these a learnt log standard deviation lies ([SAC18]'s practice)."""
DEFAULT_STD = 0.135
"""exp(-2): the standard deviation of a policy that is given none and learns none."""


@dataclass(frozen=True)
class Standardiser:
    """Mean and standard deviation of training data's dimensions, shape (D,) each."""

    mean: Tensor
    std: Tensor
    shown: Tensor | None = None
    """Which categories the training data show, as `OneHot` takes them; None where this is not known, or none are."""

    @classmethod
    def fit(
        cls, observations: Tensor, layout: ObservationLayout | None = None, *, smallest: float = SMALLEST_STD
    ) -> "Standardiser":
        """From training observations, shape (N, D), or the vector part of them; pictures are divided by 255.

        Standard deviations are `smallest` at least.
        """
        count = max(len(observations), 1)
        mean, squares = torch.zeros(2, observations.shape[1], dtype=torch.float64)
        for part in torch.split(observations, ROWS_AT_ONCE):
            mean += part.double().sum(dim=0) / count
        for part in torch.split(observations, ROWS_AT_ONCE):
            squares += (part.double() - mean).square().sum(dim=0) / count
        std = squares.sqrt().clamp_min(smallest)
        pixels = layout.size - layout.vector if layout else 0
        return cls(
            torch.cat([mean.float(), torch.zeros(pixels)]),
            torch.cat([std.float(), torch.full((pixels,), LARGEST_BYTE)]),
            shown_by(observations, layout) if layout and layout.categories else None,
        )


@dataclass(frozen=True)
class ActionScale:
    """Centre and half range of the action bounds or of a box within, (A,) each; scaled actions lie between -1 and 1."""

    centre: Tensor
    half_range: Tensor

    @classmethod
    def of_bounds(cls, low: Sequence[float], high: Sequence[float]) -> "ActionScale":
        """From the bounds of each action dimension; of one without a choice the half range is zero."""
        low_bound, high_bound = torch.tensor(low), torch.tensor(high)
        return cls((high_bound + low_bound) / 2, (high_bound - low_bound) / 2)

    @classmethod
    def of_demonstrations(cls, low: Sequence[float], high: Sequence[float], actions: Tensor) -> "ActionScale":
        """From the bounds, or from a narrower box within them in a dimension of which demonstrations use next to none.

        The box reaches to WIDEST_BOX standard deviations from the mean and past the farthest action, so that what
        networks learn is not far below one however wide the bounds. A dimension that never varies keeps the bounds.
        Shape of actions: (N, A).
        """
        bounds = cls.of_bounds(low, high)
        if len(actions) == 0:
            return bounds
        spread = Standardiser.fit(actions, smallest=0)
        farthest = torch.zeros_like(spread.mean)
        for part in torch.split(actions, ROWS_AT_ONCE):
            farthest = torch.maximum(farthest, (part - spread.mean).abs().amax(dim=0))
        reach = torch.maximum(WIDEST_BOX * spread.std, BEYOND_FARTHEST * farthest)
        narrow = (reach < bounds.half_range) & (farthest > CONSTANT * bounds.half_range)
        box_low = torch.maximum(torch.tensor(low), spread.mean - reach)
        box_high = torch.minimum(torch.tensor(high), spread.mean + reach)
        return cls(
            torch.where(narrow, (box_high + box_low) / 2, bounds.centre),
            torch.where(narrow, (box_high - box_low) / 2, bounds.half_range),
        )


def scaled_actions(actions: Tensor, scale: ActionScale) -> Tensor:
    """Actions in the environment's units (B, A) as scaled ones; zero where there is no choice.

    Those of other data than the demonstrations may lie far outside, and are clipped as observations are.
    """
    scaled = (actions - scale.centre) / (scale.half_range + (scale.half_range == 0))
    return scaled.clamp(-LARGEST_STANDARDISED, LARGEST_STANDARDISED)


class Policy(nn.Module):
    """A network over raw observations that knows its own scaling: all that a policy file has to hold."""

    observation_mean: Tensor
    observation_std: Tensor

    def __init__(
        self,
        standardiser: Standardiser,
        outputs: int,
        hidden: HiddenSizes,
        activation: Activation,
        *,
        norm: bool = False,
        layout: ObservationLayout | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("observation_mean", standardiser.mean.clone())
        self.register_buffer("observation_std", standardiser.std.clone())
        self.layout = layout or ObservationLayout(len(standardiser.mean))
        self.one_hot = OneHot(self.layout, standardiser.shown) if self.layout.categories else None
        self.encoder = self.layout.encoder()
        self.network = mlp(self.encoder.features, outputs, hidden, activation, norm=norm)

    @property
    def standardiser(self) -> Standardiser:
        """Its scaling of observations."""
        shown = None if self.one_hot is None else torch.stack([self.one_hot.low, self.one_hot.high])
        return Standardiser(self.observation_mean, self.observation_std, shown)

    def standardise(self, observations: Tensor) -> Tensor:
        """Raw observations (B, D) as the network sees them, (B, features): categories are one-hot.

        They are as a table has them: less `layout.offset`.
        """
        scaled = (observations - self.observation_mean) / self.observation_std
        scaled = scaled.clamp(-LARGEST_STANDARDISED, LARGEST_STANDARDISED)
        return scaled if self.one_hot is None else self.one_hot(observations, scaled)

    def forward(self, observations: Tensor) -> Tensor:
        """The network's outputs: action means (and log standard deviations), logits or Q-values."""
        outputs: Tensor = self.network(self.encoder(self.standardise(observations)))
        return outputs

    def act(self, observations: Tensor) -> Tensor:
        """The deterministic action for each raw observation, in the environment's units."""
        raise NotImplementedError


class ContinuousPolicy(Policy):
    """A distribution over scaled actions, by its head; the mode is executed.

    `std` is the standard deviation for all observations; None with `learnt_std`, where the network gives its log.
    """

    action_centre: Tensor
    action_half_range: Tensor

    def __init__(
        self,
        standardiser: Standardiser,
        scale: ActionScale,
        hidden: HiddenSizes,
        activation: Activation,
        *,
        head: ActionHead = ActionHead.CLIPPED_GAUSSIAN,
        learnt_std: bool = False,
        std: float = DEFAULT_STD,
        layout: ObservationLayout | None = None,
    ) -> None:
        actions = len(scale.centre)
        super().__init__(standardiser, actions * (2 if learnt_std else 1), hidden, activation, layout=layout)
        self.head, self.learnt_std, self.std = head, learnt_std, std
        self.register_buffer("action_centre", scale.centre.clone())
        self.register_buffer("action_half_range", scale.half_range.clone())

    @property
    def action_scale(self) -> ActionScale:
        """Of its scaled actions."""
        return ActionScale(self.action_centre, self.action_half_range)

    def scale_actions(self, actions: Tensor) -> Tensor:
        """Actions in the environment's units (B, A) as its network has them."""
        return scaled_actions(actions, self.action_scale)

    def mean(self, observations: Tensor) -> Tensor:
        """What the network says of the action before squashing or clipping, (B, D) -> (B, A)."""
        return self.forward(observations)[..., : len(self.action_centre)]

    def distribution(self, observations: Tensor) -> ContinuousActionDistribution:
        """The policy at raw observations (B, D)."""
        outputs = self.forward(observations)
        if self.head is ActionHead.DETERMINISTIC:
            return Deterministic(outputs)
        kind = TanhGaussian if self.head is ActionHead.TANH_GAUSSIAN else ClippedGaussian
        if not self.learnt_std:
            return kind(outputs, self.std)
        mean, squeezed = outputs.chunk(2, dim=-1)
        low, high = LOG_STD_BOUNDS
        return kind(mean, (low + (high - low) * (squeezed.tanh() + 1) / 2).exp())

    def act(self, observations: Tensor) -> Tensor:
        """The mode. Shape (B, D) -> (B, A)."""
        mean = self.mean(observations)
        scaled = mean.tanh() if self.head is ActionHead.TANH_GAUSSIAN else mean.clamp(-1, 1)
        return scaled * self.action_half_range + self.action_centre


class DiscretePolicy(Policy):
    """Logits over actions, or Q-values, whose greatest is executed."""

    def act(self, observations: Tensor) -> Tensor:
        """Shape (B, D) -> (B,) integers."""
        return self.forward(observations).argmax(dim=-1)


def actions_of(policy: Policy) -> tuple[str, int]:
    """The kind of a policy's actions, continuous or discrete, and how many numbers one has, or how many there are."""
    if isinstance(policy, ContinuousPolicy):
        return "continuous", len(policy.action_centre)
    last = policy.network[-1]
    assert isinstance(last, nn.Linear)
    return "discrete", last.out_features


class Critic(nn.Module):
    """Q(s, a) over standardised observations and scaled actions, optionally with LayerNorm [LN16]."""

    def __init__(
        self,
        layout: ObservationLayout,
        action_size: int,
        hidden: HiddenSizes,
        activation: Activation,
        *,
        norm: bool,
    ) -> None:
        super().__init__()
        self.encoder = layout.encoder()
        self.network = mlp(self.encoder.features + action_size, 1, hidden, activation, norm=norm)

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Shapes: (B, D), (B, A) -> (B,). K actions at each observation, (K, B, A) -> (K, B), which is encoded once."""
        features = self.encoder(observations).expand(*actions.shape[:-1], -1)
        values: Tensor = self.network(torch.cat([features, actions], dim=-1))
        return values.squeeze(-1)


class CriticEnsemble(nn.Module):
    """Several critics of the same layout."""

    def __init__(self, members: Sequence[Critic]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Q of each member. Shapes: (B, D), (B, A) -> (N, B), or (B, D), (K, B, A) -> (N, K, B)."""
        return torch.stack([member(observations, actions) for member in self.members])


class ValueNetwork(nn.Module):
    """V(s) over standardised observations: the in-sample value."""

    def __init__(self, layout: ObservationLayout, hidden: HiddenSizes, activation: Activation, *, norm: bool) -> None:
        super().__init__()
        self.encoder = layout.encoder()
        self.network = mlp(self.encoder.features, 1, hidden, activation, norm=norm)

    def forward(self, observations: Tensor) -> Tensor:
        """Shapes: (B, D) -> (B,)."""
        values: Tensor = self.network(self.encoder(observations))
        return values.squeeze(-1)


class AbsorbingState(nn.Module):
    """The state behind terminations, where its value is learnt [LSIQ23]: a reward for ever, which is the parameter.

    As a parameter itself, the value would take 1 / (1 - gamma) times as many updates to get anywhere.
    """

    def __init__(self, gamma: float) -> None:
        super().__init__()
        self.reward = nn.Parameter(torch.zeros(()))
        self._gamma = gamma

    @property
    def value(self) -> Tensor:
        """reward / (1 - gamma), ()."""
        return self.reward / (1 - self._gamma)

"""Networks: raw observations in; actions, Q-values and values out."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from iq_offline.algorithms.distributions import ClippedGaussian, ContinuousActionDistribution, TanhGaussian
from iq_offline.algorithms.encoders import ObservationLayout, mlp
from iq_offline.batch import Batch
from iq_offline.config.base import ActionHead, Activation, HiddenSizes
from iq_offline.config.q_learning import Pessimism

LARGEST_STANDARDISED = 10.0
"""Standardised observations are clipped here: a dimension nearly constant in the data may jump in simulation."""
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
    """Which categories the training data show, as `categories.OneHot` takes them; None where there are none."""


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
        self.one_hot = self.layout.one_hot(standardiser.shown) if self.layout.categories else None
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

    def entropy(self, observations: Tensor) -> Tensor:
        """Mean entropy in nats at raw observations, ()."""
        raise NotImplementedError

    def action_error(self, batch: Batch) -> Tensor:
        """Mean squared difference of executed and recorded scaled actions, or the share of actions that differ, ()."""
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
        kind = TanhGaussian if self.head is ActionHead.TANH_GAUSSIAN else ClippedGaussian
        if not self.learnt_std:
            return kind(outputs, self.std)
        mean, squeezed = outputs.chunk(2, dim=-1)
        low, high = LOG_STD_BOUNDS
        return kind(mean, (low + (high - low) * (squeezed.tanh() + 1) / 2).exp())

    def unclipped_mode(self, observations: Tensor) -> Tensor:
        """The mode in scaled actions before it is clipped to the bounds, (B, D) -> (B, A)."""
        mean = self.mean(observations)
        return mean.tanh() if self.head is ActionHead.TANH_GAUSSIAN else mean

    def act(self, observations: Tensor) -> Tensor:
        """The mode. Shape (B, D) -> (B, A)."""
        scaled = self.unclipped_mode(observations).clamp(-1, 1)
        return scaled * self.action_half_range + self.action_centre

    def entropy(self, observations: Tensor) -> Tensor:
        """Of the Gaussian before clipping or squashing."""
        return self.distribution(observations).entropy().mean()

    def action_error(self, batch: Batch) -> Tensor:
        """Mean squared difference of executed and recorded scaled actions, ()."""
        executed = self.scale_actions(self.act(batch.observations))
        return (executed - self.scale_actions(batch.actions)).square().mean()


class DiscretePolicy(Policy):
    """Logits over actions, or Q-values, whose greatest is executed."""

    def act(self, observations: Tensor) -> Tensor:
        """Shape (B, D) -> (B,) integers."""
        return self.forward(observations).argmax(dim=-1)

    def entropy(self, observations: Tensor) -> Tensor:
        """Of the softmax of its outputs."""
        log_probabilities = torch.log_softmax(self.forward(observations), dim=-1)
        return -(log_probabilities.exp() * log_probabilities).sum(dim=-1).mean()

    def action_error(self, batch: Batch) -> Tensor:
        """The share of actions that differ, ()."""
        return (self.act(batch.observations) != batch.actions).float().mean()


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


def pessimistic(q: Tensor, how: Pessimism, deviations: float) -> Tensor:
    """One value from several critics: mean, minimum, or mean less `deviations` standard deviations.

    Shapes: (N, B) -> (B,); of one critic, its own.
    """
    if len(q) == 1:
        return q[0]
    if how is Pessimism.MINIMUM:
        return q.amin(dim=0)
    return q.mean(dim=0) - (0.0 if how is Pessimism.MEAN else deviations) * q.std(dim=0, correction=0)


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


def named(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    """A module's tensors, their names behind a prefix."""
    return {f"{prefix}.{name}": tensor.detach() for name, tensor in module.state_dict().items()}

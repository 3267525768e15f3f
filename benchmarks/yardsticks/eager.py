"""A plain baseline, as a newcomer writes it: modules, torch.optim.Adam's defaults, loops over parameters.

eager iq | discrete. The mathematics are ours: chi-squared IQ-Learn with the expert's value term (`iq`: clipped
Gaussian actor of fixed width, two critics, slow targets; `discrete`: one soft Q-function, gradient through V(s')).
"""

import copy
import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn

from .synthetic import (
    ACTION,
    BATCH,
    HIDDEN,
    OBSERVATION,
    SMALL_ACTIONS,
    SMALL_BATCH,
    SMALL_HIDDEN,
    SMALL_OBSERVATION,
    Episodes,
    continuous_episodes,
    discrete_episodes,
)
from .worker import Measure, counted, serve

GAMMA, CHI, TAU = 0.99, 0.5, 0.005
STD = 0.135
RATE = 3e-4
SMALL_TEMPERATURE, SMALL_RATE = 0.01, 1e-4

Minibatch = dict[str, Tensor]
"""observations, actions, next_observations, terminations."""


def network(inputs: int, hidden: tuple[int, ...], outputs: int, activation: Callable[[], nn.Module]) -> nn.Sequential:
    """A multi-layer perceptron with torch's own initial weights."""
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [nn.Linear(inputs, size), activation()]
        inputs = size
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


class PlainIQ:
    """Actor, two critics and their targets; each update moves the critics, then the actor, then the targets."""

    def __init__(self) -> None:
        self.actor = network(OBSERVATION, HIDDEN, ACTION, nn.ReLU)
        self.critics = nn.ModuleList([network(OBSERVATION + ACTION, HIDDEN, 1, nn.ReLU) for _ in range(2)])
        self.targets = copy.deepcopy(self.critics)
        self.actor_optimiser = torch.optim.Adam(self.actor.parameters(), lr=RATE)
        self.critic_optimiser = torch.optim.Adam(self.critics.parameters(), lr=RATE)

    def update(self, batch: Minibatch, noise: Tensor, next_noise: Tensor) -> Tensor:
        """One update. `noise` (B, A) moves the action at s, both in V(s) and for the actor; `next_noise` that at s'."""
        observations, next_observations = batch["observations"], batch["next_observations"]
        with torch.no_grad():
            actions = self.act(observations, noise)
            next_actions = self.act(next_observations, next_noise)
            next_v = torch.min(*[q_of(target, next_observations, next_actions) for target in self.targets])
            next_v = GAMMA * (1 - batch["terminations"]) * next_v
        losses = []
        for critic in self.critics:
            v = q_of(critic, observations, actions)
            reward = q_of(critic, observations, batch["actions"]) - next_v
            losses.append((v - next_v).mean() - reward.mean() + (reward**2).mean() / (4 * CHI))
        critic_loss = (losses[0] + losses[1]) / 2
        self.critic_optimiser.zero_grad()
        critic_loss.backward()
        self.critic_optimiser.step()

        actions = self.act(observations, noise)
        actor_loss = -torch.min(*[q_of(critic, observations, actions) for critic in self.critics]).mean()
        self.actor_optimiser.zero_grad()
        actor_loss.backward()
        self.actor_optimiser.step()

        with torch.no_grad():
            for slow, fast in zip(self.targets.parameters(), self.critics.parameters(), strict=True):
                slow.data.copy_(TAU * fast.data + (1 - TAU) * slow.data)
        return critic_loss.detach()

    def act(self, observations: Tensor, noise: Tensor) -> Tensor:
        """Clipped actions of the Gaussian policy."""
        return (self.actor(observations) + STD * noise).clamp(-1, 1)


class PlainSoftQ:
    """One soft Q-function: policy, value and reward."""

    def __init__(self) -> None:
        self.q = network(SMALL_OBSERVATION, SMALL_HIDDEN, SMALL_ACTIONS, nn.SiLU)
        self.optimiser = torch.optim.Adam(self.q.parameters(), lr=SMALL_RATE)

    def update(self, batch: Minibatch) -> Tensor:
        """One update."""
        q = SMALL_TEMPERATURE * self.q(batch["observations"])
        next_q = SMALL_TEMPERATURE * self.q(batch["next_observations"])
        v = SMALL_TEMPERATURE * torch.logsumexp(q / SMALL_TEMPERATURE, dim=1)
        next_v = SMALL_TEMPERATURE * torch.logsumexp(next_q / SMALL_TEMPERATURE, dim=1)
        next_v = GAMMA * (1 - batch["terminations"]) * next_v
        reward = q.gather(1, batch["actions"].unsqueeze(1)).squeeze(1) - next_v
        loss = (v - next_v).mean() - reward.mean() + (reward**2).mean() / (4 * CHI)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return loss.detach()


def q_of(critic: nn.Module, observations: Tensor, actions: Tensor) -> Tensor:
    """Q(s, a), (B,)."""
    values: Tensor = critic(torch.cat([observations, actions], dim=1))
    return values.squeeze(1)


def sampler(episodes: Episodes, size: int) -> Callable[[], Minibatch]:
    """Uniform minibatches from flat arrays."""
    arrays = {name: torch.from_numpy(values) for name, values in episodes.flat().items() if name != "rewards"}
    count = len(arrays["actions"])

    def sample() -> Minibatch:
        index = torch.randint(count, (size,))
        return {name: values[index] for name, values in arrays.items()}

    return sample


def build_iq() -> Measure:
    """The continuous step."""
    learner, sample = PlainIQ(), sampler(continuous_episodes(), BATCH)

    def updates(count: int) -> float:
        for _ in range(count):
            loss = learner.update(sample(), torch.randn(BATCH, ACTION), torch.randn(BATCH, ACTION))
        return float(loss)

    return counted(updates, 4)


def build_discrete() -> Measure:
    """The discrete step."""
    learner, sample = PlainSoftQ(), sampler(discrete_episodes(), SMALL_BATCH)

    def updates(count: int) -> float:
        for _ in range(count):
            loss = learner.update(sample())
        return float(loss)

    return counted(updates, 50)


if __name__ == "__main__":
    serve({"iq": build_iq, "discrete": build_discrete}[sys.argv[1]])

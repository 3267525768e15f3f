"""What one update needs: the operations of its matrix products, counted layer by layer, and the bytes moved.

A product of (B, m) by (m, n) is 2 B m n. A layer costs that forward, again for its weights' gradient, and again for
its input's. Counted is what the mathematics needs: the policy acts once at s, its actor's loss differentiates Q by
the action alone, and weights that no optimiser moves get no gradient. Elementwise work is not counted.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from .synthetic import (
    ACTION,
    BATCH,
    CQL_ACTIONS,
    HIDDEN,
    OBSERVATION,
    SMALL_ACTIONS,
    SMALL_BATCH,
    SMALL_HIDDEN,
    SMALL_OBSERVATION,
)

Terms = dict[str, float]
"""MFLOP, or megabytes, by what they are for."""
Cost = Callable[[int, int, int], float]
"""Of a product of (rows, m) by (m, n)."""


def mflop(rows: int, m: int, n: int) -> float:
    """Its operations."""
    return 2e-6 * rows * m * n


def megabytes(rows: int, m: int, n: int) -> float:
    """What it moves at least, in 32 bits: each operand is read once, and the result written once."""
    return 4e-6 * (rows * m + m * n + rows * n)


@dataclass(frozen=True)
class Network:
    """A multi-layer perceptron by its layers' sizes."""

    sizes: tuple[int, ...]

    cost: Cost = mflop

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return sum((m + 1) * n for m, n in pairwise(self.sizes))

    def forward(self, rows: int) -> float:
        """The cost of a forward pass; the weights' gradients cost as much."""
        return sum(self.cost(rows, m, n) for m, n in pairwise(self.sizes))

    def weights(self, rows: int) -> float:
        """That of the weights' gradients."""
        return self.forward(rows)

    def inside(self, rows: int, inputs: int = 0) -> float:
        """That of the gradients of hidden units, and of so many of the network's inputs."""
        hidden = Network(self.sizes[1:], self.cost).forward(rows)
        return hidden + (self.cost(rows, inputs, self.sizes[1]) if inputs else 0.0)

    def learnt(self, rows: int) -> float:
        """That of forward and backward, where the weights learn."""
        return self.forward(rows) + self.weights(rows) + self.inside(rows)


ACTOR = Network((OBSERVATION, *HIDDEN, ACTION))
CRITIC = Network((OBSERVATION + ACTION, *HIDDEN, 1))
SMALL_Q = Network((SMALL_OBSERVATION, *SMALL_HIDDEN, SMALL_ACTIONS))


def state_megabytes(learnt: Sequence[Network], slow: Sequence[Network] = ()) -> float:
    """What the optimiser and the slow targets move: Adam reads a weight, its gradient and two moments and writes three.

    A slow target is read and written, and what it follows is read.
    """
    return 4e-6 * (7 * sum(one.parameters for one in learnt) + 3 * sum(one.parameters for one in slow))


def iq(critics: int = 2, cost: Cost = mflop) -> Terms:
    """IQ-Learn with an actor: critics at (s, a) and (s, policy), their targets at s', then the actor."""
    actor, critic = replace(ACTOR, cost=cost), replace(CRITIC, cost=cost)
    return {
        "critics at (s, a) and (s, policy), forward and backward": critics * critic.learnt(2 * BATCH),
        "target critics at (s', policy)": critics * critic.forward(BATCH),
        "actor at s and s'": actor.forward(2 * BATCH),
        "critics at (s, policy) for the actor, back to the action": critics
        * (critic.forward(BATCH) + critic.inside(BATCH, ACTION)),
        "actor, backward": actor.weights(BATCH) + actor.inside(BATCH),
    }


def iq_cql() -> Terms:
    """The same with the conservative term over CQL_ACTIONS sampled actions."""
    return iq() | {
        f"critics at {CQL_ACTIONS} sampled actions, forward and backward": 2 * CRITIC.learnt(CQL_ACTIONS * BATCH)
    }


def iq_default(cost: Cost = mflop) -> Terms:
    """The default: one critic, a prior at s and s', and the gradient of |dQ/da|^2 between a and the policy's."""
    actor, critic = replace(ACTOR, cost=cost), replace(CRITIC, cost=cost)
    return iq(1, cost) | {
        "prior at s and s'": actor.forward(2 * BATCH),
        "Q between the actions, dQ/da, and its gradient": critic.forward(BATCH) + 3 * critic.inside(BATCH, ACTION),
    }


def bc(cost: Cost = mflop) -> Terms:
    """Cloning."""
    return {"actor, forward and backward": replace(ACTOR, cost=cost).learnt(BATCH)}


def discrete(cost: Cost = mflop) -> Terms:
    """Soft Q-learning's inverse with a gradient through V(s')."""
    return {"Q at s and s', forward and backward": replace(SMALL_Q, cost=cost).learnt(2 * SMALL_BATCH)}


def sac() -> Terms:
    """Soft actor-critic, for comparison; its actor's head has a standard deviation, too."""
    actor = Network((*ACTOR.sizes[:-1], 2 * ACTION))
    return {
        "critics at (s, a), forward and backward": 2 * CRITIC.learnt(BATCH),
        "target critics at (s', policy)": 2 * CRITIC.forward(BATCH),
        "actor at s and s'": actor.forward(2 * BATCH),
        "critics at (s, policy) for the actor, back to the action": 2
        * (CRITIC.forward(BATCH) + CRITIC.inside(BATCH, ACTION)),
        "actor, backward": actor.weights(BATCH) + actor.inside(BATCH),
    }


def sac_cql() -> Terms:
    """CQL on top of it: sampled actions at s and at s' are of the policy, a third each."""
    actor = Network((*ACTOR.sizes[:-1], 2 * ACTION))
    return sac() | {
        f"critics at {CQL_ACTIONS} sampled actions, forward and backward": 2 * CRITIC.learnt(CQL_ACTIONS * BATCH),
        "actor at s and s' for the sampled actions": actor.forward(2 * BATCH),
    }

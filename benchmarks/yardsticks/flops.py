"""Floating-point operations that one update needs, in its matrix products: counted layer by layer.

A product of (B, m) by (m, n) is 2 B m n. A layer costs that forward, again for its weights' gradient, and again for
its input's. Counted is what the mathematics needs: the policy acts once at s, its actor's loss differentiates Q by
the action alone, and weights that no optimiser moves get no gradient. Elementwise work is not counted.
"""

from dataclasses import dataclass

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
"""MFLOP by what it is for."""


@dataclass(frozen=True)
class Network:
    """A multi-layer perceptron by its layers' sizes."""

    sizes: tuple[int, ...]

    def forward(self, rows: int) -> float:
        """MFLOP of a forward pass; the weights' gradients cost as much."""
        return sum(2e-6 * rows * m * n for m, n in zip(self.sizes[:-1], self.sizes[1:], strict=True))

    def weights(self, rows: int) -> float:
        """MFLOP of the weights' gradients."""
        return self.forward(rows)

    def inside(self, rows: int, inputs: int = 0) -> float:
        """MFLOP of the gradients of hidden units, and of so many of the network's inputs."""
        hidden = Network(self.sizes[1:]).forward(rows)
        return hidden + 2e-6 * rows * inputs * self.sizes[1]

    def learnt(self, rows: int) -> float:
        """MFLOP forward and backward, where the weights learn."""
        return self.forward(rows) + self.weights(rows) + self.inside(rows)


ACTOR = Network((OBSERVATION, *HIDDEN, ACTION))
CRITIC = Network((OBSERVATION + ACTION, *HIDDEN, 1))
SMALL_Q = Network((SMALL_OBSERVATION, *SMALL_HIDDEN, SMALL_ACTIONS))


def iq(critics: int = 2) -> Terms:
    """IQ-Learn with an actor: critics at (s, a) and (s, policy), their targets at s', then the actor."""
    return {
        "critics at (s, a) and (s, policy), forward and backward": critics * CRITIC.learnt(2 * BATCH),
        "target critics at (s', policy)": critics * CRITIC.forward(BATCH),
        "actor at s and s'": ACTOR.forward(2 * BATCH),
        "critics at (s, policy) for the actor, back to the action": critics
        * (CRITIC.forward(BATCH) + CRITIC.inside(BATCH, ACTION)),
        "actor, backward": ACTOR.weights(BATCH) + ACTOR.inside(BATCH),
    }


def iq_cql() -> Terms:
    """The same with the conservative term over CQL_ACTIONS sampled actions."""
    return iq() | {
        f"critics at {CQL_ACTIONS} sampled actions, forward and backward": 2 * CRITIC.learnt(CQL_ACTIONS * BATCH)
    }


def iq_default() -> Terms:
    """The default: one critic, a prior at s and s', and the gradient of |dQ/da|^2 between a and the policy's."""
    return iq(critics=1) | {
        "prior at s and s'": ACTOR.forward(2 * BATCH),
        "Q between the actions, dQ/da, and its gradient": CRITIC.forward(BATCH) + 3 * CRITIC.inside(BATCH, ACTION),
    }


def bc() -> Terms:
    """Cloning."""
    return {"actor, forward and backward": ACTOR.learnt(BATCH)}


def discrete() -> Terms:
    """Soft Q-learning's inverse with a gradient through V(s')."""
    return {"Q at s and s', forward and backward": SMALL_Q.learnt(2 * SMALL_BATCH)}


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

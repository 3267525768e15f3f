"""Markov decision processes small enough to be solved exactly: numpy, float64, every array checked where it is made."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.integer[Any]]

TOLERANCE = 1e-9
"""Probabilities may miss a sum of one by so much."""


@dataclass(frozen=True, eq=False)
class MDP:
    """A discounted decision process over S states and A actions.

    dynamics (S, A, S): P(s' | s, a), the last axis sums to one. rewards (S, A): paid for the action, on leaving s.
    initial (S,): distribution of the first state. gamma: discount per step, 0 <= gamma < 1.
    Raises ValueError where a shape, a probability or gamma is wrong.
    """

    dynamics: Floats
    rewards: Floats
    initial: Floats
    gamma: float

    def __post_init__(self) -> None:
        states, actions = self.dynamics.shape[0], self.dynamics.shape[1:2]
        if self.dynamics.shape != (states, *actions, states) or len(self.dynamics.shape) != 3:
            raise ValueError(f"dynamics must be (states, actions, states), got {self.dynamics.shape}")
        if self.rewards.shape != self.dynamics.shape[:2]:
            raise ValueError(f"rewards must be {self.dynamics.shape[:2]}, got {self.rewards.shape}")
        if self.initial.shape != (states,):
            raise ValueError(f"initial must be {(states,)}, got {self.initial.shape}")
        if not 0 <= self.gamma < 1:
            raise ValueError(f"gamma must be at least 0 and less than 1, got {self.gamma}")
        if not np.isfinite(self.rewards).all():
            raise ValueError("rewards must be finite")
        check_distribution(self.dynamics, "dynamics")
        check_distribution(self.initial, "initial")

    @property
    def states(self) -> int:
        """Number of states S."""
        return len(self.initial)

    @property
    def actions(self) -> int:
        """Number of actions A."""
        return int(self.rewards.shape[1])


def check_distribution(probabilities: Floats, name: str) -> None:
    """Raise ValueError unless the last axis holds distributions: none negative, each sum one."""
    if not np.isfinite(probabilities).all() or (probabilities < 0).any():
        raise ValueError(f"{name} has a probability that is negative or not finite")
    sums = probabilities.sum(axis=-1)
    if np.abs(sums - 1).max() > TOLERANCE:
        worst = float(np.ravel(sums)[np.abs(sums - 1).argmax()])
        raise ValueError(f"{name} must sum to one over its last axis, found a sum of {worst:.12g}")


def random_mdp(states: int, actions: int, gamma: float, rng: np.random.Generator, *, terminal_states: int = 0) -> MDP:
    """Dirichlet dynamics and first states, standard normal rewards.

    The last `terminal_states` states are never left and pay nothing; no episode starts in one.
    """
    if not 0 <= terminal_states < states:
        raise ValueError(f"terminal_states must be at least 0 and less than {states}, got {terminal_states}")
    dynamics = rng.dirichlet(np.ones(states), size=(states, actions))
    rewards, initial = rng.normal(size=(states, actions)), rng.dirichlet(np.ones(states))
    if terminal_states:
        dynamics[-terminal_states:] = np.eye(states)[-terminal_states:, None]
        rewards[-terminal_states:] = 0
        initial[-terminal_states:] = 0
        initial /= initial.sum()
    return MDP(dynamics, rewards, initial, gamma)


def with_absorbing_state(mdp: MDP, terminal: NDArray[np.bool_], reward: float) -> MDP:
    """The process in which arriving at a terminal state means arriving at one more state, S, that is never left.

    terminal (S,): where episodes end; those rows stay, but nothing leads there any more. `reward` is paid for every
    step in S. With entropy at temperature t its soft value is (reward + t log A) / (1 - gamma): a data set's
    "value zero after a termination" is reward = -t log A, not reward = 0. The result has S + 1 states.
    """
    if terminal.shape != (mdp.states,) or terminal.dtype != np.bool_:
        raise ValueError(f"terminal must be booleans of shape {(mdp.states,)}, got {terminal.dtype} {terminal.shape}")
    if mdp.initial[terminal].sum() > 0:
        raise ValueError("an episode cannot start in a terminal state")
    dynamics = np.zeros((mdp.states + 1, mdp.actions, mdp.states + 1))
    dynamics[:-1, :, :-1] = np.where(terminal, 0.0, mdp.dynamics)
    dynamics[:-1, :, -1] = mdp.dynamics[:, :, terminal].sum(axis=-1)
    dynamics[-1, :, -1] = 1
    rewards = np.vstack([mdp.rewards, np.full((1, mdp.actions), reward)])
    return MDP(dynamics, rewards, np.append(mdp.initial, 0.0), mdp.gamma)

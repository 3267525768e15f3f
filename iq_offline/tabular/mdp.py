"""Small Markov decision processes and their exact solutions, by linear algebra to rounding: numpy, float64."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlogy

Floats = NDArray[np.float64]
Integers = NDArray[np.integer[Any]]

TOLERANCE = 1e-9
"""Probabilities may miss a sum of one by so much."""


MAX_RESIDUAL = 1e-12
"""Bellman residual at which an optimum is accepted, relative to the greatest |Q| (or to 1 if that is less)."""

MAX_ITERATIONS = 1000
TIE = 1e-9
"""Actions whose Q is within this of the greatest are equally greedy."""


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


class NotConverged(RuntimeError):
    """An exact solver that stopped short of its tolerance."""


def soft_values(q: Floats, temperature: float, prior: Floats | None = None) -> Floats:
    """V(s) = temperature * log sum_a prior(a | s) exp(Q(s, a) / temperature); without a prior, logsumexp alone.

    q (S, A), prior (S, A) -> (S,). Max over policies of E[Q] + temperature * entropy ([IQ21] sec. 2), or of
    E[Q] - temperature * KL(policy || prior) ([CSIL23] sec. 3). Raises ValueError unless temperature > 0.
    """
    scaled = _scaled(q, temperature, prior)
    greatest = scaled.max(axis=-1, keepdims=True)
    return np.asarray(temperature * (greatest[..., 0] + np.log(np.exp(scaled - greatest).sum(axis=-1))))


def softmax_policy(q: Floats, temperature: float, prior: Floats | None = None) -> Floats:
    """pi(a | s) in proportion to prior(a | s) exp(Q(s, a) / temperature), (S, A). Source: [IQ21] prop. 3.4."""
    scaled = _scaled(q, temperature, prior)
    weights = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


def greedy_policy(q: Floats) -> Floats:
    """Even chances among the actions of greatest Q, ties within `TIE`. (S, A) -> (S, A)."""
    best = (q >= q.max(axis=-1, keepdims=True) - TIE).astype(np.float64)
    return np.asarray(best / best.sum(axis=-1, keepdims=True))


def policy_q(mdp: MDP, policy: Floats, temperature: float = 0.0, prior: Floats | None = None) -> Floats:
    """Q of a policy with entropy (or KL to a prior) at a temperature, from one linear solve.

    Q = r + gamma P V, V = E_policy[Q] - temperature E_policy[log policy - log prior]. policy (S, A) -> (S, A).
    Source: [IQ21] sec. 2, soft Bellman operator. Temperature 0 gives the plain action values.
    """
    bonus = -temperature * (xlogy(policy, policy) - (0 if prior is None else xlogy(policy, prior))).sum(axis=-1)
    pay = (policy * mdp.rewards).sum(axis=-1) + bonus
    v = np.linalg.solve(np.eye(mdp.states) - mdp.gamma * _moves(mdp, policy), pay)
    return bellman(mdp, v)


def bellman(mdp: MDP, v: Floats) -> Floats:
    """r(s, a) + gamma E V(s'). (S,) -> (S, A)."""
    return np.asarray(mdp.rewards + mdp.gamma * mdp.dynamics @ v)


def soft_value_iteration(mdp: MDP, temperature: float, prior: Floats | None = None) -> Floats:
    """The soft-optimal Q, (S, A): Q = r + gamma P V(Q), to a residual of `MAX_RESIDUAL`.

    Each round solves for the soft Q of the present softmax policy, which is Newton's method on the soft Bellman
    equation: monotone, and quadratic near the end. Raises NotConverged.
    """
    q = mdp.rewards
    for _ in range(MAX_ITERATIONS):
        q = policy_q(mdp, softmax_policy(q, temperature, prior), temperature, prior)
        if _is_fixed(q, bellman(mdp, soft_values(q, temperature, prior))):
            return q
    raise NotConverged(f"soft value iteration at temperature {temperature} did not settle in {MAX_ITERATIONS} rounds")


def hard_value_iteration(mdp: MDP) -> Floats:
    """The optimal Q without entropy, (S, A), by policy iteration to `MAX_RESIDUAL`. Raises NotConverged."""
    q = mdp.rewards
    for _ in range(MAX_ITERATIONS):
        q = policy_q(mdp, np.eye(mdp.actions)[q.argmax(axis=-1)])
        if _is_fixed(q, bellman(mdp, q.max(axis=-1))):
            return q
    raise NotConverged(f"value iteration did not settle in {MAX_ITERATIONS} rounds")


def occupancy(mdp: MDP, policy: Floats) -> Floats:
    """Discounted, normalised occupancy measure, (S, A), sum one: (1 - gamma) sum_t gamma^t P(s_t = s, a_t = a)."""
    flow = np.eye(mdp.states) - mdp.gamma * _moves(mdp, policy).T
    states = np.linalg.solve(flow, (1 - mdp.gamma) * mdp.initial)
    return np.asarray(states[:, None] * policy)


def expected_return(mdp: MDP, policy: Floats) -> float:
    """E sum_t gamma^t r(s_t, a_t) from the initial distribution, without entropy."""
    return float((occupancy(mdp, policy) * mdp.rewards).sum() / (1 - mdp.gamma))


def total_variation(p: Floats, q: Floats) -> float:
    """Half the sum of |p - q|: between 0 and 1 for distributions. Raises ValueError where shapes differ."""
    if p.shape != q.shape:
        raise ValueError(f"distributions have shapes {p.shape} and {q.shape}")
    return float(np.abs(p - q).sum() / 2)


def _scaled(q: Floats, temperature: float, prior: Floats | None) -> Floats:
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    if prior is None:
        return q / temperature
    if prior.shape != q.shape:
        raise ValueError(f"prior must be {q.shape}, got {prior.shape}")
    with np.errstate(divide="ignore"):
        return np.asarray(q / temperature + np.log(prior))


def _moves(mdp: MDP, policy: Floats) -> Floats:
    """P(s' | s) under a policy, (S, S). Raises ValueError for what is no policy of that process."""
    if policy.shape != mdp.rewards.shape:
        raise ValueError(f"policy must be {mdp.rewards.shape}, got {policy.shape}")
    check_distribution(policy, "policy")
    return np.asarray(np.einsum("sa,sat->st", policy, mdp.dynamics))


def _is_fixed(q: Floats, update: Floats) -> bool:
    return bool(np.abs(update - q).max() <= MAX_RESIDUAL * max(1.0, float(np.abs(q).max())))

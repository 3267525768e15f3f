"""Exact solutions: soft and hard optima, policies, occupancy measures and returns, by linear algebra to rounding."""

import numpy as np
from scipy.special import xlogy

from iq_offline.tabular.mdp import MDP, Floats, check_distribution

LARGEST_RESIDUAL = 1e-12
"""Bellman residual at which an optimum is accepted, relative to the greatest |Q| (or to 1 if that is less)."""

MOST_ITERATIONS = 1000
TIE = 1e-9
"""Actions whose Q is within this of the greatest are equally greedy."""


class NotConverged(RuntimeError):
    """An exact solver that stopped short of its tolerance."""


def soft_values(q: Floats, temperature: float, prior: Floats | None = None) -> Floats:
    """V(s) = temperature * log sum_a prior(a | s) exp(Q(s, a) / temperature); without a prior, logsumexp alone.

    q (S, A), prior (S, A) -> (S,). Max over policies of E[Q] + temperature * entropy ([IQ21] sec. 2), or of
    E[Q] - temperature * KL(policy || prior) ([CSIL23] sec. 3). Raises ValueError unless temperature > 0.
    """
    scaled = _scaled(q, temperature, prior)
    greatest = scaled.max(axis=-1, keepdims=True)
    values: Floats = temperature * (greatest[..., 0] + np.log(np.exp(scaled - greatest).sum(axis=-1)))
    return values


def softmax_policy(q: Floats, temperature: float, prior: Floats | None = None) -> Floats:
    """pi(a | s) in proportion to prior(a | s) exp(Q(s, a) / temperature), (S, A). Source: [IQ21] prop. 3.4."""
    scaled = _scaled(q, temperature, prior)
    weights = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    policy: Floats = weights / weights.sum(axis=-1, keepdims=True)
    return policy


def greedy_policy(q: Floats) -> Floats:
    """Even chances among the actions of greatest Q, ties within `TIE`. (S, A) -> (S, A)."""
    best = (q >= q.max(axis=-1, keepdims=True) - TIE).astype(np.float64)
    policy: Floats = best / best.sum(axis=-1, keepdims=True)
    return policy


def policy_q(mdp: MDP, policy: Floats, temperature: float = 0.0, prior: Floats | None = None) -> Floats:
    """Q of a policy with entropy (or KL to a prior) at a temperature, from one linear solve.

    Q = r + gamma P V, V = E_policy[Q] - temperature E_policy[log policy - log prior]. policy (S, A) -> (S, A).
    Source: [IQ21] sec. 2, soft Bellman operator. Temperature 0 gives the plain action values.
    """
    _check_policy(mdp, policy)
    bonus = -temperature * (xlogy(policy, policy) - (0 if prior is None else xlogy(policy, prior))).sum(axis=-1)
    pay = (policy * mdp.rewards).sum(axis=-1) + bonus
    v = np.linalg.solve(np.eye(mdp.states) - mdp.gamma * _moves(mdp, policy), pay)
    return bellman(mdp, v)


def bellman(mdp: MDP, v: Floats) -> Floats:
    """r(s, a) + gamma E V(s'). (S,) -> (S, A)."""
    q: Floats = mdp.rewards + mdp.gamma * mdp.dynamics @ v
    return q


def soft_value_iteration(mdp: MDP, temperature: float, prior: Floats | None = None) -> Floats:
    """The soft-optimal Q, (S, A): Q = r + gamma P V(Q), to a residual of `LARGEST_RESIDUAL`.

    Each round solves for the soft Q of the present softmax policy, which is Newton's method on the soft Bellman
    equation: monotone, and quadratic near the end. Raises NotConverged.
    """
    q = mdp.rewards
    for _ in range(MOST_ITERATIONS):
        q = policy_q(mdp, softmax_policy(q, temperature, prior), temperature, prior)
        if _is_fixed(q, bellman(mdp, soft_values(q, temperature, prior))):
            return q
    raise NotConverged(f"soft value iteration at temperature {temperature} did not settle in {MOST_ITERATIONS} rounds")


def hard_value_iteration(mdp: MDP) -> Floats:
    """The optimal Q without entropy, (S, A), by policy iteration to `LARGEST_RESIDUAL`. Raises NotConverged."""
    q = mdp.rewards
    for _ in range(MOST_ITERATIONS):
        q = policy_q(mdp, np.eye(mdp.actions)[q.argmax(axis=-1)])
        if _is_fixed(q, bellman(mdp, q.max(axis=-1))):
            return q
    raise NotConverged(f"value iteration did not settle in {MOST_ITERATIONS} rounds")


def occupancy(mdp: MDP, policy: Floats) -> Floats:
    """Discounted, normalised occupancy measure, (S, A), sum one: (1 - gamma) sum_t gamma^t P(s_t = s, a_t = a)."""
    _check_policy(mdp, policy)
    flow = np.eye(mdp.states) - mdp.gamma * _moves(mdp, policy).T
    states = np.linalg.solve(flow, (1 - mdp.gamma) * mdp.initial)
    measure: Floats = states[:, None] * policy
    return measure


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
        scaled: Floats = q / temperature + np.log(prior)
    return scaled


def _moves(mdp: MDP, policy: Floats) -> Floats:
    """P(s' | s) under a policy, (S, S)."""
    moves: Floats = np.einsum("sa,sat->st", policy, mdp.dynamics)
    return moves


def _check_policy(mdp: MDP, policy: Floats) -> None:
    if policy.shape != mdp.rewards.shape:
        raise ValueError(f"policy must be {mdp.rewards.shape}, got {policy.shape}")
    check_distribution(policy, "policy")


def _is_fixed(q: Floats, update: Floats) -> bool:
    return bool(np.abs(update - q).max() <= LARGEST_RESIDUAL * max(1.0, float(np.abs(q).max())))

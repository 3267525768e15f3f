"""Exact IQ-Learn on a table: the objective and its gradient, the optimum, and pieces that hold Q off the data.

Everything is one sum over weighted transitions, so "exact" and "sampled" differ in the data alone: a row's successors
are P(. | s, a) in the one case and a single recorded state in the other. All terms are to be minimised.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from scipy.optimize import minimize

from iq_offline.tabular.mdp import (
    MDP,
    Floats,
    Integers,
    NotConverged,
    check_distribution,
    soft_values,
    softmax_policy,
)

MAX_GRADIENT = 1e-6
"""Greatest component of the gradient at which an optimum is accepted."""

MAX_ITERATIONS = 50_000


@dataclass(frozen=True)
class Divergence:
    """The concave phi of [IQ21] eq. 9 and its derivative, each from rewards of any shape to the same shape."""

    phi: Callable[[Floats], Floats]
    phi_prime: Callable[[Floats], Floats]


def chi_squared(coefficient: float) -> Divergence:
    """phi(x) = x - x^2 / (4c), greatest at x = 2c ([IQ21] table 2 and sec. 5.3). Raises ValueError unless c > 0."""
    if not coefficient > 0:
        raise ValueError(f"coefficient must be positive, got {coefficient}")
    return Divergence(lambda x: x - x**2 / (4 * coefficient), lambda x: 1 - x / (2 * coefficient))


def linear() -> Divergence:
    """phi(x) = x: the expert's half where a penalty of its own bounds the reward (`Pieces.mixture_penalty`)."""
    return Divergence(lambda x: x, np.ones_like)


@dataclass(frozen=True, eq=False)
class Transitions:
    """N weighted rows: states, actions (N,) integers; weights (N,), sum one; successors (N, S), each sums to one.

    Raises ValueError where a shape or a sum is wrong.
    """

    states: Integers
    actions: Integers
    weights: Floats
    successors: Floats

    def __post_init__(self) -> None:
        rows = len(self.weights)
        if not (self.states.shape == self.actions.shape == self.weights.shape == (rows,)):
            raise ValueError(f"rows differ: {self.states.shape}, {self.actions.shape}, {self.weights.shape}")
        if self.successors.ndim != 2 or len(self.successors) != rows:
            raise ValueError(f"successors must be ({rows}, states), got {self.successors.shape}")
        check_distribution(self.weights, "weights")
        check_distribution(self.successors, "successors")

    @property
    def state_weights(self) -> Floats:
        """Weight of each state, (S,)."""
        totals = np.zeros(self.successors.shape[1])
        np.add.at(totals, self.states, self.weights)
        return totals


def exact_transitions(dynamics: Floats, measure: Floats) -> Transitions:
    """Every pair that the measure (S, A) weighs, followed by its true distribution. dynamics (S, A, S)."""
    states, actions = np.nonzero(measure > 0)
    return Transitions(states, actions, measure[states, actions], dynamics[states, actions])


def sampled_transitions(states: Integers, actions: Integers, next_states: Integers, state_count: int) -> Transitions:
    """Recorded transitions, (N,) each, with even weights; repeated ones are one row of more weight."""
    rows, counts = np.unique(np.stack([states, actions, next_states], axis=1), axis=0, return_counts=True)
    return Transitions(rows[:, 0], rows[:, 1], counts / counts.sum(), np.eye(state_count)[rows[:, 2]])


class ValueTerm(Enum):
    """Where (1 - gamma) E[V(s0)] is taken; over any policy's exact occupancy all are equal ([IQ21] cor. 2.1)."""

    INITIAL = "initial"
    """At the distribution of first states: eq. 9 as it stands."""
    EXPERT = "expert"
    """E[V(s) - gamma V(s')] over the expert's transitions: eq. 12."""
    MIXTURE = "mixture"
    """The same over the mixture of expert and supplementary transitions."""


@dataclass(frozen=True)
class Pieces:
    """Terms beyond eq. 9 that reach off the expert's data; None is off, and weight 0 changes nothing. All are convex
    in Q for fixed successor values."""

    conservative_weight: float | None = None
    """times sum_s d(s) V_1(s) - E_expert[Q(s, a)], with V_1 the logsumexp at temperature 1 ([CQL20] eq. 4) and d
    the supplementary states' weights (the expert's, without supplementary transitions)."""

    mixture_penalty: float | None = None
    """c of E[r^2] / (4c) over the mixture ([LSIQ23] sec. 4); infinite: weight 0."""

    suppression_weight: float | None = None
    """times E_supplementary[V(s)] - E_expert[Q(s, a)]: values fall where only supplementary data go. The soft value
    stands for E_policy[Q], which is not convex in Q."""


@dataclass(frozen=True, eq=False)
class IQProblem:
    """Offline IQ-Learn over tables Q (S, A); `loss` is to be minimised.

    initial (S,) is needed for ValueTerm.INITIAL, supplementary for MIXTURE and for the pieces that name it; prior
    (S, A) turns the entropy into a KL to it ([CSIL23]). In the mixture, supplementary transitions have the weight
    `supplementary_share`, the expert's the rest. Raises ValueError where something is missing.
    """

    expert: Transitions
    actions: int
    gamma: float
    temperature: float
    divergence: Divergence
    value_term: ValueTerm = ValueTerm.EXPERT
    initial: Floats | None = None
    supplementary: Transitions | None = None
    supplementary_share: float = 0.5
    prior: Floats | None = None
    pieces: Pieces = field(default_factory=Pieces)

    def __post_init__(self) -> None:
        if self.value_term is ValueTerm.INITIAL and self.initial is None:
            raise ValueError("the value term at first states needs `initial`")
        pieces = self.pieces
        wanted = pieces.mixture_penalty is not None or pieces.suppression_weight is not None
        if (wanted or self.value_term is ValueTerm.MIXTURE) and self.supplementary is None:
            raise ValueError("a term over the mixture needs `supplementary` transitions")
        if not 0 <= self.supplementary_share <= 1:
            raise ValueError(f"supplementary_share must be between 0 and 1, got {self.supplementary_share}")

    @property
    def shape(self) -> tuple[int, int]:
        """(S, A)."""
        return self.expert.successors.shape[1], self.actions

    def rewards(self, q: Floats, transitions: Transitions) -> Floats:
        """Q(s, a) - gamma E V(s') of each row, (N,): the recovered reward ([IQ21] sec. 3)."""
        v = soft_values(q, self.temperature, self.prior)
        return np.asarray(q[transitions.states, transitions.actions] - self.gamma * transitions.successors @ v)

    def loss(self, q: Floats) -> tuple[float, Floats]:
        """The sum of all terms at q (S, A), and its gradient (S, A). Minus [IQ21] eq. 9, plus `pieces`."""
        v = soft_values(q, self.temperature, self.prior)
        total = _Sum(np.zeros(self.shape), np.zeros(self.shape[0]))

        rewards = self.rewards(q, self.expert)
        total.value -= float(self.expert.weights @ self.divergence.phi(rewards))
        self._add_reward_slopes(total, self.expert, -self.divergence.phi_prime(rewards))

        weights = self._value_weights()
        total.value += float(weights @ v)
        total.by_v += weights

        self._add_pieces(total, q, v)
        policy = softmax_policy(q, self.temperature, self.prior)
        return total.value, total.by_q + total.by_v[:, None] * policy

    def _value_weights(self) -> Floats:
        """What each V(s) weighs in the value term, (S,)."""
        if self.value_term is ValueTerm.INITIAL:
            assert self.initial is not None
            return (1 - self.gamma) * self.initial
        if self.value_term is ValueTerm.EXPERT:
            return self._telescoped(self.expert)
        return sum((share * self._telescoped(part) for part, share in self._mixture()), np.zeros(self.shape[0]))

    def _mixture(self) -> tuple[tuple[Transitions, float], ...]:
        assert self.supplementary is not None
        return (self.expert, 1 - self.supplementary_share), (self.supplementary, self.supplementary_share)

    def _telescoped(self, transitions: Transitions) -> Floats:
        return np.asarray(transitions.state_weights - self.gamma * transitions.weights @ transitions.successors)

    def _add_reward_slopes(self, total: "_Sum", transitions: Transitions, slopes: Floats) -> None:
        """Gradient of sum_i w_i f(r_i), slopes f'(r_i), by Q directly and by V(s')."""
        weighted = transitions.weights * slopes
        np.add.at(total.by_q, (transitions.states, transitions.actions), weighted)
        total.by_v -= self.gamma * weighted @ transitions.successors

    def _add_pieces(self, total: "_Sum", q: Floats, v: Floats) -> None:
        pieces = self.pieces
        if pieces.mixture_penalty is not None:
            for part, share in self._mixture():
                rewards, weight = self.rewards(q, part), share / (4 * pieces.mixture_penalty)
                total.value += weight * float(part.weights @ rewards**2)
                self._add_reward_slopes(total, part, 2 * weight * rewards)
        if pieces.suppression_weight is not None:
            assert self.supplementary is not None
            weights = self.supplementary.state_weights
            total.value += pieces.suppression_weight * float(weights @ v)
            total.by_v += pieces.suppression_weight * weights
            self._subtract_expert_q(total, q, pieces.suppression_weight)
        if pieces.conservative_weight is not None:
            weights = (self.supplementary or self.expert).state_weights
            total.value += pieces.conservative_weight * float(weights @ soft_values(q, 1.0))
            total.by_q += pieces.conservative_weight * weights[:, None] * softmax_policy(q, 1.0)
            self._subtract_expert_q(total, q, pieces.conservative_weight)

    def _subtract_expert_q(self, total: "_Sum", q: Floats, weight: float) -> None:
        rows = self.expert.states, self.expert.actions
        total.value -= weight * float(self.expert.weights @ q[rows])
        np.add.at(total.by_q, rows, -weight * self.expert.weights)


@dataclass(eq=False)
class _Sum:
    """A loss under construction: its gradient by Q directly (S, A), and by V (S,), which Q moves through the policy."""

    by_q: Floats
    by_v: Floats
    value: float = 0.0


@dataclass(frozen=True, eq=False)
class IQOptimum:
    """q, policy (S, A); v (S,); the loss there and its gradient's greatest component."""

    q: Floats
    policy: Floats
    v: Floats
    loss: float
    gradient: float


def exact_iq_optimum(problem: IQProblem, start: Floats | None = None) -> IQOptimum:
    """Minimise `problem.loss` over all tables Q by L-BFGS from `start` (zeros).

    Entries that no term touches keep their start. A pair that the expert never shows, in a state that a value term
    weighs, has no finite optimum (its Q falls for ever): it stops where its gradient vanishes. Raises NotConverged
    where the gradient stays above `MAX_GRADIENT`.
    """
    first = np.zeros(problem.shape) if start is None else start

    def flat_loss(flat: Floats) -> tuple[float, Floats]:
        value, gradient = problem.loss(flat.reshape(problem.shape))
        return value, gradient.ravel()

    options = {"maxiter": MAX_ITERATIONS, "maxfun": 2 * MAX_ITERATIONS, "maxcor": 40, "ftol": 0.0, "gtol": 1e-10}
    found = minimize(flat_loss, first.ravel(), jac=True, method="L-BFGS-B", options=options)
    gradient = float(np.abs(found.jac).max())
    if not gradient <= MAX_GRADIENT:
        raise NotConverged(f"gradient {gradient:.3g} after {found.nit} iterations: {found.message}")
    q = found.x.reshape(problem.shape)
    policy = softmax_policy(q, problem.temperature, problem.prior)
    return IQOptimum(q, policy, soft_values(q, problem.temperature, problem.prior), float(found.fun), gradient)


def implicit_reward(q: Floats, mdp: MDP, temperature: float, prior: Floats | None = None) -> Floats:
    """r(s, a) = Q(s, a) - gamma E V(s') under the true dynamics: the reward whose soft optimum is q. (S, A) -> (S, A).

    Source: [IQ21] inverse soft Bellman operator (sec. 3, lemma 3.1).
    """
    return np.asarray(q - mdp.gamma * mdp.dynamics @ soft_values(q, temperature, prior))

"""The objective's terms on one transition, by hand; and what the tables refuse."""

import math
from dataclasses import replace

import numpy as np
import pytest

from iq_offline.tabular.inverse import (
    IQProblem,
    Pieces,
    Transitions,
    ValueTerm,
    chi_squared,
    exact_iq_optimum,
    linear,
    sampled_transitions,
)

Q = np.array([[2.0, 2.0], [0.0, 0.0]])
V = 2 + math.log(2), math.log(2)
"""Soft values at temperature 1."""

PLAIN = IQProblem(
    sampled_transitions(np.array([0]), np.array([0]), np.array([1]), 2), 2, 0.5, 1.0, linear(), ValueTerm.EXPERT
)
REWARD = 2 - 0.5 * V[1]


def test_equation_12_on_one_transition():
    telescoped = V[0] - 0.5 * V[1]
    assert PLAIN.loss(Q)[0] == pytest.approx(telescoped - REWARD)
    penalised = replace(PLAIN, divergence=chi_squared(0.5))
    assert penalised.loss(Q)[0] == pytest.approx(telescoped - REWARD + REWARD**2 / 2)


def test_each_piece_on_one_transition():
    others = sampled_transitions(np.array([1]), np.array([1]), np.array([1]), 2)
    with_others, base = replace(PLAIN, supplementary=others), PLAIN.loss(Q)[0]
    their_reward = 0 - 0.5 * V[1]

    def added(pieces: Pieces) -> float:
        return replace(with_others, pieces=pieces).loss(Q)[0] - base

    assert added(Pieces(mixture_penalty=2.0)) == pytest.approx((REWARD**2 + their_reward**2) / 2 / 8)
    assert added(Pieces(suppression_weight=3.0)) == pytest.approx(3 * (V[1] - 2))
    assert added(Pieces(conservative_weight=3.0)) == pytest.approx(3 * (V[1] - 2))
    on_expert = replace(PLAIN, pieces=Pieces(conservative_weight=3.0)).loss(Q)[0] - base
    assert on_expert == pytest.approx(3 * (V[0] - 2))


def test_repeated_transitions_are_one_row_of_more_weight():
    rows = sampled_transitions(np.array([0, 1, 0]), np.array([1, 0, 1]), np.array([1, 1, 1]), 2)
    np.testing.assert_array_equal(rows.states, [0, 1])
    np.testing.assert_allclose(rows.weights, [2 / 3, 1 / 3])
    np.testing.assert_allclose(rows.state_weights, [2 / 3, 1 / 3])


def test_states_that_no_term_names_keep_their_start():
    start = np.arange(6.0).reshape(3, 2)
    rows = sampled_transitions(np.array([0, 0]), np.array([0, 1]), np.array([1, 1]), 3)
    optimum = exact_iq_optimum(IQProblem(rows, 2, 0.5, 1.0, chi_squared(0.5)), start)
    np.testing.assert_array_equal(optimum.q[2], start[2])
    np.testing.assert_allclose(optimum.policy[0], 0.5, atol=1e-8)


def test_what_is_missing_or_malformed_is_named():
    with pytest.raises(ValueError, match="needs `initial`"):
        replace(PLAIN, value_term=ValueTerm.INITIAL)
    with pytest.raises(ValueError, match="needs `supplementary`"):
        replace(PLAIN, value_term=ValueTerm.MIXTURE)
    with pytest.raises(ValueError, match="needs `supplementary`"):
        replace(PLAIN, pieces=Pieces(mixture_penalty=1.0))
    with pytest.raises(ValueError, match="supplementary_share must be between 0 and 1, got 2"):
        replace(PLAIN, supplementary_share=2)
    with pytest.raises(ValueError, match="coefficient must be positive, got 0"):
        chi_squared(0)
    one = np.zeros(1, dtype=int)
    with pytest.raises(ValueError, match="weights must sum to one"):
        Transitions(one, one, np.array([0.5]), np.eye(1))
    with pytest.raises(ValueError, match="successors must be"):
        Transitions(one, one, np.ones(1), np.eye(2))

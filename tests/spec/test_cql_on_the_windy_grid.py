"""CQL's gap as `iq-cql` has it, exactly, on the windy grid: what it can mend and what not."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize

from iq_offline.tabular.experiments import WindySetting, windy_problems
from iq_offline.tabular.gridworld import demonstrations, windy_gridworld
from iq_offline.tabular.inverse import IQProblem, exact_iq_optimum, sampled_transitions
from iq_offline.tabular.mdp import (
    Floats,
    expected_return,
    greedy_policy,
    hard_value_iteration,
    soft_values,
    softmax_policy,
)

CALM, WINDY, SETTING = windy_gridworld(0.0), windy_gridworld(), WindySetting()
WEIGHT = 1.0
"""As in the preset; its temperature is one, too."""


def problems(seed: int) -> dict[str, IQProblem]:
    """The windy experiment's, from that seed's expert and roaming transitions."""
    rng, uniform = np.random.default_rng(seed), np.full(CALM.rewards.shape, 1 / CALM.actions)
    expert = greedy_policy(hard_value_iteration(CALM))
    everywhere = replace(CALM, initial=np.full(CALM.states, 1 / CALM.states))
    recorded = demonstrations(CALM, expert, SETTING.episodes, SETTING.steps, rng)
    roamed = demonstrations(everywhere, uniform, SETTING.supplementary_episodes, SETTING.steps, rng)
    own, other = (sampled_transitions(*rows, CALM.states) for rows in (recorded, roamed))
    return windy_problems(own, other, uniform, CALM.gamma, SETTING)


def with_cqls_gap(plain: IQProblem, others: IQProblem) -> Floats:
    """The policy at the optimum of `plain` and the gap, half of it over each source's own recorded actions."""
    assert others.supplementary is not None
    sources = (others.expert, others.supplementary)

    def loss(flat: Floats) -> tuple[float, Floats]:
        q = flat.reshape(plain.shape)
        value, gradient = plain.loss(q)
        gradient = gradient.copy()
        for part in sources:
            recorded = part.states, part.actions
            value += WEIGHT / 2 * float(part.state_weights @ soft_values(q, 1.0) - part.weights @ q[recorded])
            gradient += WEIGHT / 2 * part.state_weights[:, None] * softmax_policy(q, 1.0)
            np.add.at(gradient, recorded, -WEIGHT / 2 * part.weights)
        return value, gradient.ravel()

    options = {"maxiter": 20_000, "maxfun": 40_000, "ftol": 0.0, "gtol": 1e-6}
    found = minimize(loss, np.zeros(plain.shape).ravel(), jac=True, method="L-BFGS-B", options=options)
    assert np.abs(found.jac).max() < 1e-5
    return softmax_policy(found.x.reshape(plain.shape), SETTING.temperature)


def test_only_the_experts_gap_mends_the_wind():
    """It clones the roaming data where only they go; Q as a whole stays. Mean over 3 seeds; the expert has 7.29."""
    returns: list[list[float]] = []
    for seed in range(3):
        variants = problems(seed)
        plain, other = variants["iq, expert only"], variants["iq, mixture penalty, conservative gap"]
        policies = exact_iq_optimum(plain).policy, with_cqls_gap(plain, other), exact_iq_optimum(other).policy
        returns.append([expected_return(WINDY, policy) for policy in policies])
    expert_only, cqls, experts_gap_and_mixture_penalty = np.mean(returns, axis=0)
    assert expert_only == pytest.approx(1.11, abs=0.01)
    assert cqls == pytest.approx(1.11, abs=0.01)
    assert experts_gap_and_mixture_penalty == pytest.approx(7.19, abs=0.01)

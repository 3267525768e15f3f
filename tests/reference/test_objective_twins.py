"""Each method's objective of Q, transition by transition in numpy, as its learner descends it.

Learners are real ones; what their critics say of the transitions is made up.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from iq_offline.algorithms.actor_critic import TransitionValues
from iq_offline.algorithms.build import NetworkSpec, clone_policy
from iq_offline.algorithms.encoders import ObservationLayout
from iq_offline.algorithms.networks import ActionScale, Standardiser
from iq_offline.batch import Batch
from iq_offline.config.iq import DivergenceKind, ValueTerm
from iq_offline.config.train import algorithm_class
from iq_offline.training.learnt import QLearner, build_learner

GAMMA, COEFFICIENT = 0.9, 0.7
KINDS = pytest.mark.parametrize(
    ("discrete", "critics"), [(False, 1), (False, 3), (True, 1)], ids=["one critic", "three critics", "discrete"]
)
SPEC = NetworkSpec(ObservationLayout(2), Standardiser(torch.zeros(2), torch.ones(2)), 3)
CONTINUOUS = replace(SPEC, actions=ActionScale.of_bounds([-1.0], [1.0]))


@dataclass(frozen=True)
class Recorded:
    """What critics say of the transitions of one source: (N, B); terminations and coherent rewards: (B,)."""

    q: np.ndarray
    v: np.ndarray
    next_v: np.ndarray
    terminations: np.ndarray
    coherent: np.ndarray

    @property
    def steps(self) -> list[tuple[float, ...]]:
        """One (q, v, next value, discount, coherent reward) a critic and transition."""
        discounts = [0.0 if ended else GAMMA for ended in self.terminations]
        return [
            step
            for q, v, next_v in zip(self.q, self.v, self.next_v, strict=True)
            for step in zip(q, v, next_v, discounts, self.coherent, strict=True)
        ]

    def values(self) -> TransitionValues:
        """The same as tensors."""
        critics, flat = len(self.q), [torch.from_numpy(array).reshape(-1) for array in (self.q, self.v, self.next_v)]
        discounts = GAMMA * (1 - torch.from_numpy(self.terminations).repeat(critics))
        return TransitionValues(flat[0].requires_grad_(True), flat[1], flat[2], discounts)

    def batch(self, *, discrete: bool) -> Batch:
        """As many transitions of other numbers."""
        random, count = torch.Generator().manual_seed(0), len(self.terminations)
        seen, following = torch.randn(2, count, 2, generator=random)
        actions = torch.arange(count) % 3 if discrete else torch.randn(count, 1, generator=random)
        return Batch(seen, actions, following, torch.from_numpy(self.terminations))


def recorded(seed: int, critics: int, count: int) -> Recorded:
    rng = np.random.default_rng(seed)
    ended = (rng.random(count) < 0.3).astype(float)
    return Recorded(*rng.normal(size=(3, critics, count)), ended, rng.normal(size=count))


def both(seed: int, critics: int) -> tuple[Recorded, Recorded]:
    return recorded(seed, critics, 30), recorded(seed + 100, critics, 50)


def learner_of(method: str, discrete: bool, critics: int, **choices: Any) -> QLearner:
    model: Any = algorithm_class(method, discrete=discrete)
    ensemble = {} if discrete else {"ensemble": {"members": critics}}
    off = {name: None for name in ("cql", "action_gradient", "gradient_penalty") if name in model.model_fields}
    config = model(gamma=GAMMA, hidden_sizes=(4,), **ensemble, **(off | choices))
    spec = SPEC if discrete else CONTINUOUS
    return build_learner(config, spec, clone_policy(config.prior, spec) if hasattr(config, "prior") else None)


def loss_of(learner: Any, expert: Recorded, other: Recorded | None, initial_v: np.ndarray | None = None) -> float:
    """The objective of one update, in which the critics say what is recorded."""
    discrete = not hasattr(learner, "critic")
    batch = expert.batch(discrete=discrete)
    if initial_v is not None:
        batch = replace(batch, initial_observations=torch.zeros(initial_v.shape[-1], 2))
        found = torch.from_numpy(initial_v)
        learner.soft_value = lambda *_: found[0] if discrete else found
    if other is not None:
        batch = replace(batch, supplementary=other.batch(discrete=discrete))
    learner.values = lambda one, *_, **__: (expert if one is batch else other).values()  # type: ignore[union-attr]
    learner.coherent_rewards = lambda one: torch.from_numpy((expert if one is batch else other).coherent)  # type: ignore[union-attr]
    loss: float = learner.update(batch)["loss"].item()
    return loss


def mean(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers)


def twin_telescoped(source: Recorded) -> float:
    return mean([v - discount * next_v for _, v, next_v, discount, _ in source.steps])


def twin_rewards(source: Recorded) -> list[float]:
    return [q - discount * next_v for q, _, next_v, discount, _ in source.steps]


def twin_penalty(source: Recorded, reference: float) -> float:
    return mean([(reward - reference) ** 2 / (4 * COEFFICIENT) for reward in twin_rewards(source)])


def twin_bellman(source: Recorded, reward: float | None = None) -> list[float]:
    """With that reward, or each transition's coherent one."""
    errors = []
    for q, _, next_v, discount, coherent in source.steps:
        target = (coherent if reward is None else reward) + discount * next_v
        errors.append((q - target) ** 2 / 2)
    return errors


def close(loss: float, twin: float) -> None:
    np.testing.assert_allclose(loss, twin, rtol=1e-12)


@KINDS
@pytest.mark.parametrize("method", ["iq", "iq-paper", "iq-awr"])
def test_iq_objective_equals_its_twin(method: str, discrete: bool, critics: int):
    """Of the expert alone, though supplementary data are there, too."""
    expert, other = both(0, critics)
    twin = twin_telescoped(expert) + twin_penalty(expert, 0.0) - mean(twin_rewards(expert))
    for beside in (None, other):
        close(loss_of(learner_of(method, discrete, critics, reward_penalty=COEFFICIENT), expert, beside), twin)


@KINDS
@pytest.mark.parametrize("method", ["iq", "iq-paper"])
def test_mixture_value_term_equals_its_twin(method: str, discrete: bool, critics: int):
    """The penalty stays on the expert."""
    expert, other = both(1, critics)
    twin = (twin_telescoped(expert) + twin_telescoped(other)) / 2
    twin += twin_penalty(expert, 0.0) - mean(twin_rewards(expert))
    learner = learner_of(method, discrete, critics, value_term=ValueTerm.MIXTURE, reward_penalty=COEFFICIENT)
    close(loss_of(learner, expert, other), twin)


@KINDS
@pytest.mark.parametrize("method", ["iq", "iq-paper"])
def test_initial_value_term_equals_its_twin(method: str, discrete: bool, critics: int):
    expert, first_values = recorded(2, critics, 30), np.random.default_rng(3).normal(size=(critics, 7))
    twin = (1 - GAMMA) * mean(first_values.ravel().tolist()) + twin_penalty(expert, 0.0) - mean(twin_rewards(expert))
    choices = {"value_term": ValueTerm.INITIAL, "polyak_rate": None, "reward_penalty": COEFFICIENT}
    close(loss_of(learner_of(method, discrete, critics, **choices), expert, None, first_values), twin)


def twin_phi(kind: DivergenceKind, x: float) -> float:
    """phi of one reward near zero: of KL and its like before their tangents."""
    return {
        DivergenceKind.CHI_SQUARED: x - x**2 / 2,
        DivergenceKind.TOTAL_VARIATION: x - 10 * max(abs(x) - 1, 0) ** 2,
        DivergenceKind.WASSERSTEIN: x,
        DivergenceKind.KL: 1 - math.exp(-x),
        DivergenceKind.KL_DUAL: -math.exp(-x - 1),
        DivergenceKind.FORWARD_KL: 1 + math.log(x) if x > 0 else math.nan,
        DivergenceKind.JENSEN_SHANNON: math.log(2 - math.exp(-x)) if x > -math.log(2) else math.nan,
        DivergenceKind.HELLINGER: x / (1 + x),
    }[kind]


@KINDS
@pytest.mark.parametrize("kind", [kind for kind in DivergenceKind if kind is not DivergenceKind.KL_DONSKER_VARADHAN])
def test_every_divergence_equals_its_twin(kind: DivergenceKind, discrete: bool, critics: int):
    """On rewards between 0.2 and 2."""
    one = recorded(4, critics, 30)
    expert = replace(one, q=GAMMA * (1 - one.terminations) * one.next_v + 0.2 + 1.8 / (1 + np.exp(-one.q)))
    learner = learner_of("iq-paper", discrete, critics, divergence=kind, gradient_penalty={"weight": 1e-30})
    twin = twin_telescoped(expert) - mean([twin_phi(kind, reward) for reward in twin_rewards(expert)])
    close(loss_of(learner, expert, None), twin)


@pytest.mark.parametrize("discrete", [False, True])
def test_donsker_varadhan_objective_equals_its_twin(discrete: bool):
    expert = recorded(5, 1, 30)
    twin = twin_telescoped(expert) + math.log(mean([math.exp(-reward) for reward in twin_rewards(expert)]))
    learner = learner_of("iq-paper", discrete, 1, divergence=DivergenceKind.KL_DONSKER_VARADHAN)
    close(loss_of(learner, expert, None), twin)


@KINDS
def test_referenced_objective_equals_its_twin(discrete: bool, critics: int):
    """SPRINQL: value term and penalty over both sources, half each, and a reference of each source."""
    expert, other = both(6, critics)
    choices = {"reward_reference": (1.5, -0.5), "reward_penalty": COEFFICIENT}
    twin = (twin_telescoped(expert) + twin_telescoped(other)) / 2 - mean(twin_rewards(expert))
    twin += (twin_penalty(expert, 1.5) + twin_penalty(other, -0.5)) / 2
    close(loss_of(learner_of("sprinql", discrete, critics, **choices), expert, other), twin)
    alone = twin_telescoped(expert) - mean(twin_rewards(expert)) + twin_penalty(expert, 1.5)
    close(loss_of(learner_of("sprinql", discrete, critics, **choices), expert, None), alone)


def test_mixture_objective_equals_its_twin():
    """Value term and penalty over both sources, half each; without supplementary data, [IQ21] eq. 12."""
    expert, other = both(8, 1)
    twin = (twin_telescoped(expert) + twin_telescoped(other)) / 2 - mean(twin_rewards(expert))
    twin += (twin_penalty(expert, 0.0) + twin_penalty(other, 0.0)) / 2
    close(loss_of(learner_of("iq-mixture", True, 1, reward_penalty=COEFFICIENT), expert, other), twin)
    alone = twin_telescoped(expert) - mean(twin_rewards(expert)) + twin_penalty(expert, 0.0)
    close(loss_of(learner_of("iq-mixture", True, 1, reward_penalty=COEFFICIENT), expert, None), alone)


def twin_with_self_transitions(source: Recorded, errors: list[float], absorbing_error: float) -> float:
    """Each termination is followed by self-transitions of the absorbing state, the k-th of weight gamma^k."""
    total, weights = sum(errors), float(len(errors))
    for ended in source.terminations:
        for k in range(1, 400 if ended else 1):
            total += len(source.q) * GAMMA**k * absorbing_error
            weights += len(source.q) * GAMMA**k
    return total / weights


@KINDS
def test_least_squares_equals_its_twin(discrete: bool, critics: int):
    """LS-IQ, where the absorbing state earns 0.25 for ever, a number of 32 bits."""
    expert, other = both(7, critics)
    squares = [(q - 1.5 / (1 - GAMMA)) ** 2 / 2 for q in expert.q.ravel()]
    own = twin_with_self_transitions(expert, squares, (0.25 - 1.5) ** 2 / 2)
    theirs = twin_with_self_transitions(other, twin_bellman(other, -0.5), (0.25 + 0.5) ** 2 / 2)
    for beside, twin in ((None, own), (other, (own + theirs) / 2)):
        learner: Any = learner_of("ls-iq", discrete, critics, fixed_rewards=(1.5, -0.5))
        torch.nn.init.constant_(learner.absorbing.reward, 0.25)
        assert loss_of(learner, expert, beside) == pytest.approx(twin, rel=1e-6)


@pytest.mark.parametrize(
    ("method", "discrete", "critics"),
    [("recoil", True, 1), ("recoil", False, 1), ("recoil", False, 2), ("iq-mixture", False, 1)],
)
def test_recoil_objective_equals_its_twin(method: str, discrete: bool, critics: int):
    """The expert's Q is drawn to its reward for ever, supplementary Q to its bootstrapped target."""
    expert, other = both(8, critics)
    own = mean([(q - 1.5 / (1 - GAMMA)) ** 2 / 2 for q in expert.q.ravel()])
    for beside, twin in ((None, own), (other, (own + mean(twin_bellman(other, -0.5))) / 2)):
        learner = learner_of(method, discrete, critics, fixed_rewards=(1.5, -0.5))
        close(loss_of(learner, expert, beside), twin)


@KINDS
def test_coherent_objective_equals_its_twin(discrete: bool, critics: int):
    """CSIL: the Bellman error of each critic with each transition's own reward."""
    expert, other = both(9, critics)
    own, theirs = mean(twin_bellman(expert)), mean(twin_bellman(other))
    for beside, twin in ((None, own), (other, (own + theirs) / 2)):
        close(loss_of(learner_of("csil", discrete, critics), expert, beside), twin)

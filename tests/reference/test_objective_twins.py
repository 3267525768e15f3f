"""The critic's objective, transition by transition in numpy, for every choice of value term, penalty and reward."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pytest
import torch

from iq_offline.algorithms.objective import SourceValues, critic_loss, divergence_of
from iq_offline.config.MISSING import ObjectiveKind
from iq_offline.config.iq import IQConfig, ValueTerm
from iq_offline.config.regularisers import Source

GAMMA, COEFFICIENT = 0.9, 0.7


@dataclass(frozen=True)
class Recorded:
    """What critics said of one source, as arrays."""

    q: np.ndarray
    v: np.ndarray
    next_v: np.ndarray
    terminations: np.ndarray
    coherent_rewards: np.ndarray

    @property
    def steps(self) -> list[tuple[float, ...]]:
        """One (q, v, next value, discount, coherent reward) a transition."""
        discounts = [0.0 if ended else GAMMA for ended in self.terminations]
        return list(zip(self.q, self.v, self.next_v, discounts, self.coherent_rewards, strict=True))

    def values(self) -> SourceValues:
        """The same as tensors."""
        arrays = {field.name: torch.from_numpy(getattr(self, field.name)) for field in fields(self)}
        return SourceValues(discounts=GAMMA * (1 - arrays["terminations"]), gamma=GAMMA, **arrays)


def recorded(seed: int, count: int) -> Recorded:
    rng = np.random.default_rng(seed)
    return Recorded(*rng.normal(size=(3, count)), (rng.random(count) < 0.3).astype(float), rng.normal(size=count))


def mean(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers)


def twin_telescoped(source: Recorded) -> float:
    return mean([v - discount * next_v for _, v, next_v, discount, _ in source.steps])


def twin_rewards(source: Recorded) -> list[float]:
    return [q - discount * next_v for q, _, next_v, discount, _ in source.steps]


def twin_penalty(source: Recorded, reference: float) -> float:
    return mean([(reward - reference) ** 2 / (4 * COEFFICIENT) for reward in twin_rewards(source)])


def twin_bellman(source: Recorded, reward: float | None = None) -> float:
    """With that reward, or each transition's coherent one."""
    errors = []
    for q, _, next_v, discount, coherent in source.steps:
        target = (coherent if reward is None else reward) + discount * next_v
        errors.append((q - target) ** 2 / 2)
    return mean(errors)


def loss_of(
    expert: Recorded, other: Recorded | None, initial_v: np.ndarray | None = None, **choices: Any
) -> torch.Tensor:
    penalty = {} if "objective" in choices else {"reward_penalty": COEFFICIENT}
    config = IQConfig(gamma=GAMMA, **(penalty | choices))
    supplementary = None if other is None else other.values()
    initial = None if initial_v is None else torch.from_numpy(initial_v)
    return critic_loss(config, divergence_of(config).phi, expert.values(), supplementary, initial)


def check(loss: torch.Tensor, twin: float) -> None:
    np.testing.assert_allclose(loss.item(), twin, rtol=1e-12)


def test_value_term_and_penalty_on_the_mixture_equal_their_twin():
    expert, other = recorded(0, 30), recorded(1, 50)
    twin = (twin_telescoped(expert) + twin_telescoped(other)) / 2 - mean(twin_rewards(expert))
    twin += (twin_penalty(expert, 0.0) + twin_penalty(other, 0.0)) / 2
    check(loss_of(expert, other, value_term=ValueTerm.MIXTURE, penalty_on=Source.MIXTURE), twin)


def test_the_value_term_alone_on_the_mixture_leaves_the_penalty_on_the_expert():
    expert, other = recorded(0, 30), recorded(1, 50)
    twin = (twin_telescoped(expert) + twin_telescoped(other)) / 2
    twin += twin_penalty(expert, 0.0) - mean(twin_rewards(expert))
    check(loss_of(expert, other, value_term=ValueTerm.MIXTURE), twin)


def test_the_initial_value_term_equals_its_twin():
    expert, first_values = recorded(2, 30), np.random.default_rng(3).normal(size=7)
    twin = (1 - GAMMA) * mean(list(first_values)) + twin_penalty(expert, 0.0) - mean(twin_rewards(expert))
    check(loss_of(expert, None, first_values, value_term=ValueTerm.INITIAL, polyak_rate=None), twin)


def test_references_by_source_equal_their_twin():
    expert, other = recorded(4, 30), recorded(5, 50)
    twin = twin_telescoped(expert) - mean(twin_rewards(expert))
    twin += (twin_penalty(expert, 1.5) + twin_penalty(other, -0.5)) / 2
    check(loss_of(expert, other, penalty_on=Source.MIXTURE, reward_reference=(1.5, -0.5)), twin)


def test_a_reference_of_the_expert_alone_equals_its_twin():
    expert = recorded(6, 30)
    twin = twin_telescoped(expert) - mean(twin_rewards(expert)) + twin_penalty(expert, 1.5)
    check(loss_of(expert, None, reward_reference=(1.5, 0.0)), twin)


@pytest.mark.parametrize("fixed", [True, False], ids=["fixed", "bootstrapped"])
def test_least_squares_equals_its_twin(fixed: bool):
    expert, other = recorded(7, 30), recorded(8, 50)
    own = twin_bellman(expert, 1.5)
    if fixed:
        own = mean([(q - 1.5 / (1 - GAMMA)) ** 2 / 2 for q in expert.q])
    choices = {"objective": ObjectiveKind.LEAST_SQUARES, "fixed_rewards": (1.5, -0.5), "expert_target_fixed": fixed}
    check(loss_of(expert, None, **choices), own)
    check(loss_of(expert, other, **choices), (own + twin_bellman(other, -0.5)) / 2)


def test_the_coherent_objective_equals_its_twin():
    expert, other = recorded(9, 30), recorded(10, 50)
    check(loss_of(expert, None, objective=ObjectiveKind.COHERENT), twin_bellman(expert))
    twin = (twin_bellman(expert) + twin_bellman(other)) / 2
    check(loss_of(expert, other, objective=ObjectiveKind.COHERENT), twin)

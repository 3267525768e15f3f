"""The objective of IQ-Learn that acts, against numbers worked out by hand; and the anchor to a start."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from iq_offline.algorithms.actor_critic import TransitionValues
from iq_offline.algorithms.iq_online import Anchor, online_objective
from iq_offline.algorithms.ls_iq import AbsorbingState
from iq_offline.batch import Batch
from iq_offline.config.iq import DivergenceKind, ValueTerm
from iq_offline.config.online import DiscreteOnlineIQConfig, OnlineIQConfig, StartConfig

GAMMA = 0.5
NOTHING = torch.zeros(2, 1)


def config_of(**changed: Any) -> OnlineIQConfig:
    return OnlineIQConfig.model_validate({"gamma": GAMMA, "reward_penalty": 0.5} | changed)


def values_of(q: list[float], v: list[float], next_v: list[float]) -> TransitionValues:
    discounts = torch.full((len(q),), GAMMA)
    return TransitionValues(torch.tensor(q), torch.tensor(v), torch.tensor(next_v), discounts)


EXPERT = values_of([3.0, 1.0], [2.0, 1.0], [2.0, 4.0])
"""Rewards 2 and -1; V(s) - gamma V(s') 1 and -1."""
EXPERIENCED = values_of([1.0, 0.0], [2.0, 1.0], [2.0, -2.0])
"""Rewards 0 and 1; V(s) - gamma V(s') 1 and 2."""


def batch_of(expert: list[float], experienced: list[float]) -> Batch:
    other = Batch(NOTHING, NOTHING, NOTHING, torch.tensor(experienced))
    return Batch(NOTHING, NOTHING, NOTHING, torch.tensor(expert), supplementary=other)


def absorbing_of(reward: float) -> AbsorbingState:
    absorbing = AbsorbingState(GAMMA, 100.0)
    with torch.no_grad():
        absorbing.reward.fill_(reward)
    return absorbing


def loss_of(
    batch: Batch,
    absorbing: AbsorbingState,
    first: Tensor | None = None,
    expert_ends: Tensor | None = None,
    **changed: Any,
) -> Tensor:
    return online_objective(config_of(**changed), absorbing, batch, EXPERT, EXPERIENCED, first, expert_ends)


def test_objective_without_terminations_by_hand():
    """Value (0 + 1.5) / 2, expert's reward 0.5, squares (2.5 + 0.5) / 2, divided by 4c = 2."""
    batch, absorbing = batch_of([0.0, 0.0], [0.0, 0.0]), absorbing_of(7.0)
    assert loss_of(batch, absorbing).item() == pytest.approx(0.75 - 0.5 + 0.75)
    assert loss_of(batch, absorbing, value_term="expert").item() == pytest.approx(0.0 - 0.5 + 0.75)
    first = torch.tensor(0.25)
    assert loss_of(batch, absorbing, first).item() == pytest.approx(0.25 - 0.5 + 0.75)


def test_termination_brings_self_transitions_by_hand():
    """One in two of the replay's steps terminates: weight gamma / (1 - gamma) / 2 = 1 / 2 of a reward of -1."""
    batch, absorbing = batch_of([0.0, 0.0], [0.0, 1.0]), absorbing_of(-1.0)
    value = (0.0 + (1.5 + 0.5 * -1) / 1.5) / 2
    squares = (2.5 + (0.5 + 0.5 * 1) / 1.5) / 2
    assert loss_of(batch, absorbing).item() == pytest.approx(value - 0.5 + squares / 2, rel=1e-5)


def test_whole_demonstrations_say_how_often_they_end():
    """A demonstration of two steps of which the sample has the first alone: it is as if the batch had both."""
    absorbing = absorbing_of(-1.0)
    subsampled = loss_of(batch_of([0.0, 0.0], [0.0, 1.0]), absorbing, expert_ends=torch.tensor(0.5))
    assert subsampled.item() == pytest.approx(loss_of(batch_of([0.0, 1.0], [0.0, 1.0]), absorbing).item())
    assert subsampled.item() != pytest.approx(loss_of(batch_of([0.0, 0.0], [0.0, 1.0]), absorbing).item())


@pytest.mark.parametrize(("expert", "experienced", "sign"), [(0.0, 1.0, 1), (1.0, 0.0, -1), (1.0, 1.0, 0)])
def test_absorbing_reward_falls_where_policy_alone_ends(expert: float, experienced: float, sign: int):
    """Ending is worth less than nothing where the policy ends and the expert does not, more in the opposite case, and
    nothing where both do: otherwise a policy of negative rewards would hasten to its end."""
    absorbing = absorbing_of(0.0)
    (gradient,) = torch.autograd.grad(
        loss_of(batch_of([0.0, expert], [0.0, experienced]), absorbing), [absorbing.reward]
    )
    assert math.copysign(1, gradient.item()) * (abs(gradient.item()) > 1e-6) == sign


def test_best_absorbing_reward_is_bounded():
    """It is 2c in absolute value where one of the two alone ends: minus 1 here."""
    batch = batch_of([0.0, 0.0], [0.0, 1.0])
    losses = {reward: loss_of(batch, absorbing_of(reward)).item() for reward in (-1.2, -1.1, -1.0, -0.9, -0.8)}
    assert min(losses, key=lambda reward: losses[reward]) == -1.0


def test_other_divergences_are_of_expert_rewards():
    batch, absorbing = batch_of([0.0, 0.0], [0.0, 0.0]), absorbing_of(0.0)
    config = SimpleNamespace(
        gamma=GAMMA,
        value_term=ValueTerm.MIXTURE,
        divergence=DivergenceKind.TOTAL_VARIATION,
        reward_bound=10.0,
        reward_penalty=0.5,
    )
    found = online_objective(config, absorbing, batch, EXPERT, EXPERIENCED, None)  # type: ignore[arg-type]
    assert found.item() == pytest.approx(0.75 - 0.5)


def test_anchor_halves_and_policy_waits():
    anchor = Anchor(StartConfig(anchor_weight=2.0, anchor_half_life=4, policy_waits=3), torch.device("cpu"))
    seen = []
    for _ in range(9):
        seen.append((anchor.weight().item(), anchor.moves().item()))
        anchor.step()
    assert [weight for weight, _ in seen[::4]] == pytest.approx([2.0, 1.0, 0.5])
    assert [moves for _, moves in seen] == [0, 0, 0, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("model", [OnlineIQConfig, DiscreteOnlineIQConfig])
def test_updates_follow_environment_steps(model: Any):
    """Half an update a step behind the warm-up; a configuration read back from a file is the same."""
    config = model(environment_steps=1100, warm_up_steps=100, updates_per_step=0.5)
    assert config.updates == 500
    assert model.model_validate(config.model_dump()) == config
    with pytest.raises(ValueError, match="updates follow the environment steps"):
        model(environment_steps=1100, warm_up_steps=100, updates=7)

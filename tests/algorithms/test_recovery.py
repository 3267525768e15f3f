"""The recovered reward: its definition, its canonical form, its scale, and how sure it is."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from iq_offline.algorithms.actor_critic import ActorCritic, Regularisers, SampledEntropy
from iq_offline.algorithms.encoders import ObservationLayout
from iq_offline.algorithms.networks import ActionScale, ContinuousPolicy, Critic, CriticEnsemble, Standardiser
from iq_offline.algorithms.recovery import ContinuousRecovery, Normalisation, Recovered, _recovered
from iq_offline.batch import Batch
from iq_offline.config.base import Activation
from iq_offline.config.iq import IQPaperConfig


def batch(terminations: list[float]) -> Batch:
    n = len(terminations)
    return Batch(torch.zeros(n, 1), torch.zeros(n, 1), torch.zeros(n, 1), torch.tensor(terminations))


def of(q, v, next_v, terminations, absorbing: Any = None, bounds: Any = None) -> Recovered:
    """By a learner of gamma 0.9 with that absorbing value and those bounds of rewards."""
    learner: Any = SimpleNamespace(
        config=IQPaperConfig(gamma=0.9), recovery_absorbing_value=absorbing, reward_bounds=bounds
    )
    tensors = [torch.tensor(values) for values in (q, v, next_v)]
    return _recovered(learner, tensors[0], (tensors[1], tensors[2]), torch.zeros(len(q[0])), batch(terminations))


def test_reward_and_canonical_form_by_hand():
    """The reward is Q less the discounted next value, its canonical form the advantage."""
    found = of([[3.0, 3.0]], [[1.0, 1.0]], [[2.0, 2.0]], [0.0, 1.0])
    assert found.rewards.tolist() == pytest.approx([3 - 0.9 * 2, 3.0])  # a termination has no next value
    assert found.canonical.tolist() == pytest.approx([2.0, 2.0])
    assert found.uncertainty.tolist() == [0, 0]


def test_absorbing_value_drops_out_of_canonical_form():
    """It stands behind a termination in the reward itself."""
    found = of([[3.0]], [[1.0]], [[2.0]], [1.0], absorbing=torch.tensor(-5.0))
    assert found.rewards.tolist() == pytest.approx([3 + 0.9 * 5])
    assert found.canonical.tolist() == pytest.approx([2.0])


def test_critics_are_averaged_and_disagreement_is_told():
    found = of([[3.0], [5.0]], [[1.0], [1.0]], [[0.0], [2.0]], [0.0])
    assert found.rewards.tolist() == pytest.approx([(3 + 5 - 1.8) / 2])
    assert found.canonical.tolist() == pytest.approx([3.0])  # advantages 2 and 4
    assert found.uncertainty.tolist() == pytest.approx([1.0])


def test_fixed_rewards_bound_what_is_recovered():
    assert of([[50.0]], [[0.0]], [[0.0]], [0.0], bounds=(-2.0, 2.0)).rewards.tolist() == [2.0]
    assert of([[-50.0]], [[0.0]], [[0.0]], [0.0], bounds=(-2.0, 2.0)).rewards.tolist() == [-2.0]


def test_scale_runs_from_uniform_to_demonstrated_actions():
    """0 at the first and 1 at the second, and nothing lies beyond."""
    canonical = torch.tensor([-4.0, -3.0, -1.0, 1.0, 2.0])
    found = Recovered(canonical, canonical, torch.zeros(5), torch.zeros(5))
    assert Normalisation(uniform=-3.0, demonstrated=1.0)(found).tolist() == [0, 0, 0.5, 1, 1]


def test_disagreement_lowers_the_bound_by_its_deviations():
    canonical, uncertainty = torch.tensor([1.0, 1.0]), torch.tensor([0.0, 1.0])
    found = Recovered(canonical, canonical, uncertainty, torch.zeros(2))
    assert Normalisation(uniform=-3.0, demonstrated=1.0, deviations=2.0)(found).tolist() == [1, 0.5]


def test_no_scale_where_demonstrated_actions_earn_less():
    """Or as much as uniform ones."""
    assert not Normalisation(uniform=1.0, demonstrated=1.0).exists
    assert not Normalisation(uniform=1.0, demonstrated=-1.0).exists
    assert Normalisation(uniform=-1.0, demonstrated=1.0).exists


def test_shaping_q_leaves_the_canonical_form():
    """Q + potential(s) with V + potential: r gains potential(s) - gamma potential(s')."""
    here, there = 7.0, -2.0
    plain, shaped = of([[3.0]], [[1.0]], [[2.0]], [0.0]), of([[3.0 + here]], [[1.0 + here]], [[2.0 + there]], [0.0])
    assert (shaped.rewards - plain.rewards).tolist() == pytest.approx([here - 0.9 * there])
    assert shaped.canonical.tolist() == pytest.approx(plain.canonical.tolist())


class Untrained(ActorCritic):
    """Networks and their values alone."""

    def update(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Is not called."""
        raise NotImplementedError


def test_next_values_of_episode_are_next_steps_values():
    """Those of the same transitions shuffled agree within the error that is told."""
    torch.manual_seed(0)
    scale = ActionScale.of_bounds([-1.0] * 2, [1.0] * 2)
    policy = ContinuousPolicy(Standardiser(torch.zeros(3), torch.ones(3)), scale, (8,), Activation.TANH, std=0.5)
    critic = CriticEnsemble([Critic(ObservationLayout(3), 2, (8,), Activation.SILU, norm=False)])
    learner = Untrained(IQPaperConfig(gamma=0.9), policy, critic, torch.Generator(), SampledEntropy(), Regularisers())
    recovery = ContinuousRecovery(learner, torch.Generator().manual_seed(1))
    seen, actions = torch.randn(201, 3), torch.rand(200, 2) * 2 - 1
    whole = Batch(seen[:-1], actions, seen[1:], torch.zeros(200))
    found = recovery(whole)
    # r = Q - gamma V(s') and canonical = Q - V(s) hold the same V at one observation
    q = critic(policy.standardise(seen[:-1]), actions)[0].detach()
    torch.testing.assert_close((q - found.rewards)[:-1] / 0.9, (q - found.canonical)[1:], atol=1e-5, rtol=1e-5)

    order = torch.randperm(200, generator=torch.Generator().manual_seed(2))
    shuffled = recovery(Batch(seen[:-1][order], actions[order], seen[1:][order], torch.zeros(200)))
    apart = (shuffled.rewards - found.rewards[order]).square().mean().sqrt()
    told = (shuffled.value_error.square() + found.value_error[order].square()).mean().sqrt()
    assert 0 < apart < 1.5 * told

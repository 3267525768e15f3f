"""The recovered reward: its definition, its canonical form, its scale, and how sure it is."""

import pytest
import torch

from iq_offline.algorithms.encoders import ObservationLayout
from iq_offline.algorithms.iq_continuous import ContinuousNetworks
from iq_offline.algorithms.networks import ActionScale, ContinuousPolicy, Critic, CriticEnsemble, Standardiser
from iq_offline.algorithms.recovery import ContinuousRecovery, Normalisation, Recovered, _recovered
from iq_offline.batch import Batch
from iq_offline.config.MISSING import AbsorbingValue, ContinuousIQConfig, EntropyReference, ObjectiveKind
from iq_offline.config.base import Activation

CONFIG = ContinuousIQConfig(gamma=0.9)


def batch(terminations: list[float]) -> Batch:
    n = len(terminations)
    return Batch(torch.zeros(n, 1), torch.zeros(n, 1), torch.zeros(n, 1), torch.tensor(terminations))


def of(q, v, next_v, terminations, config=CONFIG, absorbing=None) -> Recovered:
    tensors = [torch.tensor(values) for values in (q, v, next_v)]
    return _recovered(
        config, tensors[0], (tensors[1], tensors[2]), torch.zeros(len(q[0])), batch(terminations), absorbing
    )


def test_by_hand_the_reward_is_q_less_the_discounted_next_value_and_the_canonical_one_is_the_advantage():
    found = of([[3.0, 3.0]], [[1.0, 1.0]], [[2.0, 2.0]], [0.0, 1.0])
    assert found.rewards.tolist() == pytest.approx([3 - 0.9 * 2, 3.0])  # a termination has no next value
    assert found.canonical.tolist() == pytest.approx([2.0, 2.0])
    assert found.uncertainty.tolist() == [0, 0]


def test_an_absorbing_value_stands_behind_a_termination_and_drops_out_of_the_canonical_form():
    config = ContinuousIQConfig(gamma=0.9, absorbing_value=AbsorbingValue.LEARNED)
    found = of([[3.0]], [[1.0]], [[2.0]], [1.0], config, absorbing=torch.tensor(-5.0))
    assert found.rewards.tolist() == pytest.approx([3 + 0.9 * 5])
    assert found.canonical.tolist() == pytest.approx([2.0])


def test_several_critics_are_averaged_and_their_disagreement_is_told():
    found = of([[3.0], [5.0]], [[1.0], [1.0]], [[0.0], [2.0]], [0.0])
    assert found.rewards.tolist() == pytest.approx([(3 + 5 - 1.8) / 2])
    assert found.canonical.tolist() == pytest.approx([3.0])  # advantages 2 and 4
    assert found.uncertainty.tolist() == pytest.approx([1.0])


def test_fixed_rewards_bound_what_is_recovered():
    config = ContinuousIQConfig(gamma=0.9, objective=ObjectiveKind.LEAST_SQUARES)
    assert of([[50.0]], [[0.0]], [[0.0]], [0.0], config).rewards.tolist() == [2.0]


def test_the_scale_is_zero_at_uniform_actions_and_one_at_demonstrated_ones_and_ends_there():
    canonical = torch.tensor([-4.0, -3.0, -1.0, 1.0, 2.0])
    found = Recovered(canonical, canonical, torch.zeros(5), torch.zeros(5))
    assert Normalisation(uniform=-3.0, demonstrated=1.0)(found).tolist() == [0, 0, 0.5, 1, 1]


def test_disagreement_lowers_the_bound_by_its_deviations():
    canonical, uncertainty = torch.tensor([1.0, 1.0]), torch.tensor([0.0, 1.0])
    found = Recovered(canonical, canonical, uncertainty, torch.zeros(2))
    assert Normalisation(uniform=-3.0, demonstrated=1.0, deviations=2.0)(found).tolist() == [1, 0.5]


def test_demonstrated_actions_that_earn_no_more_than_uniform_ones_give_no_scale():
    assert not Normalisation(uniform=1.0, demonstrated=1.0).exists
    assert not Normalisation(uniform=1.0, demonstrated=-1.0).exists
    assert Normalisation(uniform=-1.0, demonstrated=1.0).exists


def test_shaping_q_by_any_potential_moves_the_reward_and_leaves_the_canonical_form():
    """Q + potential(s) with V + potential: r gains potential(s) - gamma potential(s')."""
    here, there = 7.0, -2.0
    plain, shaped = of([[3.0]], [[1.0]], [[2.0]], [0.0]), of([[3.0 + here]], [[1.0 + here]], [[2.0 + there]], [0.0])
    assert (shaped.rewards - plain.rewards).tolist() == pytest.approx([here - 0.9 * there])
    assert shaped.canonical.tolist() == pytest.approx(plain.canonical.tolist())


def test_a_whole_episodes_next_values_are_the_next_steps_values_and_a_shuffled_ones_agree_within_their_error():
    config = ContinuousIQConfig(gamma=0.9, entropy=EntropyReference.OFF)
    torch.manual_seed(0)
    scale = ActionScale.of_bounds([-1.0] * 2, [1.0] * 2)
    policy = ContinuousPolicy(Standardiser(torch.zeros(3), torch.ones(3)), scale, (8,), Activation.TANH, std=0.5)
    critic = CriticEnsemble([Critic(ObservationLayout(3), 2, (8,), Activation.SILU, norm=False)])
    networks = ContinuousNetworks(policy, None, critic)
    recovery = ContinuousRecovery(networks, config, torch.Generator().manual_seed(1))
    seen, actions = torch.randn(201, 3), torch.rand(200, 2) * 2 - 1
    whole = Batch(seen[:-1], actions, seen[1:], torch.zeros(200))
    found = recovery(whole)
    # r = Q - gamma V(s') and canonical = Q - V(s) hold the same V at one observation
    q = networks.critic(networks.policy.standardise(seen[:-1]), actions)[0].detach()
    torch.testing.assert_close((q - found.rewards)[:-1] / 0.9, (q - found.canonical)[1:], atol=1e-5, rtol=1e-5)

    order = torch.randperm(200, generator=torch.Generator().manual_seed(2))
    shuffled = recovery(Batch(seen[:-1][order], actions[order], seen[1:][order], torch.zeros(200)))
    apart = (shuffled.rewards - found.rewards[order]).square().mean().sqrt()
    told = (shuffled.value_error.square() + found.value_error[order].square()).mean().sqrt()
    assert 0 < apart < 1.5 * told

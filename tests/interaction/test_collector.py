"""Acting: whole episodes, each a function of the run's seed, its number and the policy."""

import numpy as np
import pytest
import torch

from iq_offline.algorithms.build import NetworkSpec, continuous_policy, discrete_policy
from iq_offline.algorithms.networks import Policy
from iq_offline.config.base import ActionHead, Activation
from iq_offline.data.spaces import ContinuousActions
from iq_offline.data.table import TransitionTable
from iq_offline.evaluation.actor import aligned, sampling_actor
from iq_offline.interaction.collector import FIRST_SEED, EnvironmentCollector
from iq_offline.stages.fetch import open_dataset
from iq_offline.training.batches import TransitionSampler
from iq_offline.training.learnt import Data

CPU = torch.device("cpu")


def spec_of(table: TransitionTable) -> NetworkSpec:
    return Data(TransitionSampler(table, table.transition_rows, CPU), table.action_space, CPU).spec(0)


def policy_of(table: TransitionTable) -> Policy:
    spec = spec_of(table)
    if isinstance(table.action_space, ContinuousActions):
        return continuous_policy((8,), Activation.RELU, spec, ActionHead.TANH_GAUSSIAN, None)
    return discrete_policy((8,), Activation.TANH, spec)


@pytest.mark.parametrize("name", ["demo/cartpole/expert-v0", "demo/swimmer/expert-v0"])
@pytest.mark.parametrize("acts", [True, False], ids=["policy", "random"])
def test_episodes_continue_from_step_to_step(name: str, acts: bool):
    """Each action is inside the bounds; a termination is marked at a terminated episode's last step alone; the
    budget's last step cuts an episode off, which is no termination."""
    table = open_dataset(name)
    policy = policy_of(table)
    collector = EnvironmentCollector(table, policy, 2, seed=3, longest=1000)
    found = collector.collect(policy if acts else None, 0, 70)
    size, width = table.observation_size, table.action_space.width
    assert sum(map(len, found)) <= 70
    for experience in found:
        rows = experience.rows
        assert np.isfinite(rows).all()
        assert not rows[-1, size:].any()
        assert rows[:-1, -1].tolist() == [0.0] * (len(experience) - 1) + [float(experience.terminated)]
        assert experience.seed >= FIRST_SEED
        low, high = (0, 1) if "cartpole" in name else (-1, 1)
        assert low <= rows[:-1, size : size + width].min() <= rows[:-1, size : size + width].max() <= high
    if "swimmer" in name:  # it never ends within the budget
        assert [len(one) for one in found] == [35, 35]
        assert not any(one.terminated for one in found)
    collector.close()


def test_odd_budget_is_spent_to_the_step():
    table = open_dataset("demo/swimmer/expert-v0")
    policy = policy_of(table)
    collector = EnvironmentCollector(table, policy, 3, seed=0, longest=1000)
    assert [len(one) for one in collector.collect(policy, 0, 8)] == [3, 3, 2]
    assert [len(one) for one in collector.collect(policy, 3, 2)] == [1, 1]


def test_episode_depends_on_its_number_alone():
    """Acted out again by another process' collector, in whatever order, an episode is the same to the bit."""
    table = open_dataset("demo/cartpole/expert-v0")
    policy = policy_of(table)
    collectors = [EnvironmentCollector(table, policy, 2, seed=7, longest=1000) for _ in range(2)]
    first = [one for start in (0, 2, 4) for one in collectors[0].collect(policy, start, 10_000)]
    again = [one for start in (4, 0, 2) for one in collectors[1].collect(policy, start, 10_000)]
    for one, other in zip(first, [*again[2:], *again[:2]], strict=True):
        assert np.array_equal(one.rows, other.rows)
    assert len({one.seed for one in first}) == 6


def test_sampled_actions_follow_the_policy():
    """Frequencies of discrete actions are the softmax of the outputs; mean and spread of continuous ones before the
    squashing are the network's: 40,000 draws, four standard errors."""
    table = open_dataset("demo/cartpole/expert-v0")
    policy, count = policy_of(table), 40_000
    observation = table.observations(table.transition_rows[:1])
    batch = aligned(count, 4)
    batch[:] = observation
    random = np.random.default_rng(0).random((count, 1), np.float32)
    share = sampling_actor(policy, count)(batch, random).mean()
    expected = torch.softmax(policy(torch.from_numpy(observation)), -1)[0, 1].item()
    assert share == pytest.approx(expected, abs=4 * 0.5 / count**0.5)

    table = open_dataset("demo/swimmer/expert-v0")
    continuous = policy_of(table)
    batch = aligned(count, table.observation_size)
    batch[:] = table.observations(table.transition_rows[:1])
    normal = np.random.default_rng(0).standard_normal((count, table.action_space.width), np.float32)
    actions = torch.from_numpy(sampling_actor(continuous, count)(batch, normal))
    drawn = torch.atanh(continuous.scale_actions(actions).double().clamp(-1 + 1e-9, 1 - 1e-9))
    distribution = continuous.distribution(torch.from_numpy(batch[:1]))
    torch.testing.assert_close(drawn.median(0).values.float(), distribution.mean[0], atol=0.05, rtol=0)
    spread = (drawn.quantile(0.84, 0) - drawn.quantile(0.16, 0)) / 2
    torch.testing.assert_close(spread.float(), distribution.std[0], atol=0.05, rtol=0.03)

"""d3rlpy behind its adapter: our batches go in as they are, and its policy comes out as plain weights."""

import sys
from itertools import pairwise

import numpy as np
import pytest
import torch

from iq_offline.baselines.d3rlpy_adapter import D3rlpyLearner, RewardedBatch, load_d3rlpy
from iq_offline.config.baselines import IQLConfig, RewardLabelledConfig, Trainer
from iq_offline.data.spaces import ContinuousActions
from iq_offline.errors import PackageMissing
from iq_offline.training.batches import TransitionSampler
from iq_offline.training.learnt import Data
from iq_offline.training.tensor_files import load_policy, save_policy

CPU = torch.device("cpu")


def batch_of(size: int) -> RewardedBatch:
    """Random transitions whose first one ends the task."""
    random = torch.Generator().manual_seed(0)
    terminations = torch.zeros(size)
    terminations[0] = 1
    return RewardedBatch(
        observations=torch.randn(size, 3, generator=random),
        actions=torch.rand(size, 1, generator=random) * 6 - 2,
        next_observations=torch.randn(size, 3, generator=random) * 100,
        terminations=terminations,
        rewards=torch.rand(size, generator=random),
    )


@pytest.fixture
def learner(peer_data, request) -> D3rlpyLearner:
    """Actions between -2 and 4, so that scaled and raw ones differ; the critic plain."""
    data = peer_data()
    sampler = TransitionSampler(data.expert, data.split.rows, CPU)
    space = ContinuousActions((-2.0,), (4.0,), "dataset")
    config = RewardLabelledConfig(trainer=getattr(request, "param", Trainer.TD3BC), hidden_sizes=(16, 8), gamma=0.9)
    return D3rlpyLearner(config, 0, Data(sampler, space, CPU), CPU)


@pytest.mark.parametrize("learner", list(Trainer), indirect=True)
def test_exported_policy_acts_as_d3rlpys_own(learner, tmp_path):
    """The policy that comes out acts as d3rlpy's own."""
    batch = batch_of(64)
    for _ in range(5):
        metrics = learner.update(batch)
    assert {name.split("_")[0] for name in metrics} in ({"iql"}, {"td3bc"}, {"cql"})
    standardised = learner.policy.standardise(batch.observations).numpy()
    expected = torch.from_numpy(learner._algorithm.predict(standardised)) * 3 + 1
    torch.testing.assert_close(learner.policy.act(batch.observations), expected, atol=1e-5, rtol=0)
    save_policy(learner.policy, tmp_path / "policy.safetensors")
    again = load_policy(tmp_path / "policy.safetensors")
    torch.testing.assert_close(again.act(batch.observations), expected, atol=1e-5, rtol=0)
    assert expected.std() > 0


def test_d3rlpy_sees_true_successors_and_terminations_only(learner, monkeypatch):
    """D3rlpy sees true successors scaled actions and terminations only."""
    seen = []
    monkeypatch.setattr(learner._algorithm, "update", lambda minibatch: seen.append(minibatch) or {})
    batch = batch_of(8)
    learner.update(batch)
    (minibatch,) = seen
    np.testing.assert_array_equal(minibatch.terminals[:, 0], [1, 0, 0, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(minibatch.intervals, np.ones((8, 1)))
    np.testing.assert_array_equal(minibatch.rewards[:, 0], batch.rewards)
    np.testing.assert_allclose(minibatch.actions, (batch.actions - 1) / 3, atol=1e-6)
    policy = learner.policy
    np.testing.assert_array_equal(minibatch.next_observations, policy.standardise(batch.next_observations))
    assert np.abs(minibatch.next_observations).max() == 10


@pytest.mark.parametrize("falls", [True, False])
def test_iql_actors_learning_rate_falls_to_zero(falls, peer_data):
    """Implicit q learnings actor comes to rest and its critics do not."""
    data, count = peer_data(), 6
    config = RewardLabelledConfig(
        trainer=Trainer.IQL, updates=count, hidden_sizes=(8,), iql=IQLConfig(actor_cosine=falls)
    )
    sampler = TransitionSampler(data.expert, data.split.rows, CPU)
    learner = D3rlpyLearner(config, 0, Data(sampler, data.expert.action_space, CPU), CPU)
    policies, critics = [], []
    for _ in range(count + 1):  # one more than there are: by then the rate is zero
        learner.update(batch_of(16))
        policies.append(learner.policy(batch_of(16).observations))
        critics.append(learner.tensors()["iql.q_funcs.0._fc.weight"].clone())
    moved = [float((later - before).abs().max()) for before, later in pairwise(policies)]
    assert min(moved[:-1]) > 0
    assert (moved[-1] == 0) == falls
    assert not torch.equal(critics[-1], critics[-2])


def test_the_process_own_random_numbers_are_left_alone(learner):
    before = torch.get_rng_state()
    learner.update(batch_of(8))
    assert torch.equal(before, torch.get_rng_state())


def test_foreign_random_draws_change_no_tensor(peer_data):
    """Numbers drawn elsewhere do not change what is learnt."""
    data = peer_data()
    sampler = TransitionSampler(data.expert, data.split.rows, CPU)
    found = []
    for disturbance in (1, 7):
        learner = D3rlpyLearner(
            RewardLabelledConfig(hidden_sizes=(16,)), 3, Data(sampler, data.expert.action_space, CPU), CPU
        )
        for _ in range(4):
            torch.randn(disturbance)
            learner.update(batch_of(8))
        found.append(learner.tensors())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_checkpoint_holds_policy_and_d3rlpys_networks(learner):
    """A checkpoint holds the policy and all networks of d3rlpy."""
    parts = {name.rsplit(".", 2)[0].split(".")[0] + "." + name.split(".")[1] for name in learner.tensors()}
    assert {"policy.network", "td3bc.q_funcs", "td3bc.targ_q_funcs", "td3bc.targ_policy"} <= parts


def test_without_d3rlpy_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "d3rlpy", None)
    with pytest.raises(PackageMissing, match=r"pip install 'iq-offline\[baselines\]'"):
        load_d3rlpy()

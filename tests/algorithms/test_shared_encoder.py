"""One encoder of pictures for policy, value and targets."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from iq_offline.algorithms.bc import BCLearner
from iq_offline.algorithms.build import NetworkSpec, clone_policy
from iq_offline.algorithms.build_iq import build_discrete
from iq_offline.algorithms.encoders import ObservationLayout
from iq_offline.algorithms.iq_discrete import DiscreteIQLearner
from iq_offline.algorithms.networks import DiscretePolicy, Standardiser
from iq_offline.batch import Batch
from iq_offline.config.cloning import DiscreteBCConfig
from iq_offline.config.iq import DiscreteIQConfig
from iq_offline.errors import RunError
from iq_offline.training.learnt import learner_of

LAYOUT = ObservationLayout(2, ((6, 6),))
SPEC = NetworkSpec(LAYOUT, Standardiser(torch.zeros(LAYOUT.size), torch.full((LAYOUT.size,), 255.0)), 3)
CONFIG = DiscreteIQConfig(hidden_sizes=(8,), prior=DiscreteBCConfig(hidden_sizes=(8,)))


def batch(seed: int = 0) -> Batch:
    random = torch.Generator().manual_seed(seed)
    here, later = torch.randint(256, (2, 16, LAYOUT.size), generator=random).float()
    return Batch(here, torch.randint(3, (16,), generator=random), later, torch.zeros(16))


def cloned() -> DiscretePolicy:
    """A clone after some updates."""
    policy = clone_policy(CONFIG.prior, SPEC)
    learner = BCLearner(CONFIG.prior, policy)
    for number in range(3):
        learner.update(batch(number))
    assert isinstance(policy, DiscretePolicy)
    return policy


def learner_from(prior: DiscretePolicy, *, shared_encoder: bool = True) -> DiscreteIQLearner:
    return build_discrete(CONFIG.model_copy(update={"shared_encoder": shared_encoder}), SPEC, prior)


def test_all_networks_share_the_clones_encoder():
    """Policy, V and the targets of both hold the very module that the clone does; otherwise none do."""
    prior = cloned()
    shared = {id(network.encoder) for network in learner_from(prior).modules.values()}
    assert shared == {id(prior.encoder)}
    own = {id(network.encoder) for network in learner_from(prior, shared_encoder=False).modules.values()}
    assert len(own) == 5


def test_updates_leave_the_shared_encoder_alone():
    """Its parameters stay bit for bit, in the target too; heads move."""
    learner = learner_from(cloned())
    before = {name: tensor.clone() for name, tensor in learner.tensors().items()}
    for number in range(3):
        learner.update(batch(number))
    for name, tensor in learner.tensors().items():
        still = ".encoder." in name or "observation_" in name or name.startswith("prior.")
        assert torch.equal(tensor, before[name]) == still, name


def test_each_observation_is_encoded_once():
    """An update encodes observations once and their successors once, and differentiates neither."""
    learner, encoded = learner_from(cloned()), []
    encoder = learner.policy.encoder
    encoder.register_forward_hook(lambda _, inputs, output: encoded.append((len(inputs[0]), output.requires_grad)))
    learner.update(batch())
    assert encoded == [(16, False), (16, False)]


def test_sharing_computes_what_copies_would():
    """Q, V and the policy are those of networks whose encoders are copies of the clone's."""
    learner = learner_from(cloned())
    copies = learner.function.frozen_copy()
    apart = replace(copies, encoder=None)
    observations = batch().observations
    torch.testing.assert_close(learner.function.q(observations), apart.q(observations), rtol=0, atol=0)


def test_vectors_train_alike_with_either():
    """The setting changes nothing for observations without pictures, bit for bit."""
    layout = ObservationLayout(2)
    spec = replace(SPEC, layout=layout, standardiser=Standardiser(torch.zeros(2), torch.ones(2)))
    results = []
    for setting in (False, True):
        prior = clone_policy(CONFIG.prior, spec)
        assert isinstance(prior, DiscretePolicy)
        learner = build_discrete(CONFIG.model_copy(update={"shared_encoder": setting}), spec, prior)
        some = batch()
        learner.update(replace(some, observations=some.observations[:, :2], next_observations=some.observations[:, :2]))
        results.append(learner.tensors())
    for name, tensor in results[0].items():
        assert torch.equal(tensor, results[1][name])


def as_run(learner: DiscreteIQLearner) -> Any:
    """A finished run whose settings say that the networks share one encoder."""
    config = SimpleNamespace(algorithm=CONFIG)
    return SimpleNamespace(config=config, checkpoint=learner.tensors, policy=lambda: learner.policy)


def test_checkpoints_of_separate_encoders_are_refused():
    """Where the settings say that networks share one, a checkpoint with several is no checkpoint of theirs."""
    shared, apart = (learner_from(cloned(), shared_encoder=setting) for setting in (True, False))
    shared.update(batch())
    apart.update(batch())
    found = learner_of(as_run(shared)).tensors()
    assert all(torch.equal(found[name], tensor) for name, tensor in shared.tensors().items())
    with pytest.raises(RunError, match="does not hold the networks"):
        learner_of(as_run(apart))

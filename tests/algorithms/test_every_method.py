"""Every method of the registry: its default settings build a learner that learns, whatever the kind of actions."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from iq_offline.algorithms.bc import BCLearner
from iq_offline.algorithms.build import NetworkSpec, clone_policy
from iq_offline.algorithms.encoders import ObservationLayout
from iq_offline.algorithms.networks import ActionScale, Standardiser
from iq_offline.batch import Batch
from iq_offline.config.cloning import BCConfig
from iq_offline.config.online import InteractionConfig
from iq_offline.config.q_learning import QLearningConfig
from iq_offline.config.train import algorithm_class, algorithm_config
from iq_offline.methods import METHODS
from iq_offline.training.learnt import build_learner

KINDS = [
    (name, discrete)
    for name, method in METHODS.items()
    for discrete in (False, True)
    if (method.discrete if discrete else method.continuous)
]
WITH_A_LEARNER = [
    (name, discrete)
    for name, discrete in KINDS
    if issubclass(algorithm_class(name, discrete=discrete), BCConfig | QLearningConfig)
]
ACTIONS = 3


def transitions(seed: int, *, discrete: bool) -> Batch:
    """Sixteen random ones, a fifth of which end."""
    torch.manual_seed(seed)
    actions = torch.randint(ACTIONS, (16,)) if discrete else torch.rand(16, 2) * 2 - 1
    return Batch(torch.randn(16, 4), actions, torch.randn(16, 4), (torch.arange(16) % 5 == 0).float())


@pytest.mark.parametrize(("name", "discrete"), KINDS)
def test_default_settings_are_complete(name: str, discrete: bool):
    """They hold what the registry says of the method; of those that learn a Q-function a remedy is told."""
    config = algorithm_config(name, discrete=discrete)
    assert type(config) is algorithm_class(name, discrete=discrete)
    assert len(METHODS[name].summary) > 20
    dump: Any = config.model_dump(mode="json")
    for key, value in METHODS[name].settings.items():
        held = dump
        for part in key.split("."):
            held = held[part]
        assert held == value
    if isinstance(config, QLearningConfig):
        assert type(config).remedy.strip()
        assert config.learns_reward


@pytest.mark.parametrize("beside", [False, True], ids=["expert alone", "supplementary"])
@pytest.mark.parametrize(("name", "discrete"), WITH_A_LEARNER)
def test_two_updates_move_every_method(name: str, discrete: bool, beside: bool):
    """Policy or Q change, all that is learnt stays finite, and so do its metrics. Peers have more than one learner."""
    config: Any = algorithm_config(name, discrete=discrete)
    scale = ActionScale.of_bounds([-1.0] * 2, [1.0] * 2)
    spec = NetworkSpec(
        ObservationLayout(4), Standardiser(torch.zeros(4), torch.ones(4)), ACTIONS if discrete else scale
    )
    if isinstance(config, BCConfig):
        learner: Any = BCLearner(config, clone_policy(config, spec))
    else:
        prior = getattr(config, "prior", None)
        learner = build_learner(config, spec, None if prior is None else clone_policy(prior, spec))
    before = {key: tensor.clone() for key, tensor in learner.tensors().items()}
    for seed in range(2):
        batch = transitions(seed, discrete=discrete)
        if beside or isinstance(config, InteractionConfig):  # what was experienced is always beside the expert's
            batch = replace(batch, supplementary=transitions(seed + 10, discrete=discrete))
        metrics = learner.update(batch) | learner.diagnostics(batch)
    after = learner.tensors()
    moved = {key.partition(".")[0] for key, tensor in after.items() if not torch.equal(tensor, before[key])}
    assert moved & {"policy", "q", "critic"}
    assert "prior" not in moved
    assert all(torch.isfinite(tensor).all() for tensor in after.values())
    assert all(torch.isfinite(value) for value in metrics.values())

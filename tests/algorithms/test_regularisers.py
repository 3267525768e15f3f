"""Each regulariser is one function and one field of settings; a weight of zero leaves no trace."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from iq_offline.algorithms.build import NetworkSpec
from iq_offline.algorithms.encoders import ObservationLayout
from iq_offline.algorithms.networks import ActionScale, Standardiser
from iq_offline.algorithms.regularisers import ACTOR, CRITIC, DISCRETE
from iq_offline.batch import Batch
from iq_offline.config.iq import DiscreteIQPaperConfig, IQPaperConfig
from iq_offline.config.regularisers import ContinuousRegularisers, DiscreteRegularisers
from iq_offline.training.learnt import build_learner

CASES = [
    *((IQPaperConfig, name) for name in (*CRITIC, *ACTOR)),
    *((DiscreteIQPaperConfig, name) for name in DISCRETE),
]
EVERY = pytest.mark.parametrize(("model", "name"), CASES, ids=[f"{model.__name__}, {name}" for model, name in CASES])


def test_every_regulariser_has_a_field_of_its_name():
    """And every field has a function."""
    assert set(DiscreteRegularisers.model_fields) == set(DISCRETE)
    assert set(ContinuousRegularisers.model_fields) == set(CRITIC) | set(ACTOR)


def transitions(seed: int, actions: int | None) -> Batch:
    """Sixteen random ones."""
    torch.manual_seed(seed)
    chosen = torch.rand(16, 2) * 2 - 1 if actions is None else torch.randint(actions, (16,))
    return Batch(torch.randn(16, 3), chosen, torch.randn(16, 3), (torch.rand(16) < 0.2).float())


def learnt(model: type[Any], name: str, settings: dict[str, Any] | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensors after three updates with both sources, and the last one's metrics."""
    several = {"ensemble": {"members": 2}} if model is IQPaperConfig else {}
    config = model(hidden_sizes=(8,), updates=3, **several, **{name: settings})
    actions = 3 if model is DiscreteIQPaperConfig else None
    spec = NetworkSpec(
        ObservationLayout(3),
        Standardiser(torch.zeros(3), torch.ones(3)),
        actions or ActionScale.of_bounds([-1.0] * 2, [1.0] * 2),
    )
    learner = build_learner(config, spec, None)
    for seed in range(3):
        other = transitions(seed + 10, actions)
        metrics = learner.update(replace(transitions(seed, actions), supplementary=other))
    return learner.tensors(), metrics


@EVERY
def test_weight_zero_is_off_to_the_bit(model: type[Any], name: str):
    """No random number is drawn for it, and no metric is named after it."""
    plain, without = learnt(model, name, None)
    off, metrics = learnt(model, name, {"weight": 0.0})
    assert all(torch.equal(tensor, off[key]) for key, tensor in plain.items())
    assert metrics.keys() == without.keys()
    assert name not in metrics


@EVERY
def test_weight_changes_networks_and_names_a_metric(model: type[Any], name: str):
    plain, _ = learnt(model, name, None)
    on, metrics = learnt(model, name, {"weight": 10.0, **({"target": 0.0} if name == "gradient_penalty" else {})})
    assert any(not torch.equal(tensor, on[key]) for key, tensor in plain.items())
    assert torch.isfinite(metrics[name])

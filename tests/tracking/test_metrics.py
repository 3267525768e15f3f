"""What the store shows: few figures, under the same names whatever the method."""

import polars as pl

from iq_offline.tracking.metrics import flat_params, recorded_points, training_points


def test_common_metrics_are_mirrored():
    """Of a methods metrics the common ones are mirrored."""
    metrics = {"loss": 1.0, "expert_q": 2.0, "critic_gradient_norm": 3.0, "cql_gap": 4.0}
    assert training_points(7, metrics) == [("train/loss", 1.0, 7), ("train/expert_q", 2.0, 7)]


def test_priors_metrics_show_without_its_loss():
    """A prior in training shows under the policys names without its own loss."""
    metrics = {"prior_loss": 1.0, "prior_action_error": 0.5, "prior_distance": 9.0}
    assert training_points(3, metrics) == [("train/action_error", 0.5, 3)]


def test_recorded_metrics_give_same_points():
    """Recorded metrics give the same points and nulls none."""
    table = pl.DataFrame({"step": [1, 2], "loss": [0.5, None], "prior_loss": [None, 2.0], "action_error": [1.0, 2.0]})
    assert recorded_points(table) == [
        ("train/loss", 0.5, 1),
        ("train/action_error", 1.0, 1),
        ("train/action_error", 2.0, 2),
    ]


def test_nested_settings_become_dotted_parameters():
    assert flat_params({"a": {"b": 1, "c": {"d": None}}, "e": [8]}) == {"a.b": "1", "a.c.d": "None", "e": "[8]"}

"""What the store shows: few figures, under the same names whatever the method."""

import polars as pl

from iq_offline.tracking.metrics import LONGEST_NAME, flat_params, recorded_points, summary_figures, training_points

ROW = {"dataset": "demo/cartpole", "method": "iq", "demos": 5, "subsample": 1, "settings": "temperature=1, x=[8]"}


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


def test_summary_rows_become_admissible_metric_names():
    """A summarys rows become metrics in the characters that mlflow admits."""
    figures = {"seeds": 3, "return_iqm": 5.0, "return_low": 4.0, "return_high": None, "improvement": 0.9}
    assert summary_figures(pl.DataFrame([ROW | figures])) == {
        "summary/demo_cartpole iq 5x1 temperature_1_ x__8_/return_iqm": 5.0,
        "summary/demo_cartpole iq 5x1 temperature_1_ x__8_/return_low": 4.0,
        "summary/demo_cartpole iq 5x1 temperature_1_ x__8_/improvement": 0.9,
    }


def test_long_settings_are_cut_and_stay_apart():
    rows = [ROW | {"settings": "a" * 400 + end, "return_iqm": 1.0} for end in "xy"]
    names = list(summary_figures(pl.DataFrame(rows)))
    assert len(set(names)) == 2
    assert max(map(len, names)) < LONGEST_NAME + 40


def test_nested_settings_become_dotted_parameters():
    assert flat_params({"a": {"b": 1, "c": {"d": None}}, "e": [8]}) == {"a.b": "1", "a.c.d": "None", "e": "[8]"}

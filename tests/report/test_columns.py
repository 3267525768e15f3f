"""The registry of columns: one entry is enough for every table, the legend and MLflow."""

import polars as pl
import pytest

from iq_offline.report import columns
from iq_offline.report.columns import COLUMNS, LONGEST_ROW_NAME, Column, run_metrics, summary_metrics
from iq_offline.report.groups import grouped
from iq_offline.report.loading import load_runs
from iq_offline.report.tables import aggregate_table, as_csv, as_text, runs_table, summary_table
from iq_offline.stages.report import write_report

ROW = {"dataset": "demo/cartpole", "method": "iq", "demos": 5, "subsample": 1, "settings": "temperature=1, x=[8]"}


@pytest.fixture
def added_column(monkeypatch):
    """A column that no table has yet: the best return, in all tables and in MLflow."""
    added = Column(
        "return_best",
        "best",
        "largest mean return of a run",
        decimals=2,
        run=lambda run: (run.evaluation or {}).get("return_mean"),
        by_task=lambda row: max(row.group.returns),
        overall=lambda row: max(value for task in row.variant.returns.values() for value in task),
        mlflow=("eval", "summary"),
    )
    monkeypatch.setattr(columns, "COLUMNS", (*COLUMNS, added))
    return added


@pytest.mark.usefixtures("added_column")
def test_added_column_appears_everywhere(write_run, tmp_path):
    """A column that only the registry has is in the terminal's and the page's tables, the legend, CSV and MLflow."""
    folders = [write_run(str(seed), seed=seed, returns=[value]) for seed, value in enumerate((1.0, 6.25))]
    results = load_runs(folders)[0]
    groups = grouped(results)
    for table, value in ((aggregate_table(groups), 6.25), (summary_table(groups), 6.25), (runs_table(groups), 1.0)):
        assert table["return_best"][0] == value
        assert "best" in as_text(table)
        assert f"{value:.2f}" in as_text(table)
    assert "return_best" in as_csv(summary_table(groups)).splitlines()[0]
    page = write_report(folders, tmp_path / "out").html.read_text()
    assert page.count('title="largest mean return of a run" class="number">best</th>') == 3
    assert page.count(">6.25</a>") == 3
    assert "<dt>best</dt><dd>largest mean return of a run</dd>" in page
    assert summary_metrics(summary_table(groups))["summary/hopper-expert-v2 iq 5x1/return_best"] == 6.25
    assert run_metrics(evaluation=results[1].evaluation)["eval/return_best"] == 6.25


def test_names_are_unique_and_columns_have_values():
    names = [column.name for column in COLUMNS]
    assert len(set(names)) == len(names)
    for column in COLUMNS:
        assert column.header
        assert column.meaning
        assert column.bounds or column.run or column.by_task or column.overall


def test_correlations_are_mirrored_by_both_kinds(write_run):
    """A run's metrics are Pearson's and Spearman's correlations of each level, None where not defined."""
    ((run,), _) = load_runs([write_run("a", rewards={"transition": 0.5})])
    found = run_metrics(reward=run.reward)
    levels = ("transition", "episode", "within_source", "null_length", "null_bc", "null_linear")
    assert found.keys() == {f"reward/{level}_{kind}" for level in levels for kind in ("pearson", "spearman")}
    assert found["reward/transition_spearman"] == 0.5
    assert found["reward/episode_pearson"] is None


def test_evaluation_has_four_metrics(write_run):
    ((run,), _) = load_runs([write_run("a", returns=[1.0, 3.0], score=7.0)])
    assert run_metrics(evaluation=run.evaluation) == {
        "eval/return_mean": 2.0,
        "eval/return_std": 1.0,
        "eval/length_mean": 100.0,
        "eval/score": 7.0,
    }


def test_rows_become_metrics_that_mlflow_admits():
    """A summary's rows become metrics in the characters that MLflow admits, for the columns that it shows."""
    values = {"seeds": 3, "return_iqm": 5.0, "return_low": 4.0, "return_high": None, "improvement": 0.9}
    assert summary_metrics(pl.DataFrame([ROW | values])) == {
        "summary/demo_cartpole iq 5x1 temperature_1_ x__8_/return_iqm": 5.0,
        "summary/demo_cartpole iq 5x1 temperature_1_ x__8_/return_low": 4.0,
        "summary/demo_cartpole iq 5x1 temperature_1_ x__8_/improvement": 0.9,
    }


def test_long_settings_are_cut_and_differ():
    rows = [ROW | {"settings": "a" * 400 + end, "return_iqm": 1.0} for end in "xy"]
    names = list(summary_metrics(pl.DataFrame(rows)))
    assert len(set(names)) == 2
    assert max(map(len, names)) < LONGEST_ROW_NAME + 40

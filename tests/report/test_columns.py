"""The registry of columns: one entry is enough for every table, the legend and MLflow."""

import pytest

from iq_offline.report import columns
from iq_offline.report.columns import COLUMNS, Column, report_rows, run_metrics
from iq_offline.report.groups import grouped
from iq_offline.report.loading import load_runs
from iq_offline.report.tables import aggregate_table, as_csv, as_text, runs_table, short_summary, summary_table
from iq_offline.stages.report import write_report


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
    assert report_rows(groups, summary_table(groups))[folders[0]].figures["summary/return_best"] == 6.25
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


def test_metric_names_hold_no_method_or_dataset(write_run):
    """Runs of two methods on two datasets have the same metrics of their row, whose name tells the rows apart."""
    folders = {
        (dataset, method): write_run(
            f"{dataset}-{method}", dataset=f"demo/{dataset}/expert", method=method, returns=[5.0]
        )
        for dataset in ("cartpole", "swimmer")
        for method in ("bc", "iq")
    }
    groups = grouped(load_runs(list(folders.values()))[0])
    rows = report_rows(groups, summary_table(groups))
    names = {key: rows[folder].name for key, folder in folders.items()}
    assert names == {(dataset, method): f"{method}, {dataset}" for dataset, method in folders}
    of_bc, of_iq = (set(rows[folders["cartpole", method]].figures) for method in ("bc", "iq"))
    assert of_bc == {"summary/return_mean", "summary/return_iqm"}
    assert of_iq == of_bc | {"summary/improvement"}


def test_row_has_its_interval_on_each_run(write_run):
    """Each run of a row has the row's mean and interval, and a row of one task and no settings is its method."""
    folders = [write_run(str(seed), seed=seed, returns=[value]) for seed, value in enumerate((1.0, 3.0))]
    groups = grouped(load_runs(folders)[0])
    first, second = (report_rows(groups, summary_table(groups))[folder] for folder in folders)
    assert first == second
    assert first.name == "iq"
    assert first.figures["summary/return_mean"] == 2.0
    assert first.figures["summary/return_low"] == 1.0
    assert first.figures["summary/return_high"] == 3.0


def test_short_summary_answers_which_method_is_better(write_run):
    """MLflow's description has the columns that answer it, and none that no row fills."""
    groups = grouped(load_runs([write_run("a", returns=[1.0, 3.0], score=7.0)])[0])
    assert short_summary(summary_table(groups)).columns == ["dataset", "method", "demos", "return_iqm", "score_iqm"]

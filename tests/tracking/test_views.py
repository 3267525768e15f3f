"""The saved view that compares methods in MLflow's page of runs."""

import base64
import json
import zlib
from urllib.parse import parse_qs

from iq_offline.credentials import masked
from iq_offline.report.columns import COLUMNS as REGISTRY
from iq_offline.report.columns import SPEARMAN
from iq_offline.stages.ui import prepare_ui
from iq_offline.tracking import views
from iq_offline.tracking.metrics import TRAINING
from iq_offline.tracking.mlflow_store import MlflowStore
from iq_offline.tracking.views import view_address, view_state, view_tag

MOST_TAG = 5000
"""Characters that MLflow admits in a tag of an experiment."""


def test_view_names_only_logged_metrics():
    """Columns, sort key and charts name metrics that runs have: of the report's registry, or of training."""
    registered = {f"{prefix}/{column.name}" for column in (*REGISTRY, *SPEARMAN) for prefix in column.mlflow}
    logged = registered | {f"train/{name}" for name in TRAINING}
    charted = {metric for chart in view_state("a", [])["compareRunCharts"] for metric in chart["selectedMetricKeys"]}
    assert charted | {views.RETURN, views.SCORE, views.REWARD} <= logged


def test_columns_answer_which_method_is_better():
    state = view_state("demo", [])
    assert [name.split("`")[1] for name in state["selectedColumns"]] == [
        "method",
        "dataset",
        "seed",
        "eval/return_mean",
        "eval/score",
        "reward/transition_pearson",
    ]
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`eval/return_mean`", False)
    assert state["searchFilter"] == "tags.comparison = 'demo'"


def state_of(value: str) -> dict:
    """The state in a tag, read as MLflow's page reads it."""
    kind, _, packed = json.loads(value)["state"].partition(";")
    assert kind == "deflate"
    return json.loads(zlib.decompress(base64.b64decode(packed)))


def test_tag_is_what_mlflow_reads():
    """A view is a name, a time and its compressed state, short enough for a tag also with many rows."""
    rows = [f"method-{number}, dataset-{number}, temperature=0.{number}" for number in range(100)]
    key, value = view_tag("f" * 32, "n" * 200, rows, 7)
    assert key == "mlflow.sharedViewState." + "f" * 32
    assert len(value) < MOST_TAG
    envelope = json.loads(value)
    assert (envelope["name"], envelope["createdAt"]) == ("n" * 200, 7)
    assert state_of(value) == view_state("n" * 200, rows)


def test_many_runs_show_as_rows():
    """Where rows and runs do not fit on the first screen it shows the rows, and the report's run below them."""
    few = view_state("demo", ["bc"] * 4 + ["iq"] * 5)
    many = view_state("demo", ["bc"] * 5 + ["iq"] * 5)
    assert few["groupsExpanded"] == {"tag.row": True}
    assert many["groupsExpanded"] == {"tag.row": True, "tag.row.bc": False, "tag.row.iq": False}


def test_address_opens_view_in_training_mode():
    """An address names the view and model training, and no filter: with one MLflow would leave the view out.

    It is printed as it is: a view's key is no credential.
    """
    page, _, query = view_address("http://here", "3", "abc").partition("?")
    assert page == "http://here/#/experiments/3/runs"
    assert parse_qs(query) == {"viewStateShareKey": ["abc"], "workflowType": ["machine_learning"]}
    assert "viewStateShareKey" not in view_address("http://here", "3", None)
    shown = view_address("http://here", "3", "0123456789abcdef" * 2)
    assert masked(shown) == shown


def test_ui_opens_view_of_latest_comparison():
    """`ui` saves one view a comparison, with a key of its own, and opens that of the latest."""
    store = MlflowStore.open()
    assert "viewStateShareKey" not in prepare_ui("127.0.0.1", 0).url
    store.parent("first")
    latest = store.parent("John's second")
    for _ in range(2):
        assert f"viewStateShareKey={latest}&" in prepare_ui("127.0.0.1", 0).url
    tags = store._client.get_experiment(store.experiment_id).tags
    assert [key for key in tags if key.startswith(views.VIEW_TAG)] == [views.VIEW_TAG + latest]
    state = state_of(tags[views.VIEW_TAG + latest])
    assert [run.info.run_id for run in store._client.search_runs([store.experiment_id], state["searchFilter"])] == [
        latest
    ]

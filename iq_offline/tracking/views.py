"""A saved view of MLflow's page of runs: the table and the charts that compare the methods of one comparison.

MLflow 3.15 and newer keep a view as a tag of the experiment and open it by an address. The keys of its state are those
that the page itself writes when a view is saved by hand.
"""

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

COMPARISON_TAG, ROW_TAG = "comparison", "row"
VIEW_TAG, COMPRESSED = "mlflow.sharedViewState.", "deflate;"
RUN_NAME, CREATED, DURATION = "attributes.`Run Name`", "runDateAndNestInfo", "duration"
RETURN, SCORE, REWARD = "eval/return_mean", "eval/score", "reward/transition_pearson"
COLUMNS = {
    "tags.`method`": 60,
    "tags.`dataset`": 145,
    "tags.`seed`": 45,
    f"metrics.`{RETURN}`": 130,
    f"metrics.`{SCORE}`": 80,
    f"metrics.`{REWARD}`": 123,
}
"""Columns of the table in their order, with their widths in pixels: all of them fit on a screen of 1280."""
WIDTHS = {RUN_NAME: 235, **COLUMNS, CREATED: 135, DURATION: 80}
BARS = (
    ("eval", (RETURN,)),
    ("eval", (SCORE,)),
    ("summary", ("summary/return_low", "summary/return_iqm", "summary/return_high")),
    ("reward", (REWARD,)),
)
CURVES = ("train/action_error", "train/expert_reward", "train/loss")
SECTIONS = ("eval", "summary", "reward", "train")
"""The prefixes of all metrics: MLflow adds a chart of each other metric to the section of its prefix."""
MOST_RUNS = 100
"""In a chart."""
FULL_SCREEN = 11
"""Lines, of rows and runs, that fit on a screen of 800 pixels above the report's; of more it shows the rows alone."""


def view_tag(view: str, comparison: str, rows: Sequence[str], created: int) -> tuple[str, str]:
    """The tag of the experiment, key and value, that holds a comparison's view, compressed as MLflow does.

    rows: the row of each run. created: in milliseconds since 1970.
    """
    packed = base64.b64encode(zlib.compress(json.dumps(view_state(comparison, rows)).encode())).decode()
    envelope = {"name": comparison, "createdAt": created, "state": f"{COMPRESSED}{packed}"}
    return VIEW_TAG + view, json.dumps(envelope)


def view_address(base: str, experiment: str, view: str | None) -> str:
    """Where a server shows the experiment's runs, in a view if one is named.

    Without its kind, MLflow opens an experiment as one of language models, without a table of runs.
    """
    query = {"viewStateShareKey": view} if view else {}
    return f"{base}/#/experiments/{experiment}/runs?{urlencode(query | {'workflowType': 'machine_learning'})}"


def view_state(comparison: str, rows: Sequence[str]) -> dict[str, Any]:
    """Runs of a comparison in rows of the report, the best mean return first, and its charts."""
    names = sorted(set(rows))
    folded = names if len(rows) + len(names) > FULL_SCREEN else []
    charts = [_chart("BAR", *bar) for bar in BARS] + [_chart("LINE", "train", (metric,)) for metric in CURVES]
    return {
        "searchFilter": f"tags.{COMPARISON_TAG} = '{comparison}'",
        "orderByKey": f"metrics.`{RETURN}`",
        "orderByAsc": False,
        "selectedColumns": list(COLUMNS),
        "columnOrder": list(WIDTHS),
        "columnWidths": WIDTHS,
        "groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": ROW_TAG}]},
        # the parent run, which is in no row, stands open below the rows
        "groupsExpanded": {f"tag.{ROW_TAG}": True} | {f"tag.{ROW_TAG}.{row}": False for row in folded},
        "useGroupedValuesInCharts": True,
        "runsHiddenMode": "SHOW_ALL",
        "compareRunCharts": charts,
        "compareRunSections": [_section(name) for name in SECTIONS],
        "isAccordionReordered": True,
        "hideEmptyCharts": True,
    }


def _section(name: str) -> Mapping[str, Any]:
    reordered = {"isReordered": True, "deleted": False, "isGenerated": True}
    return {"uuid": name, "name": name, "display": True, "columns": 2, **reordered}


def _chart(kind: str, section: str, metrics: Sequence[str]) -> Mapping[str, Any]:
    shown = {
        "type": kind,
        "metricKey": metrics[0],
        "selectedMetricKeys": list(metrics),
        "runsCountToCompare": MOST_RUNS,
    }
    return {
        "uuid": " ".join((kind, *metrics)),
        "metricSectionId": section,
        "deleted": False,
        "isGenerated": False,
        **shown,
    }

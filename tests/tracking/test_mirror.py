"""What a later stage's report does to the figures, files and tags of a stored run."""

import json
import math
from pathlib import Path

from iq_offline.tracking.mirror import put_files, put_metrics
from iq_offline.tracking.mlflow_store import MlflowStore, RunDescription, StoredRun

LINEAR = {"reward/transition_pearson": 0.5, "reward/episode_pearson": 0.9, "reward/null_linear_pearson": 0.3}
IMPLICIT = {"reward/transition_pearson": 0.2, "reward/episode_pearson": None}


def stored(store: MlflowStore, run_id: str) -> StoredRun:
    found = store.run(run_id)
    assert found is not None
    return found


def put_report(store: MlflowStore, run: StoredRun, folder: Path, form: str) -> bool:
    levels = ("transition", "episode", "within_source", "null_length", "null_bc")
    nothing = {"pearson": None, "spearman": None, "n": 0}
    (folder / "reward.json").write_text(json.dumps({"form": form} | dict.fromkeys(levels, nothing)))
    return put_files(store, run, folder, ("reward.json",))


def test_missing_figures_become_nan_and_form_a_tag(tmp_path: Path):
    """Figures that a newer reward report lacks are no numbers and the form is a tag."""
    store = MlflowStore.open()
    run_id = store.create(RunDescription("run", "group", "hash", {}, ()), store.parent("group"))
    put_metrics(store, stored(store, run_id), LINEAR | {"eval/return_mean": 7.0})
    put_report(store, stored(store, run_id), tmp_path, "linear")
    assert stored(store, run_id).tags["reward_form"] == "linear"
    assert put_metrics(store, stored(store, run_id), {"eval/return_mean": 8.0})
    assert {name: stored(store, run_id).metrics[name] for name in LINEAR} == LINEAR

    assert put_metrics(store, stored(store, run_id), IMPLICIT)
    assert put_report(store, stored(store, run_id), tmp_path, "implicit")
    run = stored(store, run_id)
    assert run.tags["reward_form"] == "implicit"
    assert (run.metrics["reward/transition_pearson"], run.metrics["eval/return_mean"]) == (0.2, 8.0)
    assert math.isnan(run.metrics["reward/episode_pearson"])
    assert math.isnan(run.metrics["reward/null_linear_pearson"])

    assert not put_metrics(store, run, IMPLICIT)
    assert not put_report(store, run, tmp_path, "implicit")
    put_metrics(store, run, LINEAR)
    assert {name: stored(store, run_id).metrics[name] for name in LINEAR} == LINEAR

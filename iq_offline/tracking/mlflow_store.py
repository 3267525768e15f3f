"""MLflow's store: a mirror of run folders, safe to open from several processes at once."""

import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iq_offline.credentials import public_url
from iq_offline.errors import TrackingUnavailable
from iq_offline.tracking.metrics import Point
from iq_offline.tracking.mlflow_access import (
    beside,
    check_reachable,
    connect,
    disconnect,
    follow,
    import_mlflow,
    is_served,
    mlflow_errors,
    sqlite_file,
    store_lock,
    tracking_uri,
)
from iq_offline.tracking.views import COMPARISON_TAG, ROW_TAG, view_tag

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "iq-offline"
MODEL_NAME = "policy"
POINTS_PER_BATCH = 1000
GROUP_TAG = "iq_offline.group"
HASH_TAG = "iq_offline.config_hash"
PARENT_TAG = "mlflow.parentRunId"


@dataclass(frozen=True)
class TrackedData:
    """A dataset that a run learns from."""

    name: str
    sha256: str
    role: str
    """expert or supplementary."""
    path: str | None = None


@dataclass(frozen=True)
class RunDescription:
    """What a store shows of one run of (method, dataset, seed)."""

    name: str
    group: str
    """The comparison that it belongs to: one parent run a group."""
    config_hash: str
    """Of its configuration and data: what a run is found again by, within its group."""
    params: Mapping[str, str]
    datasets: tuple[TrackedData, ...]
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def all_tags(self) -> dict[str, str]:
        """Its tags, with that of its comparison."""
        return {**self.tags, COMPARISON_TAG: _quoted(self.group)}


@dataclass(frozen=True)
class StoredRun:
    """What the store holds of a run."""

    run_id: str
    finished: bool
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    """The last value of each."""
    datasets: frozenset[str]
    """Their digests."""
    model: str | None
    """The id of its policy as a model."""


class MlflowStore:
    """A tracking store with one experiment, parents for comparisons, children for runs.

    `uri` is what MLflow opens, and may hold a password; `name` is the same without.

    Every method raises TrackingUnavailable where the store cannot be used.
    """

    def __init__(self, client: "MlflowClient", experiment_id: str, uri: str) -> None:
        self.uri = uri
        self.name = public_url(uri)
        self.experiment_id = experiment_id
        self._client = client

    @classmethod
    def open(cls) -> "MlflowStore":
        """Open the store, and make its tables and the experiment if they are missing, one process at a time."""
        uri = tracking_uri()
        check_reachable(uri)
        import_mlflow()
        file = sqlite_file(uri)
        with mlflow_errors(uri), store_lock(uri):
            if file is not None:
                follow(file, EXPERIMENT)
            client = connect(uri)
            experiment = client.get_experiment_by_name(EXPERIMENT)
            if experiment is None:
                artifacts = os.environ.get("MLFLOW_DEFAULT_ARTIFACT_ROOT") or (beside(file) if file else None)
                return cls(client, client.create_experiment(EXPERIMENT, artifact_location=artifacts), uri)
            return cls(client, experiment.experiment_id, uri)

    @classmethod
    def open_ahead(cls) -> bool:
        """Open a store in SQLite, if there is one, for the forks of this process; returns whether there is.

        The forks inherit what SQLAlchemy and Alembic prepare at first use. No connection stays open across a fork.
        """
        uri = tracking_uri()
        file = sqlite_file(uri)
        if file is None or not file.is_file():
            return False
        with suppress(TrackingUnavailable):  # each command will say so itself
            cls.open().found("", "")
            disconnect(uri)
        return True

    def parent(self, group: str) -> str:
        """The run that holds a comparison together; made at its first use."""
        quoted = _quoted(group)
        query = f"tags.`{GROUP_TAG}` = '{quoted}'"
        with self._writing():
            found = self._search(query)
            if not found:
                tags = {GROUP_TAG: quoted, COMPARISON_TAG: quoted}
                run = self._client.create_run(self.experiment_id, run_name=group, tags=tags)
                self._client.set_terminated(run.info.run_id)
                found = self._search(query)
            first, *later = found  # the lock holds on one machine: of two that made it at once, all take the first
            for run in later:
                if not self._search(f"tags.`{PARENT_TAG}` = '{run.info.run_id}'"):
                    self._client.delete_run(run.info.run_id)
            return str(first.info.run_id)

    def create(self, description: RunDescription, parent: str, started: datetime | None = None) -> str:
        """A new run under a parent, with its parameters, tags and datasets. Returns its id."""
        from mlflow.entities import Param

        with self._writing():
            run = self._client.create_run(
                self.experiment_id,
                run_name=description.name,
                tags=description.all_tags | {PARENT_TAG: parent, HASH_TAG: description.config_hash},
                start_time=_milliseconds(started),
            )
            run_id = str(run.info.run_id)
            self._client.log_batch(run_id, params=[Param(key, value) for key, value in description.params.items()])
            self._client.log_inputs(run_id, datasets=[_dataset_input(data) for data in description.datasets])
            return run_id

    def found(self, parent: str, config_hash: str) -> list[StoredRun]:
        """The runs of a configuration under a parent, finished or not, oldest first."""
        with mlflow_errors(self.uri):
            query = f"tags.`{PARENT_TAG}` = '{parent}' and tags.`{HASH_TAG}` = '{config_hash}'"
            return [_stored(run) for run in self._search(query)]

    def run(self, run_id: str) -> StoredRun | None:
        """What the store holds of that run; None where it is not there, or deleted."""
        from mlflow.exceptions import MlflowException

        with mlflow_errors(self.uri):
            try:
                run = self._client.get_run(run_id)
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return None
                raise
            return _stored(run) if run.info.lifecycle_stage == "active" else None

    def log_points(self, run_id: str, points: Sequence[Point], model: str | None = None) -> None:
        """Metrics, in batches, also as the model's where one is given. MLflow has no infinity: those are left out."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(key, value, now, step, model) for key, value, step in points if not math.isinf(value)]
        for first in range(0, len(metrics), POINTS_PER_BATCH):
            with self._writing():
                self._client.log_batch(run_id, metrics=metrics[first : first + POINTS_PER_BATCH])

    def log_data(self, run_id: str, datasets: Sequence[TrackedData]) -> None:
        """Datasets as inputs of the run."""
        with self._writing():
            self._client.log_inputs(run_id, datasets=[_dataset_input(data) for data in datasets])

    def log_files(self, run_id: str, files: Sequence[Path], folder: str | None = None) -> None:
        """Files as artifacts of the run, in a folder of its artifacts if one is named."""
        with mlflow_errors(self.uri):
            for file in files:
                self._client.log_artifact(run_id, str(file), folder)

    def files(self, run_id: str) -> frozenset[str]:
        """Names of the run's artifacts that the store can show."""
        with mlflow_errors(self.uri):
            return frozenset(str(item.path) for item in self._client.list_artifacts(run_id))

    def restore_model(self, model_id: str, write: Callable[[Path], None]) -> bool:
        """Upload a model's files again where the store has none any more; returns whether it had none."""
        with mlflow_errors(self.uri):
            if self._client.list_logged_model_artifacts(model_id):
                return False
            with tempfile.TemporaryDirectory() as folder:
                write(Path(folder))
                self._client.log_model_artifacts(model_id, folder)
            return True

    @contextmanager
    def mirroring(self) -> Iterator[None]:
        """One process at a time brings runs into this store."""
        with mlflow_errors(self.uri), store_lock(self.uri, "mirror."):
            yield

    def log_model(self, run_id: str, write: Callable[[Path], None]) -> str:
        """A model of the run, whose folder `write` fills. Returns its id."""
        from mlflow.entities import LoggedModelOutput

        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder))
            with self._writing():
                model = self._client.create_logged_model(
                    self.experiment_id, MODEL_NAME, source_run_id=run_id, model_type=MODEL_NAME
                )
                model_id = str(model.model_id)
                self._client.log_model_artifacts(model_id, folder)
                self._client.finalize_logged_model(model_id, "READY")
                self._client.log_outputs(run_id, [LoggedModelOutput(model_id, 0)])
        return model_id

    def register(self, run: StoredRun, name: str) -> str:
        """The run's model as a version of a registered model, made where it is none yet; its number."""
        from mlflow.exceptions import MlflowException

        assert run.model is not None
        with self._writing():
            try:
                self._client.create_registered_model(name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            # Without a server MLflow would look for models:/ in its global store, which need not be this one.
            served = is_served(self.uri)
            source = f"models:/{run.model}" if served else self._client.get_logged_model(run.model).artifact_location
            for known in self._client.search_model_versions(f"run_id = '{run.run_id}'"):
                if (known.name, known.source) == (name, source):
                    return str(known.version)
            return str(self._client.create_model_version(name, source, run.run_id, model_id=run.model).version)

    def tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags of the run."""
        from mlflow.entities import RunTag

        with self._writing():
            self._client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def end(self, run_id: str, status: str = "FINISHED", at: datetime | None = None) -> None:
        """Mark a run as ended, now or at that time."""
        with self._writing():
            self._client.set_terminated(run_id, status, _milliseconds(at))

    def discard(self, runs: Sequence[StoredRun]) -> None:
        """Delete runs, as MLflow does: they can be restored. Their models go too, but for registered ones."""
        for run in runs:
            with self._writing():
                self._client.delete_run(run.run_id)
                if run.model and not self._client.search_model_versions(f"run_id = '{run.run_id}'"):
                    self._client.delete_logged_model(run.model)

    def children(self, parent: str, *, finished: bool = False) -> list[str]:
        """Ids of the runs under a parent, or of the finished ones alone."""
        query = f"tags.`{PARENT_TAG}` = '{parent}'" + (" and attributes.status = 'FINISHED'" if finished else "")
        with mlflow_errors(self.uri):
            return [str(run.info.run_id) for run in self._search(query)]

    def save_view(self, parent: StoredRun) -> str:
        """Save the view that compares the runs under a parent, over that of an earlier call. Returns its key."""
        with self._writing():
            runs = self._search(f"tags.`{PARENT_TAG}` = '{parent.run_id}'")
            rows = [str(run.data.tags.get(ROW_TAG, "")) for run in runs]
            tag = view_tag(parent.run_id, parent.tags[GROUP_TAG], rows, int(time.time() * 1000))
            self._client.set_experiment_tag(self.experiment_id, *tag)
        return parent.run_id

    def latest_parent(self) -> str | None:
        """The comparison started last, or None in an empty store."""
        with mlflow_errors(self.uri):
            runs = self._search(f"tags.`{GROUP_TAG}` != ''")
            return str(runs[-1].info.run_id) if runs else None

    def _search(self, query: str) -> list[Any]:
        """All runs that fit, oldest first."""
        order = ["attributes.start_time ASC", "attributes.run_id"]
        search = partial(self._client.search_runs, [self.experiment_id], query, order_by=order)
        page = search()
        runs = list(page)
        while page.token:
            page = search(page_token=page.token)
            runs += page
        return runs

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """SQLite takes one writer at a time: our processes wait for each other instead of failing."""
        with mlflow_errors(self.uri), store_lock(self.uri):
            yield


def _stored(run: Any) -> StoredRun:
    outputs = run.outputs.model_outputs if run.outputs else []
    return StoredRun(
        run_id=str(run.info.run_id),
        finished=run.info.status == "FINISHED",
        tags=run.data.tags,
        metrics=run.data.metrics,
        datasets=frozenset(item.dataset.digest for item in run.inputs.dataset_inputs),
        model=outputs[-1].model_id if outputs else None,
    )


def _quoted(group: str) -> str:
    """A comparison's name as a tag that MLflow's search can name."""
    return group.replace("'", "")


def digest_of(sha256: str) -> str:
    """A dataset's hash as the digest that MLflow shows: it admits 36 characters."""
    return sha256[:32]


def _dataset_input(data: TrackedData) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(
        name=data.name,
        digest=digest_of(data.sha256),
        source_type="local",
        source=json.dumps({"uri": data.path or data.name, "sha256": data.sha256}),
    )
    context = "training" if data.role == "expert" else data.role
    return DatasetInput(dataset, tags=[InputTag("mlflow.data.context", context)])


def _milliseconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp() * 1000)

"""The one home of MLflow: a store that runs are mirrored into, safe to open from several processes at once."""

import os
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from iq_offline import paths
from iq_offline.errors import TrackingUnavailable
from iq_offline.tracking.tracker import RunDescription

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "iq-offline"
POINTS_A_BATCH = 1000
GROUP_TAG = "iq_offline.group"
PARENT_TAG = "mlflow.parentRunId"
LOCK_SECONDS = 120
REASON_LENGTH = 200


def tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI`, else a SQLite file in the user's store."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{paths.home() / 'mlflow' / 'mlflow.db'}"


class MlflowStore:
    """A tracking store with one experiment, parents for comparisons, children for runs.

    Every method raises TrackingUnavailable where the store cannot be used.
    """

    def __init__(self, client: "MlflowClient", experiment_id: str, uri: str) -> None:
        self.uri = uri
        self.experiment_id = experiment_id
        self._client = client

    @classmethod
    def open(cls) -> "MlflowStore":
        """Open the store, and make its tables and the experiment if they are missing, one process at a time."""
        uri = tracking_uri()
        with _mlflow_errors(uri), _store_lock():
            client = _client(uri)
            experiment = client.get_experiment_by_name(EXPERIMENT)
            if experiment is None:
                local = uri.startswith("sqlite:") and "MLFLOW_TRACKING_URI" not in os.environ
                artifacts = (paths.home() / "mlflow" / "artifacts").as_uri() if local else None
                return cls(client, client.create_experiment(EXPERIMENT, artifact_location=artifacts), uri)
            return cls(client, experiment.experiment_id, uri)

    def parent(self, group: str) -> str:
        """The run that holds a comparison together; made at its first use."""
        with _mlflow_errors(self.uri), _store_lock():
            quoted = group.replace("'", "")
            found = self._client.search_runs([self.experiment_id], f"tags.`{GROUP_TAG}` = '{quoted}'", max_results=1)
            if found:
                return str(found[0].info.run_id)
            run = self._client.create_run(self.experiment_id, run_name=group, tags={GROUP_TAG: quoted})
            self._client.set_terminated(run.info.run_id)
            return str(run.info.run_id)

    def create(self, description: RunDescription, parent: str) -> str:
        """A new run under a parent, with its parameters, tags and dataset. Returns its id."""
        from mlflow.entities import Param, RunTag

        with _mlflow_errors(self.uri):
            run = self._client.create_run(
                self.experiment_id, run_name=description.name, tags={PARENT_TAG: parent, **description.tags}
            )
            run_id = str(run.info.run_id)
            params = [Param(key, value) for key, value in description.params.items()]
            self._client.log_batch(run_id, params=params, tags=[RunTag("iq_offline.run", description.name)])
            self._client.log_inputs(run_id, datasets=[_dataset_input(description)])
            return run_id

    def has(self, run_id: str) -> bool:
        """Whether the store holds that run, finished and not deleted."""
        from mlflow.exceptions import MlflowException

        with _mlflow_errors(self.uri):
            try:
                info = self._client.get_run(run_id).info
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return False
                raise
            return bool(info.status == "FINISHED" and info.lifecycle_stage == "active")

    def log_points(self, run_id: str, points: Sequence[tuple[str, float, int]]) -> None:
        """(metric, value, step) triples, in batches."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        with _mlflow_errors(self.uri):
            for first in range(0, len(points), POINTS_A_BATCH):
                chunk = points[first : first + POINTS_A_BATCH]
                self._client.log_batch(run_id, metrics=[Metric(key, value, now, step) for key, value, step in chunk])

    def log_files(self, run_id: str, files: Sequence[Path]) -> None:
        """Files as artifacts of the run."""
        with _mlflow_errors(self.uri):
            for file in files:
                self._client.log_artifact(run_id, str(file))

    def end(self, run_id: str, status: str = "FINISHED") -> None:
        """Mark a run as ended."""
        with _mlflow_errors(self.uri):
            self._client.set_terminated(run_id, status)

    def discard_unfinished(self, run_folder: str) -> None:
        """Remove what an interrupted mirror of a run folder has left."""
        quoted = run_folder.replace("'", "")
        with _mlflow_errors(self.uri):
            query = f"tags.run_folder = '{quoted}' and attributes.status != 'FINISHED'"
            for run in self._client.search_runs([self.experiment_id], query):
                self._client.delete_run(run.info.run_id)

    def children(self, parent: str) -> list[str]:
        """Ids of the runs under a parent."""
        with _mlflow_errors(self.uri):
            runs = self._client.search_runs([self.experiment_id], f"tags.`{PARENT_TAG}` = '{parent}'")
            return [str(run.info.run_id) for run in runs]

    def latest_parent(self) -> str | None:
        """The comparison started last, or None in an empty store."""
        with _mlflow_errors(self.uri):
            runs = self._client.search_runs([self.experiment_id], f"tags.`{GROUP_TAG}` != ''", max_results=1)
            return str(runs[0].info.run_id) if runs else None


def _client(uri: str) -> "MlflowClient":
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # A store that does not answer must not hold up training for minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    import logging

    from mlflow import MlflowClient

    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=uri)


def _dataset_input(description: RunDescription) -> Any:
    import json

    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(
        name=description.dataset_name,
        digest=description.dataset_sha256[:32],
        source_type="local",
        source=json.dumps({"uri": description.dataset_path, "sha256": description.dataset_sha256}),
    )
    return DatasetInput(dataset, tags=[InputTag("mlflow.data.context", "training")])


@contextmanager
def _store_lock() -> Iterator[None]:
    """One process at a time: several that make a fresh SQLite store's tables together leave it broken."""
    lock = paths.home() / "mlflow" / "store.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock, timeout=LOCK_SECONDS):
        yield


@contextmanager
def _mlflow_errors(uri: str) -> Iterator[None]:
    """Whatever a store may fail with, as one error that names it."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError, TimeoutError) as error:
        told = str(error).strip()
        reason = textwrap.shorten(told, REASON_LENGTH, placeholder=" ...") if told else type(error).__name__
        raise TrackingUnavailable(
            f"MLflow's store {uri} cannot be used: {reason}", "check MLFLOW_TRACKING_URI"
        ) from None


def flat_params(content: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A nested mapping as MLflow parameters: dotted keys, text values."""
    flat: dict[str, str] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            flat |= flat_params(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = str(value)
    return flat

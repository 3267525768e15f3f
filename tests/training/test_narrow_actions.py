"""Demonstrations that use next to none of their bounds are learnt as well as others: their own size counts."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from tests_support import requested, write_hdf5

from iq_offline.stages.fetch import open_dataset
from iq_offline.stages.train import train_run
from iq_offline.tracking.mirror import Tracker
from iq_offline.training.run_folder import RunFolder

SMALL = ("batch_size=64", "hidden_sizes=[32, 32]")


def discard(*_: object) -> None:
    """Nobody listens."""


@pytest.fixture(autouse=True)
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """No store to mirror into."""
    monkeypatch.setattr("iq_offline.stages.train.start_tracking", lambda *_: Tracker())


def scaled(task: Path, factor: float, shift: float = 0.0) -> Path:
    """The same episodes with actions so many times as large; within -1 and 1 they are, and so the bounds stay these."""
    with h5py.File(task) as file:
        arrays = {name: np.asarray(file[name]) for name in file if isinstance(file[name], h5py.Dataset)}
    arrays["actions"] = (arrays["actions"].astype(np.float64) * factor + shift).astype(np.float32)
    return write_hdf5(task.with_name(f"times-{factor:g}-and-{shift:g}.hdf5"), arrays)


def train(dataset: Path, method: str, *overrides: str) -> RunFolder:
    out = dataset.with_suffix(f".{method}")
    return train_run(*requested(str(dataset), method, updates=300, overrides=overrides, out=out), discard, discard)


def acted(run: RunFolder, dataset: Path) -> tuple[np.ndarray, np.ndarray]:
    """Executed and recorded actions, shape (N, A) each."""
    table = open_dataset(str(dataset))
    actions = run.policy().act(torch.from_numpy(table.observations(table.transition_rows)))
    return actions.numpy(), table.actions(table.transition_rows)


def relative_error(run: RunFolder, dataset: Path) -> float:
    """Of executed actions, in deviations of the recorded ones."""
    executed, recorded = acted(run, dataset)
    return float(np.sqrt(np.square(executed - recorded).mean()) / recorded.std())


@pytest.mark.parametrize(
    ("method", "extra"), [("bc", ()), ("iq", ("prior.updates=300", "prior.hidden_sizes=[32, 32]"))]
)
def test_narrow_actions_are_learnt_as_well(method, extra, linear_task):
    """Actions in a thousandth of the bounds are learnt about as well as those in the whole."""
    wide, narrow = scaled(linear_task, 1.0), scaled(linear_task, 1e-3, shift=0.2)
    errors = [relative_error(train(dataset, method, *SMALL, *extra), dataset) for dataset in (wide, narrow)]
    assert errors[0] < 0.15
    assert errors[1] < 0.15


def test_how_narrow_they_are_makes_no_difference(linear_task):
    narrow, narrower = scaled(linear_task, 2.0**-8), scaled(linear_task, 2.0**-12)
    found = [acted(train(dataset, "bc", *SMALL), dataset)[0] for dataset in (narrow, narrower)]
    np.testing.assert_allclose(found[0] * 2.0**8, found[1] * 2.0**12, rtol=0, atol=1e-4)


def test_actions_of_usual_size_keep_the_bounds(linear_task):
    run = train(scaled(linear_task, 0.2), "bc", *SMALL)
    policy = run.policy()
    assert policy.action_centre.tolist() == [0.0]
    assert policy.action_half_range.tolist() == [1.0]

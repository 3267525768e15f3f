"""reproduce: train again from what a run recorded, and compare the tensors, the metrics and what surrounds them."""

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor

from iq_offline.config.train import Compile, Device, TrainConfig
from iq_offline.errors import DatasetError, RunError
from iq_offline.stages.fetch import open_dataset
from iq_offline.stages.train import RunOptions, train_run
from iq_offline.training import run_folder
from iq_offline.training.loop import Progress
from iq_offline.training.run_folder import RunFolder
from iq_offline.training.tensor_files import tensors_sha256

SURROUNDINGS = ("platform", "git_commit", "device", "threads", "compiled", "prior_compiled", "together", "config_hash")
"""Keys of the manifest that explain a difference."""
INFINITE = float("inf")


@dataclass(frozen=True)
class Difference:
    """One thing that is not as it was. `largest` is the largest absolute difference, where there is one."""

    kind: str
    name: str
    recorded: str
    now: str
    largest: float | None = None


@dataclass(frozen=True)
class Reproduction:
    """What training again gave, beside what it gave before."""

    run: str
    tolerance: float
    tensors: int
    bitwise: bool
    found: tuple[Difference, ...]

    @property
    def largest(self) -> float:
        """The largest absolute difference of a tensor; infinite where one is missing or of another shape."""
        return max((one.largest or 0.0 for one in self.found if one.kind == "tensor"), default=0.0)

    @property
    def reproduced(self) -> bool:
        """Whether all tensors are within the tolerance; at 0, whether they are the same bits."""
        return self.bitwise or (self.tolerance > 0 and self.largest <= self.tolerance)

    @property
    def sentence(self) -> str:
        """The outcome."""
        if self.bitwise:
            return f"{self.run}: reproduced, {self.tensors} tensors bit for bit"
        verdict = "reproduced" if self.reproduced else "not reproduced"
        return f"{self.run}: {verdict}, tensors differ by up to {self.largest:.3g} (tolerance {self.tolerance:g})"

    @property
    def differences(self) -> list[dict[str, Any]]:
        """One row a difference, for people."""
        return [
            {
                "what": f"{one.kind} {one.name}".strip(),
                "recorded": one.recorded,
                "now": one.now,
                "largest": "-" if one.largest is None else f"{one.largest:.3g}",
            }
            for one in self.found
        ]

    def to_json(self) -> dict[str, Any]:
        """The object that `reproduce --json` prints; a difference that is no number is null."""
        return {
            "run": self.run,
            "reproduced": self.reproduced,
            "bitwise": self.bitwise,
            "tolerance": self.tolerance,
            "largest_difference": _finite(self.largest),
            "tensors": self.tensors,
            "differences": [asdict(one) | {"largest": _finite(one.largest)} for one in self.found],
        }


def reproduce_run(
    run: RunFolder, tolerance: float, on_progress: Callable[[Progress | str], None], warn: Callable[[str], None]
) -> Reproduction:
    """Train the run again in a temporary folder, untracked, and compare.

    Raises RunError for a run whose record this version cannot read, or whose data or device are not here as they were.
    """
    _check_data(run)
    config = _as_trained(run)
    with tempfile.TemporaryDirectory(prefix="iq-offline-reproduce-") as temporary:
        options = RunOptions(Path(temporary) / run.path.name, tracked=False)
        return compare(run, train_run(config, options, on_progress, warn), tolerance)


def compare(run: RunFolder, again: RunFolder, tolerance: float) -> Reproduction:
    """What differs between two runs of the same settings."""
    recorded, now = _tensors(run), _tensors(again)
    found = (
        *_tensor_differences(recorded, now),
        *_metric_differences(run, again),
        *_surroundings(run.manifest, again.manifest),
    )
    bitwise = tensors_sha256(recorded) == tensors_sha256(now)
    return Reproduction(run.manifest["run"], tolerance, len(recorded), bitwise, found)


def _check_data(run: RunFolder) -> None:
    """Raises RunError where the data are gone, or are other bytes than those that were learnt from."""
    recorded = [run.manifest["dataset"]["sha256"], *(one["sha256"] for one in run.split["supplementary"])]
    for dataset, sha256 in zip((run.config.dataset, *run.config.supplementary), recorded, strict=True):
        try:
            found = open_dataset(dataset).info.sha256
        except DatasetError as error:
            raise RunError(
                f"the data of {run.manifest['run']} cannot be had: {error.problem}",
                f"bring {dataset} (SHA-256 {sha256}) back to its place",
            ) from None
        if found != sha256:
            raise RunError(
                f"{dataset} has changed: its SHA-256 is {found}, {run.manifest['run']} learnt from {sha256}",
                "bring the old data back to their place; on the new ones, train a new run",
            )


def _as_trained(run: RunFolder) -> TrainConfig:
    """The run's configuration, on the kind of device and compiled as it was trained."""
    kind = Device(run.manifest["device"].split(":")[0])
    if kind is Device.CUDA and not torch.cuda.is_available():
        raise RunError(
            f"{run.manifest['run']} was trained on CUDA, and there is none here", "reproduce it where one is"
        )
    return run.config.model_copy(update={"device": kind, "compile": _compile(run.manifest, run.config)})


def _compile(manifest: Mapping[str, Any], config: TrainConfig) -> Compile:
    """As was done; where prior and method differ, what the run was asked."""
    method = manifest.get("compiled", False)
    prior = manifest.get("prior_compiled", method)
    return config.compile if method is not prior else Compile.ON if method else Compile.OFF


def _tensors(run: RunFolder) -> dict[str, Tensor]:
    """The checkpoint's, and the policy's with its scaling."""
    policy = {f"policy file: {name}": tensor for name, tensor in run.policy().state_dict().items()}
    return run.checkpoint() | policy


def _tensor_differences(recorded: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> Iterator[Difference]:
    for name in sorted({*recorded, *now}):
        before, after = recorded.get(name), now.get(name)
        if before is None or after is None or (before.shape, before.dtype) != (after.shape, after.dtype):
            yield Difference("tensor", name, _described(before), _described(after), INFINITE)
        elif tensors_sha256({name: before}) != tensors_sha256({name: after}):
            amount = float((before.double() - after.double()).abs().nan_to_num(INFINITE).max())
            yield Difference("tensor", name, _described(before), _described(after), amount)


def _metric_differences(run: RunFolder, again: RunFolder) -> Iterator[Difference]:
    recorded, now = (one.table(run_folder.METRICS) for one in (run, again))
    if recorded.height != now.height:
        yield Difference("metric", "rows", str(recorded.height), str(now.height))
        return
    for name in sorted({*recorded.columns, *now.columns}):
        if name not in recorded.columns or name not in now.columns:
            yield Difference("metric", name, _presence(name, recorded), _presence(name, now))
        elif not recorded[name].equals(now[name], null_equal=True):
            before, after = recorded[name].cast(pl.Float64), now[name].cast(pl.Float64)
            amount = (before - after).abs().max()
            yield Difference("metric", name, _last(before), _last(after), _finite(amount))


def _surroundings(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Difference]:
    for key in SURROUNDINGS:
        if recorded.get(key) != now.get(key):
            yield Difference(key.replace("_", " "), "", str(recorded.get(key)), str(now.get(key)))
    before, after = recorded["packages"], now["packages"]
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            yield Difference("package", name, before.get(name, "absent"), after.get(name, "absent"))


def _described(tensor: Tensor | None) -> str:
    return "absent" if tensor is None else f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _presence(name: str, metrics: pl.DataFrame) -> str:
    return "present" if name in metrics.columns else "absent"


def _last(column: pl.Series) -> str:
    values = column.drop_nulls()
    return f"{values[-1]:.6g} at last" if len(values) else "never"


def _finite(amount: Any) -> float | None:
    return None if amount is None or not math.isfinite(amount) else float(amount)

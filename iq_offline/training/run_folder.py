"""The run folder: a finished run told by files alone, none of them a pickle."""

import hashlib
import json
import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from socket import gethostname
from typing import Any

import polars as pl
import torch
from pydantic import BaseModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from iq_offline.algorithms.encoders import ObservationLayout
from iq_offline.algorithms.networks import (
    DEFAULT_STD,
    ActionScale,
    ContinuousPolicy,
    DiscretePolicy,
    Policy,
    Standardiser,
)
from iq_offline.config.base import Activation
from iq_offline.config.train import TrainConfig
from iq_offline.data.files import is_leftover, whole_file
from iq_offline.data.strict_json import check_seal, first_line, parse_json, read_bytes, read_json, read_toml, sealed
from iq_offline.errors import RunError
from iq_offline.training.run_schema import (
    EvaluationRecord,
    Manifest,
    PolicyHeader,
    RewardModelRecord,
    RewardRecord,
    SplitRecord,
    TrackingRecord,
    fitted,
)
from iq_offline.training.run_tables import read_table

MANIFEST = "manifest.json"
POLICY = "policy.safetensors"
CHECKPOINT = "checkpoint.safetensors"
CONFIG = "config.toml"
SPLIT = "split.json"
METRICS = "metrics.parquet"
TIMING = "timing.parquet"
RETURNS = "returns.parquet"
EVALUATION = "evaluation.json"
REWARD = "reward.json"
REWARDS = "rewards.parquet"
REWARD_PLOT = "reward.png"
REWARD_MODEL = "reward_model.safetensors"
REWARD_MODEL_REPORT = "reward_model.json"
TRACKING = "tracking.json"
WRITTEN_BY = {
    **dict.fromkeys((POLICY, CHECKPOINT, CONFIG, SPLIT, METRICS, TIMING), MANIFEST),
    RETURNS: EVALUATION,
    REWARDS: REWARD,
    REWARD_MODEL: REWARD_MODEL_REPORT,
}
"""The record that lists the hash of each other file: that of the stage which writes both."""
STAGE_RECORDS: dict[str, type[BaseModel]] = {
    EVALUATION: EvaluationRecord,
    REWARD: RewardRecord,
    REWARD_MODEL_REPORT: RewardModelRecord,
    TRACKING: TrackingRecord,
}
FILES = frozenset({MANIFEST, REWARD_PLOT, *WRITTEN_BY, *STAGE_RECORDS})
"""All that this tool writes into a run folder."""
FEWEST_FILES = 4
"""A folder with fewer of the seven files that training writes is no run, not even a damaged one."""
AGAIN = "train the run again"
REMEDIES = {
    EVALUATION: "run `iq-offline eval` on it again",
    REWARD: "run `iq-offline reward` on it again",
    REWARD_MODEL_REPORT: "run `iq-offline distil` on it again",
    TRACKING: "remove that file, then run `iq-offline sync` on the run",
}


@dataclass(frozen=True)
class RunFolder:
    """A complete run on disk. Every file is checked when it is first read: schema, plausibility, hash."""

    path: Path

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Raises RunError where the folder is not a run, or its manifest is damaged."""
        try:
            there, folder = (path / MANIFEST).exists(), path.is_dir()
        except (OSError, ValueError) as error:
            raise RunError(f"{path} is no folder's name: {first_line(error)}", "name a run folder") from None
        if not there:
            what = "is not a run folder (no manifest.json)" if folder else "does not exist"
            raise RunError(f"{path} {what}", "name a folder that `iq-offline train` has written")
        run = cls(path)
        _ = run.manifest
        return run

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What was trained, from what, with what."""
        return self._record(MANIFEST, Manifest)

    @cached_property
    def config(self) -> TrainConfig:
        """The run's configuration. Raises RunError where this version cannot read it."""
        self.check_file(CONFIG)
        try:
            config = TrainConfig.from_values(read_toml(self.path / CONFIG))
        except (OSError, ValueError) as error:
            packages, commit = self.manifest["packages"], self.manifest.get("git_commit")
            version = f"iq-offline {packages.get('iq-offline', '?')}, commit {commit or 'unknown'}"
            raise RunError(
                f"{self.path / CONFIG} does not fit this version: {first_line(error)}",
                f"use what trained it ({version}), or train the run again",
            ) from None
        for key in ("method", "seed", "demos", "subsample"):
            if getattr(config, key) != self.manifest[key]:
                raise self._damaged(CONFIG, f"{key} is {getattr(config, key)}, in {MANIFEST} {self.manifest[key]}")
        return config

    @cached_property
    def split(self) -> dict[str, Any]:
        """Which episodes it learned from."""
        self.check_file(SPLIT)
        split, dataset = self._record(SPLIT, SplitRecord), self.manifest["dataset"]
        for name, found, expected in (
            ("dataset_sha256", split["dataset_sha256"], dataset["sha256"]),
            ("transitions", split["transitions"], self.manifest["transitions"]),
            ("number of supplementary datasets", len(split["supplementary"]), len(self.config.supplementary)),
        ):
            if found != expected:
                raise self._damaged(SPLIT, f"{name} is {found}, not {expected}")
        named = [*split["expert_episodes"], *split["held_out_episodes"]]
        if max(named) >= dataset["episodes"]:
            raise self._damaged(SPLIT, f"episode {max(named)} of {dataset['episodes']}")
        if len(named) != (self.config.demos or dataset["episodes"]):
            raise self._damaged(SPLIT, f"{len(named)} episodes, not {self.config.demos or dataset['episodes']}")
        for other in split["supplementary"]:
            if any(episode >= other["episodes"] for episode in other.get("taken_episodes", ())):
                raise self._damaged(SPLIT, f"an accepted episode that {other['dataset']} does not have")
        return split

    def policy(self) -> Policy:
        """The trained policy, on the CPU."""
        self.check_file(POLICY)
        policy = load_policy(self.path / POLICY)
        self._check_tensors(POLICY, policy.state_dict(), "policy_sha256")
        return policy

    def checkpoint(self) -> dict[str, Tensor]:
        """All learnt tensors by name, on the CPU."""
        self.check_file(CHECKPOINT)
        tensors = read_tensors(self.path / CHECKPOINT)
        self._check_tensors(CHECKPOINT, tensors, "checkpoint_sha256")
        return tensors

    def check_trained(self) -> None:
        """Raises RunError where a file that training has written is damaged."""
        _ = self.config, self.split, self.policy(), self.checkpoint(), self.table(METRICS), self.table(TIMING)

    def table(self, name: str) -> pl.DataFrame:
        """One of its tables: metrics, timing, returns, rewards. Raises RunError where it is damaged or missing."""
        self.check_file(name)
        try:
            return read_table(self.path / name)
        except (OSError, ValueError) as error:
            raise RunError(f"{self.path / name} cannot be read: {first_line(error)}", self._remedy(name)) from None

    def read_optional(self, name: str) -> dict[str, Any] | None:
        """A JSON file of a later stage, or None where that stage has not run."""
        return self._record(name, STAGE_RECORDS[name]) if os.path.lexists(self.path / name) else None

    def check_file(self, name: str) -> None:
        """Raises RunError where the file's bytes are not those that its record lists. Unlisted files pass."""
        if name in self._checked:
            return
        expected = self._listed(name)
        if expected is not None:
            try:
                found = hashlib.sha256(read_bytes(self.path / name)).hexdigest()
            except (OSError, ValueError) as error:
                raise self._damaged(name, first_line(error)) from None
            if found != expected:
                raise self._damaged(name, "its SHA-256 is not the recorded one, so it was changed after it was written")
        self._checked.add(name)

    @cached_property
    def _checked(self) -> set[str]:
        return set()

    def _listed(self, name: str) -> str | None:
        """The hash that the record of this file's stage lists for it."""
        if name not in WRITTEN_BY:
            return None
        record = self.manifest if WRITTEN_BY[name] == MANIFEST else self.read_optional(WRITTEN_BY[name])
        listed: str | None = (record or {}).get("files", {}).get(name)
        return listed

    def _check_tensors(self, name: str, tensors: Mapping[str, Tensor], key: str) -> None:
        if f"{name}: tensors" in self._checked:
            return
        expected = self.manifest.get(key)
        if expected is not None and tensors_sha256(tensors) != expected:
            raise self._damaged(name, f"its tensors do not match {key} of {MANIFEST}")
        unfit = [key for key, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
        if unfit:
            raise self._damaged(name, f"{unfit[0]} holds values that are not finite numbers")
        self._checked.add(f"{name}: tensors")

    def _record(self, name: str, model: type[BaseModel]) -> dict[str, Any]:
        try:
            content = read_json(self.path / name)
            check_seal(content)
            fitted(model, content)
        except (OSError, ValueError) as error:
            raise self._damaged(name, first_line(error)) from None
        return content

    def _damaged(self, name: str, problem: str) -> RunError:
        return RunError(f"{self.path / name} is damaged: {problem}", self._remedy(name))

    def _remedy(self, name: str) -> str:
        return REMEDIES.get(WRITTEN_BY.get(name, name), AGAIN)


def foreign_to_run(path: Path) -> list[str] | None:
    """What a folder holds beside the files of a run; None for a folder that is no run, not even a damaged one."""
    items = {item.name: item for item in path.iterdir()}
    trained = {MANIFEST, *(name for name, record in WRITTEN_BY.items() if record == MANIFEST)}
    if len(items.keys() & trained) < FEWEST_FILES:
        return None
    known = {
        name
        for name, item in items.items()
        if (name in FILES and (item.is_symlink() or not item.is_dir())) or is_leftover(name, gethostname())
    }
    return sorted(items.keys() - known)


def find_runs(paths: list[Path]) -> list[RunFolder]:
    """The run folders named, or lying directly inside the folders named, in a stable order.

    Raises RunError for a path that neither is nor holds a run.
    """
    return [RunFolder.open(path) for path in run_paths(paths)]


def run_paths(paths: list[Path]) -> list[Path]:
    """Where the run folders are that are named, or lie directly inside the folders named, each once."""
    found: dict[Path, None] = {}
    for path in paths:
        try:
            inside = sorted(item.parent for item in path.glob(f"*/{MANIFEST}") if not item.parent.name.startswith("."))
            chosen = [path] if (path / MANIFEST).exists() or not inside else inside
            found |= dict.fromkeys(folder.resolve() for folder in chosen)
        except (OSError, ValueError, RuntimeError) as error:
            raise RunError(f"{path} is no folder's name: {first_line(error)}", "name a run folder") from None
    return list(found)


def save_policy(policy: Policy, path: Path) -> None:
    """Weights and scaling, with what is needed to build the network again in the file's own header."""
    hidden = [layer.out_features for layer in policy.network if isinstance(layer, torch.nn.Linear)]
    norm = any(isinstance(layer, torch.nn.LayerNorm) for layer in policy.network)
    activations = [
        type(layer).__name__ for layer in policy.network if not isinstance(layer, torch.nn.Linear | torch.nn.LayerNorm)
    ]
    header = {
        "kind": "continuous" if isinstance(policy, ContinuousPolicy) else "discrete",
        "hidden_sizes": json.dumps(hidden[:-1]),
        "outputs": str(hidden[-1]),
        "activation": activations[0].lower() if activations else str(Activation.TANH),
        "layer_norm": json.dumps(norm),
        "vector": str(policy.layout.vector),
        "pictures": json.dumps(policy.layout.pictures),
    }
    if policy.layout.categories:
        header["categories"] = json.dumps(policy.layout.categories)
    if policy.layout.offset:
        header["offset"] = json.dumps(policy.layout.offset)
    if isinstance(policy, ContinuousPolicy):
        header |= {"head": policy.head, "learnt_std": json.dumps(policy.learnt_std), "std": json.dumps(policy.std)}
    path.write_bytes(tensor_bytes(policy.state_dict(), header))


def load_policy(path: Path) -> Policy:
    """The policy that `save_policy` wrote. Raises RunError where the file is damaged or missing."""
    tensors = read_tensors(path)
    header = _policy_header(path, tensors)
    try:
        _check_scaling(header, tensors)
        policy = _built(header, tensors)
        policy.load_state_dict(tensors)
        for name, tensor in policy.state_dict().items():
            if tensors[name].dtype != tensor.dtype:
                raise ValueError(f"{name} is {tensors[name].dtype}, not {tensor.dtype}")
    except (RuntimeError, KeyError, ValueError, TypeError) as error:
        raise RunError(f"{path} is damaged: its tensors do not fit its header ({first_line(error)})", AGAIN) from None
    return policy.eval().requires_grad_(False)


def _check_scaling(header: PolicyHeader, tensors: Mapping[str, Tensor]) -> None:
    """Raises ValueError where the scaling does not fit the header's observations and actions: it sizes no layer."""
    size = header.vector + sum(map(math.prod, header.pictures))
    expected = {"observation_mean": size, "observation_std": size}
    if header.kind == "continuous":
        actions = header.outputs // 2 if header.learnt_std else header.outputs
        expected |= {"action_centre": actions, "action_half_range": actions}
    for name, count in expected.items():
        if tensors[name].shape != (count,) or tensors[name].dtype != torch.float32:
            raise ValueError(f"{name} is not {count} 32-bit numbers")
    if not (tensors["observation_std"] > 0).all():
        raise ValueError("observation_std is not positive")
    if header.kind == "continuous" and (tensors["action_half_range"] < 0).any():
        raise ValueError("action_half_range is negative")


def _built(header: PolicyHeader, tensors: Mapping[str, Tensor]) -> Policy:
    standardiser = Standardiser(tensors["observation_mean"], tensors["observation_std"])
    layout = ObservationLayout(header.vector, header.pictures, header.categories, header.offset)
    if header.kind == "discrete":
        return DiscretePolicy(
            standardiser, header.outputs, header.hidden_sizes, header.activation, norm=header.layer_norm, layout=layout
        )
    assert header.std is not None or header.learnt_std
    return ContinuousPolicy(
        standardiser,
        ActionScale(tensors["action_centre"], tensors["action_half_range"]),
        header.hidden_sizes,
        header.activation,
        head=header.head,
        learnt_std=header.learnt_std,
        std=DEFAULT_STD if header.std is None else header.std,
        layout=layout,
    )


def _policy_header(path: Path, tensors: Mapping[str, Tensor]) -> PolicyHeader:
    """The header, checked against the tensors before a network of its sizes is built."""
    plain = ("kind", "activation", "head")
    try:
        header = read_header(path)
        values = {key: text if key in plain else parse_json(text) for key, text in header.items()}
        found = fitted(PolicyHeader, values)
    except ValueError as error:
        raise RunError(f"{path} is damaged: its header does not fit ({first_line(error)})", AGAIN) from None
    largest = max((tensor.numel() for tensor in tensors.values()), default=0)
    sizes = (*found.hidden_sizes, found.outputs)
    widest = max(map(math.prod, pairwise(sizes)), default=0)
    inputs = (found.vector, sum(found.categories), *map(math.prod, found.pictures))
    if max(*sizes, widest, *inputs) > max(largest, 1 << 16):
        raise RunError(f"{path} is damaged: its header names larger layers than it holds", AGAIN)
    return found


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors of a checkpoint whose names begin with `prefix.`, without it."""
    return {name[len(prefix) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(prefix + ".")}


def contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU that safetensors can write, in order of their names."""
    return {name: tensors[name].detach().cpu().contiguous().clone() for name in sorted(tensors)}


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and values: equal where and only where the tensors are, bit for bit."""
    digest = hashlib.sha256()
    for name, tensor in contiguous(tensors).items():
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def seal_record(path: Path, content: Mapping[str, Any]) -> None:
    """Write a record: the content, the hashes of the files that it stands for, and a checksum of it all."""
    files = {
        name: hashlib.sha256((path.parent / name).read_bytes()).hexdigest()
        for name, record in WRITTEN_BY.items()
        if record == path.name and (path.parent / name).is_file()
    }
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(sealed({**content, "files": files}), indent=1, allow_nan=False))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises RunError where it is damaged or missing."""
    try:
        return load(read_bytes(path))
    except (OSError, SafetensorError, ValueError, KeyError, RuntimeError, OverflowError) as error:
        raise RunError(f"{path} cannot be read: {first_line(error)}", AGAIN) from None


def read_header(path: Path) -> dict[str, str]:
    """The texts in a safetensors file's header. Raises ValueError where it has none."""
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise ValueError(first_line(error)) from None


def tensor_bytes(tensors: Mapping[str, Tensor], header: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file whose bytes depend on its content alone: the library orders header texts at random."""
    written = save(contiguous(tensors), dict(header) if header else None)
    (length,) = struct.unpack("<Q", written[:8])
    content = json.loads(written[8 : 8 + length])
    if "__metadata__" in content:
        content["__metadata__"] = dict(sorted(content["__metadata__"].items()))
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + written[8 + length :]

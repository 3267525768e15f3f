"""The run folder: a finished run told by files alone, none of them a pickle."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from iq_offline.algorithms.encoders import ObservationLayout
from iq_offline.algorithms.networks import ActionScale, ContinuousPolicy, DiscretePolicy, Policy, Standardiser
from iq_offline.config import ActionHead, Activation, TrainConfig
from iq_offline.errors import RunError

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


@dataclass(frozen=True)
class RunFolder:
    """A complete run on disk."""

    path: Path

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Raises RunError where the folder is not a run."""
        if not (path / MANIFEST).is_file():
            what = "is not a run folder (no manifest.json)" if path.is_dir() else "does not exist"
            raise RunError(f"{path} {what}", "name a folder that `iq-offline train` has written")
        return cls(path)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What was trained, from what, with what."""
        content: dict[str, Any] = self._json(MANIFEST)
        return content

    @cached_property
    def config(self) -> TrainConfig:
        """The run's configuration."""
        return TrainConfig.from_toml((self.path / CONFIG).read_text())

    @cached_property
    def split(self) -> dict[str, Any]:
        """Which episodes it learned from."""
        content: dict[str, Any] = self._json(SPLIT)
        return content

    def policy(self) -> Policy:
        """The trained policy, on the CPU."""
        return load_policy(self.path / POLICY)

    def checkpoint(self) -> dict[str, Tensor]:
        """All learnt tensors by name, on the CPU."""
        return _tensors(self.path / CHECKPOINT)

    def read_optional(self, name: str) -> dict[str, Any] | None:
        """A JSON file of a later stage, or None where that stage has not run."""
        return self._json(name) if (self.path / name).is_file() else None

    def _json(self, name: str) -> Any:
        try:
            return json.loads((self.path / name).read_text())
        except (OSError, json.JSONDecodeError) as error:
            raise RunError(f"{self.path / name} cannot be read: {error}", "train the run again") from None


def find_runs(paths: list[Path]) -> list[RunFolder]:
    """The run folders named, or lying directly inside the folders named, in a stable order.

    Raises RunError for a path that neither is nor holds a run.
    """
    found: dict[Path, RunFolder] = {}
    for path in paths:
        inside = sorted(item.parent for item in path.glob(f"*/{MANIFEST}") if not item.parent.name.startswith("."))
        if (path / MANIFEST).is_file() or not inside:
            inside = [path]
        for folder in inside:
            found.setdefault(folder.resolve(), RunFolder.open(folder.resolve()))
    return list(found.values())


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
    save_file(contiguous(policy.state_dict()), path, metadata=header)


def load_policy(path: Path) -> Policy:
    """The policy that `save_policy` wrote. Raises RunError where the file is damaged or missing."""
    tensors = _tensors(path)
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    hidden = tuple(json.loads(header["hidden_sizes"]))
    activation = Activation(header["activation"])
    standardiser = Standardiser(tensors["observation_mean"], tensors["observation_std"])
    pictures = tuple(tuple(shape) for shape in json.loads(header["pictures"]))
    categories, offset = (tuple(json.loads(header.get(name, "[]"))) for name in ("categories", "offset"))
    layout = ObservationLayout(int(header["vector"]), pictures, categories, offset)
    policy: Policy
    if header["kind"] == "continuous":
        policy = ContinuousPolicy(
            standardiser,
            ActionScale(tensors["action_centre"], tensors["action_half_range"]),
            hidden,
            activation,
            head=ActionHead(header["head"]),
            learnt_std=json.loads(header["learnt_std"]),
            std=json.loads(header["std"]),
            layout=layout,
        )
    else:
        norm = json.loads(header["layer_norm"])
        policy = DiscretePolicy(standardiser, int(header["outputs"]), hidden, activation, norm=norm, layout=layout)
    policy.load_state_dict(tensors)
    return policy.eval().requires_grad_(False)


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


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path} cannot be read: {error}", "train the run again") from None

"""Safetensors files: tensors with a header of texts, their hash, and a policy with what its network is built from."""

import hashlib
import json
import math
import struct
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
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
from iq_offline.config.base import ActionHead, Activation
from iq_offline.config.pictures import PictureEncoder
from iq_offline.data.strict_json import first_line, parse_json, read_bytes
from iq_offline.errors import RunError
from iq_offline.training.run_schema import Number, fitted

AGAIN = "train the run again"
Size = Annotated[int, Field(ge=1, le=10_000_000)]


class PolicyHeader(BaseModel):
    """The header of `policy.safetensors`: what is needed to build the network again."""

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: Literal["continuous", "discrete"]
    hidden_sizes: Annotated[tuple[Size, ...], Field(max_length=64)]
    outputs: Size
    activation: Activation
    layer_norm: bool = False
    vector: Annotated[int, Field(ge=0, le=10_000_000)]
    pictures: Annotated[tuple[Annotated[tuple[Size, ...], Field(max_length=4)], ...], Field(max_length=64)]
    categories: tuple[Annotated[int, Field(ge=0, le=10_000_000)], ...] = ()
    offset: tuple[Number, ...] = ()
    encoder: PictureEncoder = PictureEncoder.NATURE
    head: ActionHead = ActionHead.CLIPPED_GAUSSIAN
    learnt_std: bool = False
    std: Annotated[Number, Field(gt=0)] | None = None


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
    if policy.layout.encoded_by != PictureEncoder.NATURE:
        header["encoder"] = policy.layout.encoded_by
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
    layout = ObservationLayout(header.vector, header.pictures, header.categories, header.offset, header.encoder)
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
    plain = ("kind", "activation", "head", "encoder")
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

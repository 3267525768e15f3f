"""The formats of an exported policy: each writes a policy as bytes, and runs those bytes again.

An exported policy takes raw observations (B, D), 32-bit floats, B free (64-bit ones where the data have an offset), and
gives the deterministic actions: (B, A) in the environment's units, or (B,) 64-bit integers. The scaling of observations
and actions and all clipping are inside.
"""

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from iq_offline.algorithms.networks import Policy
from iq_offline.errors import ConfigError, PackageMissing, did_you_mean

Act = Callable[[NDArray[Any]], NDArray[Any]]
Facts = Mapping[str, Any]
FACTS = "iq_offline.json"
"""Where in a TorchScript or torch.export file the facts lie; ONNX has them among its metadata."""
INPUT, OUTPUT = "observation", "action"
EXAMPLE_ROWS = 2
"""Rows of the example that a policy is traced with; one row would fix the batch's size."""


class Format(StrEnum):
    """What a policy can be exported as."""

    ONNX = "onnx"
    TORCHSCRIPT = "torchscript"
    TORCH_EXPORT = "torch-export"


SUFFIXES = {".onnx": Format.ONNX, ".pt": Format.TORCHSCRIPT, ".pt2": Format.TORCH_EXPORT}


@dataclass(frozen=True)
class Codec:
    """How a format is written, and how its bytes are run."""

    write: Callable[[Policy, Facts], bytes]
    run: Callable[[bytes], Act]


def format_of(path: Path, asked: str | None) -> Format:
    """The format asked for, else that of the file's suffix. Raises ConfigError."""
    if asked is not None:
        if asked not in list(Format):
            raise ConfigError(f"unknown format '{asked}'", did_you_mean(asked, Format))
        return Format(asked)
    if path.suffix not in SUFFIXES:
        known = ", ".join(SUFFIXES)
        raise ConfigError(f"{path.name}: no format has the suffix '{path.suffix}'", f"one of {known}, or give --format")
    return SUFFIXES[path.suffix]


def codec(kind: Format) -> Codec:
    """Raises PackageMissing for ONNX without its packages."""
    if kind is Format.ONNX:
        _need_onnx()
        return Codec(_write_onnx, _run_onnx)
    if kind is Format.TORCHSCRIPT:
        return Codec(write_torchscript, run_torchscript)
    return Codec(_write_torch_export, _run_torch_export)


def write_torchscript(policy: Policy, facts: Facts) -> bytes:
    """The policy as TorchScript, which PyTorch alone runs, from Python or C++."""
    buffer = io.BytesIO()
    with _without_library_warnings():
        traced = torch.jit.trace(Acting(policy), _example(policy), check_trace=False)  # type: ignore[no-untyped-call]
        torch.jit.save(traced, buffer, _extra_files={FACTS: json.dumps(facts).encode()})
    return buffer.getvalue()


def run_torchscript(content: bytes) -> Act:
    """Run what `write_torchscript` wrote."""
    with _without_library_warnings():
        module = torch.jit.load(io.BytesIO(content))  # type: ignore[no-untyped-call]
    return _runs(module)


class Acting(nn.Module):
    """A policy whose `forward` is the action.

    Where the data have an offset, observations come in 64 bits, and it is subtracted before they are narrowed.
    """

    offset: Tensor

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy
        self.dtype = torch.float32
        if policy.layout.offset:
            pictures = [0.0] * (policy.layout.size - policy.layout.vector)
            self.register_buffer("offset", torch.tensor([*policy.layout.offset, *pictures], dtype=torch.float64))
            self.dtype = torch.float64

    def narrowed(self, observation: Tensor) -> Tensor:
        """Raw observations (B, D) as the policy takes them."""
        return (observation - self.offset).float() if self.dtype is torch.float64 else observation

    def forward(self, observation: Tensor) -> Tensor:
        """Raw observations (B, D) to actions."""
        return self.policy.act(self.narrowed(observation))


def raw_observations(policy: Policy, narrowed: NDArray[np.float32]) -> NDArray[Any]:
    """The reverse of `Acting.narrowed`: (B, D) as an exported policy takes them."""
    offset = policy.layout.offset
    if not offset:
        return narrowed
    raw = narrowed.astype(np.float64)
    raw[:, : len(offset)] += np.array(offset)
    return raw


def _example(policy: Policy) -> tuple[Tensor]:
    example = raw_observations(policy, policy.observation_mean.cpu().repeat(EXAMPLE_ROWS, 1).numpy())
    return (torch.from_numpy(example),)


def _dynamic() -> tuple[dict[int, Any]]:
    return ({0: torch.export.Dim("batch")},)


def _runs(module: Callable[[Tensor], Tensor]) -> Act:
    def act(observations: NDArray[Any]) -> NDArray[Any]:
        with torch.no_grad():
            return np.asarray(module(torch.from_numpy(observations)).numpy())

    return act


def _write_torch_export(policy: Policy, facts: Facts) -> bytes:
    buffer = io.BytesIO()
    with _without_library_warnings(), torch.no_grad():
        program = torch.export.export(Acting(policy), _example(policy), dynamic_shapes=_dynamic())
        torch.export.save(program, buffer, extra_files={FACTS: json.dumps(facts)})
    return buffer.getvalue()


def _run_torch_export(content: bytes) -> Act:
    with _without_library_warnings():
        return _runs(torch.export.load(io.BytesIO(content)).module())


def _write_onnx(policy: Policy, facts: Facts) -> bytes:
    with _without_library_warnings(), torch.no_grad():
        program = torch.onnx.export(
            Acting(policy),
            _example(policy),
            dynamo=True,
            dynamic_shapes=_dynamic(),
            input_names=[INPUT],
            output_names=[OUTPUT],
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    for key, value in facts.items():
        model.metadata_props.add(key=key, value=value if isinstance(value, str) else json.dumps(value))
    content: bytes = model.SerializeToString()
    return content


def _run_onnx(content: bytes) -> Act:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def act(observations: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(session.run([OUTPUT], {INPUT: observations})[0])

    return act


def _need_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise PackageMissing(
            f"ONNX needs the package {error.name}", "pip install 'iq-offline[export]', or export to .pt or .pt2"
        ) from None


@contextmanager
def _without_library_warnings() -> Iterator[None]:
    """PyTorch's exporters warn of their internals, and of TorchScript's age: nothing that the caller can change."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)

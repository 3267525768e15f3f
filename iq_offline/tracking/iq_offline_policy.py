"""How MLflow loads a policy: this file travels inside the model and needs PyTorch and numpy, nothing of iq-offline."""

import warnings
from typing import Any

import numpy as np
import torch


class Policy:
    """Observations (B, D) in, actions out: (B, A) in the environment's units, or (B,) integers."""

    def __init__(self, module: Any) -> None:
        self._module = module
        buffers = dict(module.named_buffers())
        # data whose numbers 32 bits are too few for have an offset, which the module subtracts in 64
        self._dtype = np.float64 if "offset" in buffers else np.float32

    def predict(self, model_input: Any, params: Any = None) -> Any:  # noqa: ARG002
        """MLflow's entry: numbers, then the bytes of pictures, one observation a row."""
        observations = torch.from_numpy(np.ascontiguousarray(model_input, dtype=self._dtype))
        with torch.no_grad():
            return self._module(observations).numpy()


def _load_pyfunc(path: str) -> Policy:
    with warnings.catch_warnings():  # TorchScript is old, and says so
        warnings.simplefilter("ignore")
        return Policy(torch.jit.load(path))  # type: ignore[no-untyped-call]

"""A run's policy as a folder in MLflow's model format: observations in, actions out, nothing of this package needed."""

import json
import platform
import shutil
from importlib.metadata import version
from pathlib import Path

import numpy as np

from iq_offline.export.check import compare, random_observations
from iq_offline.export.formats import run_torchscript, write_torchscript
from iq_offline.training.run_folder import RunFolder

LOADER = "iq_offline_policy"
NEEDED = ("mlflow", "numpy", "torch")
EXAMPLE, SERVED_EXAMPLE = "input_example.json", "serving_input_example.json"
"""For Python, and as the body of a request to a model that MLflow serves."""
EXAMPLE_ROWS = 2
CHECKED_OBSERVATIONS = 64


def write_model(run: Path, destination: Path) -> None:
    """The run's policy as TorchScript with a loader of a few lines, its signature and an input example.

    Written by MLflow's own `add_to_model` and not by its `save_model`, which spends most of a second on looking
    through all installed packages. Raises RunError where the policy is damaged or its export differs from it.
    """
    policy = RunFolder.open(run).policy()
    content = write_torchscript(policy, {})
    observations = random_observations(policy, CHECKED_OBSERVATIONS)
    act = run_torchscript(content)
    compare(policy, act, observations)
    example = observations[:EXAMPLE_ROWS]
    (destination / "policy.pt").write_bytes(content)
    (destination / "code").mkdir()
    shutil.copy(Path(__file__).with_name(f"{LOADER}.py"), destination / "code")
    (destination / EXAMPLE).write_text(json.dumps(example.tolist()))
    (destination / SERVED_EXAMPLE).write_text(json.dumps({"inputs": example.tolist()}))
    requirements = "\n".join(f"{name}=={version(name).partition('+')[0]}" for name in NEEDED)
    (destination / "requirements.txt").write_text(f"{requirements}\n")
    python = f"python: {platform.python_version()}\ndependencies:\n- -r requirements.txt\n"
    (destination / "python_env.yaml").write_text(python)
    _write_mlmodel(destination, example, act(example))


def _write_mlmodel(destination: Path, observations: np.ndarray, actions: np.ndarray) -> None:
    from mlflow.models import Model, ModelSignature
    from mlflow.pyfunc import add_to_model
    from mlflow.types import Schema, TensorSpec

    signature = ModelSignature(
        Schema([TensorSpec(observations.dtype, (-1, *observations.shape[1:]))]),
        Schema([TensorSpec(actions.dtype, (-1, *actions.shape[1:]))]),
    )
    example = {"artifact_path": EXAMPLE, "serving_input_path": SERVED_EXAMPLE, "type": "ndarray"}
    model = Model(signature=signature, saved_input_example_info=example)
    add_to_model(  # type: ignore[no-untyped-call]
        model, LOADER, data="policy.pt", code="code", python_env="python_env.yaml"
    )
    model.save(str(destination / "MLmodel"))

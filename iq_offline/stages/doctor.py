"""doctor: what this installation has, and how to get what it lacks."""

import importlib.util
import os
from typing import Any

from iq_offline import paths
from iq_offline.credentials import public_url
from iq_offline.data.catalogue import catalogue
from iq_offline.data.environments import FITTING_VERSIONS, INSTALL, PLUG_INS, import_plug_in
from iq_offline.tracking.mlflow_access import tracking_uri
from iq_offline.training.provenance import git_commit, package_versions, platform_description

OPTIONAL = {
    "mujoco": ("MuJoCo tasks in simulation", "pip install 'gymnasium[mujoco]'"),
    "d3rlpy": ("offline-RL baselines", "pip install 'iq-offline[baselines]'"),
    "snakemake": ("pipelines", "pip install 'iq-offline[pipeline]'"),
    "huggingface_hub": ("Minari's remote datasets", "pip install 'iq-offline[remote]'"),
    "gymnasium_robotics": ("Adroit, AntMaze, kitchen and point mazes in simulation", INSTALL),
    "minigrid": ("MiniGrid and BabyAI in simulation", INSTALL),
    "ale_py": ("Atari in simulation", INSTALL),
    "Box2D": ("LunarLander in simulation", "pip install 'iq-offline[box2d]'"),
    "moviepy": ("films of episodes (eval --video)", "pip install moviepy"),
    "onnxruntime": ("export to ONNX", "pip install 'iq-offline[export]'"),
}


def examine() -> dict[str, Any]:
    """The object that `doctor --json` prints. Opens the store's place, not the store."""
    import torch

    missing = [
        {"module": module, "for": purpose, "remedy": remedy}
        for module, (purpose, remedy) in OPTIONAL.items()
        if importlib.util.find_spec(module) is None
    ]
    cuda = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "versions": package_versions(),
        "git_commit": git_commit(),
        "platform": platform_description(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "cuda_devices": cuda,
        "home": str(paths.home()),
        "home_writable": _writable(),
        "minari_home": str(paths.minari_home()),
        "tracking_uri": public_url(tracking_uri()),
        "missing": missing,
        "broken": _broken(missing),
        "defects": [
            {"dataset": entry.id, "defect": defect}
            for entry in catalogue().values()
            if entry.known_defects and entry.on_disk
            for defect in entry.known_defects
        ],
    }


def _broken(missing: list[dict[str, str]]) -> list[dict[str, str]]:
    """The packages of environments that are installed and cannot be imported."""
    absent = {item["module"] for item in missing}
    errors = {package: import_plug_in(package) for package in PLUG_INS if package not in absent}
    return [
        {"module": package, "error": f"{type(error).__name__}: {error}", "remedy": FITTING_VERSIONS}
        for package, error in errors.items()
        if error
    ]


def _writable() -> bool:
    folder = paths.home()
    while not folder.exists():
        folder = folder.parent
    return os.access(folder, os.W_OK)

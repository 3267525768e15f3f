"""What runs that act need around them: a run to start from, and the replay as a dataset."""

import json
from pathlib import Path
from typing import Any

import torch

from iq_offline.config.base import AlgorithmConfig
from iq_offline.config.cloning import BCConfig
from iq_offline.config.online import InteractionConfig
from iq_offline.config.train import TrainConfig
from iq_offline.data.reading import Format
from iq_offline.data.table import TransitionTable
from iq_offline.errors import ConfigError
from iq_offline.interaction.replay import Replay, rows_for
from iq_offline.stages.convert import SUFFIXES, check_destination, record_path, write_episodes
from iq_offline.training.run_folder import RunFolder


def starting(algorithm: AlgorithmConfig, run: RunFolder, method: str) -> AlgorithmConfig:
    """The settings with those of the clone that the run's policy has the shape of.

    Raises ConfigError where the method starts from no run, or the run has no such policy.
    """
    if not (isinstance(algorithm, InteractionConfig) and "prior" in type(algorithm).model_fields):
        raise ConfigError(f"method {method} starts from no run", "leave --start-from out, or give --method iq-online")
    of_run = run.config.algorithm
    clone = of_run if isinstance(of_run, BCConfig) else getattr(of_run, "prior", None)
    own = algorithm.name.rpartition("-")[2]
    if not isinstance(clone, BCConfig):
        raise ConfigError(f"{run.path} has no cloned policy to start from", "name a run of bc or iq")
    if clone.name.rpartition("-")[2] != own:
        raise ConfigError(f"{run.path} has a policy of other actions", f"name a run with {own} actions")
    return algorithm.model_copy(update={"prior": clone})


def check_replay_destination(config: TrainConfig, destination: Path | None, resumes: str | None) -> None:
    """Raises ConfigError where nothing will be experienced, or the replay could not be written there.

    `resumes`: the hash of the run that is gone on with, whose replay may be there already; None for a new run.
    """
    if destination is None:
        return
    if not isinstance(config.algorithm, InteractionConfig):
        raise ConfigError(f"method {config.method} experiences nothing", "leave --keep-replay out")
    check_destination(destination, format_of(destination))
    if destination.exists() and not (resumes and experienced_by(destination) == resumes):
        raise ConfigError(f"{destination} exists", "name another place with --keep-replay")


def keep_replay(
    config: TrainConfig, like: TransitionTable, folder: Path, destination: Path, manifest: dict[str, Any]
) -> None:
    """Write all that a run has experienced as a dataset."""
    algorithm = config.algorithm
    assert isinstance(algorithm, InteractionConfig)
    rows = rows_for(algorithm.environment_steps)
    replay = Replay(folder, like, rows, algorithm.replay_size, torch.device("cpu"))
    replay.recall(len(replay.found()))
    about = f"all that the run {manifest['run']} ({config.method}, seed {config.seed}) experienced, from its first step"
    of_run = {key: manifest[key] for key in ("run", "method", "seed", "config_hash")}
    write_episodes(replay.source(about), destination, format_of(destination), {"experienced_by": of_run})


def experienced_by(destination: Path) -> str | None:
    """The hash of the run whose replay lies there; None for anything else."""
    try:
        record = json.loads(record_path(destination, format_of(destination)).read_text())
        return str(record["experienced_by"]["config_hash"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def format_of(destination: Path) -> Format:
    """D4RL's layout for a file, Minari's for a folder."""
    return Format.D4RL if destination.suffix in SUFFIXES[Format.D4RL] else Format.MINARI

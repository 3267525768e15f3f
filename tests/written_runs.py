"""Tiny run folders, written by hand: what training, evaluation and reward recovery leave behind."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from iq_offline.training.run_schema import FORMAT_VERSION

WriteRun = Callable[..., Path]


def run_writer(parent: Path) -> WriteRun:
    """A function that writes one run folder, `runs/NAME` below `parent`, and returns it.

    `supplementary`: the data that the run's configuration names beside the expert's; else as `write_folder`.
    """

    def write(name: str, supplementary: Sequence[str] | None = None, **facts: Any) -> Path:
        folder = parent / "runs" / name
        folder.mkdir(parents=True)
        write_folder(folder, **facts)
        if supplementary is not None:
            config = folder / "config.toml"
            config.write_text(f"supplementary = {json.dumps(list(supplementary))}\n{config.read_text()}")
        return folder

    return write


def write_folder(
    folder: Path,
    *,
    method: str = "iq",
    seed: int = 0,
    dataset: str = "hopper-expert-v2",
    sha256: str = "ab" * 32,
    data_return: float | None = 1000.0,
    demos: int | None = 5,
    subsample: int = 1,
    algorithm: str = "temperature = 3.0",
    returns: list[float] | None = None,
    reference: str | None = "d4rl",
    score: float | None = None,
    env_id: str = "Hopper-v2",
    rewards: dict[str, float] | None = None,
    transitions: int = 40,
    actions: list[float] | None = None,
) -> None:
    """Write a run folder.

    `actions`: scaled ones at the data's first observations, none for a run that kept none; `returns`: one a simulated
    episode, none for a run without eval; `rewards`: correlations, none without reward.
    """
    data = {"name": dataset, "sha256": sha256, "format": "d4rl", "env_id": "Hopper-v2", "env_kwargs": {}}
    data |= {"path": None, "origin_sha256": None, "reference": None}
    data |= {"episodes": 10, "steps": 1000, "return_mean": data_return}
    manifest = {
        "format_version": FORMAT_VERSION,
        "run": folder.name,
        "method": method,
        "seed": seed,
        "demos": demos,
        "subsample": subsample,
    }
    manifest |= {
        "transitions": 500,
        "updates": 100,
        "dataset": data,
        "packages": {"torch": "2.5.0", "polars": "1.20.0"},
    }
    manifest |= {
        "git_commit": "c0ffee",
        "device": "cpu",
        "threads": 1,
        "started": "2025-01-02T03:04:05",
        "seconds": 2.5,
        "group": "a comparison",
        "algorithm": {},
        "platform": "Linux x86_64",
    }
    _write_json(
        folder / "manifest.json",
        manifest | {"config_hash": "0" * 12, "policy_sha256": "1" * 64, "checkpoint_sha256": "2" * 64},
    )
    (folder / "config.toml").write_text(f'seed = {seed}\nmethod = "{method}"\n[algorithm]\n{algorithm}\n')
    _metrics(method, seed).write_parquet(folder / "metrics.parquet")
    if actions is not None:
        pl.DataFrame({"row": range(len(actions)), "action_0": actions}).write_parquet(folder / "actions.parquet")
    if returns is not None:
        _write_evaluation(folder, manifest, returns, reference, score, env_id)
    if rewards is not None:
        _write_reward(folder, rewards, transitions)


def _metrics(method: str, seed: int) -> pl.DataFrame:
    steps = list(range(0, 100, 10))
    loss = [1.0 / (1 + step) + 0.01 * seed for step in steps]
    if method == "bc":
        return pl.DataFrame({"step": steps, "loss": loss})
    late = [None if step < 50 else loss[place] for place, step in enumerate(steps)]
    prior = [None if step >= 50 else loss[place] for place, step in enumerate(steps)]
    return pl.DataFrame(
        {"step": steps, "prior_loss": prior, "loss": late, "expert_reward": late, "expert_advantage": late}
    )


def _write_evaluation(
    folder: Path,
    manifest: dict[str, Any],
    returns: list[float],
    reference: str | None,
    score: float | None,
    env_id: str,
) -> None:
    data = manifest["dataset"]
    evaluation = {key: manifest[key] for key in ("run", "method", "seed")} | {"dataset": data["name"]}
    evaluation |= {
        "episodes": len(returns),
        "return_mean": float(np.mean(returns)),
        "return_std": float(np.std(returns)),
    }
    evaluation |= {"length_mean": 100.0, "score": score, "reference": reference, "env_id": env_id, "env_kwargs": {}}
    _write_json(folder / "evaluation.json", evaluation | {"dataset_return_mean": data["return_mean"]})
    numbers = list(range(len(returns)))
    table = {"episode": numbers, "seed": [1000 + i for i in numbers], "length": [100] * len(returns), "return": returns}
    pl.DataFrame(table).write_parquet(folder / "returns.parquet")


def _write_reward(folder: Path, pearsons: dict[str, float], transitions: int) -> None:
    def of(level: str) -> dict[str, Any]:
        return {"pearson": pearsons.get(level), "spearman": pearsons.get(level), "n": transitions}

    levels = ("transition", "episode", "within_source", "null_length", "null_bc")
    reward = {level: of(level) for level in levels}
    reward["within_source"]["sources"] = {"expert": {"transition": of("transition"), "episode": of("episode")}}
    reward["null_bc"]["episode"] = of("null_bc_episode")
    _write_json(folder / "reward.json", reward)
    random, steps = np.random.default_rng(0), np.arange(transitions)
    true = random.normal(size=transitions)
    table = {"source": np.where(steps % 2, "expert", "medium"), "episode": steps // 10, "step": steps % 10}
    table |= {"true": true, "recovered": true + random.normal(size=transitions), "null_bc": true * 0}
    pl.DataFrame(table).write_parquet(folder / "rewards.parquet")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content))

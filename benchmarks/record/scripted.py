"""Scripted experts of Gymnasium's tasks, in D4RL's HDF5 layout.

Writes FOLDER/TASK-scripted.hdf5 and prints a Markdown row a task; `iq-offline inspect` tells more of a file. Episode n
starts from the environment's seed 10000 + n, which no evaluation uses. The landers need Box2D, and are Gymnasium's own
heuristic.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from benchmarks.arguments import Parser, names_of
from benchmarks.markdown import print_header, print_row
from benchmarks.record.episodes import FIRST_SEED, episode_of
from iq_offline.data.episodes import DatasetInfo, Episode, EpisodeSource
from iq_offline.data.formats import d4rl

Vector = NDArray[np.float64]
Policy = Callable[[Vector], Any]


def pendulum(_: gymnasium.Env[Any, Any]) -> Policy:
    """Pumps energy until the pole is near the top, and holds it there; observations cos, sin, speed."""

    def act(observation: Vector) -> Vector:
        cosine, sine, speed = observation
        if cosine > 0.9:
            return np.array([-(20 * np.arctan2(sine, cosine) + 4 * speed)])
        return np.array([2 * (5 - (speed**2 / 6 + 5 * cosine)) * np.sign(speed or 1.0)])

    return act


def mountain_car(_: gymnasium.Env[Any, Any]) -> Policy:
    """Pushes where it rolls."""
    return lambda observation: 2 if observation[1] > 0 else 0


def mountain_car_continuous(_: gymnasium.Env[Any, Any]) -> Policy:
    """Pushes where it rolls, as hard as it can."""
    return lambda observation: np.array([1.0 if observation[1] > 0 else -1.0])


def inverted_pendulum(_: gymnasium.Env[Any, Any]) -> Policy:
    """Linear feedback of cart and pole."""
    gains = np.array([0.4, 9.0, 0.6, 1.6])
    return lambda observation: np.array([gains @ observation])


def reacher(_: gymnasium.Env[Any, Any]) -> Policy:
    """Pulls the fingertip to the target by the transposed Jacobian, with damped joints."""

    def act(observation: Vector) -> Vector:
        first = np.arctan2(observation[2], observation[0])
        both = first + np.arctan2(observation[3], observation[1])
        tip = np.array([[-np.sin(both), np.cos(both)]]) * 0.11
        elbow = np.array([[-np.sin(first), np.cos(first)]]) * 0.1
        jacobian = np.concatenate([elbow + tip, tip])
        return -30 * jacobian @ observation[8:10] - 0.16 * observation[6:8]

    return act


def lunar_lander(environment: gymnasium.Env[Any, Any]) -> Policy:
    """Gymnasium's heuristic, for both kinds of actions."""
    from gymnasium.envs.box2d.lunar_lander import heuristic

    return lambda observation: heuristic(environment.unwrapped, observation)


@dataclass(frozen=True)
class Task:
    """An environment, and its expert of one episode."""

    env_id: str
    expert: Callable[[gymnasium.Env[Any, Any]], Policy]
    env_kwargs: tuple[tuple[str, Any], ...] = ()


TASKS = {
    "pendulum": Task("Pendulum-v1", pendulum),
    "mountain-car": Task("MountainCar-v0", mountain_car),
    "mountain-car-continuous": Task("MountainCarContinuous-v0", mountain_car_continuous),
    "inverted-pendulum": Task("InvertedPendulum-v5", inverted_pendulum),
    "reacher": Task("Reacher-v5", reacher),
    "lunar-lander": Task("LunarLander-v3", lunar_lander),
    "lunar-lander-continuous": Task("LunarLander-v3", lunar_lander, (("continuous", True),)),
}


def record(environment: gymnasium.Env[Any, Any], policy: Policy, seed: int) -> Episode:
    """One episode of a scripted expert; continuous actions as executed, within their bounds."""
    observation, _ = environment.reset(seed=seed)
    space = environment.action_space

    def act(observation: Vector) -> Any:
        action = policy(observation.astype(np.float64))
        if isinstance(space, gymnasium.spaces.Box):
            action = np.clip(action, space.low, space.high).astype(np.float32)
        return action

    return episode_of(environment, observation, act, seed - FIRST_SEED)


def write(name: str, folder: Path, episodes: int) -> tuple[Path, list[Episode]]:
    """Record a task's demonstrations into a file; its path and the episodes."""
    task = TASKS[name]
    environment = gymnasium.make(task.env_id, **dict(task.env_kwargs))
    recorded = [
        record(environment, task.expert(environment), seed) for seed in range(FIRST_SEED, FIRST_SEED + episodes)
    ]
    path = folder / f"{name}-scripted.hdf5"
    origin = hashlib.sha256(f"{task} {episodes} {gymnasium.__version__}".encode()).hexdigest()
    info = DatasetInfo(
        path.stem, str(path), "memory", env_id=task.env_id, env_kwargs=dict(task.env_kwargs), origin_sha256=origin
    )
    path.unlink(missing_ok=True)
    d4rl.write(EpisodeSource(info, recorded), path)
    return path, recorded


def main(arguments: list[str]) -> None:
    """Record the tasks and print what was recorded."""
    parser = Parser(__name__, __doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tasks", type=names_of, default=list(TASKS), help=f"of {', '.join(TASKS)} (default: all)")
    parser.add_argument("--episodes", type=int, default=40)
    options = parser.parse(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    print_header("dataset", "episodes", "steps", "mean return", "least", "most")
    for name in options.tasks:
        path, recorded = write(name, options.folder, options.episodes)
        returns = [episode.rewards.sum() for episode in recorded]
        steps = sum(len(episode.actions) for episode in recorded)
        numbers = (f"{value:.1f}" for value in (np.mean(returns), min(returns), max(returns)))
        print_row(path.stem, len(recorded), steps, *numbers)

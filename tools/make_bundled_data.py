#!/usr/bin/env python3
"""Make the demonstrations that ship with the project, in D4RL's HDF5 layout, from policies made here.

Usage: make_bundled_data.py OUTPUT_FOLDER

CartPole: a linear-quadratic regulator, solved from the linearised dynamics. Swimmer: a linear policy found by Augmented
Random Search V2 (Mania, Guy and Recht, NeurIPS 2018, arXiv 1803.07055). The same machine and library versions write the
same bytes each time. Takes a few minutes on one core.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Act = Callable[[Array, np.random.Generator], Any]

ARS_ITERATIONS = 150
ARS_DIRECTIONS, ARS_BEST = 8, 4
ARS_STEP, ARS_NOISE = 0.05, 0.05


@dataclass
class Recording:
    """One file in the making: the seven columns of the layout."""

    env_id: str
    source: str
    columns: dict[str, list[Any]] = field(default_factory=dict)

    def add(self, **values: Any) -> None:
        """One step."""
        for key, value in values.items():
            self.columns.setdefault(key, []).append(value)

    def write(self, path: Path) -> None:
        """The file, under a temporary name until it is whole."""
        temporary = path.with_suffix(".part")
        with h5py.File(temporary, "w") as file:
            for key, values in self.columns.items():
                array = np.array(values)
                if array.dtype == np.float64:
                    array = array.astype(np.float32)
                file.create_dataset(key, data=array, compression="gzip", compression_opts=9, shuffle=True)
            file.attrs["env_id"] = self.env_id
            file.attrs["env_kwargs"] = "{}"
            file.attrs["source"] = self.source
        temporary.replace(path)


def episode(environment: gymnasium.Env[Any, Any], act: Callable[[Array], Any], seed: int) -> Iterator[dict[str, Any]]:
    """One episode's steps, reset with its own seed."""
    observation, _ = environment.reset(seed=seed)
    ended = False
    while not ended:
        action = act(observation)
        following, reward, terminated, truncated, _ = environment.step(action)
        yield {
            "observations": observation,
            "actions": action,
            "rewards": float(reward),
            "next_observations": following,
            "terminals": bool(terminated),
            "timeouts": bool(truncated),
        }
        observation, ended = following, terminated or truncated


def record(env_id: str, source: str, policies: list[Act], first_seed: int) -> Recording:
    """One episode of each policy."""
    recording, environment = Recording(env_id, source), gymnasium.make(env_id)
    for number, policy in enumerate(policies):
        rng = np.random.default_rng(first_seed + number)
        for step in episode(environment, lambda observation, p=policy, r=rng: p(observation, r), first_seed + number):
            recording.add(**step)
    environment.close()
    return recording


def cartpole_regulator() -> Array:
    """Gains of the discrete-time linear-quadratic regulator, shape (4,), for (x, x', theta, theta')."""
    gravity, cart, pole, half_length, force, seconds = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
    inertia = half_length * (4 / 3 - pole / (cart + pole))
    tilt = gravity / inertia
    push = -1 / ((cart + pole) * inertia)
    dynamics = np.eye(4) + seconds * np.array(
        [[0, 1, 0, 0], [0, 0, -pole * half_length * tilt / (cart + pole), 0], [0, 0, 0, 1], [0, 0, tilt, 0]]
    )
    control = seconds * force * np.array([0, (1 - pole * half_length * push) / (cart + pole), 0, push])[:, None]
    cost = np.diag([1.0, 0.1, 1.0, 0.1])
    value = cost
    for _ in range(2000):
        gain = np.linalg.solve(control.T @ value @ control + 1.0, control.T @ value @ dynamics)
        value = cost + dynamics.T @ value @ (dynamics - control @ gain)
    return np.asarray(-gain[0])


@dataclass
class LinearPolicy:
    """action = clip(matrix @ standardised observation); the running statistics are those of Welford."""

    matrix: Array
    count: int = 0
    mean: Array = field(default_factory=lambda: np.zeros(0))
    squares: Array = field(default_factory=lambda: np.zeros(0))

    def observe(self, observation: Array) -> None:
        """Count one observation into the statistics."""
        self.count += 1
        delta = observation - self.mean
        self.mean = self.mean + delta / self.count
        self.squares = self.squares + delta * (observation - self.mean)

    def act(self, matrix: Array, observation: Array) -> Array:
        """The action of a matrix under the present statistics."""
        std = np.sqrt(self.squares / max(self.count, 1)) + 1e-8
        return np.asarray(np.clip(matrix @ ((observation - self.mean) / std), -1, 1), dtype=np.float32)


def random_search(env_id: str, seed: int) -> LinearPolicy:
    """ARS V2: steps along random directions, weighted by the difference of returns on either side."""
    rng, environment = np.random.default_rng(seed), gymnasium.make(env_id)
    sizes = (environment.action_space.shape[0], environment.observation_space.shape[0])  # type: ignore[index]
    policy = LinearPolicy(np.zeros(sizes), 0, np.zeros(sizes[1]), np.zeros(sizes[1]))

    def rollout(matrix: Array, number: int) -> float:
        steps = list(episode(environment, lambda observation: policy.act(matrix, observation), number))
        seen.extend(step["observations"] for step in steps)
        return sum(step["rewards"] for step in steps)

    for iteration in range(ARS_ITERATIONS):
        seen: list[Array] = []
        directions = rng.normal(size=(ARS_DIRECTIONS, *sizes))
        sides = [
            [rollout(policy.matrix + sign * ARS_NOISE * d, seed + iteration) for sign in (1, -1)] for d in directions
        ]
        returns = np.array(sides)
        best = np.argsort(-returns.max(axis=1), kind="stable")[:ARS_BEST]
        differences = returns[best, 0] - returns[best, 1]
        step = np.einsum("k,kij->ij", differences, directions[best]) / (ARS_BEST * (returns[best].std() + 1e-8))
        policy.matrix = policy.matrix + ARS_STEP * step
        for observation in seen:
            policy.observe(observation)
    environment.close()
    return policy


def cartpole_policies(count: int, randomness: Array) -> list[Act]:
    """The regulator, replaced by a coin toss in the given share of an episode's steps."""
    gains = cartpole_regulator()

    def make(share: float) -> Act:
        def act(observation: Array, rng: np.random.Generator) -> int:
            return int(rng.integers(2)) if rng.random() < share else int(gains @ observation > 0)

        return act

    return [make(float(share)) for share in np.resize(randomness, count)]


def swimmer_policies(policy: LinearPolicy, noise: Array) -> list[Act]:
    """The policy with Gaussian action noise, and in a tenth of that share of the steps a uniform action."""

    def make(level: float) -> Act:
        def act(observation: Array, rng: np.random.Generator) -> Array:
            if rng.random() < level / 10:
                return rng.uniform(-1, 1, size=2).astype(np.float32)
            action = policy.act(policy.matrix, observation)
            return np.clip(action + level * rng.normal(size=2), -1, 1).astype(np.float32) if level else action

        return act

    return [make(float(level)) for level in noise]


def uniform(low: float, high: float, size: int) -> Act:
    """Uniform random actions in a box."""
    return lambda _, rng: rng.uniform(low, high, size=size).astype(np.float32)


def describe(path: Path) -> str:
    """One line of the data card."""
    with h5py.File(path) as file:
        ends = np.flatnonzero(file["terminals"][:] | file["timeouts"][:])
        returns = np.array([part.sum() for part in np.split(file["rewards"][:].astype(float), ends[:-1] + 1)])
    content = path.read_bytes()
    facts = {
        "file": path.name,
        "episodes": len(returns),
        "steps": int(ends[-1]) + 1,
        "return_mean": round(float(returns.mean()), 4),
        "return_std": round(float(returns.std()), 4),
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    return json.dumps(facts)


def main() -> None:
    """Write all files and print a line for each."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    swimmer = random_search("Swimmer-v5", seed=1)
    noise = np.linspace(0.1, 1.6, 8)
    recordings = {
        "cartpole-expert": record("CartPole-v1", "LQR", cartpole_policies(20, np.zeros(1)), 10_000),
        "cartpole-mixed": record(
            "CartPole-v1", "LQR with random actions", cartpole_policies(20, np.linspace(0.1, 0.9, 20)), 20_000
        ),
        "cartpole-random": record("CartPole-v1", "uniform random", cartpole_policies(50, np.ones(1)), 30_000),
        "swimmer-expert": record(
            "Swimmer-v5", "linear policy by ARS V2", swimmer_policies(swimmer, np.zeros(10)), 40_000
        ),
        "swimmer-mixed": record("Swimmer-v5", "that policy with noise", swimmer_policies(swimmer, noise), 50_000),
        "swimmer-random": record("Swimmer-v5", "uniform random", [uniform(-1, 1, 2)] * 4, 60_000),
    }
    for name, recording in recordings.items():
        path = out / f"{name}-v0.hdf5"
        recording.write(path)
        print(describe(path))


if __name__ == "__main__":
    main()

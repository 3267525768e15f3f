"""All the experience of a policy that learns, in order, in D4RL's HDF5 layout.

python -m benchmarks record replay-buffer agent DATASET --steps 200000 --out FILE [--seed 0]
python -m benchmarks record replay-buffer clone DATASET --steps 80000 --out FILE [--demos 5] [--noise 0.2] [--seed 0]

`agent`: reinforcement learning from the environment's rewards and from scratch, in the environment of DATASET: SAC
[SAC18] for continuous actions, double DQN for discrete ones, by d3rlpy. SAC's first `--random-steps` are uniform; DQN
explores by epsilon-greedy. This is how D4RL made its medium-replay and full-replay data; a shorter `--steps` gives the
replay of a worse agent.

`clone`: a behavioural clone of some of DATASET's demonstrations that acts after every 100 updates of its training, the
same share of the steps each time, under Gaussian noise of `--noise` half ranges (discrete actions: uniform ones with
that probability).

Prints episodes and returns, by eighth of the steps. For mixtures, give `--supplementary` several files.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

from benchmarks.arguments import Parser
from benchmarks.record.noisy_replay import episode_of, write
from iq_offline.algorithms.build import actions_of
from iq_offline.algorithms.networks import ContinuousPolicy, Policy
from iq_offline.config.cloning import ContinuousBCConfig, DiscreteBCConfig
from iq_offline.data.environments import make_raw_environment
from iq_offline.data.episodes import Episode
from iq_offline.data.spaces import DiscreteActions
from iq_offline.data.split import choose_expert
from iq_offline.data.table import TransitionTable
from iq_offline.stages.fetch import open_dataset
from iq_offline.training.batches import TransitionSampler
from iq_offline.training.loop import fit_clone

UPDATES = 5000
"""Of the clone."""
PARTS = 8
"""Parts of the steps whose mean returns are printed."""


def main(arguments: list[str]) -> None:
    """Act, learn, and write what was experienced."""
    parser = Parser(__name__, __doc__)
    parser.add_argument("learner", choices=("agent", "clone"))
    parser.add_argument("dataset")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--random-steps", type=int, default=5000)
    parser.add_argument("--demos", type=int, default=5)
    parser.add_argument("--noise", type=float, default=0.2)
    options = parser.parse(arguments)
    torch.set_num_threads(1)
    table = open_dataset(options.dataset)
    if table.info.env_id is None:
        parser.error(f"{table.info.name} names no environment to act in")
    made = agent_episodes(table, options) if options.learner == "agent" else clone_episodes(table, options)
    episodes = [replace(episode, index=index) for index, episode in enumerate(made)]
    write(episodes, options.out, replace(table.info, description=f"replay of a learning {options.learner}"))
    print(f"{options.out}: {sum(map(len, episodes))} steps, {len(episodes)} episodes")
    for part, returns in enumerate(returns_by_part(episodes), start=1):
        print(f"  part {part} of {PARTS}: {len(returns)} episodes, return {returns.mean():.1f} ± {returns.std():.1f}")


def returns_by_part(episodes: list[Episode]) -> Iterator[Any]:
    """Returns of the episodes that begin in each eighth of the steps, where there are any."""
    starts = np.cumsum([0, *map(len, episodes)])
    part = PARTS * starts[:-1] // starts[-1]
    returns = np.array([episode.episode_return for episode in episodes])
    return (returns[part == number] for number in np.unique(part))


def clone_episodes(table: TransitionTable, options: argparse.Namespace) -> Iterator[Episode]:
    """Of a clone in training; after a part of its updates it has made the same part of the steps."""
    discrete = isinstance(table.action_space, DiscreteActions)
    split = choose_expert(table, demos=options.demos, subsample=1, seed=options.seed, need_successors=False)
    sampler = TransitionSampler(table, split.rows, torch.device("cpu"))
    environment = make_raw_environment(table.info.env_id, table.info.env_kwargs)
    random, steps = np.random.default_rng(options.seed), 0
    config = (DiscreteBCConfig if discrete else ContinuousBCConfig)(updates=UPDATES)
    for progress in fit_clone(config, options.seed, sampler, table.action_space, torch.device("cpu")):
        policy = progress.learner.policy
        while steps < options.steps * progress.step / progress.total:
            episode = episode_of(policy, noise_of(policy, options.noise, random), environment, random, 0)
            steps += len(episode)
            yield episode


def noise_of(policy: Policy, noise: float, random: np.random.Generator) -> Callable[[Any], Any]:
    """What becomes of the policy's actions."""
    if not isinstance(policy, ContinuousPolicy):
        count = actions_of(policy)[1]
        return lambda chosen: random.integers(count) if random.random() < noise else chosen
    centre, half = policy.action_centre.numpy(), policy.action_half_range.numpy()
    low, high = centre - half, centre + half
    return lambda chosen: np.clip(
        chosen + noise * half * random.standard_normal(len(half)), low, high, dtype=np.float32
    )


class Recorder(gymnasium.Wrapper):  # type: ignore[type-arg]
    """Keeps every step that is taken in an environment."""

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self.episodes: list[Episode] = []
        self._observations: list[Any] = []
        self._actions: list[Any] = []
        self._rewards: list[float] = []

    def reset(self, **keywords: Any) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; one that is under way was cut off."""
        self.close_episode(terminated=False)
        observation, info = super().reset(**keywords)
        self._observations = [observation]
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step and keep it."""
        observation, reward, terminated, truncated, info = super().step(action)
        self._observations.append(observation)
        self._actions.append(action)
        self._rewards.append(float(reward))
        if terminated or truncated:
            self.close_episode(terminated=bool(terminated))
        return observation, reward, terminated, truncated, info

    def close_episode(self, *, terminated: bool) -> None:
        """Keep the steps since the last reset as an episode."""
        if self._actions:
            observations = np.array(self._observations, dtype=np.float32)
            parts = observations, np.array(self._actions), np.array(self._rewards)
            self.episodes.append(Episode(0, *parts, terminated=terminated, truncated=not terminated))
        self._observations, self._actions, self._rewards = self._observations[-1:], [], []


def agent_episodes(table: TransitionTable, options: argparse.Namespace) -> list[Episode]:
    """All that an agent experiences from its first, random step on."""
    import d3rlpy
    from d3rlpy.logging import NoopAdapterFactory

    d3rlpy.seed(options.seed)
    environment = Recorder(gymnasium.make(table.info.env_id, **table.info.env_kwargs))
    environment.reset(seed=options.seed)
    discrete = isinstance(table.action_space, DiscreteActions)
    settings = d3rlpy.algos.DoubleDQNConfig(batch_size=64, learning_rate=5e-4, target_update_interval=1000)
    agent = (settings if discrete else d3rlpy.algos.SACConfig()).create(device="cpu:0")
    explorer = d3rlpy.algos.LinearDecayEpsilonGreedy(duration=options.steps // 4) if discrete else None
    agent.fit_online(
        environment,
        d3rlpy.dataset.create_fifo_replay_buffer(limit=options.steps, env=environment),
        explorer,
        n_steps=options.steps,
        n_steps_per_epoch=options.steps,
        update_start_step=min(options.random_steps, options.steps),
        random_steps=0 if discrete else options.random_steps,
        logger_adapter=NoopAdapterFactory(),
        show_progress=False,
    )
    environment.close_episode(terminated=False)
    return environment.episodes

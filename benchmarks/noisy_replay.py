#!/usr/bin/env python3
"""Make a replay set: several policies, one an episode, each under noise of its own. D4RL's HDF5 layout.

python benchmarks/noisy_replay.py RUN[:SHAKE]... --steps 80000 --out FILE [--low FILE] [--seed 0]

RUN is a finished run of continuous actions; SHAKE, a number, disturbs its weights by so many of each layer's own
deviations, anew for each episode: many policies like it and worse. An episode's noise is Gaussian with a deviation
between 0.15 and 1 of the half range, and up to a fifth of its actions are uniform. The environment is the runs' own.
`--low` is those of its episodes that have up to half of `--expert-return`. Prints episodes and returns by policy.
"""

import argparse
import copy
import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from iq_offline.algorithms.networks import ContinuousPolicy
from iq_offline.data.environments import RawEnvironment, make_raw_environment
from iq_offline.data.episodes import DatasetInfo, Episode, EpisodeSource
from iq_offline.data.formats import d4rl
from iq_offline.stages.fetch import open_dataset
from iq_offline.training.run_folder import RunFolder

NOISE = (0.15, 1.0)
MOST_UNIFORM = 0.2


def main() -> None:
    """Policies in turn until there are enough steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policies", nargs="+")
    parser.add_argument("--steps", type=int, default=80_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--low", type=Path)
    parser.add_argument("--expert-return", type=float)
    options = parser.parse_args()
    if options.low and options.expert_return is None:
        parser.error("--low needs --expert-return")
    torch.set_num_threads(1)
    random = np.random.default_rng(options.seed)
    runs = [RunFolder(Path(name.partition(":")[0])) for name in options.policies]
    policies, shakes = [run.policy() for run in runs], [float(name.partition(":")[2] or 0) for name in options.policies]
    if not all(isinstance(policy, ContinuousPolicy) for policy in policies):
        parser.error("only continuous actions can be disturbed by Gaussian noise")
    about = replace(open_dataset(runs[0].config.dataset).info, description="noisy replay")
    environment = make_raw_environment(about.env_id, about.env_kwargs)
    episodes: list[Episode] = []
    whose: list[int] = []
    while sum(map(len, episodes)) < options.steps:
        number = len(episodes) % len(runs)
        policy = shaken(policies[number], shakes[number], random) if shakes[number] else policies[number]
        episodes.append(episode_of(policy, environment, random, len(episodes)))
        whose.append(number)
    returns = np.array([episode.episode_return for episode in episodes])
    write(episodes, options.out, about)
    print(f"{options.out}: {sum(map(len, episodes))} steps, {len(episodes)} episodes")
    for number, name in enumerate(options.policies):
        own = returns[np.array(whose) == number]
        print(f"  {name}: {len(own)} episodes, return {own.mean():.1f} ± {own.std():.1f}, at most {own.max():.1f}")
    if options.low:
        kept = [episode for episode in episodes if episode.episode_return <= options.expert_return / 2]
        write(kept, options.low, about)
        print(f"{options.low}: {sum(map(len, kept))} steps, {len(kept)} episodes")


def shaken(policy: ContinuousPolicy, shake: float, random: np.random.Generator) -> ContinuousPolicy:
    """A copy with every linear layer's weights moved."""
    copied = copy.deepcopy(policy)
    with torch.no_grad():
        for module in copied.modules():
            if isinstance(module, nn.Linear):
                moved = torch.from_numpy(random.standard_normal(module.weight.shape)).float()
                module.weight += shake * module.weight.std() * moved
    return copied


def episode_of(
    policy: ContinuousPolicy, environment: RawEnvironment, random: np.random.Generator, index: int
) -> Episode:
    """One episode under noise that is drawn for it."""
    deviation, uniform = random.uniform(*NOISE), random.uniform(0, MOST_UNIFORM)
    centre, half = policy.action_centre.numpy(), policy.action_half_range.numpy()
    observation, _ = environment.reset(seed=int(random.integers(2**31)))
    observations, actions, rewards = [observation], [], []
    terminated, truncated = False, False
    while not (terminated or truncated):
        with torch.no_grad():
            chosen = policy.act(torch.from_numpy(np.asarray(observation, dtype=np.float32))[None])[0].numpy()
        noisy = chosen + deviation * half * random.standard_normal(len(half))
        if random.random() < uniform:
            noisy = centre + half * random.uniform(-1, 1, len(half))
        action = np.clip(noisy, centre - half, centre + half).astype(np.float32)
        observation, reward, terminated, truncated, _ = environment.step(action)
        observations.append(observation)
        actions.append(action)
        rewards.append(reward)
        truncated = truncated or (environment.step_limit is not None and len(actions) >= environment.step_limit)
    return Episode(
        index,
        np.array(observations, dtype=np.float32),
        np.array(actions),
        np.array(rewards),
        terminated=bool(terminated),
        truncated=bool(truncated and not terminated),
    )


def write(episodes: list[Episode], path: Path, about: DatasetInfo) -> None:
    """As a D4RL file of the same environment; its origin is its own steps."""
    steps = hashlib.sha256()
    for episode in episodes:
        steps.update(episode.actions.tobytes())
    about = replace(about, name=path.stem, path=str(path), origin_sha256=steps.hexdigest())
    d4rl.write(EpisodeSource(about, episodes), path)


if __name__ == "__main__":
    main()

"""Several policies, one an episode, each under noise of its own, in D4RL's HDF5 layout.

python -m benchmarks record noisy-replay RUN[:SHAKE]... --steps 80000 --out FILE [--low FILE] [--seed 0]

RUN is a finished run; SHAKE, a number, disturbs its weights by so many of each layer's own deviations, anew for each
episode: many policies like it and worse. With continuous actions an episode's noise is Gaussian with a deviation of
0.15 to 1 of the half range, and up to a fifth of its actions are uniform; with discrete ones up to half are. The
environment is the runs' own. `--low` is those of its episodes that have up to the middle of `--random-return` (0) and
`--expert-return`. Prints episodes and returns by policy.
"""

import copy
import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.arguments import Parser
from benchmarks.record import episodes as recording
from iq_offline.algorithms.networks import ContinuousPolicy, Policy
from iq_offline.data.environments import RawEnvironment, make_raw_environment
from iq_offline.data.episodes import DatasetInfo, Episode, EpisodeSource
from iq_offline.data.formats import d4rl
from iq_offline.data.spaces import DiscreteActions
from iq_offline.stages.fetch import open_dataset
from iq_offline.training.run_folder import RunFolder

NOISE = (0.15, 1.0)
MOST_UNIFORM = 0.2
MOST_UNIFORM_DISCRETE = 0.5

Noise = Callable[[Any], Any]


def main(arguments: list[str]) -> None:
    """Policies in turn until there are enough steps."""
    parser = Parser(__name__, __doc__)
    parser.add_argument("policies", nargs="+")
    parser.add_argument("--steps", type=int, default=80_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--low", type=Path)
    parser.add_argument("--expert-return", type=float)
    parser.add_argument("--random-return", type=float, default=0.0)
    options = parser.parse(arguments)
    if options.low and options.expert_return is None:
        parser.error("--low needs --expert-return")
    torch.set_num_threads(1)
    random = np.random.default_rng(options.seed)
    runs = [RunFolder(Path(name.partition(":")[0])) for name in options.policies]
    policies, shakes = [run.policy() for run in runs], [float(name.partition(":")[2] or 0) for name in options.policies]
    table = open_dataset(runs[0].config.dataset)
    space, about = table.action_space, replace(table.info, description="noisy replay")
    actions = space.count if isinstance(space, DiscreteActions) else space.width
    if about.env_id is None:
        parser.error(f"{about.name} names no environment to act in")
    environment = make_raw_environment(about.env_id, about.env_kwargs)
    episodes: list[Episode] = []
    whose: list[int] = []
    while sum(map(len, episodes)) < options.steps:
        number = len(episodes) % len(runs)
        policy = shaken(policies[number], shakes[number], random) if shakes[number] else policies[number]
        noise = noise_of(policy, actions, random)
        episodes.append(episode_of(policy, noise, environment, random, len(episodes)))
        whose.append(number)
    returns = np.array([episode.episode_return for episode in episodes])
    write(episodes, options.out, about)
    print(f"{options.out}: {sum(map(len, episodes))} steps, {len(episodes)} episodes")
    for number, name in enumerate(options.policies):
        own = returns[np.array(whose) == number]
        earned = f", return {own.mean():.1f} ± {own.std():.1f}, at most {own.max():.1f}" if len(own) else ""
        print(f"  {name}: {len(own)} episodes{earned}")
    if options.low:
        most = (options.expert_return + options.random_return) / 2
        kept = [episode for episode in episodes if episode.episode_return <= most]
        write(kept, options.low, about)
        print(f"{options.low}: {sum(map(len, kept))} steps, {len(kept)} episodes")


def shaken(policy: Policy, shake: float, random: np.random.Generator) -> Policy:
    """A copy with every linear layer's weights moved."""
    copied = copy.deepcopy(policy)
    with torch.no_grad():
        for module in copied.modules():
            if isinstance(module, nn.Linear):
                moved = torch.from_numpy(random.standard_normal(module.weight.shape)).float()
                module.weight += shake * module.weight.std() * moved
    return copied


def noise_of(policy: Policy, actions: int, random: np.random.Generator) -> Noise:
    """What becomes of a policy's actions in one episode; `actions`: how many there are, or their dimensions."""
    if not isinstance(policy, ContinuousPolicy):
        share = random.uniform(0, MOST_UNIFORM_DISCRETE)
        return lambda chosen: random.integers(actions) if random.random() < share else chosen
    deviation, uniform = random.uniform(*NOISE), random.uniform(0, MOST_UNIFORM)
    centre, half = policy.action_centre.numpy(), policy.action_half_range.numpy()

    def disturbed(chosen: Any) -> Any:
        noisy = chosen + deviation * half * random.standard_normal(actions)
        if random.random() < uniform:
            noisy = centre + half * random.uniform(-1, 1, actions)
        return np.clip(noisy, centre - half, centre + half).astype(np.float32)

    return disturbed


def episode_of(
    policy: Policy, disturbed: Noise, environment: RawEnvironment, random: np.random.Generator, index: int
) -> Episode:
    """One episode under that noise."""
    observation, _ = environment.reset(seed=int(random.integers(2**31)))

    @torch.no_grad()
    def act(observation: Any) -> Any:
        row = torch.from_numpy(np.asarray(observation, dtype=np.float32))[None]
        return disturbed(policy.act(row)[0].numpy())

    return recording.episode_of(
        environment, observation, act, index, most_steps=environment.step_limit, dtype=np.float32
    )


def write(episodes: list[Episode], path: Path, about: DatasetInfo) -> None:
    """As a D4RL file of the same environment; its origin is its own steps."""
    steps = hashlib.sha256()
    for episode in episodes:
        steps.update(episode.actions.tobytes())
    about = replace(about, name=path.stem, path=str(path), origin_sha256=steps.hexdigest())
    d4rl.write(EpisodeSource(about, episodes), path)

"""Environment steps of an evaluation a CPU second, beside d3rlpy's and bare environments.

One policy for all, the mean of d3rlpy's SAC actor (256 x 256), whose weights our policy takes over; its last layer is
enlarged, so that the body moves. Each round runs every candidate once, in this process, in another order each round; a
ratio is the median of the ratios within a round. An episode is cut off after --steps. "Bare" steps one raw environment
with the actions that the policy has chosen before, from the same seeds; "in turn" does so with as many as run in
lock-step, whose memory does not fit a small cache. Only stepping is timed, not making the environments. For tasks whose
episodes all have the same length. Prints the processor and a Markdown table.
"""

import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from benchmarks.arguments import Parser
from benchmarks.markdown import median_and_range, table
from benchmarks.results import processor, result_file
from benchmarks.yardsticks.rounds import interleaved
from iq_offline.algorithms.networks import ActionScale, ContinuousPolicy, Standardiser
from iq_offline.config.base import ActionHead, Activation
from iq_offline.data.environments import make_environment, make_raw_environment
from iq_offline.evaluation.simulation import FIRST_SEED, LOCK_STEP, lock_step

PEER_EPISODES = 4
BARE_EPISODES = LOCK_STEP
ENLARGED = 10.0
"""Times its first weights, the last layer moves the body; by itself an untrained actor lies still."""

Candidate = Callable[[], int]
"""Steps environments, and says how many steps it made."""


def peer(environment: Any) -> Any:
    """d3rlpy's SAC, whose actor is 256 x 256 unless told otherwise."""
    from d3rlpy.algos import SACConfig

    torch.manual_seed(0)
    sac = SACConfig().create(device=False)
    sac.build_with_env(environment)
    actor = sac.impl.policy.state_dict()
    actor["_mu.weight"] *= ENLARGED
    return sac


def same_policy(sac: Any, environment: Any) -> ContinuousPolicy:
    """Our policy with that actor's weights."""
    actor, size = sac.impl.policy.state_dict(), environment.observation_space.shape[0]
    policy = ContinuousPolicy(
        Standardiser(torch.zeros(size), torch.ones(size)),
        ActionScale.of_bounds(environment.action_space.low.tolist(), environment.action_space.high.tolist()),
        (256, 256),
        Activation.RELU,
        head=ActionHead.TANH_GAUSSIAN,
    )
    names = ("_encoder._layers.0", "_encoder._layers.2", "_mu")
    for layer, name in zip((policy.network[0], policy.network[2], policy.network[4]), names, strict=True):
        layer.load_state_dict({kind: actor[f"{name}.{kind}"] for kind in ("weight", "bias")})
    return policy.eval().requires_grad_(False)


def recorded_actions(env_id: str, env_kwargs: dict[str, Any], policy: ContinuousPolicy) -> list[list[Any]]:
    """The policy's own actions in each of the first episodes."""
    recorded = []
    for episode in range(BARE_EPISODES):
        environment = make_raw_environment(env_id, env_kwargs)
        actions: list[Any] = []
        observation, _ = environment.reset(seed=FIRST_SEED + episode)
        ended = False
        while not ended and len(actions) < (environment.step_limit or 1000):
            row = torch.from_numpy(observation.astype(np.float32))[None]
            actions.append(policy.act(row)[0].numpy())
            observation, _, terminated, truncated, _ = environment.step(actions[-1])
            ended = terminated or truncated
        recorded.append(actions)
    return recorded


def candidates(env_id: str, env_kwargs: dict[str, Any]) -> dict[str, Candidate]:
    """By name, what is measured."""
    from d3rlpy.metrics.utility import evaluate_qlearning_with_environment

    made = make_environment(env_id, env_kwargs)
    counted = CountedSteps(made)
    sac = peer(made)
    policy = same_policy(sac, made)
    actions = recorded_actions(env_id, env_kwargs, policy)
    bare = make_raw_environment(env_id, env_kwargs)
    several = [make_raw_environment(env_id, env_kwargs) for _ in range(LOCK_STEP)]

    def ours() -> int:
        return sum(episode.length for episode in lock_step(several, policy, LOCK_STEP))

    def stepping() -> int:
        for episode, taken in enumerate(actions):
            bare.reset(seed=FIRST_SEED + episode)
            for action in taken:
                bare.step(action)
        return sum(map(len, actions))

    def in_turn() -> int:
        for number, environment in enumerate(several):
            environment.reset(seed=FIRST_SEED + number)
        for step in range(len(actions[0])):
            for number, environment in enumerate(several):
                environment.step(actions[number][step])
        return len(several) * len(actions[0])

    def d3rlpy() -> int:
        before = counted.steps
        evaluate_qlearning_with_environment(sac, counted, n_trials=PEER_EPISODES)
        return counted.steps - before

    return {
        "iq-offline, lock-step": ours,
        "one bare environment": stepping,
        f"{LOCK_STEP} bare environments in turn": in_turn,
        "d3rlpy's evaluator": d3rlpy,
    }


class CountedSteps:
    """The environment as d3rlpy's evaluator uses it, with a count of its steps."""

    def __init__(self, environment: Any) -> None:
        self.reset, self._step, self.steps = environment.reset, environment.step, 0

    def step(self, action: Any) -> Any:
        """One step."""
        self.steps += 1
        return self._step(action)


def speed(candidate: Candidate) -> float:
    """Environment steps per processor second."""
    start = time.process_time()
    steps = candidate()
    return steps / (time.process_time() - start)


def main(arguments: list[str]) -> None:
    """Measure and print."""
    parser = Parser(__name__, __doc__)
    parser.add_argument("--env", default="HalfCheetah-v5")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_json()
    options = parser.parse(arguments)
    torch.set_num_threads(1)
    measured = candidates(options.env, {"max_episode_steps": options.steps})
    works = {name: partial(speed, candidate) for name, candidate in measured.items()}
    with threadpool_limits(limits=1), result_file(options) as rows:
        found = list(interleaved(works, options.rounds, warm_up=1))
        rows += [
            {"candidate": name, "round": number, "steps_a_cpu_second": turn[name]}
            for number, turn in enumerate(found)
            for name in turn
        ]
    ours = next(iter(measured))
    here = f"{processor()}, {os.cpu_count()} cores; load {os.getloadavg()[0]:.1f}"
    print(f"{here}; one thread; {options.env}, {options.rounds} rounds\n")
    columns = ("steps per processor second: median (min to max)", "lock-step to it: median (min to max)")
    shown = [
        [
            name,
            median_and_range([turn[name] for turn in found], "{:,.0f}"),
            median_and_range([turn[ours] / turn[name] for turn in found]),
        ]
        for name in measured
    ]
    print(table(["", *columns], shown))

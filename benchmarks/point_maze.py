"""Recovered reward and value of a maze as heat maps, beside the true ones.

Each seed records demonstrations of the scripted expert (D4RL's HDF5 layout), trains on them as `iq-offline train` does,
and reads the recovered reward r(s, policy(s), s') and value V(s) off a grid of places at rest; s' is one step of the
simulator. `--roaming N` adds N reward-free episodes of random pushes as supplementary data. The picture is of the
first seed. Prints a Markdown table; a minute of processor time a seed. Methods with objective=inverse only.
"""

import argparse
import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.spatial import KDTree
from scipy.spatial.distance import cdist

from benchmarks.arguments import Parser
from benchmarks.markdown import mean_and_worst
from benchmarks.markdown import table as markdown
from benchmarks.point_maze_env import (
    ARENA,
    BARRIER_HALF_WIDTH,
    BARRIER_LEFT,
    BARRIER_Y,
    GOAL,
    RADIUS,
    STEPS,
    XML,
    Floats,
    PointMaze,
    distance,
    expert_action,
    way,
)
from benchmarks.record import episodes as recording
from iq_offline.algorithms.actor_critic import ActorCritic
from iq_offline.algorithms.noise import Stream, generator
from iq_offline.algorithms.recovery import ContinuousRecovery
from iq_offline.batch import Batch
from iq_offline.config.train import Device, TrainConfig, algorithm_config
from iq_offline.data.episodes import DatasetInfo, Episode, EpisodeSource
from iq_offline.data.formats import d4rl
from iq_offline.data.split import choose_expert, rows_with_successors
from iq_offline.evaluation.correlation import Correlation, correlate
from iq_offline.stages.fetch import open_dataset
from iq_offline.training.batches import SupplementarySampler, TransitionSampler
from iq_offline.training.loop import train

CPU = torch.device("cpu")
SPACING = 0.02
NEAR = 0.05
"""A place is near the demonstrations if one of them has been so close."""
BLUR = 0.03
"""Standard deviation of the kernel that makes a density of visits."""
VALUE_STEPS = 400
HELD = 25
"""Steps for which a roaming push stays as it is."""
FIRST_TEST_SEED = 1_000_000


@dataclass(frozen=True)
class Maps:
    """Numbers at N places (N, 2); `near` tells which lie by the demonstrations."""

    places: Floats
    near: np.ndarray
    recovered_reward: Floats
    advantage: Floats
    """The recovered reward's canonical form, without its shaping: Q(s, a) - V(s)."""
    true_reward: Floats
    recovered_value: Floats
    true_value: Floats
    """Discounted true reward of the expert that starts there."""
    visits: Floats
    """Log density of the demonstrations' places."""
    straight: Floats
    """Distance to the target, through the barrier."""
    round_it: Floats
    """Distance to the target, round the barrier."""


@dataclass(frozen=True)
class Trained:
    """One seed: its maps, its demonstrations' places, and mean returns of expert and learnt policy."""

    maps: Maps
    visited: Floats
    along: dict[str, Floats]
    """Of fresh demonstrations' own steps, which are not at rest: true and recovered reward, Q(s, a) - V(s), nulls."""
    expert_return: float
    learnt_return: float


CANONICAL = "reward, canonical: Q - V"

Act = Callable[[Floats], Floats]


def episode_of(act: Act, environment: PointMaze, first: Floats, index: int = 0) -> Episode:
    """One episode of a policy from an observation on."""
    return recording.episode_of(
        environment, first, lambda seen: np.asarray(act(seen), dtype=np.float32), index, dtype=np.float32
    )


def demonstrations(episodes: int, seed: int, act: Act = expert_action) -> list[Episode]:
    """Of a policy, from the task's own starts."""
    environment = PointMaze()
    starts = (environment.reset(seed=seed * 1000 + number)[0] for number in range(episodes))
    return [episode_of(act, environment, start, number) for number, start in enumerate(starts)]


def roaming(episodes: int, seed: int) -> list[Episode]:
    """Random pushes, each held for a while, from anywhere that is free: no expert, and no reward is read."""
    environment, random, free = PointMaze(), np.random.default_rng(seed), free_places()
    found = []
    for number in range(episodes):
        pushes = iter(np.repeat(random.uniform(-1, 1, (-(-STEPS // HELD), 2)), HELD, axis=0))
        first = environment.put(free[random.integers(len(free))])
        found.append(episode_of(lambda _, pushes=pushes: next(pushes), environment, first, number))
    return found


def free_places() -> Floats:
    """The grid's places that the point fits into, (N, 2)."""
    axis = np.arange(ARENA[0], ARENA[1] + SPACING / 2, SPACING)
    places = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    from_barrier = np.hypot(
        np.maximum(BARRIER_LEFT - places[:, 0], 0),
        np.maximum(np.abs(places[:, 1] - BARRIER_Y) - BARRIER_HALF_WIDTH, 0),
    )
    return places[from_barrier >= RADIUS]


def written(episodes: list[Episode], path: Path) -> str:
    """The episodes as a D4RL file; its origin is the maze."""
    info = DatasetInfo(path.stem, str(path), "memory", origin_sha256=hashlib.sha256(XML.encode()).hexdigest())
    d4rl.write(EpisodeSource(info, episodes), path)
    return str(path)


def learn(file: str, roaming_file: str | None, seed: int, options: argparse.Namespace) -> ActorCritic:
    """What `iq-offline train --device cpu` learns from the file, and its settings."""
    table, method = open_dataset(file), options.method
    changes = [*options.set, *([f"updates={options.updates}"] if options.updates else [])]
    algorithm = algorithm_config(method, discrete=False, overrides=changes)
    more = () if roaming_file is None else (roaming_file,)
    config = TrainConfig(
        dataset=file, method=method, seed=seed, device=Device.CPU, algorithm=algorithm, supplementary=more
    )
    split = choose_expert(table, demos=None, subsample=1, seed=seed, need_successors=True)
    tables = [open_dataset(one) for one in more]
    others = [TransitionSampler(one, rows_with_successors(one), CPU) for one in tables]
    supplementary = SupplementarySampler(others) if others else None
    sampler = TransitionSampler(table, split.rows, CPU)
    *_, last = train(config, sampler, table.action_space, CPU, supplementary=supplementary)
    assert isinstance(last.learner, ActorCritic), f"{method} recovers no reward"
    assert last.learner.reward_bounds is None, f"{method} has fixed rewards: nothing to draw"
    return last.learner


def policy_of(learner: ActorCritic) -> Act:
    """Its executed action, observation (..., 4) -> (..., 2)."""

    @torch.no_grad()
    def act(observations: Floats) -> Floats:
        batch = torch.as_tensor(np.atleast_2d(observations), dtype=torch.float32)
        actions = learner.policy.act(batch).double().numpy()
        return actions if observations.ndim > 1 else actions[0]

    return act


def recovered(learner: ActorCritic, rows: tuple[Floats, Floats, Floats], seed: int) -> tuple[Floats, Floats, Floats]:
    """Recovered reward of transitions, Q(s, a) - V(s), and V(s), (N,) each. rows: observations, actions, next ones."""
    here, actions, following = (torch.as_tensor(part, dtype=torch.float32) for part in rows)
    recovery = ContinuousRecovery(learner, generator(seed, Stream.REWARD))
    found = recovery(Batch(here, actions, following, torch.zeros(len(here))))
    # Behind a termination nothing follows: the reward is Q alone.
    ended = recovery(Batch(here, actions, following, torch.ones(len(here))))
    value = ended.rewards - ended.canonical
    return tuple(part.double().numpy() for part in (found.rewards, found.canonical, value))


def maps_of(learner: ActorCritic, visited: Floats, seed: int) -> Maps:
    """Every map at the free places, the point at rest."""
    environment, places = PointMaze(), free_places()
    resting = np.concatenate([places, np.zeros_like(places)], axis=1)
    actions = policy_of(learner)(resting)
    following, rewards = np.empty_like(resting), np.empty(len(places))
    for row, (place, action) in enumerate(zip(places, actions, strict=True)):
        environment.put(place)
        following[row], rewards[row], *_ = environment.step(action)
    reward, advantage, value = recovered(learner, (resting, actions, following), seed)
    return Maps(
        places,
        KDTree(visited).query(places)[0] <= NEAR,
        reward,
        advantage,
        rewards,
        value,
        true_values(environment, places, learner.config.gamma),
        log_density(places, visited),
        np.array([distance(place) for place in places]),
        np.array([way(place) for place in places]),
    )


def true_values(environment: PointMaze, places: Floats, gamma: float) -> Floats:
    """Discounted true reward of the expert from rest, (N,); what follows VALUE_STEPS is nothing at the target."""
    values = np.zeros(len(places))
    for row, place in enumerate(places):
        observation = environment.put(place)
        for step in range(VALUE_STEPS):
            observation, reward, *_ = environment.step(expert_action(observation))
            values[row] += gamma**step * reward
    return values


def run(seed: int, options: argparse.Namespace, folder: Path) -> Trained:
    """Record, train, and read the maps."""
    recorded = demonstrations(options.episodes, seed)
    file = written(recorded, folder / f"expert-{seed}.hdf5")
    extra = written(roaming(options.roaming, seed), folder / f"roaming-{seed}.hdf5") if options.roaming else None
    learner = learn(file, extra, seed, options)
    visited = np.concatenate([episode.observations[:, :2] for episode in recorded]).astype(np.float64)
    tested = demonstrations(20, FIRST_TEST_SEED // 1000 + seed, policy_of(learner))
    expert = demonstrations(20, FIRST_TEST_SEED // 1000 + seed)
    means = [float(np.mean([one.episode_return for one in episodes])) for episodes in (expert, tested)]
    return Trained(maps_of(learner, visited, seed), visited, steps_along(learner, expert, visited, seed), *means)


def steps_along(learner: ActorCritic, episodes: list[Episode], visited: Floats, seed: int) -> dict[str, Floats]:
    """What the episodes' own steps are worth: truly, by the recovered reward, and by what knows no method."""
    here, actions, following, rewards, numbers = (
        np.concatenate(parts)
        for parts in zip(
            *((e.observations[:-1], e.actions, e.observations[1:], e.rewards, np.arange(len(e))) for e in episodes),
            strict=True,
        )
    )
    reward, advantage, _ = recovered(learner, (here, actions, following), seed)
    return {
        "true": rewards,
        "reward": reward,
        CANONICAL: advantage,
        "visits": log_density(here[:, :2].astype(np.float64), visited),
        "step number": numbers.astype(np.float64),
    }


def log_density(places: Floats, visited: Floats) -> Floats:
    """Of the visits, at places (N, 2), up to a constant."""
    kernel = np.exp(-cdist(places, visited, "sqeuclidean") / (2 * BLUR**2))
    return np.log(kernel.mean(axis=1) + 1e-6)


ROWS: dict[str, tuple[Callable[[Maps], Floats], Callable[[Maps], Floats]]] = {
    "reward": (lambda m: m.recovered_reward, lambda m: m.true_reward),
    CANONICAL: (lambda m: m.advantage, lambda m: m.true_reward),
    "null of the reward: visits": (lambda m: m.visits, lambda m: m.true_reward),
    "null of the reward: -distance, which it is": (lambda m: -m.straight, lambda m: m.true_reward),
    "recovered reward and visits": (lambda m: m.recovered_reward, lambda m: m.visits),
    "value": (lambda m: m.recovered_value, lambda m: m.true_value),
    "null of the value: visits": (lambda m: m.visits, lambda m: m.true_value),
    "null of the value: -distance": (lambda m: -m.straight, lambda m: m.true_value),
    "null of the value: -way round": (lambda m: -m.round_it, lambda m: m.true_value),
}


def table(found: list[Trained]) -> str:
    """Pearson and Spearman over all free places, and over those near the demonstrations."""
    columns = [f"{len(found)} seeds: mean (lowest)", "Pearson", "Spearman", "Pearson, near", "Spearman, near"]
    rows = []
    for name, (one, other) in ROWS.items():
        cells = []
        for near in (False, True):
            chosen = [trained.maps.near if near else np.ones_like(trained.maps.near) for trained in found]
            fits = [correlate(one(t.maps)[c], other(t.maps)[c]) for t, c in zip(found, chosen, strict=True)]
            cells += _fitted(fits)
        rows.append([name, *cells])
    for name in list(found[0].along)[1:]:
        fits = [correlate(one.along[name], one.along["true"]) for one in found]
        rows.append([f"along fresh demonstrations, {name}", "-", "-", *_fitted(fits)])
    return markdown(columns, rows)


def _fitted(fits: list[Correlation]) -> list[str]:
    return [mean_and_worst(fit.pearson for fit in fits), mean_and_worst(fit.spearman for fit in fits)]


def picture(trained: Trained, path: Path) -> None:
    """True and recovered reward above, true and recovered value below; barrier, target and demonstrations on them."""
    maps = trained.maps
    panels = {
        "true reward": maps.true_reward,
        "recovered reward": maps.recovered_reward,
        "true value": maps.true_value,
        "recovered value": maps.recovered_value,
    }
    with mpl.rc_context():
        mpl.rcdefaults()
        figure = Figure(figsize=(7.2, 6.4), layout="constrained")
        for axes, (title, numbers) in zip(figure.subplots(2, 2).ravel(), panels.items(), strict=True):
            draw(axes, title, maps.places, numbers, trained.visited)
        figure.savefig(path, dpi=80)


def draw(axes: Axes, title: str, places: Floats, numbers: Floats, visited: Floats) -> None:
    """One map; light is high."""
    cells = round((ARENA[1] - ARENA[0]) / SPACING) + 1
    image = np.full((cells, cells), np.nan)
    columns, rows = np.rint((places - ARENA[0]) / SPACING).astype(int).T
    image[rows, columns] = numbers
    half = SPACING / 2
    edges = (ARENA[0] - half, ARENA[1] + half) * 2
    shown = axes.imshow(image, origin="lower", extent=edges, cmap="YlGnBu_r")
    axes.plot([BARRIER_LEFT, ARENA[1]], [BARRIER_Y, BARRIER_Y], color="black", linewidth=3, solid_capstyle="butt")
    axes.plot(*visited[:: STEPS // 10].T, ".", color="#d55e00", markersize=2)
    axes.plot(*GOAL, "*", color="#d55e00", markeredgecolor="white", markersize=14)
    axes.set(title=title, xticks=[], yticks=[], xlim=edges[:2], ylim=edges[:2])
    axes.figure.colorbar(shown, ax=axes, shrink=0.8)


def main(arguments: list[str]) -> list[Trained]:
    """Run the seeds and print the table."""
    parser = Parser(__name__, __doc__)
    parser.add_seeds("0-2")
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--method", default="iq")
    parser.add_argument("--roaming", type=int, default=0)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--updates", type=int)
    parser.add_argument("--picture", type=Path)
    options = parser.parse(arguments)
    if options.picture and not options.picture.parent.is_dir():
        parser.error(f"{options.picture.parent} is no folder")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = [run(seed, options, Path(folder)) for seed in options.seeds]
    print(table(found))
    expert, learnt = (np.mean([getattr(one, name) for one in found]) for name in ("expert_return", "learnt_return"))
    share = np.mean([one.maps.near.mean() for one in found])
    print(f"\nreturn: expert {expert:.1f}, learnt {learnt:.1f}; {100 * share:.0f} % of the places are near")
    rewards, advantages = ([one.along[name] for one in found] for name in ("reward", CANONICAL))
    alike = mean_and_worst(correlate(r, a).pearson for r, a in zip(rewards, advantages, strict=True))
    print(
        f"along fresh demonstrations: reward {np.mean(rewards):.2f}, of which Q - V {np.mean(advantages):.2f}; "
        f"Pearson of the two {alike}"
    )
    if options.picture:
        picture(found[0], options.picture)
    return found

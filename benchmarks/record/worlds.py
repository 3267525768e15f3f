"""One environment of each family, by Minari's DataCollector: the data of the table `worlds`.

Writes FOLDER/NAME/expert-v0, a Minari dataset each that is not there yet, and prints a Markdown row for it; then
`iq-offline run worlds --data FOLDER` trains, evaluates and reports. Point maze, MiniGrid, kitchen and Pong have a
scripted expert, the others a linear policy of augmented random search (Mania et al. 2018): no expert, but one that does
better than rest. Episode n starts from the environment's seed 10000 + n, which no evaluation uses. Needs the extra
`environments` and, for the DataCollector, `pip install 'minari[create]'`; a few minutes of one core.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.arguments import Parser, names_of
from benchmarks.markdown import print_header, print_row
from benchmarks.record.episodes import FIRST_SEED
from iq_offline.data.environments import UNCHECKED, make_environment
from iq_offline.data.observations import joined

Floats = NDArray[np.float64]
Policy = Callable[[Any], Any]
Cell = tuple[int, int]


def way(start: Any, is_goal: Callable[[Any], bool], following: Callable[[Any], Iterator[tuple[Any, Any]]]) -> list[Any]:
    """The moves of a shortest way, found breadth first; `following` yields moves and where they lead."""
    seen, waiting = {start}, deque([(start, [])])
    while waiting:
        place, moves = waiting.popleft()
        if is_goal(place):
            return moves
        for move, there in following(place):
            if there not in seen:
                seen.add(there)
                waiting.append((there, [*moves, move]))
    raise ValueError(f"no way leads from {start} to the goal")


def point_maze(environment: Any) -> Policy:
    """Steers to the middle of the next cell of a shortest way, and in the last one to the goal."""
    maze = environment.unwrapped.maze

    def neighbours(cell: Cell) -> Iterator[tuple[Cell, Cell]]:
        for step in ((0, 1), (1, 0), (0, -1), (-1, 0)):
            there = (cell[0] + step[0], cell[1] + step[1])
            if maze.maze_map[there[0]][there[1]] != 1:
                yield there, there

    def act(observation: dict[str, Floats]) -> Any:
        place, goal = observation["achieved_goal"], observation["desired_goal"]
        cell, last = (tuple(int(n) for n in maze.cell_xy_to_rowcol(xy)) for xy in (place, goal))
        cells = way(cell, lambda there: there == last, neighbours)
        target = maze.cell_rowcol_to_xy(np.array(cells[0])) if len(cells) > 1 else goal
        return 10 * (target - place) - 2 * observation["observation"][2:]

    return act


def minigrid(environment: Any) -> Policy:
    """Takes the first step of a shortest way over free cells, where a turn is a step too."""
    grid = environment.unwrapped
    left, right, forward = range(3)

    def neighbours(place: tuple[int, int, int]) -> Iterator[tuple[int, tuple[int, int, int]]]:
        column, row, direction = place
        yield left, (column, row, (direction - 1) % 4)
        yield right, (column, row, (direction + 1) % 4)
        across, down = ((1, 0), (0, 1), (-1, 0), (0, -1))[direction]
        ahead = grid.grid.get(column + across, row + down)
        if ahead is None or ahead.can_overlap():
            yield forward, (column + across, row + down, direction)

    def at_goal(place: tuple[int, int, int]) -> bool:
        here = grid.grid.get(*place[:2])
        return here is not None and here.type == "goal"

    return lambda _: way((*map(int, grid.agent_pos), int(grid.agent_dir)), at_goal, neighbours)[0]


def pong(_: Any) -> Policy:
    """Moves the paddle to where the ball will cross its column, walls considered; reads the console's memory."""
    top, bottom, column = 46, 203, 186
    last: list[Floats] = []

    def act(memory: NDArray[np.uint8]) -> int:
        x, y, paddle = now = memory[[49, 54, 51]].astype(np.float64)
        across, down, moved = now - last[-1] if last else np.zeros(3)
        last[:] = [now]
        target = (top + bottom) / 2
        if across > 0 and x < column:
            fallen = (y + down * (column - x) / across - top) % (2 * (bottom - top))
            target = top + min(fallen, 2 * (bottom - top) - fallen)
        away = target - 8 - (paddle + moved)
        return 0 if abs(away) < 8 else 2 if away < 0 else 3

    return act


def kitchen(environment: Any) -> Policy:
    """Moves the hand behind the handle of the sliding door, and along with it; the joints follow by least squares."""
    import mujoco

    robot = environment.unwrapped.robot_env
    model, data = robot.model, robot.data
    hand = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_SITE, "end_effector")
    handle = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_SITE, "slide_site")
    jacobian, turning = np.zeros((3, model.nv)), np.zeros((3, model.nv))

    def act(_: Any) -> Floats:
        mujoco.mj_jacSite(model, data, jacobian, turning, hand)
        place, target = data.site_xpos[hand], data.site_xpos[handle] + np.array([-0.12, 0.0, 0.0])
        behind = place[0] < target[0] + 0.06 and np.abs(place[1:] - target[1:]).max() < 0.1
        wanted = target + (np.array([0.3, 0.0, 0.0]) if behind else np.zeros(3)) - place
        arm = jacobian[:, :7]
        speeds = arm.T @ np.linalg.solve(arm @ arm.T + 0.01 * np.eye(3), 4 * wanted)
        return np.concatenate([speeds / robot.act_rng[:7], np.zeros(2)])

    return act


def searched(environment: Any, iterations: int, steps: int, columns: int | None) -> Policy:
    """A linear policy of the standardised observation: augmented random search, eight directions an iteration.

    `columns`: how many of the observation's numbers it reads.
    """
    noise, (size,) = np.random.default_rng(0), environment.action_space.shape
    observation = joined(environment.reset(seed=0)[0])[:columns].astype(np.float64)
    weights, seen = np.zeros((size, len(observation))), [observation]
    low, high = environment.action_space.low, environment.action_space.high

    def act(observation: Any, weights: Floats, mean: Floats, scale: Floats) -> Floats:
        return np.clip(weights @ ((joined(observation)[:columns] - mean) / scale), low, high)

    def episode(weights: Floats, mean: Floats, scale: Floats, seed: int) -> float:
        observation, _ = environment.reset(seed=seed)
        total = 0.0
        for _ in range(steps):
            seen.append(joined(observation)[:columns].astype(np.float64))
            observation, reward, terminated, truncated, _ = environment.step(act(observation, weights, mean, scale))
            total += float(reward)
            if terminated or truncated:
                break
        return total

    def statistics() -> tuple[Floats, Floats]:
        return np.mean(seen, axis=0), np.maximum(np.std(seen, axis=0), 1e-2)

    best, best_return = weights, -np.inf
    for iteration in range(iterations):
        mean, scale = statistics()
        directions = noise.standard_normal((8, *weights.shape))
        returns = np.array(
            [[episode(weights + sign * 0.1 * way, mean, scale, iteration) for sign in (1, -1)] for way in directions]
        )
        differences = returns[:, 0] - returns[:, 1]
        spread = returns.std() or 1.0
        weights = weights + 0.1 / (8 * spread) * np.tensordot(differences, directions, axes=1)
        reached = np.mean([episode(weights, mean, scale, seed) for seed in range(3)])
        if reached > best_return:
            best, best_return, best_statistics = weights, reached, (mean, scale)
    best_statistics = best_statistics if iterations else statistics()
    return lambda observation: act(observation, best, *best_statistics)


@dataclass(frozen=True)
class World:
    """An environment with its arguments, and its scripted expert; without one, a policy is searched for."""

    env_id: str
    env_kwargs: dict[str, Any]
    episodes: int
    expert: Callable[[Any], Policy] | None = None
    columns: int | None = None


FULLY_OBSERVED = {"name": "FullyObsWrapper", "entry_point": "minigrid.wrappers:FullyObsWrapper", "kwargs": {}}
WORLDS = {
    "point-maze": World("PointMaze_UMaze-v3", {"continuing_task": False, "max_episode_steps": 300}, 150, point_maze),
    "adroit-pen": World("AdroitHandPen-v1", {"max_episode_steps": 100}, 40),
    "kitchen": World(
        "FrankaKitchen-v1", {"tasks_to_complete": ["slide cabinet"], "max_episode_steps": 150}, 40, kitchen
    ),
    "ant-maze": World("AntMaze_UMazeDense-v4", {"max_episode_steps": 150}, 40),
    "minigrid": World("MiniGrid-Empty-Random-6x6-v0", {"additional_wrappers": [FULLY_OBSERVED]}, 150, minigrid),
    "atari": World(
        "ALE/Pong-v5", {"obs_type": "ram", "repeat_action_probability": 0.0, "max_episode_steps": 500}, 10, pong
    ),
    "humanoid": World("Humanoid-v5", {"max_episode_steps": 200}, 40, columns=45),
}


def record(name: str, folder: Path, most: int | None, iterations: int) -> list[float]:
    """Record a world's demonstrations into FOLDER/NAME/expert-v0; the episodes' returns."""
    os.environ["MINARI_DATASETS_PATH"] = str(folder)
    from gymnasium.spaces import Box, Text
    from minari import DataCollector

    world = WORLDS[name]
    made = make_environment(world.env_id, world.env_kwargs, UNCHECKED)
    steps = world.env_kwargs.get("max_episode_steps", 0)
    policy = None if world.expert else searched(made, iterations, steps, world.columns)
    space = made.observation_space
    if "mission" in (getattr(space, "spaces", None) or {}):  # Minari cannot store MiniGrid's own space of missions
        space = type(space)({**space.spaces, "mission": Text(256)})
    collector = DataCollector(made, observation_space=space)
    returns = []
    for seed in range(FIRST_SEED, FIRST_SEED + min(world.episodes, most or world.episodes)):
        observation, _ = collector.reset(seed=seed)
        act, total, ended = world.expert(made) if world.expert else policy, 0.0, False
        assert act is not None
        while not ended:
            action = act(observation)
            if isinstance(made.action_space, Box):
                bounded = np.clip(action, made.action_space.low, made.action_space.high)
                action = bounded.astype(made.action_space.dtype)
            observation, reward, terminated, truncated, _ = collector.step(action)
            total, ended = total + float(reward), terminated or truncated
        returns.append(total)
    collector.create_dataset(f"{name}/expert-v0", algorithm_name="scripted" if world.expert else "random search")
    collector.close()
    return returns


def main(arguments: list[str]) -> None:
    """Record the worlds and print what was recorded."""
    parser = Parser(__name__, __doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--worlds", type=names_of, default=list(WORLDS), help=f"of {', '.join(WORLDS)} (default: all)")
    parser.add_argument("--episodes", type=int, help="at most so many of each world")
    parser.add_argument("--iterations", type=int, default=8, help="of the search for a policy")
    options = parser.parse(arguments)
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    print_header("world", "environment", "episodes", "mean return", "least", "most")
    for name in options.worlds:
        if (folder / name / "expert-v0").exists():  # recorded by an earlier call
            continue
        returns = record(name, folder, options.episodes, options.iterations)
        numbers = (f"{value:.2f}" for value in (np.mean(returns), min(returns), max(returns)))
        print_row(name, WORLDS[name].env_id, len(returns), *numbers)

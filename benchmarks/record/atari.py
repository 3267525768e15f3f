"""Scripted experts of Atari games, which read the console's memory, as pictures.

Writes FOLDER/GAME-scripted-v0, a Minari dataset of gray 84 x 84 frames, recorded through Gymnasium's
AtariPreprocessing: one action lasts four frames, up to 30 no-ops begin an episode. `iq-offline convert --stack 4`
makes it ready for training. With --score it plays, and writes nothing. Episode n starts from seed 10000 + n, which no
evaluation uses. Needs ale-py and OpenCV.

The expert predicts by rules where the ball will cross the paddle's line, and steers there. Where on the paddle it
meets the ball decides where the ball goes next. Once an approach, the expert therefore lets the emulator run ahead with
one place after another, restores it, and takes the first place that scores, else the first that loses nothing. While
the ball flies away, the paddle wanders at random now and then: without that, episodes repeat each other, and what is
cloned from them fails wherever another start leads.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.wrappers import AtariPreprocessing

from benchmarks.arguments import Parser, names_of
from benchmarks.record.episodes import FIRST_SEED, episode_of
from iq_offline.data.episodes import DatasetInfo, Episode, EpisodeSource
from iq_offline.data.formats import minari

FRAME_SKIP, NO_OPS = 4, 30
NOOP, FIRE, RIGHT, LEFT = range(4)
DECISIONS_AHEAD = 100
"""As many actions the emulator runs ahead at most."""
DEAD_ZONE = 8
"""A paddle whose middle will come so near to where the ball crosses is left alone."""
WANDER, LONGEST_WANDERING = 0.05, 10
"""Probability, at each action, that a paddle from which the ball flies away begins to wander, and its most actions."""
PREPROCESSING = {"noop_max": NO_OPS, "frame_skip": FRAME_SKIP, "screen_size": 84, "grayscale_obs": True}


@dataclass(frozen=True)
class Game:
    """Where the console's memory has what an expert looks at, and the line on which the paddle moves.

    along: the place of the ball on the paddle's line, between the walls `low` and `high`; across: its place on the
    other axis, growing towards the paddle, which is at `line`. `places`: the ball's place less the paddle's where they
    meet, in the order in which they are tried. `more`, `less`: the actions that move the paddle. `steps`: of the
    longest episode.
    """

    env_id: str
    paddle: int
    along: int
    across: int
    line: int
    low: int
    high: int
    more: int
    less: int
    places: tuple[int, ...]
    steps: int


GAMES = {
    "pong": Game("ALE/Pong-v5", 51, 54, 49, 186, 46, 203, LEFT, RIGHT, (0, 6, -6, 9, -9, 3, -3), 5000),
    "breakout": Game("ALE/Breakout-v5", 72, 99, 101, 177, 57, 200, RIGHT, LEFT, (12, 8, 16, 5, 19), 2000),
}


@dataclass(frozen=True)
class Look:
    """What an expert sees: paddle, ball along and across."""

    paddle: int
    along: int
    across: int


class Expert:
    """Plays one episode of a game in an emulator."""

    def __init__(self, game: Game, ale: Any, random: np.random.Generator) -> None:
        self._game, self._ale, self._random = game, ale, random
        self._wandering, self._move = 0, NOOP
        self._actions = ale.getMinimalActionSet()
        self._before: Look | None = None
        self._place: int | None = None

    def act(self) -> int:
        """The action for the next four frames."""
        now, before = self._look(), self._before
        self._before = now
        if before is None or not 0 < before.across < now.across:
            self._place = None
            if now.across:
                return self._wandered()
        elif self._place is None:
            self._place = self._best(now, before)
        return self._steered(now, before, self._place or 0)

    def _wandered(self) -> int:
        """The action while the ball flies away: nothing, or now and then a few moves one way."""
        if self._wandering == 0 and self._random.random() < WANDER:
            self._wandering = int(self._random.integers(1, LONGEST_WANDERING + 1))
            self._move = (self._game.more, self._game.less)[self._random.integers(2)]
        if self._wandering == 0:
            return NOOP
        self._wandering -= 1
        return self._move

    def _look(self) -> Look:
        memory, game = self._ale.getRAM(), self._game
        return Look(int(memory[game.paddle]), int(memory[game.along]), int(memory[game.across]))

    def _steered(self, now: Look, before: Look | None, place: int) -> int:
        """Towards where the paddle has to be for the ball to meet it at that place."""
        game = self._game
        if now.across == 0:
            return FIRE
        if before is None or not 0 < before.across < now.across:
            return NOOP
        left = max(game.line - now.across, 0) / (now.across - before.across)
        crossing = reflected(now.along + (now.along - before.along) * left, game.low, game.high)
        error = crossing - place - (now.paddle + 0.5 * (now.paddle - before.paddle))
        return NOOP if abs(error) < DEAD_ZONE else game.more if error > 0 else game.less

    def _best(self, now: Look, before: Look) -> int:
        """The first place that scores, else the first that loses nothing."""
        safe = []
        for place in self._game.places:
            outcome = self._outcome(place, now, before)
            if outcome > 0:
                return place
            safe += [place] if outcome == 0 else []
        return safe[0] if safe else self._game.places[0]

    def _outcome(self, place: int, now: Look, before: Look) -> float:
        """What is scored until the ball comes back, if it is met at that place; -1 where it is missed."""
        ale, scored, away = self._ale, 0.0, False
        state, lives = ale.cloneState(), ale.lives()
        for _ in range(DECISIONS_AHEAD):
            action = self._actions[self._steered(now, before, place)]
            scored += sum(ale.act(action) for _ in range(FRAME_SKIP))
            now, before = self._look(), now
            away = away or now.across < before.across
            if now.across == 0 or scored or (away and now.across > before.across):
                break
        lost = ale.lives() < lives
        ale.restoreState(state)
        return -1.0 if lost else scored


def reflected(place: float, low: int, high: int) -> float:
    """Where a ball is that flies straight to `place` between two walls."""
    beyond = (place - low) % (2 * (high - low))
    return low + min(beyond, 2 * (high - low) - beyond)


def played(game: Game, number: int, sticky: float) -> Episode:
    """One episode of the expert."""
    import ale_py

    gymnasium.register_envs(ale_py)
    made = gymnasium.make(game.env_id, frameskip=1, repeat_action_probability=sticky)
    environment = AtariPreprocessing(made, **PREPROCESSING)
    seed = FIRST_SEED + number
    observation, _ = environment.reset(seed=seed)
    expert = Expert(game, environment.ale, np.random.default_rng(seed))
    return episode_of(
        environment, observation, lambda _: expert.act(), number, most_steps=game.steps, dtype=np.uint8, seed=seed
    )


def main(arguments: list[str]) -> None:
    """Parse the arguments, play, write, and print a line an episode."""
    parser = Parser(__name__, __doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--games", type=names_of, default=list(GAMES), help="pong, breakout (default: both)")
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--sticky", type=float, default=0.0, help="probability that the emulator repeats an action")
    parser.add_argument("--score", action="store_true", help="play only")
    options = parser.parse(arguments)
    for name in options.games:
        game, returns = GAMES[name], []

        def episodes(game: Game = game, returns: list[float] = returns) -> Any:
            for number in range(options.episodes):
                episode = played(game, number, options.sticky)
                returns.append(episode.episode_return)
                print(f"{game.env_id} {number}: return {returns[-1]:g}, {len(episode)} steps", flush=True)
                yield episode

        if options.score:
            list(episodes())
        else:
            wrapper = {"name": "AtariPreprocessing", "kwargs": PREPROCESSING}
            wrapper["entry_point"] = "gymnasium.wrappers.atari_preprocessing:AtariPreprocessing"
            kwargs = {"frameskip": 1, "repeat_action_probability": options.sticky, "max_episode_steps": game.steps}
            kwargs["additional_wrappers"] = [wrapper]
            info = DatasetInfo(f"{name}-scripted-v0", "script", "script", game.env_id, kwargs, origin_sha256="0" * 64)
            minari.write(EpisodeSource(info, episodes()), options.folder / f"{name}-scripted-v0")
        print(f"{game.env_id}, sticky {options.sticky}: {np.mean(returns):.1f} ± {np.std(returns):.1f}, {returns}")

"""Scripted experts of Atari games, which read the console's memory, as pictures.

Writes FOLDER/GAME-scripted-v0, a Minari dataset of gray 84 x 84 frames, recorded through Gymnasium's
AtariPreprocessing: one action lasts four frames, up to 30 no-ops begin an episode. `iq-offline convert --stack 4`
makes it ready for training. With --score it plays, and writes nothing. Episode n starts from seed 10000 + n, which no
evaluation uses. Needs ale-py and OpenCV.

The expert predicts by rules where the ball will cross the paddle's line, and steers there. Where on the paddle it
meets the ball decides where the ball goes next. Once an approach, the expert therefore lets the emulator run ahead with
one place after another, restores it, and takes the first place that scores, else the first that loses nothing. In Pong
the places beside it must lose nothing either, so that a policy which imitates it need not be exact. While the ball is
far, the paddle moves at random now and then: without that, episodes repeat each other, and what is cloned from them
fails wherever another start leads.
"""

import itertools
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.wrappers import AtariPreprocessing
from numpy.typing import NDArray

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
TREMBLE, FAR = 0.1, 24
"""Probability of a random action in Pong while the ball flies away, or needs more than so many frames to the paddle."""
PLANNED = 3
"""Actions that are planned in Pong; after them the paddle is left alone."""
TOLERATED, COST_OF_MOVE = 3.0, 0.7
"""A plan costs its distance from the place, as far as that is not tolerated, and so much for each move."""
PREPROCESSING = {"noop_max": NO_OPS, "frame_skip": FRAME_SKIP, "screen_size": 84, "grayscale_obs": True}


@dataclass(frozen=True)
class Game:
    """Where the console's memory has what an expert looks at, and the line on which the paddle moves.

    along: the place of the ball on the paddle's line, between the walls `low` and `high`; across: its place on the
    other axis, growing towards the paddle, which is at `line`. `places`: the ball's place less the paddle's where they
    meet, in the order in which they are tried. `more`, `less`: the actions that move the paddle. `steps`: of the
    longest episode. `moved`: how far a paddle that coasts has moved 0, 1, 2... frames after a move of four frames
    began, the mean of odd and even frames; empty for one that stops.
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
    moved: tuple[float, ...] = ()


GAMES = {
    "pong": Game(
        *("ALE/Pong-v5", 51, 54, 49, 188, 46, 203, LEFT, RIGHT, (7, 9, 5, 11, 3, 13, 1, 15, -1), 27_000),
        moved=(0, 0, 1.2, 4, 7.5, 12, 15.5, 17.5, 19, 20, 21, 21.5, 22, 22.5),
    ),
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


class PongExpert(Expert):
    """Plans its moves: a paddle coasts 22 units in all after a move of four frames, more than its own length."""

    def __init__(self, game: Game, ale: Any, random: np.random.Generator) -> None:
        super().__init__(game, ale, random)
        self._moves = [0] * PLANNED
        plans = itertools.product((1, -1, 0), repeat=PLANNED)
        self._plans = np.array(sorted(plans, key=lambda plan: (sum(map(abs, plan)), *(-abs(move) for move in plan))))
        """Those with few moves first, and of these the early ones, so that there is time to correct them."""

    def act(self) -> int:
        """The action for the next four frames."""
        now, before = self._look(), self._before
        self._before, frames = now, self._frames_left(now, before)
        if before is None or frames is None:
            self._place = None
        elif self._place is None:
            self._place = self._best(now, before)
        action = self._steered(now, before, self._place or 0)
        if (frames is None or frames > FAR) and self._random.random() < TREMBLE:
            self._moves[-1] = int(self._random.integers(-1, 2))
            action = self._action(self._moves[-1])
        return action

    def _frames_left(self, now: Look, before: Look | None) -> float | None:
        """Until the ball meets the paddle's line; None while it flies away or is not there."""
        if before is None or not 0 < before.across < now.across < self._game.line:
            return None
        return FRAME_SKIP * (self._game.line - now.across) / (now.across - before.across)

    def _steered(self, now: Look, before: Look | None, place: int) -> int:
        """The first action of the plan that costs least."""
        frames, move = self._frames_left(now, before), 0
        if before is not None and frames is not None:
            crossing = now.along + (now.along - before.along) * frames / FRAME_SKIP
            ages = FRAME_SKIP * np.arange(PLANNED, 0, -1)
            coasted = (self._moved(frames + ages) - self._moved(ages)) @ self._moves
            planned = self._plans @ self._moved(frames - FRAME_SKIP * np.arange(PLANNED))
            missed = reflected(crossing, self._game.low, self._game.high) - place - (now.paddle + coasted + planned)
            costs = np.maximum(np.abs(missed) - TOLERATED, 0) + COST_OF_MOVE * np.abs(self._plans).sum(axis=1)
            move = int(self._plans[costs.argmin(), 0])
        self._moves = [*self._moves[1:], move]
        return self._action(move)

    def _action(self, move: int) -> int:
        return (NOOP, self._game.more, self._game.less)[move]

    def _moved(self, frames: NDArray[np.float64]) -> NDArray[np.float64]:
        """How far the paddle has moved so many frames after a move began."""
        return np.interp(frames, np.arange(len(self._game.moved)), self._game.moved)

    def _best(self, now: Look, before: Look) -> int:
        """The first place that scores while those beside it lose nothing; else the middle of the paddle."""
        places, outcome = self._game.places, cache(lambda place: self._outcome(place, now, before))
        for place in places:
            beside = {place - 2, place + 2}.intersection(places)
            if outcome(place) > 0 and all(outcome(other) >= 0 for other in beside):
                return place
        return places[0]

    def _outcome(self, place: int, now: Look, before: Look) -> float:
        moves = self._moves
        outcome = super()._outcome(place, now, before)
        self._moves = moves
        return outcome


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
    kind = PongExpert if game.moved else Expert
    expert = kind(game, environment.ale, np.random.default_rng(seed))
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

"""GridWorlds: the one of [IQ21] figure 4, and one with wind that blows an agent off the expert's path.

A cell (row, column) is state row * size + column; row 0 is printed on top. Actions: up, down, left, right, stay.
"""

import numpy as np

from iq_offline.tabular.mdp import MDP, Floats, Integers

MOVES = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1), "stay": (0, 0)}
ACTIONS = tuple(MOVES)

PAPER_SIZE, PAPER_GAMMA, PAPER_INTENDED = 5, 0.9, 0.75
PAPER_GOALS = ((0, 4), (4, 0), (4, 4))
PAPER_VALUES = np.array(
    [
        [4.7, 5.4, 6.3, 7.3, 8.6],
        [5.4, 4.9, 5.5, 6.4, 7.3],
        [6.3, 5.5, 5.0, 5.6, 6.4],
        [7.3, 6.4, 5.6, 6.4, 7.3],
        [8.6, 7.3, 6.4, 7.3, 8.6],
    ]
)
"""The optimal values that figure 4 prints, (row, column)."""

WINDY_SIZE, WINDY_GAMMA, WINDY_INTENDED = 10, 0.95, 0.99
WINDY_START, WINDY_GOAL = (0, 0), (0, 9)
WIND = 0.3
"""Chance per step that the wind carries the agent one cell down, whatever it does."""


def step_matrix(size: int) -> Floats:
    """Where each action leads without noise, (S, A, S); a step over the edge stays."""
    steps = np.zeros((size * size, len(ACTIONS), size * size))
    for state in range(size * size):
        for action, (down, right) in enumerate(MOVES.values()):
            row, column = np.clip((state // size + down, state % size + right), 0, size - 1)
            steps[state, action, row * size + column] = 1
    return steps


def slippery(steps: Floats, intended: float) -> Floats:
    """The chosen action with chance `intended`, else one of the others, even chances. (S, A, S) -> (S, A, S)."""
    actions = steps.shape[1]
    choice = np.full((actions, actions), (1 - intended) / (actions - 1))
    np.fill_diagonal(choice, intended)
    return np.asarray(np.einsum("ab,sbt->sat", choice, steps))


def cell(place: tuple[int, int], size: int) -> int:
    """State number of (row, column)."""
    return place[0] * size + place[1]


def paper_gridworld() -> MDP:
    """The 5x5 GridWorld of [IQ21] figure 4: reward 1 per step spent on three corners, uniform random start.

    The paper states the actions and the random start; its picture shows the reward. Discount 0.9 and an intended
    action of probability 0.75, the other four 0.0625 each, are inferred: with them all 25 printed values come out.
    """
    states = PAPER_SIZE**2
    rewards = np.zeros((states, len(ACTIONS)))
    rewards[[cell(goal, PAPER_SIZE) for goal in PAPER_GOALS]] = 1
    dynamics = slippery(step_matrix(PAPER_SIZE), PAPER_INTENDED)
    return MDP(dynamics, rewards, np.full(states, 1 / states), PAPER_GAMMA)


def windy_gridworld(wind: float = WIND) -> MDP:
    """A 10x10 grid, discount 0.95, reward 1 per step at the far end of the row that episodes start on.

    Actions slip with probability 0.01. Each step, with chance `wind`, the agent is carried one cell down after its
    move: 0 is the nominal task. The expert of the nominal task hardly leaves its row; with wind it must climb back.
    """
    if not 0 <= wind <= 1:
        raise ValueError(f"wind must be a probability, got {wind}")
    states, steps = WINDY_SIZE**2, step_matrix(WINDY_SIZE)
    calm = slippery(steps, WINDY_INTENDED)
    blown = calm @ steps[:, ACTIONS.index("down")]
    rewards, initial = np.zeros((states, len(ACTIONS))), np.zeros(states)
    rewards[cell(WINDY_GOAL, WINDY_SIZE)] = 1
    initial[cell(WINDY_START, WINDY_SIZE)] = 1
    return MDP((1 - wind) * calm + wind * blown, rewards, initial, WINDY_GAMMA)


def demonstrations(
    mdp: MDP, policy: Floats, episodes: int, steps: int, rng: np.random.Generator
) -> tuple[Integers, Integers, Integers]:
    """States, actions, next states of sampled episodes, (episodes * steps,) each, one episode after another.

    policy (S, A). All episodes have one length: the clock cuts them (truncation), nothing terminates.
    """
    if episodes < 1 or steps < 1:
        raise ValueError(f"episodes and steps must be at least 1, got {episodes} and {steps}")
    states, actions = np.empty((steps + 1, episodes), dtype=np.int64), np.empty((steps, episodes), dtype=np.int64)
    states[0] = _draw(np.tile(mdp.initial, (episodes, 1)), rng)
    for step in range(steps):
        actions[step] = _draw(policy[states[step]], rng)
        states[step + 1] = _draw(mdp.dynamics[states[step], actions[step]], rng)
    return states[:-1].T.ravel(), actions.T.ravel(), states[1:].T.ravel()


def from_transitions(
    states: Integers, actions: Integers, next_states: Integers, shape: tuple[int, int]
) -> tuple[Floats, Floats]:
    """Counted: the share of each pair (S, A), and P(s' | s, a) by frequency (S, A, S).

    All (N,); shape is (S, A). A pair that never occurs is followed by itself: stay, with share 0.
    """
    counts = np.zeros((*shape, shape[0]))
    np.add.at(counts, (states, actions, next_states), 1)
    pairs = counts.sum(axis=-1)
    stay = np.broadcast_to(np.eye(shape[0])[:, None], counts.shape)
    dynamics = np.where(pairs[..., None] > 0, counts / np.maximum(pairs, 1)[..., None], stay)
    return pairs / pairs.sum(), dynamics


def cloned_policy(shares: Floats) -> Floats:
    """Behavioural cloning on a table, (S, A): each action's frequency, even chances where a state was never seen."""
    seen = shares.sum(axis=-1, keepdims=True)
    return np.where(seen > 0, shares / np.where(seen > 0, seen, 1), 1 / shares.shape[1])


def _draw(probabilities: Floats, rng: np.random.Generator) -> Integers:
    """One index a row of (N, K)."""
    totals = probabilities.cumsum(axis=-1)
    thresholds = rng.random(len(probabilities)) * totals[:, -1]
    return np.asarray((totals <= thresholds[:, None]).sum(axis=-1))

"""Decision processes and rewards that only tests need: random ones, absorbing states, shaping, a second divergence."""

import numpy as np
from numpy.typing import NDArray

from iq_offline.tabular.inverse import Divergence
from iq_offline.tabular.mdp import MDP, Floats
from iq_offline.tabular.shaping import ShapingFit, correlation_up_to_shaping


def random_mdp(states: int, actions: int, gamma: float, rng: np.random.Generator, *, terminal_states: int = 0) -> MDP:
    """Dirichlet dynamics and first states, standard normal rewards.

    The last `terminal_states` states are never left and pay nothing; no episode starts in one.
    """
    if not 0 <= terminal_states < states:
        raise ValueError(f"terminal_states must be at least 0 and less than {states}, got {terminal_states}")
    dynamics = rng.dirichlet(np.ones(states), size=(states, actions))
    rewards, initial = rng.normal(size=(states, actions)), rng.dirichlet(np.ones(states))
    if terminal_states:
        dynamics[-terminal_states:] = np.eye(states)[-terminal_states:, None]
        rewards[-terminal_states:] = 0
        initial[-terminal_states:] = 0
        initial /= initial.sum()
    return MDP(dynamics, rewards, initial, gamma)


def with_absorbing_state(mdp: MDP, terminal: NDArray[np.bool_], reward: float) -> MDP:
    """The process in which arriving at a terminal state means arriving at one more state, S, that is never left.

    terminal (S,): where episodes end; those rows stay, but nothing leads there any more. `reward` is paid for every
    step in S. With entropy at temperature t its soft value is (reward + t log A) / (1 - gamma): a data set's
    "value zero after a termination" is reward = -t log A, not reward = 0. The result has S + 1 states.
    """
    if terminal.shape != (mdp.states,) or terminal.dtype != np.bool_:
        raise ValueError(f"terminal must be booleans of shape {(mdp.states,)}, got {terminal.dtype} {terminal.shape}")
    if mdp.initial[terminal].sum() > 0:
        raise ValueError("an episode cannot start in a terminal state")
    dynamics = np.zeros((mdp.states + 1, mdp.actions, mdp.states + 1))
    dynamics[:-1, :, :-1] = np.where(terminal, 0.0, mdp.dynamics)
    dynamics[:-1, :, -1] = mdp.dynamics[:, :, terminal].sum(axis=-1)
    dynamics[-1, :, -1] = 1
    rewards = np.vstack([mdp.rewards, np.full((1, mdp.actions), reward)])
    return MDP(dynamics, rewards, np.append(mdp.initial, 0.0), mdp.gamma)


def shaped(reward: Floats, potential: Floats, mdp: MDP) -> Floats:
    """r(s, a) + gamma E f(s') - f(s). reward (S, A), potential (S,) -> (S, A). Source: [NHR99] eq. 2."""
    if potential.shape != (mdp.states,):
        raise ValueError(f"potential must be {(mdp.states,)}, got {potential.shape}")
    return reward + mdp.gamma * mdp.dynamics @ potential - potential[:, None]


def shaping_null(
    true: Floats, mdp: MDP, rng: np.random.Generator, draws: int, weights: Floats | None = None
) -> list[ShapingFit]:
    """`correlation_up_to_shaping` of rewards that are pure noise (standard normal): what fitting alone achieves."""
    return [correlation_up_to_shaping(true, rng.normal(size=true.shape), mdp, weights) for _ in range(draws)]


def bounded_reward(bound: float, penalty: float = 10.0) -> Divergence:
    """Total variation: phi(x) = x for |x| <= bound, beyond it less penalty (|x| - bound)^2 in place of a wall."""

    def beyond(x: Floats) -> Floats:
        return np.maximum(np.abs(x) - bound, 0)

    return Divergence(lambda x: x - penalty * beyond(x) ** 2, lambda x: 1 - 2 * penalty * np.sign(x) * beyond(x))

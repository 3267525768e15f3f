"""The episode filter: supplementary episodes that look like more demonstrations."""

import numpy as np
from numpy.typing import NDArray

from iq_offline.baselines.distances import Floats


def episode_scores(likenesses: Floats, episodes: NDArray[np.int64], short_episode: int) -> Floats:
    """Sum of each episode's likenesses, divided by its steps or by `short_episode`, whichever is more.

    So a good but short episode scores low: demonstrations that fall early are no demonstrations.
    Shapes: (N,), (N,) numbers from zero -> (episodes,).
    """
    scores: Floats = np.bincount(episodes, weights=likenesses) / np.maximum(np.bincount(episodes), short_episode)
    return scores


def best_episodes(scores: Floats, steps: NDArray[np.int64], transitions: int) -> NDArray[np.int64]:
    """The highest-scored episodes, best first, while they have together at most so many steps; the best in any case.

    Equal scores keep the order of the data. Shapes: (E,), (E,) -> (chosen,).
    """
    order = np.argsort(-scores, kind="stable")
    fitting = int(np.searchsorted(np.cumsum(steps[order]), transitions, side="right"))
    return order[: max(1, fitting)]

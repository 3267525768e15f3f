"""What a dataset holds: counts, ranges, returns and defects, from its table."""

from typing import Any

import numpy as np

from iq_offline.data.spaces import ContinuousActions
from iq_offline.data.table import TransitionTable


def summarise(table: TransitionTable) -> dict[str, Any]:
    """The object that `inspect --json` prints. Returns are undiscounted sums of the recorded rewards."""
    episodes = table.episodes
    returns, lengths = episodes["return"].to_numpy(), episodes["steps"].to_numpy()
    observations, actions = table.observations(table.transition_rows), table.actions(table.transition_rows)
    return {
        "dataset": table.info.name,
        "path": table.info.path,
        "format": table.info.format,
        "episodes": len(episodes),
        "steps": table.steps,
        "terminations": int(episodes["terminated"].sum()),
        "truncations": int(episodes["truncated"].sum()),
        "observation_shape": [table.observation_size],
        "observation_range": [float(observations.min()), float(observations.max())],
        "action_space": table.action_space.to_json(),
        "action_range": [float(actions.min()), float(actions.max())],
        "return": _statistics(returns),
        "length": _statistics(lengths),
        "env_id": table.info.env_id,
        "env_kwargs": table.info.env_kwargs,
        "sha256": table.info.sha256,
        "defects": defects(table),
    }


def defects(table: TransitionTable) -> list[dict[str, Any]]:
    """What is wrong with the recording, how often, and what is done about it. Empty if nothing is."""
    episodes = table.episodes
    unknown = int((~episodes["successor_known"]).sum())
    found = [
        ("unflagged_tail", int(episodes["unflagged"].sum()), "episodes with no end marked; kept, as truncated"),
        ("discontinuity", int(episodes["discontinuous"].sum()), "unmarked cuts in the data; split there, as truncated"),
        ("unknown_successor", unknown, "episodes whose last observation was not recorded; it repeats the one before"),
        ("action_out_of_bounds", _out_of_bounds(table), "steps with an action outside the bounds; kept as they are"),
        ("constant_observation", _constant_columns(table), "observation dimensions that never change; kept"),
    ]
    return [{"kind": kind, "count": count, "handling": handling} for kind, count, handling in found if count]


def _statistics(values: np.ndarray[Any, Any]) -> dict[str, float]:
    return {
        "mean": float(values.mean()),
        "std": float(values.std()),
        "min": float(values.min()),
        "max": float(values.max()),
    }


def _out_of_bounds(table: TransitionTable) -> int:
    if not isinstance(table.action_space, ContinuousActions):
        return 0
    low = np.asarray(table.action_space.low, dtype=np.float32)
    high = np.asarray(table.action_space.high, dtype=np.float32)
    actions = table.actions(table.transition_rows)
    return int(((actions < low) | (actions > high)).any(axis=1).sum())


def _constant_columns(table: TransitionTable) -> int:
    observations = table.observations(table.transition_rows)
    return int((observations.max(axis=0) == observations.min(axis=0)).sum())

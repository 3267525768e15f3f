"""What a policy does at a dataset's observations: kept with its run, it compares policies without a simulator."""

import numpy as np
import polars as pl
import torch

from iq_offline.algorithms.networks import ContinuousPolicy, Policy
from iq_offline.data.split import rows_with_successors
from iq_offline.data.table import TransitionTable
from iq_offline.training.batches import evenly_spread, spread_rows

COMPARED_OBSERVATIONS = 256
"""Of a dataset, evenly spaced over its transitions: the same ones for every run of that dataset."""


def greedy_actions(policy: Policy, table: TransitionTable) -> pl.DataFrame:
    """`row`, and `action_0`, `action_1` ...: numbers of discrete actions, or scaled ones, whose range is -1 to 1."""
    rows = spread_rows(rows_with_successors(table), COMPARED_OBSERVATIONS)
    device = policy.observation_mean.device
    observations = evenly_spread(table, rows, len(rows), device).observations
    with torch.no_grad():
        actions = policy.act(observations)
        if isinstance(policy, ContinuousPolicy):
            actions = policy.scale_actions(actions)
    columns = actions.reshape(len(rows), -1).cpu().numpy().T
    return pl.DataFrame({"row": rows, **{f"action_{number}": column for number, column in enumerate(columns)}})


def percent_different(one: pl.DataFrame, other: pl.DataFrame) -> float | None:
    """Mean absolute difference in percent of the actions' range, or the percentage of observations with another action.

    None where the two are not of the same observations and kind of actions.
    """
    if one.schema != other.schema or not one["row"].equals(other["row"]):
        return None
    first, second = one.drop("row"), other.drop("row")
    if first.dtypes[0].is_integer():
        return float(100 * (first.to_numpy() != second.to_numpy()).any(axis=1).mean())
    return float(50 * np.abs(first.to_numpy() - second.to_numpy()).mean())

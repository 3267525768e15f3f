"""Our learners: ours iq | iq-cql | iq-default | bc | discrete [--eager] [--bfloat16]."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import torch

from iq_offline.algorithms.awr import NoEntropy
from iq_offline.algorithms.bc import BCLearner
from iq_offline.algorithms.build import actor_and_critics, clone_policy
from iq_offline.algorithms.divergences import ChiSquared
from iq_offline.algorithms.iq import IQLearner, expert_value
from iq_offline.algorithms.learner import Learner
from iq_offline.algorithms.noise import Stream, generator
from iq_offline.algorithms.regularisers import regularisers_of
from iq_offline.config.base import Precision
from iq_offline.config.cloning import BCConfig, ContinuousBCConfig
from iq_offline.config.iq import DiscreteIQPaperConfig, IQConfig
from iq_offline.config.train import Compile
from iq_offline.data.episodes import DatasetInfo
from iq_offline.data.spaces import ActionSpace, ContinuousActions, DiscreteActions
from iq_offline.data.table import Leaf, TransitionTable
from iq_offline.training.batches import TransitionSampler
from iq_offline.training.learnt import Data, build_learner
from iq_offline.training.steps import Seconds, steps_of

from .synthetic import (
    ACTION,
    BATCH,
    CQL_ACTIONS,
    HIDDEN,
    SMALL_ACTIONS,
    SMALL_BATCH,
    SMALL_HIDDEN,
    Episodes,
    continuous_episodes,
    discrete_episodes,
)
from .worker import Measure, Updates, counted, serve

CPU = torch.device("cpu")
COMPILED = Compile.OFF if "--eager" in sys.argv else Compile.ON
FOR_EVER = 10**9
"""Updates of a run, so that its learning rate stays where it is."""

Config = BCConfig | IQConfig | DiscreteIQPaperConfig

PLAIN = {
    "updates": FOR_EVER,
    "batch_size": BATCH,
    "hidden_sizes": HIDDEN,
    "actor_activation": "relu",
    "critic_activation": "relu",
    "critic_layer_norm": False,
    "action_gradient": None,
    "target_bound": None,
    "ensemble": {"members": 2},
}
"""The mathematics of the JAX yardstick and of the plain loop: without a prior and without entropy."""
CONFIGS: dict[str, Callable[[], Config]] = {
    "iq": lambda: IQConfig.model_validate(PLAIN),
    "iq-cql": lambda: IQConfig.model_validate(PLAIN | {"cql": {"weight": 1, "actions": CQL_ACTIONS // 2}}),
    "iq-default": lambda: IQConfig(updates=FOR_EVER),
    "bc": lambda: ContinuousBCConfig.model_validate(
        {"updates": FOR_EVER, "batch_size": BATCH, "hidden_sizes": HIDDEN, "activation": "relu"}
    ),
    "discrete": lambda: DiscreteIQPaperConfig.model_validate(
        {"updates": FOR_EVER, "batch_size": SMALL_BATCH, "hidden_sizes": SMALL_HIDDEN, "activation": "silu"}
    ),
}
"""`iq-cql`: so many uniform actions an observation and as many of the policy, d3rlpy's three times ten together."""


def ours(config: Config, data: Data) -> Updates:
    """n updates as long training runs make them: the learner that it builds, compiled, on batches that it draws."""
    learner = learner_of(config, data)
    batches = data.expert.batches(config.batch_size, generator(0, Stream.BATCHES))
    steps, seconds = steps_of(learner, FOR_EVER, COMPILED), Seconds()

    def updates(count: int) -> float:
        metrics, _ = steps.advance(batches, count, seconds)
        return float(metrics["loss"])

    return updates


def learner_of(config: Config, data: Data, seed: int = 0) -> Learner:
    """A learner with the initial weights of a seed; a prior, where there is one, is not trained first."""
    spec = data.spec(seed)
    if isinstance(config, BCConfig):
        return BCLearner(config, clone_policy(config, spec))
    if isinstance(config, DiscreteIQPaperConfig):
        return build_learner(config, spec, None)
    if config.action_gradient is not None:
        return build_learner(config, spec, clone_policy(config.prior, spec))
    networks, noise = actor_and_critics(config, spec), generator(seed, Stream.ACTIONS, data.device)
    phi = ChiSquared(config.reward_penalty).phi
    regularisers = regularisers_of(config)
    return IQLearner(config, *networks, noise, NoEntropy(), regularisers, phi=phi, value_term=expert_value)


def data_of(config: Config) -> Data:
    """The synthetic data as training holds them."""
    return synthetic_data(discrete=isinstance(config, DiscreteIQPaperConfig), device=CPU)


def synthetic_data(*, discrete: bool, device: torch.device) -> Data:
    """The synthetic data of that kind of actions, on a device."""
    if discrete:
        table = table_of(discrete_episodes(), DiscreteActions(SMALL_ACTIONS))
    else:
        table = table_of(continuous_episodes(), ContinuousActions((-1.0,) * ACTION, (1.0,) * ACTION, "unit"))
    starts = table.episodes["start_row"].to_numpy()
    return Data(TransitionSampler(table, table.transition_rows, device, starts), table.action_space, device)


def table_of(episodes: Episodes, space: ActionSpace) -> TransitionTable:
    """A packed table in memory: rows [observation | action | reward | termination], one more for each episode's end."""
    count, steps = episodes.actions.shape[:2]
    size = episodes.observations.shape[-1]
    rows = np.zeros((count, steps + 1, size + space.width + 2), dtype=np.float32)
    rows[..., :size] = episodes.observations
    rows[:, :-1, size:-2] = episodes.actions.reshape(count, steps, -1)
    rows[:, :-1, -1] = episodes.terminations
    starts = np.arange(count) * (steps + 1)
    return TransitionTable(
        info=DatasetInfo("synthetic", "", "synthetic"),
        action_space=space,
        layout=(Leaf("observations", (size,), "float32", 0, size, None),),
        rows=rows.reshape(count * (steps + 1), -1),
        rows_file=Path(),
        pictures={},
        episodes=pl.DataFrame({"start_row": starts, "steps": np.full(count, steps)}),
    )


def build() -> Measure:
    """The candidate that the command line names."""
    name = sys.argv[1]
    config = CONFIGS[name]()
    if "--bfloat16" in sys.argv:
        config = config.model_copy(update={"precision": Precision.BFLOAT16})
    return counted(ours(config, data_of(config)), 64 if name == "discrete" else 4)


if __name__ == "__main__":
    serve(build)

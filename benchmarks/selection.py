"""Which offline signal orders runs as a simulator would? Its rank correlation with the return.

python -m benchmarks selection RUN... [--reward RUN] [--fqe-data DATASET...] [--fqe-updates 3000]

The runs are of one task, evaluated. Signals: the errors on demonstrations that none of them has learnt from (those of
`iq-offline select`), the last logged training loss, and, by the critics of one `iq` run (--reward; the first in the
list if none is named), the advantage Q(s, a of the policy) - Q(s, a demonstrated) on the same unseen demonstrations,
the value Q(s, a of the policy) there, and, with --fqe-data, fitted Q evaluation (d3rlpy's FQE) of that run's normalised
reward on those data: the mean value at the demonstrations' initial observations. Returns are read last, by nothing.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from benchmarks.arguments import Parser
from iq_offline.algorithms.networks import ContinuousPolicy
from iq_offline.baselines.d3rlpy_adapter import RewardedBatch, load_d3rlpy, minibatch
from iq_offline.batch import Batch
from iq_offline.data.spaces import ActionSpace
from iq_offline.data.split import rows_with_successors
from iq_offline.evaluation.correlation import correlate
from iq_offline.stages.fetch import open_dataset
from iq_offline.stages.rewarder import Form, Rewarder
from iq_offline.stages.select import signals, unseen_demonstrations
from iq_offline.training.batches import TransitionSampler
from iq_offline.training.learnt import learner_of
from iq_offline.training.run_folder import EVALUATION, RunFolder

CPU = torch.device("cpu")
BATCH = 256
LOSSES = ("loss", "prior_loss")


def main(arguments: list[str]) -> None:
    """Print the runs with their signals, and the rank correlation of each signal with the return."""
    parser = Parser(__name__, __doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--reward", type=Path)
    parser.add_argument("--fqe-data", nargs="*", default=[])
    parser.add_argument("--fqe-updates", type=int, default=3000)
    parser.add_argument("--json", type=Path, help="keep the table there")
    options = parser.parse(arguments)
    torch.set_num_threads(1)
    runs = [RunFolder.open(path) for path in options.runs]
    judges = [run for run in runs if run.config.algorithm.learns_reward]
    judge = RunFolder.open(options.reward) if options.reward else judges[0] if judges else None
    if judge is None:
        sys.exit("no run has a reward: name an iq run with --reward")
    evaluations = [run.read_optional(EVALUATION) for run in runs]
    if None in evaluations:
        sys.exit("a run is not evaluated: iq-offline eval RUN...")
    table, batch = unseen_demonstrations(runs)
    critic = _Critic(judge, batch)
    fqe = _Evaluation(judge, options.fqe_data, options.fqe_updates) if options.fqe_data else None
    starts = torch.from_numpy(table.observations(table.episodes["start_row"].to_numpy())).float()
    found = [
        {"return": evaluation["return_mean"], **_signals(run, batch, table.action_space, critic, fqe, starts)}
        for run, evaluation in zip(runs, evaluations, strict=True)
        if evaluation
    ]
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    _show(found, judge)


def _signals(
    run: RunFolder,
    batch: Batch,
    space: ActionSpace,
    critic: "_Critic",
    fqe: "_Evaluation | None",
    starts: Tensor,
) -> dict[str, Any]:
    """Every signal so turned that more is better."""
    policy = run.policy()
    assert isinstance(policy, ContinuousPolicy)
    found = {f"error, {name}": -value for name, value in signals(policy, batch, space).items()}
    last = pl.read_parquet(run.path / "metrics.parquet", glob=False).row(-1, named=True)
    found["training loss"] = -next(last[name] for name in LOSSES if last.get(name) is not None)
    value = critic(policy.act(batch.observations))
    found |= {"advantage": value - critic(batch.actions), "value": value}
    if fqe is not None:
        found["FQE"] = fqe(policy, starts)
    name = run.manifest["run"]
    print(name, " ".join(f"{key}={number:.4f}" for key, number in found.items()), flush=True)
    return {"run": name, **found}


class _Critic:
    """The least of a run's critics at the observations of one batch."""

    def __init__(self, judge: RunFolder, batch: Batch) -> None:
        self._judge, self._observations = learner_of(judge), batch.observations

    @torch.no_grad()
    def __call__(self, actions: Tensor) -> float:
        """Mean Q of those actions, (B, A)."""
        scale = self._judge.policy
        values = self._judge.critic(scale.standardise(self._observations), scale.scale_actions(actions))
        return float(values.amin(0).mean())


class _Evaluation:
    """Fitted Q evaluation of policies on one reward and one set of data."""

    def __init__(self, judge: RunFolder, datasets: list[str], updates: int) -> None:
        self._d3rlpy, self._updates, self._scale = load_d3rlpy(), updates, judge.policy()
        rewarder = Rewarder.exactly(judge, Form.NORMALISED)
        tables = [open_dataset(name) for name in (judge.config.dataset, *datasets)]
        samplers = [TransitionSampler(table, rows_with_successors(table), CPU) for table in tables]
        batches = [sampler.gather(torch.arange(len(sampler))) for sampler in samplers]
        names = ("observations", "actions", "next_observations", "terminations")
        whole = {name: torch.cat([getattr(batch, name) for batch in batches]) for name in names}
        with torch.no_grad():
            rewards = torch.cat([rewarder(batch)[0] for batch in batches]).float()
        self._data = whole | {"rewards": rewards}

    def __call__(self, policy: ContinuousPolicy, starts: Tensor) -> float:
        """The mean value of the policy's actions at those observations."""
        torch.manual_seed(0)
        config = self._d3rlpy.ope.FQEConfig(learning_rate=3e-4, batch_size=BATCH)
        fqe = self._d3rlpy.ope.FQE(_Acting(policy, self._scale), config)
        fqe.create_impl((starts.shape[1],), self._data["actions"].shape[1])
        random = torch.Generator().manual_seed(0)
        for _ in range(self._updates):
            chosen = torch.randint(len(self._data["rewards"]), (BATCH,), generator=random)
            drawn = RewardedBatch(**{name: whole[chosen] for name, whole in self._data.items()})
            fqe.update(minibatch(drawn, self._scale))
        scaled = self._scale.standardise(starts).numpy()
        with torch.no_grad():
            actions = self._scale.scale_actions(policy.act(starts)).numpy()
        return float(fqe.predict_value(scaled, actions).mean())


class _Acting:
    """What FQE asks of an algorithm: the policy's scaled actions at standardised observations."""

    def __init__(self, policy: ContinuousPolicy, scale: ContinuousPolicy) -> None:
        self._policy, self._scale, self.impl = policy, scale, self

    @torch.no_grad()
    def predict_best_action(self, standardised: Tensor) -> Tensor:
        observations = standardised * self._scale.observation_std + self._scale.observation_mean
        return self._scale.scale_actions(self._policy.act(observations))


def _show(rows: list[dict[str, Any]], judge: RunFolder) -> None:
    returns = np.array([row["return"] for row in rows])
    print(
        f"{len(rows)} runs, judged by {judge.manifest['run']}; Spearman with return; return of the first / of the best"
    )
    for name in rows[0]:
        if name not in ("run", "return"):
            values = np.array([row[name] for row in rows])
            first = returns[int(values.argmax())] / returns.max()
            print(f"{name}: {correlate(returns, values).spearman:.2f}, {100 * first:.1f} %")

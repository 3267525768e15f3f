"""Which offline signal orders runs as a simulator would? Rank correlations of each with the return, task by task.

python benchmarks/selection.py RUN... [--reward RUN] [--fqe-data DATASET...] [--fqe-updates 3000]

The runs are of one task, evaluated. Signals: the errors on demonstrations that none of them has learnt from (those of
`iq-offline select`), the last logged training loss, and, by the critics of one `iq` run (--reward; the first in the
list if none is named), the advantage Q(s, a of the policy) - Q(s, a demonstrated) on the same unseen demonstrations,
the value Q(s, a of the policy) there, and, with --fqe-data, fitted Q evaluation (d3rlpy's FQE) of that run's normalised
reward on those data: the mean value at the demonstrations' initial observations. Returns are read last, by nothing.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from iq_offline.algorithms.networks import ContinuousPolicy
from iq_offline.baselines.d3rlpy_adapter import load_d3rlpy
from iq_offline.batch import Batch
from iq_offline.config import IQConfig
from iq_offline.data.split import rows_with_successors
from iq_offline.evaluation.correlation import correlate
from iq_offline.stages.fetch import open_dataset
from iq_offline.stages.rewarder import Form, Rewarder
from iq_offline.stages.select import SelectRequest, select_run, unseen_demonstrations
from iq_offline.training.batches import TransitionSampler
from iq_offline.training.learnt import continuous_networks_of
from iq_offline.training.run_folder import RunFolder

CPU = torch.device("cpu")
BATCH = 256
LOSSES = ("loss", "prior_loss")


def main() -> None:
    """Print the runs with their signals, and the rank correlation of each signal with the return."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--reward", type=Path)
    parser.add_argument("--fqe-data", nargs="*", default=[])
    parser.add_argument("--fqe-updates", type=int, default=3000)
    parser.add_argument("--json", type=Path, help="keep the table there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    runs = [RunFolder.open(path) for path in options.runs]
    judges = [run for run in runs if isinstance(run.config.algorithm, IQConfig)]
    judge = RunFolder.open(options.reward) if options.reward else judges[0] if judges else None
    if judge is None:
        sys.exit("no run has a reward: name an iq run with --reward")
    rows = {row["path"]: row for row in select_run(runs, SelectRequest(), lambda *_: None)["runs"]}
    if any(row["return"] is None for row in rows.values()):
        sys.exit("a run is not evaluated: iq-offline eval RUN...")
    table, batch = unseen_demonstrations(runs)
    fqe = _Evaluation(judge, options.fqe_data, options.fqe_updates) if options.fqe_data else None
    starts = torch.from_numpy(table.observations(table.episodes["start_row"].to_numpy())).float()
    found = [_signals(run, rows[str(run.path)], judge, batch, fqe, starts) for run in runs]
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    _show(found, judge)


def _signals(
    run: RunFolder, row: dict[str, Any], judge: RunFolder, batch: Batch, fqe: "_Evaluation | None", starts: Tensor
) -> dict[str, Any]:
    """Every signal so turned that more is better."""
    policy = run.policy()
    assert isinstance(policy, ContinuousPolicy)
    signals = {f"error, {name}": -row[name] for name in ("mean", "median", "worst")}
    last = pl.read_parquet(run.path / "metrics.parquet").row(-1, named=True)
    signals["training loss"] = -next(last[name] for name in LOSSES if last.get(name) is not None)
    networks = continuous_networks_of(judge)

    @torch.no_grad()
    def q(actions: Tensor) -> Tensor:
        judging = networks.policy
        values: Tensor = networks.critic(judging.standardise(batch.observations), judging.scale_actions(actions))
        return values.amin(0)

    own, demonstrated = q(policy.act(batch.observations)), q(batch.actions)
    signals |= {"advantage": float((own - demonstrated).mean()), "value": float(own.mean())}
    if fqe is not None:
        signals["FQE"] = fqe(policy, starts)
    name = row["run"]
    print(name, " ".join(f"{key}={value:.4f}" for key, value in signals.items()), flush=True)
    return {"run": name, "return": row["return"], **signals}


class _Evaluation:
    """Fitted Q evaluation of policies on one reward and one set of data."""

    def __init__(self, judge: RunFolder, datasets: list[str], updates: int) -> None:
        self._d3rlpy, self._updates, self._scale = load_d3rlpy(), updates, judge.policy()
        rewarder = Rewarder.exactly(judge, Form.NORMALISED)
        tables = [open_dataset(name) for name in (judge.config.dataset, *datasets)]
        samplers = [TransitionSampler(table, rows_with_successors(table), CPU) for table in tables]
        batches = [sampler.gather(torch.arange(len(sampler))) for sampler in samplers]
        names = ("observations", "actions", "next_observations", "terminations")
        self._data = {name: torch.cat([getattr(batch, name) for batch in batches]) for name in names}
        with torch.no_grad():
            self._data["rewards"] = torch.cat([rewarder(batch)[0] for batch in batches])

    def __call__(self, policy: ContinuousPolicy, starts: Tensor) -> float:
        """The mean value of the policy's actions at those observations."""
        torch.manual_seed(0)
        config = self._d3rlpy.ope.FQEConfig(learning_rate=3e-4, batch_size=BATCH)
        fqe = self._d3rlpy.ope.FQE(_Acting(policy, self._scale), config)
        fqe.create_impl((starts.shape[1],), self._data["actions"].shape[1])
        random = torch.Generator().manual_seed(0)
        for _ in range(self._updates):
            fqe.update(self._minibatch(torch.randint(len(self._data["rewards"]), (BATCH,), generator=random)))
        scaled = self._scale.standardise(starts).numpy()
        with torch.no_grad():
            actions = self._scale.scale_actions(policy.act(starts)).numpy()
        return float(fqe.predict_value(scaled, actions).mean())

    def _minibatch(self, chosen: Tensor) -> Any:
        part = {name: data[chosen] for name, data in self._data.items()}
        actions = self._scale.scale_actions(part["actions"]).numpy()
        return self._d3rlpy.dataset.TransitionMiniBatch(
            observations=self._scale.standardise(part["observations"]).numpy(),
            actions=actions,
            rewards=part["rewards"].numpy()[:, None].astype(np.float32),
            next_observations=self._scale.standardise(part["next_observations"]).numpy(),
            next_actions=np.zeros_like(actions),
            terminals=part["terminations"].numpy()[:, None].astype(np.float32),
            intervals=np.ones((len(chosen), 1), np.float32),
            transitions=[],
        )


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


if __name__ == "__main__":
    main()

"""reward: a run's recovered reward against the true reward of recorded data, which training never saw."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from iq_offline.algorithms.linear_reward import fit_linear_reward
from iq_offline.algorithms.networks import LARGEST_STANDARDISED, ContinuousPolicy, Policy
from iq_offline.batch import Batch
from iq_offline.config import ContinuousBCConfig, DiscreteBCConfig, IQConfig
from iq_offline.data.files import whole_file
from iq_offline.data.spaces import ContinuousActions
from iq_offline.data.split import rows_with_successors
from iq_offline.data.table import TransitionTable
from iq_offline.evaluation.correlation import cloning_null, reward_report
from iq_offline.evaluation.shaping import Floats, PotentialFeatures, ShapingFree, epic_like_distance
from iq_offline.report.dataset_plot import check_picture
from iq_offline.report.reward_plots import reward_plot
from iq_offline.stages.rewarder import Form, Rewarder, demonstrated_rows, form_of, task_tables
from iq_offline.tracking.metrics import reward_metrics
from iq_offline.tracking.mirror import mirror_stage
from iq_offline.training import run_folder
from iq_offline.training.batches import TransitionSampler
from iq_offline.training.learnt import prior_of
from iq_offline.training.loop import fit_clone
from iq_offline.training.run_folder import RunFolder

CHUNK = 8192
CPU = torch.device("cpu")
LARGEST_OBSERVATION = 512
"""Numbers of an observation up to which shaping is taken out: of pictures no potential is fitted."""
Null = Callable[[Batch], torch.Tensor]


@dataclass(frozen=True)
class RewardRequest:
    """What the command line asks of a reward's recovery: data (the run's own if none), the form, and a picture."""

    datasets: tuple[str, ...] = ()
    form: str = Form.LINEAR
    plot: Path | None = None


def recover_reward(
    run: RunFolder, request: RewardRequest, on_chunk: Callable[[int], None], warn: Callable[[str], None]
) -> dict[str, Any]:
    """Correlate recovered and true reward on datasets (the run's own and its supplementary ones if none is named).

    Writes reward.json, rewards.parquet and reward.png into the run folder. Raises RunError for a method that learns no
    reward, ConfigError for a dataset of another shape.
    """
    form = form_of(request.form)
    if request.plot is not None:
        check_picture(request.plot)
    torch.set_num_threads(run.config.threads)
    tables = task_tables(run, request.datasets)
    rewarder = Rewarder.of(run, form, tables)
    if rewarder.form is not form:
        warn(f"{rewarder.why_not}: the {rewarder.form} form, as it is")
    against = _Against.of(run, rewarder)
    transitions = pl.concat([_frame(table, against, on_chunk) for table in tables])
    report = {"run": run.manifest["run"], "datasets": [table.info.name for table in tables], "form": str(rewarder.form)}
    report |= reward_report(transitions)
    report |= {"shaping_free": against.shaping.report()} | _certainty(transitions)
    if rewarder.linear is not None:
        linear = rewarder.linear
        report["linear"] = {"weights": linear.weights.tolist(), "explained": linear.explained}
        report["linear"]["survival"] = rewarder.survival
    _write(run, report, transitions, request.plot)
    files = (run_folder.REWARD, run_folder.REWARDS, run_folder.REWARD_PLOT)
    mirror_stage(run.path, reward_metrics(report), files, warn)
    return report


def as_text(report: dict[str, Any]) -> str:
    """The report for people: a line a figure, with its interval, beside its nulls."""
    named = {
        "transition": report["transition"],
        "  null: cloned policy": report["null_bc"],
        "  null, linear": report.get("null_linear"),
        "episode": report["episode"],
        "  null: length": report["null_length"],
        "  null: cloned policy ": report["null_bc"]["episode"],
        "  null, linear ": report.get("null_linear", {}).get("episode"),
        "episode, per step": report["length_controlled"]["per_step"],
        "implicit, transition": report["implicit"],
    }
    within = report["within_source"]["sources"] if len(report["datasets"]) > 1 else {}
    for source, found in within.items():
        named |= {f"{source}": found["transition"], f"  {source}, episode": found["episode"]}
    named = {name: found for name, found in named.items() if found is not None}
    width = max(map(len, named))
    lines = [f"{'':<{width}}{'Pearson':>9}{'95 % interval':>18}{'Spearman':>10}{'n':>9}"]
    for name, found in named.items():
        low, high = found["pearson_ci95"] or (None, None)
        interval = "-" if low is None else f"{low:.3f} .. {high:.3f}"
        numbers = f"{_figure(found['pearson']):>9}{interval:>18}{_figure(found['spearman']):>10}{found['n']:>9}"
        lines.append(f"{name:<{width}}{numbers}")
    ranking, free = report["ranking"], report["shaping_free"]
    by_length = _figure(ranking["null_length"])
    lines.append(f"episode pairs in the right order: {_figure(ranking['accuracy'])} (by their length: {by_length})")
    lines.append(f"episodes, length taken out (partial): {_figure(report['length_controlled']['partial'])}")
    if free is not None:
        distance = f"EPIC-like distance {_figure(free['epic_like_distance'])}"
        lines.append(f"shaping taken out: Pearson {_figure(free['pearson'])}, {distance}")
    return "\n".join(lines)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


@dataclass(frozen=True)
class _Against:
    """What a batch is asked: the recovered reward, the cloning null, and what is left without shaping.

    `null_linear`: the null, explained as the linear form explains the recovered reward; None for another form.
    """

    rewarder: Rewarder
    null: Null
    shaping: "_Shaping"
    null_linear: Null | None = None

    @classmethod
    def of(cls, run: RunFolder, rewarder: Rewarder) -> "_Against":
        null, policy = _cloning_null(run), run.policy()
        found = cls(rewarder, null, _Shaping.of(run))
        if rewarder.linear is None:
            return found
        linear = fit_linear_reward([(policy.standardise(one.observations), null(one)) for one in rewarder.sources])
        # that the demonstrations seldom end is known without Q
        return replace(
            found, null_linear=lambda batch: linear(policy.standardise(batch.observations)) + rewarder.survival
        )


@dataclass
class _Shaping:
    """Grows by batches; nothing where observations are too large for potentials."""

    policy: Policy
    features: PotentialFeatures | None
    sums: ShapingFree
    names: tuple[str, ...] = field(default=("recovered", "null_bc"))

    @classmethod
    def of(cls, run: RunFolder) -> "_Shaping":
        policy, algorithm = run.policy(), run.config.algorithm
        assert isinstance(algorithm, IQConfig)
        size = policy.layout.features
        features = PotentialFeatures(size) if size <= LARGEST_OBSERVATION else None
        return cls(policy, features, ShapingFree(algorithm.gamma))

    def add(self, batch: Batch, columns: list[torch.Tensor]) -> None:
        """True reward, recovered one and null of a batch, each (B,)."""
        if self.features is None:
            return
        here, there = (self._potentials(raw) for raw in (batch.observations, batch.next_observations))
        rewards = torch.stack([column.double() for column in columns], dim=1).numpy()
        self.sums.add(here, there, batch.terminations.numpy(), rewards)

    @torch.no_grad()
    def _potentials(self, raw: torch.Tensor) -> Floats:
        assert self.features is not None
        whole = (raw - self.policy.observation_mean) / self.policy.observation_std
        cut_off = whole - whole.clamp(-LARGEST_STANDARDISED, LARGEST_STANDARDISED)
        return self.features(self.policy.standardise(raw).double().numpy(), cut_off.double().numpy())

    def report(self) -> dict[str, Any] | None:
        """Correlation with the true reward when shaping does not count, and the distance that it means."""
        if self.features is None:
            return None
        found = dict(zip(self.names, self.sums.correlations(1 + len(self.names)), strict=True))
        return {
            "pearson": found["recovered"],
            "epic_like_distance": epic_like_distance(found["recovered"]),
            "null_bc": {"pearson": found["null_bc"], "epic_like_distance": epic_like_distance(found["null_bc"])},
            "n": self.sums.n,
        }


def _certainty(transitions: pl.DataFrame) -> dict[str, Any]:
    """How far critics disagree on the implicit reward, and how well V(s') is known, beside how much it varies."""
    means = {name: float(transitions[name].to_numpy().mean()) for name in ("uncertainty", "value_error")}
    return means | {"implicit_std": float(transitions["implicit"].to_numpy().std())}


def _write(run: RunFolder, report: dict[str, Any], transitions: pl.DataFrame, plot: Path | None) -> None:
    with whole_file(run.path / run_folder.REWARDS) as temporary:
        transitions.write_parquet(temporary)
    run_folder.seal_record(run.path / run_folder.REWARD, report)
    for path in (run.path / run_folder.REWARD_PLOT, *([] if plot is None else [plot])):
        picture = reward_plot(transitions, path.suffix.removeprefix("."))
        with whole_file(path) as temporary:
            temporary.write_bytes(picture)


def _frame(table: TransitionTable, against: _Against, on_chunk: Callable[[int], None]) -> pl.DataFrame:
    rows = rows_with_successors(table)
    sampler = TransitionSampler(table, rows, CPU)
    columns: dict[str, list[torch.Tensor]] = {}
    true = table.rewards(rows).astype(np.float64)
    for first in range(0, len(rows), CHUNK):
        batch = sampler.gather(torch.arange(first, min(first + CHUNK, len(rows))))
        reward, found = against.rewarder(batch)
        null = against.null(batch)
        values = {"recovered": reward, "implicit": found.rewards, "canonical": found.canonical}
        if against.rewarder.scale is not None:
            values["normalised"] = against.rewarder.scale(found)
        values |= {"uncertainty": found.uncertainty, "value_error": found.value_error, "null_bc": null}
        if against.null_linear is not None:
            values["null_linear"] = against.null_linear(batch)
        for name, value in values.items():
            columns.setdefault(name, []).append(value)
        against.shaping.add(batch, [torch.from_numpy(true[first : first + CHUNK]), reward, null])
        on_chunk(len(batch.terminations))
    number = table.episode_numbers(rows)
    return pl.DataFrame(
        {
            "source": pl.Series([table.info.name]).repeat_by(len(rows)).explode(),
            "episode": table.episodes["episode"].to_numpy()[number],
            "step": rows - table.episodes["start_row"].to_numpy()[number],
            "true": true,
            **{name: torch.cat(parts).double().numpy() for name, parts in columns.items()},
        }
    )


def _cloning_null(run: RunFolder) -> Null:
    """The reward that needs no dynamics: how near the recorded action is to that of a cloned policy."""
    prior = prior_of(run) or _clone_again(run)
    if isinstance(prior, ContinuousPolicy):
        return lambda batch: _squared_error_null(prior, batch, prior.std)
    return lambda batch: _surprise_null(prior, batch)


def _clone_again(run: RunFolder) -> Policy:
    """Behavioural cloning on the run's own transitions, for a run that holds no prior."""
    table, rows = demonstrated_rows(run)
    sampler = TransitionSampler(table, rows, CPU)
    config = ContinuousBCConfig() if isinstance(table.action_space, ContinuousActions) else DiscreteBCConfig()
    *_, last = fit_clone(config, run.config.seed, sampler, table.action_space, CPU)
    return last.learner.policy


@torch.no_grad()
def _squared_error_null(prior: ContinuousPolicy, batch: Batch, std: float) -> torch.Tensor:
    executed = prior.scale_actions(prior.act(batch.observations))
    error = (executed - prior.scale_actions(batch.actions)).square().sum(dim=-1)
    return torch.from_numpy(cloning_null(error.double().numpy(), std))


@torch.no_grad()
def _surprise_null(clone: Policy, batch: Batch) -> torch.Tensor:
    surprise = torch.nn.functional.cross_entropy(clone(batch.observations), batch.actions, reduction="none")
    return torch.from_numpy(cloning_null(2 * surprise.double().numpy(), 1.0))

"""reward: a run's recovered reward against the true reward of recorded data, which training never saw."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from iq_offline.algorithms.linear_reward import fit_linear_reward
from iq_offline.algorithms.networks import LARGEST_STANDARDISED, ContinuousPolicy
from iq_offline.batch import Batch
from iq_offline.config.cloning import ContinuousBCConfig, DiscreteBCConfig
from iq_offline.config.q_learning import QLearningConfig
from iq_offline.data.files import whole_file
from iq_offline.data.spaces import ContinuousActions
from iq_offline.data.split import rows_with_successors
from iq_offline.data.table import TransitionTable
from iq_offline.evaluation.correlation import cloning_null, reading, reward_report
from iq_offline.evaluation.shaping import Floats, PotentialFeatures, ShapingFree, epic_like_distance
from iq_offline.report.columns import run_metrics
from iq_offline.report.stage_plots import check_picture, reward_plot
from iq_offline.stages.rewarder import Form, Rewarder, demonstrated_rows, form_of, task_tables
from iq_offline.tracking.mirror import mirror_stage
from iq_offline.training import run_folder
from iq_offline.training.batches import TransitionSampler
from iq_offline.training.learnt import prior_of
from iq_offline.training.loop import fit_clone
from iq_offline.training.run_folder import RunFolder

CHUNK = 8192
CPU = torch.device("cpu")
MAX_OBSERVATION = 512
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
    nulls, shaping = _nulls(run, rewarder), _Shaping(run)
    transitions = pl.concat([_frame(table, rewarder, nulls, shaping, on_chunk) for table in tables])
    report = {"run": run.manifest["run"], "datasets": [table.info.name for table in tables], "form": str(rewarder.form)}
    report |= reward_report(transitions) | {"shaping_free": shaping.report()}
    # how far critics disagree on the implicit reward, and how well V(s') is known, beside how much the reward varies
    report |= {name: float(transitions[name].to_numpy().mean()) for name in ("uncertainty", "value_error")}
    report["implicit_std"] = float(transitions["implicit"].to_numpy().std())
    if rewarder.linear is not None:
        weights, explained = rewarder.linear.weights.tolist(), rewarder.linear.explained
        report["linear"] = {"weights": weights, "explained": explained, "survival": rewarder.survival}
    with whole_file(run.path / run_folder.REWARDS) as temporary:
        transitions.write_parquet(temporary)
    run_folder.seal_record(run.path / run_folder.REWARD, report)
    for path in (run.path / run_folder.REWARD_PLOT, request.plot):
        if path is not None:
            with whole_file(path) as temporary:
                temporary.write_bytes(reward_plot(transitions, path.suffix.removeprefix(".")))
    files = (run_folder.REWARD, run_folder.REWARDS, run_folder.REWARD_PLOT)
    mirror_stage(run.path, run_metrics(reward=report), files, warn)
    return report


def as_text(report: dict[str, Any]) -> str:
    """The report for people: a line per figure, with its interval, beside its baselines; then a reading of them."""
    named = {
        "transition": report["transition"],
        "  baseline: cloning": report["null_bc"],
        "  baseline: linear cloning": report.get("null_linear"),
        "episode": report["episode"],
        "  baseline: length": report["null_length"],
        "  baseline: cloning ": report["null_bc"]["episode"],
        "  baseline: linear cloning ": report.get("null_linear", {}).get("episode"),
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
    return "\n".join([*lines, "", reading(report)])


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _nulls(run: RunFolder, rewarder: Rewarder) -> dict[str, Null]:
    """Rewards that need no dynamics: of a cloned policy, and, for the linear form, that one explained linearly."""
    null, policy = _cloning_null(run), run.policy()
    if rewarder.linear is None:
        return {"null_bc": null}
    linear = fit_linear_reward([(policy.standardise(one.observations), null(one)) for one in rewarder.sources])
    # that the demonstrations seldom end is known without Q
    explained = lambda batch: linear(policy.standardise(batch.observations)) + rewarder.survival  # noqa: E731
    return {"null_bc": null, "null_linear": explained}


def _cloning_null(run: RunFolder) -> Null:
    """How near the recorded action is to that of a cloned policy: the run's prior, or a new clone of its data."""
    clone = prior_of(run)
    if clone is None:
        table, rows = demonstrated_rows(run)
        config = ContinuousBCConfig() if isinstance(table.action_space, ContinuousActions) else DiscreteBCConfig()
        sampler = TransitionSampler(table, rows, CPU)
        *_, last = fit_clone(config, run.config.seed, sampler, table.action_space, CPU)
        clone = last.learner.policy

    @torch.no_grad()
    def null(batch: Batch) -> torch.Tensor:
        if isinstance(clone, ContinuousPolicy):
            executed = clone.scale_actions(clone.act(batch.observations))
            error, std = (executed - clone.scale_actions(batch.actions)).square().sum(dim=-1).double(), clone.std
        else:
            surprise = torch.nn.functional.cross_entropy(clone(batch.observations), batch.actions, reduction="none")
            error, std = 2 * surprise.double(), 1.0
        return torch.from_numpy(cloning_null(error.numpy(), std))

    return null


class _Shaping:
    """Correlations without shaping, in batches; nothing where observations are too large for potentials."""

    def __init__(self, run: RunFolder) -> None:
        algorithm = run.config.algorithm
        assert isinstance(algorithm, QLearningConfig)
        self.policy, self.sums = run.policy(), ShapingFree(algorithm.gamma)
        size = self.policy.layout.features
        self.features = PotentialFeatures(size) if size <= MAX_OBSERVATION else None

    def add(self, batch: Batch, columns: list[torch.Tensor]) -> None:
        """True reward, recovered one and null of a batch, each (B,)."""
        if self.features is None:
            return
        here, there = (self._potentials(self.features, raw) for raw in (batch.observations, batch.next_observations))
        rewards = torch.stack([column.double() for column in columns], dim=1).numpy()
        self.sums.add(here, there, batch.terminations.numpy(), rewards)

    @torch.no_grad()
    def _potentials(self, features: PotentialFeatures, raw: torch.Tensor) -> Floats:
        whole = (raw - self.policy.observation_mean) / self.policy.observation_std
        cut_off = whole - whole.clamp(-LARGEST_STANDARDISED, LARGEST_STANDARDISED)
        return features(self.policy.standardise(raw).double().numpy(), cut_off.double().numpy())

    def report(self) -> dict[str, Any] | None:
        """Correlation with the true reward when shaping does not count, and the distance that follows from it."""
        if self.features is None:
            return None
        own, null = (
            {"pearson": found, "epic_like_distance": epic_like_distance(found)} for found in self.sums.correlations(3)
        )
        return own | {"null_bc": null, "n": self.sums.n}


def _frame(
    table: TransitionTable,
    rewarder: Rewarder,
    nulls: dict[str, Null],
    shaping: _Shaping,
    on_chunk: Callable[[int], None],
) -> pl.DataFrame:
    rows = rows_with_successors(table)
    sampler, true = TransitionSampler(table, rows, CPU), table.rewards(rows).astype(np.float64)
    columns: dict[str, list[torch.Tensor]] = {}
    for place in torch.split(torch.arange(len(rows)), CHUNK):
        batch = sampler.gather(place)
        reward, found = rewarder(batch)
        values = {"recovered": reward, "implicit": found.rewards, "canonical": found.canonical}
        if rewarder.scale is not None:
            values["normalised"] = rewarder.scale(found)
        values |= {"uncertainty": found.uncertainty, "value_error": found.value_error}
        values |= {name: null(batch) for name, null in nulls.items()}
        for name, value in values.items():
            columns.setdefault(name, []).append(value)
        shaping.add(batch, [torch.from_numpy(true[place.numpy()]), reward, values["null_bc"]])
        on_chunk(len(place))
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

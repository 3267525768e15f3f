"""Methods compared over all tasks: which runs pair with which, on what scale, and how often one beats cloning."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from iq_offline.evaluation.statistics import Estimate, mean, probability_of_improvement, stratified_iqm
from iq_offline.report.groups import Group, environment, in_own_environment
from iq_offline.report.results import RunResult

BASELINE = "bc"
PERCENT = "% data"
"""The scale of runs whose scores have no reference in common: percent of the dataset's own mean return."""
AGGREGATE_SCHEMA: dict[str, Any] = {
    "variant": pl.String,
    "aggregate_mean": pl.Float64,
    "aggregate_iqm": pl.Float64,
    "aggregate_low": pl.Float64,
    "aggregate_high": pl.Float64,
    "scale": pl.String,
    "improvement": pl.Float64,
    "improvement_low": pl.Float64,
    "improvement_high": pl.Float64,
    "paired_tasks": pl.Int64,
    "tasks": pl.Int64,
    "runs": pl.Int64,
}
IMPROVEMENT = ("improvement", "improvement_low", "improvement_high")
Task = tuple[str, int | None, int]
"""Dataset, demonstrations and subsampling: what a method is given to solve."""
Values = Mapping[Task, list[float]]


@dataclass(frozen=True)
class Variant:
    """A method, with its settings where they tell it apart, over the tasks that it was run on."""

    name: str
    groups: Mapping[Task, Group]

    @property
    def returns(self) -> Values:
        """Mean returns of the evaluated runs, by task; a task without one is left out."""
        found = {task: [one["return_mean"] for one in group.evaluations] for task, group in self.groups.items()}
        return {task: values for task, values in found.items() if values}


def variants(groups: Sequence[Group]) -> list[Variant]:
    """The methods in the order of `grouped`, cloning first."""
    found: dict[str, dict[Task, Group]] = {}
    for group in groups:
        found.setdefault(", ".join(filter(None, (group.method, group.across))), {})[task_of(group)] = group
    return [Variant(name, own) for name, own in found.items()]


def task_of(group: Group) -> Task:
    """What the group's runs were given to solve."""
    return group.dataset, group.demos, group.subsample


def scale_of(groups: Sequence[Group]) -> str:
    """The reference that the scores of all evaluated runs name; PERCENT where they name several, or one has none."""
    evaluations = [evaluation for group in groups for evaluation in group.evaluations]
    references = {one.get("reference") if one.get("score") is not None else None for one in evaluations}
    (only,) = references if len(references) == 1 else (None,)
    return only or PERCENT


def on_scale(variant: Variant, scale: str) -> Values:
    """The variant's evaluated runs on one scale, by task; runs that have no place on it are left out."""
    found = {
        task: [value for run in group.runs if (value := _on_scale(run, scale)) is not None]
        for task, group in variant.groups.items()
    }
    return {task: values for task, values in found.items() if values}


def percent_of_data(run: RunResult) -> float | None:
    """Mean return in percent of the dataset's own.

    None where that is not positive, or the return is from another environment than the data, or there is none.
    """
    of_data = run.manifest["dataset"].get("return_mean")
    if run.evaluation is None or of_data is None or of_data <= 0 or not in_own_environment(run):
        return None
    return float(100 * run.evaluation["return_mean"] / of_data)


def improvement(variant: Variant, others: Sequence[Variant]) -> tuple[Estimate, int] | None:
    """Probability that a run beats one of behavioural cloning, and on how many tasks both were evaluated.

    Returns are compared within a task, in one environment, so no scale is needed. None for cloning itself, and where
    no task has both.
    """
    baseline = next((other for other in others if other.name.split(",")[0] == BASELINE), None)
    if baseline is None or variant.name.split(",")[0] == BASELINE:
        return None
    ours, theirs = variant.returns, baseline.returns
    paired = [
        task
        for task in ours
        if task in theirs and _environments(variant.groups[task]) == _environments(baseline.groups[task])
    ]
    if not paired:
        return None
    estimate = probability_of_improvement([ours[task] for task in paired], [theirs[task] for task in paired])
    return estimate, len(paired)


def aggregate_table(groups: Sequence[Group]) -> pl.DataFrame:
    """One row a variant that was evaluated: mean, IQM and interval over all its runs, and improvement on cloning."""
    scale, found = scale_of(groups), variants(groups)
    rows = [_row(variant, scale, found) for variant in found if variant.returns]
    return pl.DataFrame(rows, schema=AGGREGATE_SCHEMA)


def comparison_cautions(groups: Sequence[Group]) -> list[str]:
    """What a reader of the table over all tasks should know: sentences, empty where there is nothing to say."""
    return list(_cautions(groups))


def _cautions(groups: Sequence[Group]) -> Iterator[str]:
    scale, found = scale_of(groups), [variant for variant in variants(groups) if variant.returns]
    tasks = {variant.name: set(on_scale(variant, scale)) for variant in found}
    every: set[Task] = {task for variant in found for task in variant.returns}
    for name, own in tasks.items():
        if own != every:
            yield f"{name}: its row covers {len(own)} of {len(every)} tasks and does not compare with one of others."
    for variant in found:
        counts = {len(values) for values in on_scale(variant, scale).values()}
        if len(counts) > 1:
            yield f"{variant.name}: {min(counts)} to {max(counts)} runs a task; a task counts by its runs."
    for task in sorted(every, key=str):
        seeds = {frozenset(run.seed for run in one.groups[task].runs) for one in found if task in one.returns}
        if len(seeds) > 1:
            yield f"{task[0]}: the methods were not trained with the same seeds."


def _row(variant: Variant, scale: str, others: Sequence[Variant]) -> dict[str, Any]:
    values = on_scale(variant, scale)
    strata = list(values.values())
    iqm = stratified_iqm(strata) if strata else None
    better = improvement(variant, others)
    return {
        "variant": variant.name,
        "tasks": len(values),
        "runs": sum(map(len, strata)),
        "scale": scale,
        "aggregate_mean": mean(strata).value if strata else None,
        **figures(iqm, ("aggregate_iqm", "aggregate_low", "aggregate_high")),
        **figures(better and better[0], IMPROVEMENT),
        "paired_tasks": better and better[1],
    }


def figures(estimate: Estimate | None, names: tuple[str, str, str]) -> dict[str, float | None]:
    """An estimate and its bounds under the names of three columns."""
    values = (estimate.value, estimate.low, estimate.high) if estimate else (None, None, None)
    return dict(zip(names, values, strict=True))


def _on_scale(run: RunResult, scale: str) -> float | None:
    if scale == PERCENT:
        return percent_of_data(run)
    return None if run.evaluation is None else run.evaluation.get("score")


def _environments(group: Group) -> set[str]:
    return {environment(evaluation) for evaluation in group.evaluations}

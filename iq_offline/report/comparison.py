"""Methods compared: over seeds on one task, and over all tasks, with intervals and the improvement on cloning."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from iq_offline.evaluation.statistics import Estimate, mean, probability_of_improvement, stratified_iqm
from iq_offline.report.groups import Group
from iq_offline.report.loading import RunResult, environment
from iq_offline.training.greedy_actions import percent_different

BASELINE = "bc"
PERCENT = "% data"
"""The scale of runs whose scores have no reference in common: percent of the dataset's own mean return."""

Task = tuple[str, int | None, int]
"""Dataset, demonstrations and subsampling: what a method is given to solve."""


@dataclass(frozen=True)
class Variant:
    """A method, with its settings where they tell it apart, over the tasks that it was run on."""

    name: str
    groups: Mapping[Task, Group]

    @property
    def is_baseline(self) -> bool:
        """Whether it is behavioural cloning, with any settings."""
        return self.name.split(",")[0] == BASELINE

    @property
    def returns(self) -> dict[Task, list[float]]:
        """Mean returns of the evaluated runs, by task; a task without one is left out."""
        return {task: group.returns for task, group in self.groups.items() if group.returns}

    def values(self, scale: str) -> dict[Task, list[float]]:
        """The evaluated runs on one scale, by task; runs that have no place on it are left out."""
        found = {
            task: [value for run in group.runs if (value := _on_scale(run, scale)) is not None]
            for task, group in self.groups.items()
        }
        return {task: values for task, values in found.items() if values}


@dataclass(frozen=True)
class TaskRow:
    """One method on one task, over seeds."""

    group: Group
    variants: Sequence[Variant]
    """All that are compared."""

    @cached_property
    def improvement(self) -> "Improvement | None":
        """On the cloning of this task."""
        name = next(one.name for one in self.variants if one.groups.get(task_of(self.group)) is self.group)
        return improvement(Variant(name, {task_of(self.group): self.group}), self.variants)

    @cached_property
    def action_difference(self) -> float | None:
        """From the cloning of this task."""
        return action_difference([self.group], self.variants)


@dataclass(frozen=True)
class MethodRow:
    """One method over all tasks, on a scale that they share."""

    variant: Variant
    variants: Sequence[Variant]
    """All that are compared."""
    scale: str

    @cached_property
    def values(self) -> list[list[float]]:
        """One list a task, one value a run."""
        return list(self.variant.values(self.scale).values())

    @property
    def mean(self) -> float | None:
        """Over all runs of all tasks."""
        return mean(self.values).value if self.values else None

    @cached_property
    def iqm(self) -> Estimate | None:
        """Interquartile mean over all runs of all tasks, with its interval."""
        return stratified_iqm(self.values) if self.values else None

    @cached_property
    def improvement(self) -> "Improvement | None":
        """On cloning, mean over the tasks that both were evaluated on."""
        return improvement(self.variant, self.variants)

    @cached_property
    def action_difference(self) -> float | None:
        """From cloning, mean over the runs of all tasks."""
        return action_difference(self.variant.groups.values(), self.variants)


@dataclass(frozen=True)
class Improvement(Estimate):
    """The probability that a run beats one of behavioural cloning, 0.5 for no difference."""

    tasks: int = 0
    """On which both were evaluated."""


def variants(groups: Sequence[Group]) -> list[Variant]:
    """The methods in the order of `grouped`, cloning first."""
    found: dict[str, dict[Task, Group]] = {}
    for group in groups:
        name = ", ".join(filter(None, (group.method, group.settings_across_tasks)))
        found.setdefault(name, {})[task_of(group)] = group
    return [Variant(name, own) for name, own in found.items()]


def task_rows(groups: Sequence[Group]) -> list[TaskRow]:
    """One row a group, in their order."""
    compared = variants(groups)
    return [TaskRow(group, compared) for group in groups]


def method_rows(groups: Sequence[Group]) -> list[MethodRow]:
    """One row a variant that was evaluated."""
    compared, scale = variants(groups), scale_of(groups)
    return [MethodRow(variant, compared, scale) for variant in compared if variant.returns]


def task_of(group: Group) -> Task:
    """What the group's runs were given to solve."""
    return group.dataset, group.demos, group.subsample


def task_name(task: Task) -> str:
    """A task in words: dataset, demonstrations and subsampling."""
    dataset, demos, every = task
    count = "" if demos is None else f", {demos} demonstration{'' if demos == 1 else 's'}"
    return f"{dataset}{count}{'' if every == 1 else f', 1 step in {every}'}"


def scale_of(groups: Sequence[Group]) -> str:
    """The reference that the scores of all evaluated runs name; PERCENT where they name several, or one has none."""
    evaluations = [evaluation for group in groups for evaluation in group.evaluations]
    references = {one.get("reference") if one.get("score") is not None else None for one in evaluations}
    (only,) = references if len(references) == 1 else (None,)
    return only or PERCENT


def improvement(variant: Variant, others: Sequence[Variant]) -> Improvement | None:
    """How often a run beats one of behavioural cloning, mean over the tasks on which both were evaluated.

    Returns are compared within a task, in one environment, so no scale is needed. None for cloning itself, and where
    no task has both.
    """
    baseline = next((other for other in others if other.is_baseline), None)
    if baseline is None or variant.is_baseline:
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
    return Improvement(**vars(estimate), tasks=len(paired))


def action_difference(groups: Iterable[Group], others: Sequence[Variant]) -> float | None:
    """How far the runs' greedy actions are from those of cloning with the same seed on their task, mean over the runs.

    In percent of the actions' range, or of the observations. None for cloning itself, and where no run has a pair.
    """
    baseline = next((other for other in others if other.is_baseline), None)
    if baseline is None:
        return None
    found = list[float | None]()
    for group in groups:
        cloned = baseline.groups.get(task_of(group))
        by_seed = {} if cloned is None or cloned is group else {run.seed: run for run in cloned.runs}
        tables = [(run.actions, by_seed[run.seed].actions) for run in group.runs if run.seed in by_seed]
        found += [percent_different(own, other) for own, other in tables if own is not None and other is not None]
    known = [value for value in found if value is not None]
    return sum(known) / len(known) if known else None


def comparison_cautions(groups: Sequence[Group]) -> Iterator[str]:
    """What a reader of the table over all tasks should know: sentences, none where there is nothing to say."""
    scale, found = scale_of(groups), [variant for variant in variants(groups) if variant.returns]
    every: set[Task] = {task for variant in found for task in variant.returns}
    for variant in found:
        covered = f"{len(variant.values(scale))} of {len(every)}"
        if len(variant.values(scale)) != len(every):
            yield f"{variant.name}: its row covers {covered} tasks and does not compare with one of others."
    for variant in found:
        counts = {len(values) for values in variant.values(scale).values()}
        if len(counts) > 1:
            yield f"{variant.name}: {min(counts)} to {max(counts)} runs a task; a task counts by its runs."
    for task in sorted(every, key=str):
        seeds = {frozenset(run.seed for run in one.groups[task].runs) for one in found if task in one.returns}
        if len(seeds) > 1:
            yield f"{task[0]}: the methods were not trained with the same seeds."


def _on_scale(run: RunResult, scale: str) -> float | None:
    if scale == PERCENT:
        return run.percent_of_data
    return None if run.evaluation is None else run.evaluation.get("score")


def _environments(group: Group) -> set[str]:
    return {environment(evaluation) for evaluation in group.evaluations}

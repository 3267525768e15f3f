"""The verdict: what a comparison shows, in sentences that are made from its numbers alone."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from iq_offline.evaluation.statistics import Estimate, probability_of_improvement, stratified_iqm
from iq_offline.report.comparison import PERCENT, MethodRow, Task, method_rows, task_name
from iq_offline.report.groups import SUPPLEMENTARY, Group, Sources, supplementary_names
from iq_offline.report.recovered import RewardLevel, reward_levels

ENOUGH_SEEDS = 5
"""With fewer seeds a method, a bootstrap interval is too narrow to conclude from."""
PRACTICAL = 1.0
"""Methods whose scores differ by less, of 100 between the random policy and the expert, are a tie."""
SAME_POLICY = 1.0
"""Policies whose greedy actions differ by less, in percent, are said to act alike."""
MOST_RANKED, MOST_TASKS, MOST_REWARDS = 5, 6, 6
"""Methods of a sentence, and sentences of a kind; the tables and charts have the rest."""


@dataclass(frozen=True)
class Verdict:
    """The conclusion in one sentence, then the sentences that support it."""

    headline: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class Contender:
    """A method's runs on a scale that all methods share, one list a task."""

    name: str
    is_baseline: bool
    values: Mapping[Task, Sequence[float]]

    @property
    def score(self) -> float:
        """Interquartile mean over all runs, as in the tables."""
        return stratified_iqm(list(self.values.values())).value

    def on(self, tasks: Sequence[Task]) -> "Contender":
        """The same method on these tasks alone."""
        return Contender(self.name, self.is_baseline, {task: self.values[task] for task in tasks})


def verdict(groups: Sequence[Group]) -> Verdict:
    """The best method against cloning; then each task, what methods learn from, and each recovered reward."""
    rows = method_rows(groups)
    contenders = _contenders(rows)
    unjudged = [] if contenders else ["No run has returns yet: make them with `iq-offline eval`, then report again."]
    sentences = [
        *_overall(contenders),
        *_by_task(contenders),
        *_alike(rows),
        *_learnt_from(groups),
        *_rewards(reward_levels(groups)),
        *unjudged,
    ]
    if not sentences:
        return Verdict("No two methods can be compared: no task has returns of both.")
    return Verdict(sentences[0], tuple(sentences[1:]))


def compare(first: Contender, second: Contender) -> str:
    """Two methods on the tasks of both, the better one first. P: a run of it returns more than one of the other."""
    if second.score > first.score:
        first, second = second, first
    estimate = probability_of_improvement(list(first.values.values()), list(second.values.values()))
    seeds = min(len(runs) for one in (first, second) for runs in one.values.values())
    scores = f"{first.score:.1f} against {second.score:.1f}"
    evidence = f"({_probability(estimate)}, {_seeds(seeds)})"
    if first.score - second.score < PRACTICAL:
        return f"{first.name} and {second.name} tie: {scores} {evidence}"
    if (estimate.value if estimate.low is None else estimate.low) <= 0.5:
        return f"{first.name} and {second.name} do not differ significantly: {scores} {evidence}"
    verb = "outperforms" if seeds >= ENOUGH_SEEDS else "scores higher than"
    return f"{first.name} {verb} {second.name}: {scores} {evidence}"


def _probability(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return f"P = {estimate.value:.2f}"
    return f"P = {estimate.value:.2f}, 95 % CI {estimate.low:.2f} to {estimate.high:.2f}"


def _seeds(count: int) -> str:
    counted = f"{count} seed{'' if count == 1 else 's'}"
    return counted if count >= ENOUGH_SEEDS else f"{counted}: more seeds needed"


def _contenders(rows: Sequence[MethodRow]) -> list[Contender]:
    found = [(row, row.variant.values(row.scale)) for row in rows]
    return [Contender(row.variant.name, row.variant.is_baseline, values) for row, values in found if values]


def _best_and_other(contenders: Sequence[Contender]) -> tuple[Contender, Contender]:
    """The best, and cloning; the second best where cloning is the best or is not there."""
    best, second, *_ = ranked = sorted(contenders, key=lambda one: -one.score)
    return best, next((one for one in ranked[1:] if one.is_baseline), second)


def _overall(contenders: Sequence[Contender]) -> Iterator[str]:
    """Over the tasks on which most methods were evaluated, among the methods that were evaluated on all of them."""
    tasks = list(dict.fromkeys(task for one in contenders for task in one.values))
    everywhere = [one.on(tasks) for one in contenders if set(tasks) <= one.values.keys()]
    if len(everywhere) > 1:
        place = f"On {task_name(tasks[0])}" if len(tasks) == 1 else f"Over {len(tasks)} tasks"
        yield f"{place}, {compare(*_best_and_other(everywhere))}."


def _by_task(contenders: Sequence[Contender]) -> Iterator[str]:
    """Every method's score; where there are several tasks or no overall sentence, the best against cloning too."""
    tasks = list(dict.fromkeys(task for one in contenders for task in one.values))
    for task in tasks[:MOST_TASKS]:
        found = sorted((one.on([task]) for one in contenders if task in one.values), key=lambda one: -one.score)
        said = []
        if len(found) != 2 or len(tasks) == 1:
            more = [f"{len(found) - MOST_RANKED} more"] if len(found) > MOST_RANKED else []
            said.append(", ".join([*(f"{one.name} {one.score:.1f}" for one in found[:MOST_RANKED]), *more]))
        if len(found) > 1 and len(tasks) > 1:
            said.append(compare(*_best_and_other(found)))
        if len(found) != 2 or len(tasks) > 1:
            yield f"{task_name(task)}: {'; '.join(said)}."
    if len(tasks) > MOST_TASKS:
        yield f"The table has {len(tasks) - MOST_TASKS} more tasks."


def _alike(rows: Sequence[MethodRow]) -> Iterator[str]:
    """Methods that act as cloning does: their ties are no finding."""
    for row in rows:
        if row.action_difference is not None and row.action_difference < SAME_POLICY:
            yield (
                f"{row.variant.name} acts as bc does: their greedy actions differ by "
                f"{row.action_difference:.1g} %, so their returns are those of nearly one policy."
            )


def _learnt_from(groups: Sequence[Group]) -> Iterator[str]:
    """Which methods read data beside the demonstrations, where not all do: why they may differ."""
    readers: dict[str, list[str]] = {}
    for group in groups:
        if sources := _supplementary(group):
            name = supplementary_names([sources], group.dataset, across=False)[sources]
            readers.setdefault(group.method, []).append(name)
    without = [group for group in groups if not _supplementary(group)]
    others = [method for method in dict.fromkeys(group.method for group in without) if method not in readers]
    if readers and others:
        counts = sorted({run.manifest["transitions"] for group in without for run in group.runs})
        span = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        names = list(dict.fromkeys(name for found in readers.values() for name in found))
        yield (
            f"{_listed(list(readers))} also learn{_s(readers)} from {_listed(names)}, without rewards; "
            f"{_listed(others)} learn{_s(others)} from the demonstrated transitions alone ({span} a run)."
        )


def _supplementary(group: Group) -> Sources:
    return tuple(group.runs[0].config.get(SUPPLEMENTARY) or ())


def _s(names: Collection[str]) -> str:
    """The ending of a verb."""
    return "s" if len(names) == 1 else ""


def _rewards(levels: Sequence[RewardLevel]) -> Iterator[str]:
    """Each recovered reward beside its baselines."""
    found = [list(own) for _, own in groupby(levels, key=lambda level: id(level.group))]
    for own in found[:MOST_REWARDS]:
        group = own[0].group
        beaten, baselines = (sum(counts) for counts in zip(*(level.beats for level in own), strict=True))
        verb = "beats" if beaten == baselines else "beats some of" if beaten else "does not beat"
        compared = "; ".join(level.sentence for level in own)
        if baselines:
            yield f"The reward that {own[0].method} recovers on {group.dataset} {verb} its baselines: {compared}."
        else:
            yield f"The reward that {own[0].method} recovers on {group.dataset} follows the true one: {compared}."
    if len(found) > MOST_REWARDS:
        yield f"The chart of rewards has {len(found) - MOST_REWARDS} more."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def scale_note(rows: Sequence[MethodRow]) -> str:
    """What the numbers of the verdict are."""
    if not rows:
        return ""
    unit = (
        "Numbers are returns in percent of the dataset's own mean return."
        if rows[0].scale == PERCENT
        else f"Scores: 0 is the random policy, 100 the expert (reference: {rows[0].scale})."
    )
    return f"{unit} P is the probability that a run of the first method returns more than one of the second."

"""Which runs may be averaged together, which may not, and which stages are missing."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any

from iq_offline.data.catalogue import catalogue
from iq_offline.evaluation.scores import interquartile_mean, interval95
from iq_offline.evaluation.statistics import Estimate
from iq_offline.methods import METHODS
from iq_offline.report.loading import RunResult, environment, shell_path

LEADING_METHODS = tuple(METHODS)[:2]
"""The baseline and the default method have the first rows of a dataset; the others follow by name."""
NOT_SETTINGS = {"dataset", "method", "demos", "subsample", "seed", "device", "threads"}
"""Keys of config.toml that have a column of their own or do not change what is learnt."""
SUPPLEMENTARY = "supplementary"
DATA_SUFFIXES = {".hdf5", ".h5", ".npz", ".npy", ".pkl", ".pickle"}
"""Suffixes of recorded data; any other is part of a folder's name."""
CONVERTED = re.compile(r"-[0-9a-f]{6}-v\d+$")
"""What a pipeline adds to the name of data that it converts."""

Sources = tuple[str, ...]
"""Supplementary data: paths and dataset ids as config.toml has them; empty without any."""
SourceNames = Mapping[Sources, str]


@dataclass(frozen=True)
class Group:
    """Runs that differ only in their seed: one row of the summary."""

    dataset: str
    method: str
    demos: int | None
    subsample: int
    settings: str
    """What sets this row apart from others of its dataset, method, demos and subsample; mostly empty."""
    settings_across_tasks: str
    """The same as other tasks write it: supplementary data without what names the task."""
    runs: tuple[RunResult, ...]

    @property
    def label(self) -> str:
        """The row's name beside others of the same dataset."""
        demos = "" if self.demos is None else f"{self.demos} demo{'' if self.demos == 1 else 's'}"
        every = "" if self.subsample == 1 else f"1 step in {self.subsample}"
        return ", ".join(filter(None, (self.method, demos, every, self.settings)))

    @property
    def evaluations(self) -> list[Mapping[str, Any]]:
        """Of the runs that were evaluated."""
        return [run.evaluation for run in self.runs if run.evaluation is not None]

    @property
    def returns(self) -> list[float]:
        """Mean return of each evaluated run."""
        return [evaluation["return_mean"] for evaluation in self.evaluations]

    @property
    def references(self) -> set[str | None]:
        """Names of the tables that the runs' scores refer to; more than one must not be averaged."""
        return {evaluation.get("reference") for evaluation in self.evaluations}

    @property
    def reference(self) -> str | None:
        """The reference of all scores; "mixed" for several."""
        return "mixed" if len(self.references) > 1 else next(iter(self.references), None)

    @property
    def score_iqm(self) -> float | None:
        """Interquartile mean of the scores; None where a run has none, or they name different references."""
        scores = [evaluation.get("score") for evaluation in self.evaluations]
        known = [score for score in scores if score is not None]
        comparable = len(self.references) == 1 and None not in self.references
        return interquartile_mean(known) if comparable and len(known) == len(scores) else None

    @cached_property
    def iqm(self) -> Estimate | None:
        """Interquartile mean of the mean returns of the evaluated seeds; its interval needs two of them."""
        returns = self.returns
        return Estimate(interquartile_mean(returns), *(interval95(returns) or (None, None))) if returns else None

    @property
    def rewarded_runs(self) -> list[RunResult]:
        """The runs with a recovered reward, or none where these were measured on different data."""
        found = [run for run in self.runs if run.reward is not None]
        return found if len({_canonical((run.reward or {}).get("datasets")) for run in found}) < 2 else []


def short_labels(groups: Sequence[Group]) -> list[str]:
    """Labels of one dataset's groups, without demonstrations and subsampling where all groups share them."""
    if len({(group.demos, group.subsample) for group in groups}) == 1:
        return [", ".join(filter(None, (group.method, group.settings))) for group in groups]
    return [group.label for group in groups]


@dataclass(frozen=True)
class MissingStage:
    """A stage that a run still lacks, and the command that runs it."""

    run: str
    folder: Path
    lacking: str
    command: str


def grouped(results: Sequence[RunResult]) -> list[Group]:
    """Groups by dataset, then bc before iq, then demonstrations (all of them last), subsample and settings."""
    families: dict[tuple[str, str, int | None, int], list[RunResult]] = {}
    datasets: dict[str, list[RunResult]] = {}
    for result in results:
        key = (result.dataset, result.method, result.manifest["demos"], int(result.manifest["subsample"]))
        families.setdefault(key, []).append(result)
        datasets.setdefault(result.dataset, []).append(result)
    names = {dataset: (_names(runs, across=False), _names(runs, across=True)) for dataset, runs in datasets.items()}
    groups = [
        Group(*key, *settings, tuple(sorted(runs, key=lambda run: (run.seed, run.run))))
        for key, family in families.items()
        for settings, runs in _by_settings(family, *names[key[0]]).items()
    ]
    return sorted(groups, key=_place)


def short_names(groups: Sequence[Group]) -> list[str]:
    """A name for each group: its method, and what else tells the groups apart."""
    datasets = _without_common_parts([group.dataset for group in groups])
    parts = [
        (
            dataset,
            "all demonstrations" if group.demos is None else f"{group.demos} demonstrations",
            f"1 step in {group.subsample}",
            group.settings,
        )
        for group, dataset in zip(groups, datasets, strict=True)
    ]
    varying = [len(set(column)) > 1 for column in zip(*parts, strict=True)]
    return [
        ", ".join([group.method, *(text for text, varies in zip(own, varying, strict=True) if varies and text)])
        for group, own in zip(groups, parts, strict=True)
    ]


def _without_common_parts(names: Sequence[str]) -> list[str]:
    """Names such as `demo/swimmer/expert-v0` without the parts that they all begin or end with."""
    split = [name.split("/") for name in names]
    first = _common_parts(split)
    last = _common_parts([parts[:first:-1] for parts in split])
    return ["/".join(parts[first : len(parts) - last]) for parts in split]


def _common_parts(names: Sequence[Sequence[str]]) -> int:
    return len(list(takewhile(lambda parts: len(set(parts)) == 1, zip(*names, strict=False))))


def cautions(groups: Sequence[Group]) -> list[str]:
    """What a reader should know before comparing: sentences, empty where there is nothing to say."""
    return [f"{group.dataset}, {group.label}: {sentence}" for group in groups for sentence in _cautions(group)]


def _cautions(group: Group) -> Iterator[str]:
    if len(group.references) > 1:
        names = " and ".join(sorted(name or "nothing" for name in group.references))
        yield f"scores refer to {names} and are not averaged."
    elsewhere = {environment(run.evaluation or {}) for run in group.runs if not run.in_own_environment}
    if elsewhere:
        yield f"evaluated in {' and '.join(sorted(elsewhere))}, not in the data's own environment."
    if len({evaluation["episodes"] for evaluation in group.evaluations}) > 1:
        yield "the runs were evaluated on different numbers of episodes; each run's mean counts once."
    if 0 < len(group.evaluations) < len(group.runs):
        yield f"{len(group.evaluations)} of {len(group.runs)} runs are evaluated; the returns are theirs alone."
    measured = sum(run.reward is not None for run in group.runs)
    if measured and not group.rewarded_runs:
        yield "rewards were recovered on different data and are not averaged."
    elif 0 < measured < len(group.runs):
        yield f"{measured} of {len(group.runs)} runs have a recovered reward; the correlations are theirs alone."
    if len({run.seed for run in group.runs}) < len(group.runs):
        yield "a seed occurs more than once, so the interval is too narrow."


def missing_stages(results: Sequence[RunResult]) -> list[MissingStage]:
    """The stages that runs still lack, in the order of the runs."""
    return [
        MissingStage(result.run, result.folder, lacking, f"iq-offline {stage} {shell_path(result.folder)}")
        for result in results
        for is_missing, lacking, stage in (
            (result.evaluation is None, "returns in simulation", "eval"),
            (result.reward is None and result.learns_reward, "recovered reward", "reward"),
        )
        if is_missing
    ]


def flat_settings(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of a configuration; those of its algorithm without that prefix."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from flat_settings(value, prefix if (prefix, key) == ("", "algorithm") else f"{prefix}{key}.")
        else:
            yield prefix + key, value


def setting_text(value: Any) -> str:
    """A setting's value as one would write it."""
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value, default=str)


def supplementary_names(sets: Iterable[Sources], expert: str, *, across: bool) -> dict[Sources, str]:
    """A name for each set of supplementary data that one task's runs name, no two alike.

    The datasets' names or files' stems; `across` tasks without the words that they begin with as the expert's name
    does. Sets that would look alike have longer names: the stem, then the folder too, in the end all that is recorded.
    """
    waiting, found = list(dict.fromkeys(sets)), dict[Sources, str]()
    for level in range(0 if across else 1, 3):
        names = {one: "+".join(_source_name(source, expert, level) for source in one) or "none" for one in waiting}
        counts = Counter([*names.values(), *found.values()])
        found |= {one: name for one, name in names.items() if counts[name] == 1}
        waiting = [one for one in waiting if one not in found]
    return found | {one: json.dumps(one) for one in waiting}


def _by_settings(
    family: Sequence[RunResult], own: SourceNames, across: SourceNames
) -> dict[tuple[str, str], list[RunResult]]:
    """Runs by the settings in which the family's runs differ, written `key=value` for the task, and for all."""
    settings = _parts_as_one([_settings(run) for run in family])
    keys = sorted({key for one in settings for key in one})
    differing = [key for key in keys if len({_canonical(one.get(key)) for one in settings}) > 1]

    def text(values: Mapping[str, Any], names: SourceNames) -> str:
        written = {
            key: names[values[key]] if key == SUPPLEMENTARY else setting_text(values.get(key)) for key in differing
        }
        return " ".join(f"{key}={value}" for key, value in written.items())

    split: dict[tuple[str, str], list[RunResult]] = {}
    for run, values in zip(family, settings, strict=True):
        split.setdefault((text(values, own), text(values, across)), []).append(run)
    return split


def _parts_as_one(settings: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Settings with one `part=on` for a part, `part.key`, that some runs lack and the others have alike."""
    parts = {key.partition(".")[0] for one in settings for key in one if "." in key}
    for part in sorted(parts):
        own = [{key: value for key, value in one.items() if key.startswith(f"{part}.")} for one in settings]
        distinct = {_canonical(one) for one in own}
        if len(distinct) == 2 and _canonical({}) in distinct:
            settings = [
                {key: value for key, value in one.items() if key not in mine and key != part}
                | ({part: "on"} if mine else {})
                for one, mine in zip(settings, own, strict=True)
            ]
    return list(settings)


def _settings(result: RunResult) -> dict[str, Any]:
    """A run's flat configuration, and the environment of its returns."""
    settings = {key: value for key, value in flat_settings(result.config) if key not in NOT_SETTINGS}
    own = environment(result.evaluation or result.manifest["dataset"])
    settings.pop("start_from", None)  # each seed has a run of its own to start from
    if start := result.manifest.get("start"):
        settings["start_from"] = start["method"]
    return settings | {"env": own, SUPPLEMENTARY: _sources(result)}


def _sources(run: RunResult) -> Sources:
    return tuple(run.config.get(SUPPLEMENTARY) or ())


def _names(runs: Sequence[RunResult], *, across: bool) -> SourceNames:
    return supplementary_names(map(_sources, runs), runs[0].dataset, across=across)


def _source_name(source: str, expert: str, level: int) -> str:
    path = Path(source)
    if level == 2:
        return "/".join(path.parts[-2:])
    name = path.name if path.is_absolute() or "://" in source else source
    if path.suffix in DATA_SUFFIXES:
        name = path.stem
    name = CONVERTED.sub("", name)
    if level:
        name = _catalogue_ids().get(name, name)
    return _without_task(name, expert) if level == 0 else name


@cache
def _catalogue_ids() -> Mapping[str, str]:
    """By the name that a pipeline gives their folders, the ids that commands accept."""
    return {id_.replace("/", "-"): id_ for id_ in catalogue()}


def _without_task(name: str, expert: str) -> str:
    """What is left of a name behind the words that it begins with as the expert's does; at least its last word."""
    words, of_expert = (re.findall(r"[^-_/]+[-_/]*", one) for one in (name, expert))
    alike = 0
    for word, other in zip(words[:-1], of_expert, strict=False):
        if word.rstrip("-_/") != other.rstrip("-_/"):
            break
        alike += 1
    return "".join(words[alike:]) if alike else name


def _place(group: Group) -> tuple[Any, ...]:
    rank = LEADING_METHODS.index(group.method) if group.method in LEADING_METHODS else len(LEADING_METHODS)
    demos = float("inf") if group.demos is None else group.demos
    return group.dataset, rank, group.method, demos, group.subsample, group.settings


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)

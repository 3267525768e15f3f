"""Which runs may be averaged together, which may not, and what is still to be done."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iq_offline.report.results import RunResult, typed
from iq_offline.report.supplementary import Sources, set_names, sources_of

METHODS = ("bc", "iq")
"""In the order of rows; any other method follows, by name."""
NOT_SETTINGS = {"dataset", "method", "demos", "subsample", "seed", "device", "threads"}
"""Keys of config.toml that have a column of their own or do not change what is learnt."""

SUPPLEMENTARY = "supplementary"
SetNames = Mapping[Sources, str]


@dataclass(frozen=True)
class Group:
    """Runs that differ only in their seed: one row of the summary."""

    dataset: str
    method: str
    demos: int | None
    subsample: int
    settings: str
    """What sets this row apart from others of its dataset, method, demos and subsample; mostly empty."""
    across: str
    """The same as other tasks write it: supplementary data without what names the task."""
    runs: tuple[RunResult, ...]

    @property
    def label(self) -> str:
        """The row's name beside others of the same dataset."""
        demos = "" if self.demos is None else f"{self.demos} demos"
        every = "" if self.subsample == 1 else f"1 step in {self.subsample}"
        return ", ".join(part for part in (self.method, demos, every, self.settings) if part)

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """Of the runs that were evaluated."""
        return [run.evaluation for run in self.runs if run.evaluation is not None]

    @property
    def references(self) -> set[str | None]:
        """Names of the tables that the runs' scores refer to; more than one must not be averaged."""
        return {evaluation.get("reference") for evaluation in self.evaluations}

    @property
    def rewards(self) -> list[dict[str, Any]]:
        """Reward recoveries, or none where they were measured on different data."""
        found = [run.reward for run in self.runs if run.reward is not None]
        return found if len({_canonical(reward.get("datasets")) for reward in found}) < 2 else []


@dataclass(frozen=True)
class NotDone:
    """A stage that a run still lacks, and the command that does it."""

    run: str
    folder: Path
    lacking: str
    command: str


def grouped(results: Sequence[RunResult]) -> list[Group]:
    """Groups by dataset, then bc before iq, then demonstrations (all of them last), subsample and settings."""
    families: dict[tuple[str, str, int | None, int], list[RunResult]] = {}
    for result in results:
        key = (result.dataset, result.method, result.manifest["demos"], int(result.manifest["subsample"]))
        families.setdefault(key, []).append(result)
    names = _names_of_sets(results)
    groups = [
        Group(*key, settings, across, tuple(sorted(runs, key=lambda run: (run.seed, run.run))))
        for key, family in families.items()
        for (settings, across), runs in _by_settings(family, *names[key[0]]).items()
    ]
    return sorted(groups, key=_place)


def cautions(groups: Sequence[Group]) -> list[str]:
    """What a reader should know before comparing: sentences, empty where there is nothing to say."""
    return [f"{group.dataset}, {group.label}: {sentence}" for group in groups for sentence in _cautions(group)]


def not_done(results: Sequence[RunResult]) -> list[NotDone]:
    """The stages that runs still lack, in the order of the runs."""
    lacking = []
    for result in results:
        if result.evaluation is None:
            lacking.append(_lack(result, "returns in simulation", "eval"))
        if result.reward is None and result.learns_reward:
            lacking.append(_lack(result, "recovered reward", "reward"))
    return lacking


def _cautions(group: Group) -> Iterator[str]:
    if len(group.references) > 1:
        yield f"scores refer to {_names(group.references)} and are not averaged."
    elsewhere = {environment(run.evaluation or {}) for run in group.runs if not in_own_environment(run)}
    if elsewhere:
        yield f"evaluated in {' and '.join(sorted(elsewhere))}, not in the data's own environment."
    if len({evaluation["episodes"] for evaluation in group.evaluations}) > 1:
        yield "the runs were evaluated on different numbers of episodes; each run's mean counts once."
    if 0 < len(group.evaluations) < len(group.runs):
        yield f"{len(group.evaluations)} of {len(group.runs)} runs are evaluated; the returns are theirs alone."
    measured = [run for run in group.runs if run.reward is not None]
    if measured and not group.rewards:
        yield "rewards were recovered on different data and are not averaged."
    elif 0 < len(measured) < len(group.runs):
        yield f"{len(measured)} of {len(group.runs)} runs have a recovered reward; the correlations are theirs alone."
    if len({run.seed for run in group.runs}) < len(group.runs):
        yield "a seed occurs more than once, so the interval is too narrow."


def _lack(result: RunResult, what: str, stage: str) -> NotDone:
    return NotDone(result.run, result.folder, what, f"iq-offline {stage} {typed(result.folder)}")


def _names_of_sets(results: Sequence[RunResult]) -> dict[str, tuple[SetNames, SetNames]]:
    """By dataset, what its runs' supplementary data are called beside each other, and what over all tasks."""
    of_dataset: dict[str, list[RunResult]] = {}
    for result in results:
        of_dataset.setdefault(result.dataset, []).append(result)
    found: dict[str, tuple[SetNames, SetNames]] = {}
    for dataset, runs in of_dataset.items():
        sets, expert = [sources_of(run) for run in runs], str(runs[0].manifest["dataset"]["name"])
        found[dataset] = set_names(sets, expert, across=False), set_names(sets, expert, across=True)
    return found


def _by_settings(
    family: Sequence[RunResult], own: SetNames, across: SetNames
) -> dict[tuple[str, str], list[RunResult]]:
    """Runs by the settings in which the family's runs differ, written `key=value` for the task, and for all."""
    settings = [_settings(run) for run in family]
    keys = sorted({key for one in settings for key in one})
    differing = [key for key in keys if len({_canonical(one.get(key)) for one in settings}) > 1]
    split: dict[tuple[str, str], list[RunResult]] = {}
    for run, values in zip(family, settings, strict=True):
        name, shared = (
            " ".join(f"{key}={_written(key, values.get(key), names)}" for key in differing) for names in (own, across)
        )
        split.setdefault((name, shared), []).append(run)
    return split


def _written(key: str, value: Any, names: SetNames) -> str:
    return names[value] if key == SUPPLEMENTARY else setting(value)


def _settings(result: RunResult) -> dict[str, Any]:
    """A run's flat configuration, and the environment of its returns."""
    settings = {key: value for key, value in flat(result.config) if key not in NOT_SETTINGS}
    own = environment(result.evaluation or result.manifest["dataset"])
    return settings | {"env": own, SUPPLEMENTARY: sources_of(result)}


def in_own_environment(result: RunResult) -> bool:
    """Whether the run was evaluated where its data were recorded; true of a run that was not evaluated."""
    return result.evaluation is None or environment(result.evaluation) == environment(result.manifest["dataset"])


def environment(described: Mapping[str, Any]) -> str:
    """The environment's id, with its arguments if it has any, of a manifest's dataset or an evaluation."""
    arguments = sorted((described.get("env_kwargs") or {}).items())
    shown = ", ".join(f"{key}={json.dumps(value)}" for key, value in arguments)
    return f"{described.get('env_id') or 'none named'}{f' ({shown})' if shown else ''}"


def flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of a configuration; those of its algorithm without that prefix."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from flat(value, prefix if (prefix, key) == ("", "algorithm") else f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _place(group: Group) -> tuple[Any, ...]:
    rank = METHODS.index(group.method) if group.method in METHODS else len(METHODS)
    demos = float("inf") if group.demos is None else group.demos
    return group.dataset, rank, group.method, demos, group.subsample, group.settings


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def setting(value: Any) -> str:
    """A setting's value as one would write it."""
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value, default=str)


def _names(references: set[str | None]) -> str:
    return " and ".join(sorted(name or "nothing" for name in references))

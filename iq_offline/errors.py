"""Errors that a user can act on: the problem, then the remedy. The command line prints both and exits 2.

UserError
├── ConfigError            an option, key or value that is not valid
│   └── NoSimilarTransition  no supplementary transition is similar to a demonstration
├── NotYet                 asked for by the contract, built in a later release
├── DatasetError
│   ├── UnknownDataset     no such name, id or path
│   ├── DownloadFailed     no place gave the data, or what came was not them
│   ├── DatasetUnreadable  not the format it claims, truncated, or a key missing
│   └── InvalidEpisode     arrays that break an invariant of an episode
├── RunError               not a run folder, not complete, or not made for what was asked
├── ProcessKilled      the system ended a process of ours
├── TrainingDiverged   a loss or value is no longer a finite number
├── PackageMissing         an optional package is not installed
├── EnvironmentMissing     Gymnasium cannot make the environment
└── TrackingUnavailable    MLflow's store cannot be used (training goes on, with a warning)
"""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from iq_offline.credentials import masked

FEW, SEVERAL = 6, 24
"""At most so many names are listed whole: beside a nearest one, and where none is near."""


class UserError(Exception):
    """A mistake that the user can mend: what is wrong, and what to do about it. Neither shows credentials."""

    def __init__(self, problem: str, remedy: str) -> None:
        self.problem, self.remedy = masked(problem), masked(remedy)
        super().__init__(self.problem, self.remedy)

    def __str__(self) -> str:
        return f"{self.problem}\n  -> {self.remedy}"


class ConfigError(UserError):
    """An option, key or value that is not valid."""


class NoSimilarTransition(ConfigError):
    """Supplementary data of which no transition is similar to a demonstration."""


class NotYet(UserError):
    """A part of the command line's contract that this release does not build."""


class DatasetError(UserError):
    """A dataset that cannot be found or used."""


class UnknownDataset(DatasetError):
    """No such catalogue id, Minari id or path."""


class DownloadFailed(DatasetError):
    """Data that no place gave, or that were not what they should be."""


class DatasetUnreadable(DatasetError):
    """A file that is not the format it claims to be, is truncated, or lacks a key."""


class InvalidEpisode(DatasetError):
    """Arrays that break an invariant of an episode."""


class RunError(UserError):
    """A folder that is not a complete run, or a run that cannot answer what was asked."""


class CompilerFailed(UserError):
    """Updates that could not be compiled."""


class TrainingDiverged(UserError):
    """A loss or value that is no longer a finite number."""


class Interrupted(UserError):
    """A signal asked the run to stop, and it did."""

    def __init__(self, problem: str, remedy: str, signal: int) -> None:
        super().__init__(problem, remedy)
        self.signal = signal

    def __reduce__(self) -> "tuple[type[Interrupted], tuple[str, str, int]]":
        """So that it can be raised again in another process."""
        return type(self), (self.problem, self.remedy, self.signal)


class ProcessKilled(UserError):
    """A process of ours that something else ended, such as the system for lack of memory."""


class PackageMissing(UserError):
    """An optional package that is not installed."""


class EnvironmentMissing(UserError):
    """An environment that Gymnasium cannot make here."""


class TrackingUnavailable(UserError):
    """MLflow's store cannot be reached or used."""


def did_you_mean(name: str, valid: Iterable[str], listed_by: str = "") -> str:
    """The names nearest to `name`, as a question; then the other names where they are few, else how to list all.

    It is a remedy, or the end of one. `listed_by`: the command that lists all names.
    """
    names = sorted(valid)
    close = get_close_matches(name, names, n=3, cutoff=0.4)
    question = f"did you mean {_alternatives(close)}?" if close else ""
    others = [name for name in names if name not in close]
    if listed_by and (close or len(names) > SEVERAL):
        rest = f"all of them: {listed_by}"
    elif len(names) <= (FEW if close else SEVERAL):
        rest = f"{'also valid' if close else 'valid'}: {', '.join(others)}" if others else ""
    else:
        rest = "" if close else f"none of {len(names)} names is near"
    return " ".join(filter(None, (question, rest)))


def _alternatives(names: Sequence[str]) -> str:
    """A, B or C."""
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last

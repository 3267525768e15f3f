"""What the keys of flat layouts mean: one table of names for .npz, .npy, pickles and HDF5, and the ends its flags mark.

Flags of one file must agree. Where they contradict each other, none of them is believed.

Some layouts have one flag for both kinds of end. There an end at the longest length, shared by at least two episodes
and exceeded by none, is taken as the clock's: a truncation. So is the end of a single episode, which nothing can be
compared with. Any other is the task's: a termination. A truncation that is taken for a termination would bias every
value before it, the reverse only loses a little; who knows better says so.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from iq_offline.errors import DatasetUnreadable, InvalidEpisode

Flags = NDArray[np.bool_]
KEYS = {
    "observations": ("observations", "observation", "obs", "states", "state"),
    "next_observations": ("next_observations", "next_observation", "next_obs", "next_states", "next_state"),
    "actions": ("actions", "action", "acts", "act", "acs"),
    "rewards": ("rewards", "reward", "rews", "rew"),
    "dones": (
        *("dones", "done", "dones_float", "last", "episode_terminals", "episode_ends", "episode_end", "ends"),
        *("terminated_or_truncated", "final"),
    ),
    "terminals": ("terminals", "terminal"),
    "terminations": ("terminations", "termination", "terminated", "terminateds", "absorbing"),
    "truncations": ("truncations", "truncation", "truncated", "truncateds", "timeouts", "timeout", "time_outs"),
    "starts": ("episode_starts", "episode_start", "starts", "start"),
    "not_dones": ("not_dones", "not_done", "nondones"),
    "masks": ("masks", "mask", "nonterminals", "nonterminal", "not_terminals"),
    "lengths": ("lengths",),
}
"""What a key means, and the names it goes by. Of two names for an array, the first counts; two flags must agree."""
INVERTED = {"not_dones": "dones", "masks": "terminals"}
"""Flags that are 1 while the episode goes on."""
FLAG_KEYS = ("dones", "terminals", "terminations", "truncations", "starts", "not_dones", "masks")
RLDS = ("is_first", "is_last", "is_terminal")
LIKE_ENDS = (
    *("done", "term", "trunc", "end", "last", "first", "start", "begin", "reset", "time", "absorb", "mask", "final"),
    *("bound", "episode", "traj", "nonterm", "nondone", "stop"),
)
"""How the words of a name begin that may mark the ends of episodes."""


class Ends(StrEnum):
    """How to take the ends of a layout that has one flag for both kinds. AUTO decides by the episodes' lengths."""

    AUTO = "auto"
    TERMINATION = "termination"
    TRUNCATION = "truncation"


def meaning(name: str) -> str | None:
    """What a key's name means: a key of KEYS, or None for a name that is not known."""
    return next((ours for ours, names in KEYS.items() if name in names), None)


def refuse_other_layout(names: Iterable[str], place: object) -> None:
    """Raises DatasetUnreadable for steps as RLDS keeps them, whose last action is not one."""
    found = [name for name in RLDS if name in set(names)]
    if found:
        raise DatasetUnreadable(
            f"{place} keeps steps as RLDS does ({', '.join(found)}): the last step of an episode is an observation "
            "without an action",
            "leave out each episode's last step, store its observation in next_observations of the step before, and "
            "mark the ends with terminals and timeouts",
        )


def check_unused(name: str, values: NDArray[np.generic], place: object) -> str | None:
    """A sentence about an array with one entry a step that is not read, if it holds flags; None for any other.

    Raises DatasetUnreadable for flags that by their name may mark the ends of episodes, where any is set.
    """
    if not len(values) or not np.isin(values, (0, 1)).all():
        return None
    count = int(np.count_nonzero(values))
    if count and any(word.startswith(LIKE_ENDS) for word in re.split(r"[^a-z]+", name.lower())):
        raise DatasetUnreadable(
            f"{place}: the flags '{name}' ({count} of {len(values)} steps) may mark ends of episodes, but no layout "
            "that is known has this name",
            f"rename it to {', '.join(KEYS[key][0] for key in FLAG_KEYS[:5])}, or remove it",
        )
    if values.dtype.kind != "b":
        return None
    return f"the flags '{name}' ({count} of {len(values)} steps) are not read: they are not taken for ends of episodes"


def combined(columns: Mapping[str, Flags], where: object) -> dict[str, Flags]:
    """Flags by meaning, of those by name, none of them inverted. Raises InvalidEpisode where two of them differ."""
    marks: dict[str, Flags] = {}
    names: dict[str, str] = {}
    for name, stored in columns.items():
        told = meaning(name)
        assert told in FLAG_KEYS, name
        ours, values = INVERTED.get(told, told), ~stored if told in INVERTED else stored
        if ours in marks:
            _check(marks[ours] == values, (names[ours], marks[ours]), (name, values), where)
        marks[ours], names[ours] = values, name
    return marks


def ends_of(marks: dict[str, Flags], steps: int, where: object) -> tuple[Flags, Flags, Flags]:
    """Terminations, truncations, and ends of which the layout does not tell the kind. Raises InvalidEpisode."""
    none = np.zeros(steps, dtype=bool)
    truncated = marks.get("truncations", none)
    if "terminations" in marks and "terminals" in marks:  # terminals are then ends of either kind
        either = [marks[key] for key in ("terminals", "dones") if key in marks]
        marks = {key: flags for key, flags in marks.items() if key != "terminals"}
        marks["dones"] = np.logical_or.reduce(either)
    task = "terminations" if "terminations" in marks else "terminals"
    dones = marks.get("dones", none)
    _check_dones(marks, task, where)
    if "starts" in marks:
        dones = dones | _ends_of_starts(marks, where)
    if task in marks and (task == "terminations" or marks.keys() & {"truncations", "dones"}):
        return marks[task], truncated | (dones & ~marks[task]), none
    if task in marks and (dones & ~marks[task]).any():  # an end that only a start marks
        return marks[task], dones & ~marks[task], none
    if "truncations" in marks:
        return dones & ~truncated, truncated, none
    return none, none, dones | marks.get(task, none)


def terminations(lengths: Sequence[int], flagged: Sequence[bool], ends: Ends) -> tuple[NDArray[np.bool_], str]:
    """Which of the episodes with a flag at their end terminated, and a sentence that says how that was decided.

    `lengths`, `flagged`: of all episodes of the file.
    """
    steps, marked = np.asarray(lengths, dtype=np.int64), np.asarray(flagged, dtype=bool)
    count = int(marked.sum())
    if ends is not Ends.AUTO:
        asked = f"{count} ends are taken as {ends}s, as asked: the layout has one flag for both kinds"
        return marked & (ends is Ends.TERMINATION), asked
    longest = int(steps.max(initial=0))
    timed_out = marked & (steps == longest)
    if int(timed_out.sum()) < 2 and len(steps) > 1:
        timed_out[:] = False
    clock = int(timed_out.sum())
    why = f"at the common length {longest}" if len(steps) > 1 else "of the only episode"
    return marked & ~timed_out, (
        f"{clock} ends {why} are taken as truncations, {count - clock} as terminations: the layout has one flag for "
        "both kinds (to decide otherwise: iq-offline convert SOURCE --to NAME-v0 --ends termination)"
    )


def settled(
    terminated: Flags, truncated: Flags, ended: Flags, stops: NDArray[np.int64], ends: Ends
) -> tuple[Flags, Flags, list[str]]:
    """Terminations, truncations and notes, once it is decided of which kind the ends are that no flag tells.

    `stops`: the last step of every episode.
    """
    if not ended.any():
        return terminated, truncated, []
    decided, note = terminations(np.diff(stops, prepend=-1).tolist(), ended[stops].tolist(), ends)
    terminated = terminated.copy()
    terminated[stops[decided]] = True
    return terminated, truncated | (ended & ~terminated), [note]


def _check_dones(marks: dict[str, Flags], task: str, where: object) -> None:
    """Flags for both kinds of end hold every termination, and where truncations are told too, nothing more."""
    if "dones" not in marks or task not in marks:
        return
    dones, terminated = marks["dones"], marks[task]
    _check(dones | ~terminated, (task, terminated), ("dones", dones), where)
    if "truncations" in marks:
        told = terminated | marks["truncations"]
        _check(told | ~dones, (f"{task} and truncations", told), ("dones", dones), where)


def _ends_of_starts(marks: dict[str, Flags], where: object) -> Flags:
    """The steps before a start. Raises InvalidEpisode where an end is followed by a step that is no start."""
    starts = marks["starts"]
    told = np.logical_or.reduce([flags for key, flags in marks.items() if key != "starts"] or [np.zeros_like(starts)])
    before = np.append(starts[1:], False)
    follow = np.append(before[:-1] | ~told[:-1], True)
    _check(follow, ("flags of ends", told), ("starts", starts), where)
    return before


def _check(agree: Flags, one: tuple[str, Flags], other: tuple[str, Flags], where: object) -> None:
    if not agree.all():
        (name, values), (other_name, others) = one, other
        raise InvalidEpisode(
            f"{where}: '{name}' ({int(values.sum())} set) and '{other_name}' ({int(others.sum())} set) contradict each "
            f"other, first at step {int(np.flatnonzero(~agree)[0])}",
            "keep the one that is right, and remove the other",
        )

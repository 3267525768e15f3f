"""Layouts with one flag for both kinds of end: which ends were the task's, and which the clock's.

An end at the longest length, shared by at least two episodes and exceeded by none, is taken as the clock's: a
truncation. So is the end of a single episode, which nothing can be compared with. Any other is the task's: a
termination. A truncation that is taken for a termination would bias every value before it, the reverse only loses
a little; who knows better says so.
"""

from collections.abc import Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray


class Ends(StrEnum):
    """How to take the ends of a layout that has one flag for both kinds. AUTO decides by the episodes' lengths."""

    AUTO = "auto"
    TERMINATION = "termination"
    TRUNCATION = "truncation"


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
        "both kinds (`iq-offline convert` with --ends decides otherwise)"
    )

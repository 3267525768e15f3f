"""Benchmarks: runs beside peers, and the experiments of the documentation.

`python -m benchmarks` lists them, `python -m benchmarks NAME --help` tells the options of one. A part of this package
is a module with `main(arguments)`, or a package with parts of its own.
"""

PARTS = (
    "record",
    "few-demonstrations",
    "offline-panels",
    "cloning-error",
    "whose-episodes",
    "selection",
    "stability",
    "reward",
    "gridworld",
    "point-maze",
    "time-to-answer",
    "speed",
    "gpu",
    "data",
    "overhead",
    "kill",
)

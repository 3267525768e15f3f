"""gridworld: figure 4 of the paper against exact truth, or the windy grid on which the regularisers differ."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from iq_offline.errors import ConfigError
from iq_offline.tabular.experiments import (
    DEMONSTRATIONS,
    PaperSetting,
    Recovery,
    VisitsNull,
    WindySetting,
    paper_experiment,
    windy_experiment,
)
from iq_offline.tabular.mdp import NotConverged

MIN_REWARD, MIN_VALUE, MAX_OCCUPANCY = 0.95, 0.95, 0.02
"""The bars: Pearson of the reward up to shaping and of the value; total variation of the occupancy measures."""


@dataclass(frozen=True)
class GridworldRequest:
    """What to run. steps: length of a demonstration; that of the setting if None. plot: a picture of figure 4."""

    seed: int = 0
    steps: int | None = None
    windy: bool = False
    plot: Path | None = None

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise ConfigError(f"demonstrations of {self.steps} steps hold nothing", "give --steps at least 1")
        if self.windy and self.plot:
            raise ConfigError("--windy has a table and no picture", "leave out --plot, or --windy")


def run_gridworld(request: GridworldRequest) -> dict[str, Any]:
    """The figures of one experiment; with `plot`, figure 4 is drawn there.

    On one thread: the matrices are small, and the last digits are then those of the seed, not of the machine's load.
    Raises ConfigError for a name that is no picture's, or in a folder that does not exist, and where windy
    demonstrations are too short to determine an optimum.
    """
    with threadpool_limits(limits=1, user_api="blas"):
        return _windy(request) if request.windy else _paper(request)


def _windy(request: GridworldRequest) -> dict[str, Any]:
    setting = WindySetting() if request.steps is None else WindySetting(steps=request.steps)
    try:
        found = windy_experiment(request.seed, setting)
    except NotConverged as error:
        raise ConfigError(
            f"demonstrations of {setting.steps} steps, seed {request.seed}, determine no optimum: {error}",
            f"give more --steps (by default {WindySetting.steps})",
        ) from None
    returns = {name: asdict(one) for name, one in found.items()}
    return {"grid": "windy", "seed": request.seed, "setting": asdict(setting), "returns": returns}


def _paper(request: GridworldRequest) -> dict[str, Any]:
    if request.plot:
        from iq_offline.report.stage_plots import check_grid_picture

        check_grid_picture(request.plot)
    setting = PaperSetting() if request.steps is None else PaperSetting(steps=request.steps)
    made = paper_experiment(request.seed, setting)
    panels = {name: cells.tolist() for name, cells in made.panels.items()}
    if request.plot:
        from iq_offline.report.stage_plots import write_grid_plot

        write_grid_plot(panels, request.plot)
    found = made.recovery
    return {
        "grid": "paper",
        "seed": request.seed,
        "setting": {"demonstrations": DEMONSTRATIONS, **asdict(setting)},
        "reward": _rewards(found),
        "value": found.value,
        "occupancy": found.occupancy,
        "null_visits": {"reward": _rewards(made.visits), "value": made.visits.value},
        "null_cloning": {"occupancy": found.occupancy_cloned},
        "bars": {
            "reward_up_to_shaping": {"bar": MIN_REWARD, "met": found.reward >= MIN_REWARD},
            "value": {"bar": MIN_VALUE, "met": found.value >= MIN_VALUE},
            "occupancy": {"bar": MAX_OCCUPANCY, "met": found.occupancy <= MAX_OCCUPANCY},
        },
        "panels": panels,
    }


def _rewards(found: Recovery | VisitsNull) -> dict[str, float]:
    return {"raw": found.reward_raw, "up_to_shaping": found.reward, "partial": found.reward_partial}


def as_rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The figures of the paper's grid for people: one row each, beside its nulls and its bar."""
    own, visits, bars = found["reward"], found["null_visits"], found["bars"]
    counts, cloning = visits["reward"], found["null_cloning"]["occupancy"]
    shaped = "up_to_shaping"
    rows = [
        ("reward by cell, Pearson", own["raw"], counts["raw"], None, None),
        ("reward up to shaping, Pearson", own[shaped], counts[shaped], None, bars["reward_up_to_shaping"]),
        ("value, Pearson", found["value"], visits["value"], None, bars["value"]),
        ("occupancy, total variation", found["occupancy"], None, cloning, bars["occupancy"]),
    ]
    columns = ("", "iq", "visit counts", "cloning")
    return [dict(zip(columns, cells, strict=True)) | _bar(bar) for *cells, bar in rows]


def _bar(bar: dict[str, Any] | None) -> dict[str, Any]:
    return {"bar": None, "met": None} if bar is None else {"bar": bar["bar"], "met": "yes" if bar["met"] else "NO"}

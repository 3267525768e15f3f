"""Recovered rewards beside their baselines: correlations with the true reward, by transition and by episode."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from iq_offline.report.groups import Group

TIE = 0.02
"""Correlations that differ by less are a tie."""
LEVELS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "transition": {
        "recovered reward": ("transition",),
        "cloning": ("null_bc",),
        "linear cloning": ("null_linear",),
    },
    "episode": {
        "recovered reward": ("episode",),
        "cloning": ("null_bc", "episode"),
        "linear cloning": ("null_linear", "episode"),
        "episode length": ("null_length",),
    },
}
"""By level, what is correlated with the true reward, the recovered reward first, and where reward.json has it."""
BASELINES = (
    "cloning: nearness of an action to a cloned policy's; linear cloning: that reward made linear in the observation; "
    "episode length: the number of steps."
)


@dataclass(frozen=True)
class RewardLevel:
    """A method's recovered reward on one task at one level: Pearson's r of each seed, of the reward and baselines."""

    group: Group
    level: str
    pearsons: Mapping[str, Sequence[float]]
    """The recovered reward first; what is undefined in a seed is left out."""

    @property
    def method(self) -> str:
        """The method, with the settings that set it apart."""
        return ", ".join(filter(None, (self.group.method, self.group.settings)))

    @property
    def means(self) -> dict[str, float]:
        """Over seeds."""
        return {name: sum(values) / len(values) for name, values in self.pearsons.items() if values}

    @property
    def sentence(self) -> str:
        """The recovered reward's correlation beside each baseline's."""
        (_, value), *baselines = self.means.items()
        relations: dict[str, list[str]] = {"better than": [], "equal to": [], "worse than": []}
        for name, r in baselines:
            relation = "equal to" if abs(value - r) < TIE else "better than" if value > r else "worse than"
            relations[relation].append(f"{name} ({r:.2f})")
        parts = [f"{relation} {' and '.join(names)}" for relation, names in relations.items() if names]
        return f"by {self.level} r = {value:.2f}" + (f", {', '.join(parts)}" if parts else "")

    @property
    def beats(self) -> tuple[int, int]:
        """How many baselines it beats, and of how many."""
        value, *others = self.means.values()
        return sum(value - r >= TIE for r in others), len(others)


def reward_levels(groups: Sequence[Group]) -> list[RewardLevel]:
    """Each task's and method's levels at which the recovered reward has a correlation, in the order of the groups."""
    return list(_levels(groups))


def _levels(groups: Sequence[Group]) -> Iterator[RewardLevel]:
    for group in groups:
        for level, paths in LEVELS.items():
            found = {
                name: [r for run in group.rewarded_runs if (r := _pearson(run.reward, path)) is not None]
                for name, path in paths.items()
            }
            if found["recovered reward"]:
                yield RewardLevel(group, level, {name: values for name, values in found.items() if values})


def _pearson(reward: Mapping[str, Any] | None, path: Sequence[str]) -> float | None:
    found: Any = reward
    for key in path:
        found = (found or {}).get(key)
    return None if found is None else found.get("pearson")

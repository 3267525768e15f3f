#!/usr/bin/env python3
"""Exact IQ-Learn on GridWorlds: what 30 demonstrations recover, and what wind does to the policy learnt without it.

Usage: gridworld.py [--seeds 0-9] [--steps 100 1000 4000]

Everything but the demonstrations is computed exactly, in float64. Prints Markdown tables: one row a setting, the mean
over seeds of demonstrations and in brackets the worst. No setting depends on the seed. About two minutes.
"""

import argparse
from collections.abc import Iterable

import numpy as np
from seeds import seeds_of

from iq_offline.tabular.experiments import (
    PaperSetting,
    Recovery,
    WindySetting,
    paper_experiment,
    paper_expert,
    visits_null,
    windy_experiment,
)
from iq_offline.tabular.gridworld import PAPER_VALUES, paper_gridworld
from iq_offline.tabular.inverse import (
    IQProblem,
    ValueTerm,
    chi_squared,
    exact_iq_optimum,
    exact_transitions,
    implicit_reward,
)
from iq_offline.tabular.mdp import hard_value_iteration, occupancy, total_variation
from iq_offline.tabular.shaping import correlation_up_to_shaping

COEFFICIENTS = (0.5, 5.0, 50.0)
TEMPERATURES = (1.0, 0.3, 0.1)
WINDY_COEFFICIENTS = (0.5, 5.0)
NULL_DRAWS = 1000


def spread(values: Iterable[float | None], *, low_is_bad: bool, digits: int = 3) -> str:
    """`mean (worst)`; a dash where nothing is defined."""
    numbers = [value for value in values if value is not None]
    if not numbers:
        return "-"
    worst = min(numbers) if low_is_bad else max(numbers)
    return f"{np.mean(numbers):.{digits}f} ({worst:.{digits}f})"


def row(name: str, found: list[Recovery]) -> str:
    """One line of the first table."""
    cells = [
        spread((r.reward for r in found), low_is_bad=True),
        spread((r.reward_partial for r in found), low_is_bad=True),
        spread((r.reward_visited for r in found), low_is_bad=True),
        spread((r.reward_raw for r in found), low_is_bad=True),
        spread((r.value for r in found), low_is_bad=True),
        spread((r.occupancy for r in found), low_is_bad=False),
        spread((r.occupancy_cloned for r in found), low_is_bad=False),
    ]
    return f"| {name} | {' | '.join(cells)} |"


def settings(steps: list[int]) -> dict[str, PaperSetting]:
    """The rows: lengths with the default setting, then one departure at a time at the default length."""
    return {f"default, {n} steps": PaperSetting(steps=n) for n in steps} | {
        "counted dynamics, 100 steps": PaperSetting(steps=100, known_dynamics=False),
        "counted dynamics": PaperSetting(known_dynamics=False),
        "reward scale 0.3, 100 steps": PaperSetting(steps=100, reward_scale=0.3),
        "reward scale 3, 100 steps": PaperSetting(steps=100, reward_scale=3.0),
        "temperature 0.3": PaperSetting(temperature=0.3),
        "greedy expert, learner at 0.3, 100 steps": PaperSetting(steps=100, temperature=0.3, soft_expert=False),
        "greedy expert, learner at 0.3": PaperSetting(temperature=0.3, soft_expert=False),
    }


def value_picture() -> None:
    """How much of the paper's picture of values comes out."""
    values = hard_value_iteration(paper_gridworld()).max(axis=1).reshape(PAPER_VALUES.shape)
    print(f"cells of the paper's value picture reproduced: {(values.round(1) == PAPER_VALUES).sum()} of 25")


def endless_demonstrations(temperature: float) -> None:
    """Eq. 9 with the expert's true occupancy measure and dynamics: what the penalty alone costs."""
    mdp = paper_gridworld()
    expert = paper_expert(mdp, PaperSetting(temperature=temperature))
    measure, optimal = occupancy(mdp, expert), hard_value_iteration(mdp).max(axis=1)
    data = exact_transitions(mdp.dynamics, measure)
    for c in COEFFICIENTS:
        divergence, term = chi_squared(c), ValueTerm.INITIAL
        problem = IQProblem(data, mdp.actions, mdp.gamma, temperature, divergence, term, mdp.initial)
        optimum = exact_iq_optimum(problem)
        reward = implicit_reward(optimum.q, mdp, temperature)
        fit = correlation_up_to_shaping(mdp.rewards, reward, mdp)
        value = np.corrcoef(optimal, optimum.v)[0, 1]
        missed = total_variation(occupancy(mdp, optimum.policy), measure)
        bound = (measure * np.abs(reward)).sum() / (4 * c)
        figures = f"{fit.pearson:.4f} | {fit.partial:.4f} | {value:.3f} | {missed:.5f} | {bound:.5f}"
        print(f"| {temperature} | {c} | {figures} |")


def thirty_demonstrations(seeds: list[int], steps: list[int]) -> None:
    """What samples recover, setting by setting, and what noise would."""
    columns = "reward | reward, partial | reward, visited | raw, by state | value | occupancy | cloned occupancy"
    print(f"\n| setting, {len(seeds)} seeds: mean (worst) | {columns} |\n|---|---|---|---|---|---|---|---|")
    for name, setting in settings(steps).items():
        print(row(name, [paper_experiment(seed, setting).recovery for seed in seeds]), flush=True)

    mdp = paper_gridworld()
    rng = np.random.default_rng(0)
    null = [correlation_up_to_shaping(mdp.rewards, rng.normal(size=mdp.rewards.shape), mdp) for _ in range(NULL_DRAWS)]
    freedom = mdp.rewards.size - mdp.states - 1
    print(f"\nNoise in place of the reward, {freedom} residual degrees of freedom, {NULL_DRAWS} draws:")
    for name, sizes in {
        "reward": [abs(fit.pearson) for fit in null],
        "reward, partial": [abs(fit.partial) for fit in null],
    }.items():
        print(f"{name}: absolute correlation {np.mean(sizes):.3f} in the mean, {np.quantile(sizes, 0.99):.3f} at 99 %")


def visits_for_reward() -> None:
    """A null that knows no method: how often the expert is in a state, taken for that state's reward."""
    mdp = paper_gridworld()
    print(
        "\n| visits in place of the reward | reward | reward, partial | raw, by state | value |\n|---|---|---|---|---|"
    )
    for name, soft in {"soft expert": True, "greedy expert": False}.items():
        visits = occupancy(mdp, paper_expert(mdp, PaperSetting(soft_expert=soft))).sum(axis=1)
        null = visits_null(mdp, visits)
        print(f"| {name} | {null.reward:.3f} | {null.reward_partial:.3f} | {null.reward_raw:.3f} | {null.value:.3f} |")


def wind(seeds: list[int], coefficient: float) -> None:
    """Returns of the windy experiment."""
    found = [windy_experiment(seed, WindySetting(coefficient=coefficient)) for seed in seeds]
    print(f"\n| policy, c = {coefficient}, {len(seeds)} seeds: mean (worst) | return without wind | with wind |")
    print("|---|---|---|")
    for name in found[0]:
        calm, windy = ([getattr(one[name], where) for one in found] for where in ("calm", "windy"))
        print(f"| {name} | {spread(calm, low_is_bad=True, digits=2)} | {spread(windy, low_is_bad=True, digits=2)} |")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=seeds_of, default=seeds_of("0-9"))
    parser.add_argument("--steps", type=int, nargs="+", default=[100, 1000, 4000])
    options = parser.parse_args()
    seeds = options.seeds

    value_picture()
    columns = "temperature | c | reward | reward, partial | value | occupancy | E_expert abs(r) / (4c)"
    print(f"\n| {columns} |\n|---|---|---|---|---|---|---|")
    for temperature in TEMPERATURES:
        endless_demonstrations(temperature)
    thirty_demonstrations(seeds, options.steps)
    visits_for_reward()
    for coefficient in WINDY_COEFFICIENTS:
        wind(seeds, coefficient)


if __name__ == "__main__":
    main()

"""Exact IQ-Learn on GridWorlds: what 30 demonstrations recover, and what wind does.

Everything but the demonstrations is computed exactly, in float64. Prints Markdown tables: one row a setting, the mean
over seeds of demonstrations and in brackets the worst. No setting depends on the seed. About two minutes.
"""

import numpy as np

from benchmarks.arguments import Parser
from benchmarks.markdown import mean_and_worst, print_header, print_row, table
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


def row(name: str, found: list[Recovery]) -> list[str]:
    """The cells of one line of the first table."""
    return [
        name,
        mean_and_worst((r.reward for r in found), 3),
        mean_and_worst((r.reward_partial for r in found), 3),
        mean_and_worst((r.reward_visited for r in found), 3),
        mean_and_worst((r.reward_raw for r in found), 3),
        mean_and_worst((r.value for r in found), 3),
        mean_and_worst((r.occupancy for r in found), 3, low_is_bad=False),
        mean_and_worst((r.occupancy_cloned for r in found), 3, low_is_bad=False),
    ]


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
        figures = (f"{fit.pearson:.4f}", f"{fit.partial:.4f}", f"{value:.3f}", f"{missed:.5f}", f"{bound:.5f}")
        print_row(temperature, c, *figures)


def thirty_demonstrations(seeds: list[int], steps: list[int]) -> None:
    """What samples recover, setting by setting, and what noise would."""
    columns = (
        "reward",
        "reward, partial",
        "reward, visited",
        "raw, by state",
        "value",
        "occupancy",
        "cloned occupancy",
    )
    print()
    print_header(f"setting, {len(seeds)} seeds: mean (worst)", *columns)
    for name, setting in settings(steps).items():
        print_row(*row(name, [paper_experiment(seed, setting).recovery for seed in seeds]))

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
    rows = []
    for name, soft in {"soft expert": True, "greedy expert": False}.items():
        visits = occupancy(mdp, paper_expert(mdp, PaperSetting(soft_expert=soft))).sum(axis=1)
        null = visits_null(mdp, visits)
        figures = (null.reward, null.reward_partial, null.reward_raw, null.value)
        rows.append([name, *(f"{figure:.3f}" for figure in figures)])
    columns = ["visits in place of the reward", "reward", "reward, partial", "raw, by state", "value"]
    print("\n" + table(columns, rows))


def wind(seeds: list[int], coefficient: float) -> None:
    """Returns of the windy experiment."""
    found = [windy_experiment(seed, WindySetting(coefficient=coefficient)) for seed in seeds]
    print()
    print_header(f"policy, c = {coefficient}, {len(seeds)} seeds: mean (worst)", "return without wind", "with wind")
    for name in found[0]:
        calm, windy = ([getattr(one[name], where) for one in found] for where in ("calm", "windy"))
        print_row(name, mean_and_worst(calm), mean_and_worst(windy))


def main(arguments: list[str]) -> None:
    """Print the tables."""
    parser = Parser(__name__, __doc__)
    parser.add_seeds("0-9")
    parser.add_argument("--steps", type=int, nargs="+", default=[100, 1000, 4000])
    options = parser.parse(arguments)
    value_picture()
    print()
    print_header("temperature", "c", "reward", "reward, partial", "value", "occupancy", "E_expert abs(r) / (4c)")
    for temperature in TEMPERATURES:
        endless_demonstrations(temperature)
    thirty_demonstrations(options.seeds, options.steps)
    visits_for_reward()
    for coefficient in WINDY_COEFFICIENTS:
        wind(options.seeds, coefficient)

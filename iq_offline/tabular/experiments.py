"""Two experiments on GridWorlds, each from sampled demonstrations to the exact optimum to exact figures of merit."""

from dataclasses import dataclass, replace

import numpy as np

from iq_offline.tabular.gridworld import (
    PAPER_SIZE,
    cloned_policy,
    demonstrations,
    from_transitions,
    paper_gridworld,
    windy_gridworld,
)
from iq_offline.tabular.inverse import (
    IQProblem,
    Pieces,
    Transitions,
    ValueTerm,
    chi_squared,
    exact_iq_optimum,
    exact_transitions,
    implicit_reward,
    linear,
    sampled_transitions,
)
from iq_offline.tabular.mdp import (
    MDP,
    Floats,
    expected_return,
    greedy_policy,
    hard_value_iteration,
    occupancy,
    soft_value_iteration,
    softmax_policy,
    total_variation,
)
from iq_offline.tabular.shaping import correlation_up_to_shaping

DEMONSTRATIONS = 30


@dataclass(frozen=True)
class PaperSetting:
    """How the 30 demonstrations of [IQ21] figure 4 are made and learnt from; what the paper does not state is here.

    The expert is soft-optimal at the learner's own temperature, the model that the method assumes: only then do the
    true reward's differences show in what the expert does, and "recovered up to shaping" is a claim that could fail.
    A greedy expert's policy is optimal for a whole cone of rewards, most of them unlike the true one.
    """

    steps: int = 4000
    """Length of each demonstration."""
    temperature: float = 1.0
    """The paper has none, which is one."""
    reward_scale: float = 1.0
    """Standard deviation that rewards are expected to have: sets the penalty, see `recover`."""
    soft_expert: bool = True
    """False: greedy, ties broken evenly."""
    known_dynamics: bool = True
    """False: frequencies in the demonstrations; a pair never seen is taken to stay."""


@dataclass(frozen=True)
class Recovery:
    """What one set of demonstrations gave; correlations are Pearson's."""

    reward: float
    """True with recovered reward less its best shaping, over all pairs alike."""
    reward_partial: float
    """The same with the shaping part taken from both (`ShapingFit.partial`)."""
    reward_visited: float | None
    """As `reward`, weighted by the expert's occupancy measure; None where on its support nothing is identified."""
    reward_raw: float
    """Without any allowance for shaping, mean over actions, state by state, as the paper's picture has it."""
    value: float
    """Recovered soft value with the optimal (hard) value of the true reward."""
    occupancy: float
    """Total variation between the occupancy measures (state and action) of the learnt policy and of the expert, both
    computed exactly in the true process."""
    occupancy_cloned: float
    """The same for behavioural cloning: the error of sampling alone."""


@dataclass(frozen=True)
class VisitsNull:
    """What a visit count alone gives in place of a recovered reward; the fields are those of `Recovery`."""

    reward: float
    reward_partial: float
    reward_raw: float
    value: float
    """Of the count's own optimal (hard) value."""


@dataclass(frozen=True, eq=False)
class PaperExperiment:
    """Figure 4 from one set of demonstrations: the pictures, their figures of merit, and a null without a method.

    panels: the four pictures, (row, column) each; rewards are means over actions. The true value is the optimal one,
    without entropy; the recovered one is soft, so scale and offset are its own. visits: of the cells' counts in the
    same demonstrations.
    """

    panels: dict[str, Floats]
    recovery: Recovery
    visits: VisitsNull


def paper_experiment(seed: int, setting: PaperSetting | None = None) -> PaperExperiment:
    """Learn from 30 demonstrations in the paper's GridWorld and compare with the truth, exactly."""
    setting = setting or PaperSetting()
    mdp, rng = paper_gridworld(), np.random.default_rng(seed)
    optimal = hard_value_iteration(mdp).max(axis=1)
    expert = paper_expert(mdp, setting)
    recorded = demonstrations(mdp, expert, DEMONSTRATIONS, setting.steps, rng)
    shares, counted = from_transitions(*recorded, mdp.rewards.shape)
    dynamics = mdp.dynamics if setting.known_dynamics else counted
    q, policy, v = recover(shares, dynamics, mdp.gamma, setting)

    recovered = implicit_reward(q, mdp, setting.temperature)
    everywhere = correlation_up_to_shaping(mdp.rewards, recovered, mdp)
    measure = occupancy(mdp, expert)
    cells = mdp.rewards.mean(axis=1), recovered.mean(axis=1), optimal, v
    found = Recovery(
        everywhere.pearson,
        everywhere.partial,
        correlation_up_to_shaping(mdp.rewards, recovered, mdp, measure).pearson if setting.soft_expert else None,
        float(np.corrcoef(cells[0], cells[1])[0, 1]),
        float(np.corrcoef(optimal, v)[0, 1]),
        total_variation(occupancy(mdp, policy), measure),
        total_variation(occupancy(mdp, cloned_policy(shares)), measure),
    )
    names = ("true_reward", "recovered_reward", "true_value", "recovered_value")
    panels = {name: cell.reshape(PAPER_SIZE, PAPER_SIZE) for name, cell in zip(names, cells, strict=True)}
    return PaperExperiment(panels, found, visits_null(mdp, shares.sum(axis=1)))


def visits_null(mdp: MDP, visits: Floats) -> VisitsNull:
    """How often the expert is in a state, (S,), used as the reward of that state."""
    rewards = np.repeat(visits[:, None], mdp.actions, axis=1)
    fit = correlation_up_to_shaping(mdp.rewards, rewards, mdp)
    raw = np.corrcoef(visits, mdp.rewards.mean(axis=1))[0, 1]
    true, recovered = (hard_value_iteration(one).max(axis=1) for one in (mdp, replace(mdp, rewards=rewards)))
    return VisitsNull(fit.pearson, fit.partial, float(raw), float(np.corrcoef(true, recovered)[0, 1]))


def paper_expert(mdp: MDP, setting: PaperSetting) -> Floats:
    """The expert's policy, (S, A)."""
    if not setting.soft_expert:
        return greedy_policy(hard_value_iteration(mdp))
    return softmax_policy(soft_value_iteration(mdp, setting.temperature), setting.temperature)


def recover(shares: Floats, dynamics: Floats, gamma: float, setting: PaperSetting) -> tuple[Floats, Floats, Floats]:
    """Q, policy (S, A) and soft value (S,) from each pair's share of the demonstrations and the dynamics.

    The penalty is chi-squared over all pairs alike, E_uniform[r^2] / (4c), with c = N scale^2 / (2 temperature S A)
    for N transitions. Since E_expert[r] less the telescoped value is temperature * E[log policy] to the letter, this
    optimum is the most likely Q under independent normal rewards of standard deviation `reward_scale`: c is derived,
    not searched for. On the expert's pairs alone ([IQ21] eq. 12), pairs never shown would have no finite optimum.
    """
    transitions = DEMONSTRATIONS * setting.steps
    coefficient = transitions * setting.reward_scale**2 / (2 * setting.temperature * shares.size)
    problem = IQProblem(
        exact_transitions(dynamics, shares),
        shares.shape[1],
        gamma,
        setting.temperature,
        linear(),
        supplementary=exact_transitions(dynamics, np.full(shares.shape, 1 / shares.size)),
        supplementary_share=1.0,
        pieces=Pieces(mixture_penalty=coefficient),
    )
    optimum = exact_iq_optimum(problem)
    return optimum.q, optimum.policy, optimum.v


@dataclass(frozen=True)
class WindySetting:
    """Sizes and coefficients of the windy experiment; the same for every method that has the coefficient."""

    episodes: int = 10
    """Of the greedy expert, without wind, each of `steps`."""
    supplementary_episodes: int = 50
    """Of the uniform policy, without wind and without rewards, each of `steps`, from evenly spread first states."""
    steps: int = 100
    temperature: float = 0.1
    coefficient: float = 0.5
    """Chi-squared's c: the paper's, for the expert alone and for the mixture."""
    weight: float = 0.1
    """Of value suppression and of the conservative gap."""
    prior_share: float = 0.9
    """Of the cloned policy in the prior of the KL variant; the rest is even chances, so that nothing is ruled out."""


@dataclass(frozen=True)
class Returns:
    """Expected discounted return of one policy, exact, without wind and with it."""

    calm: float
    windy: float


def windy_experiment(seed: int, setting: WindySetting | None = None) -> dict[str, Returns]:
    """Learn where no wind blows, act where it does. Keys name the policy; "expert" is the demonstrator itself."""
    setting = setting or WindySetting()
    calm, windy = windy_gridworld(0.0), windy_gridworld()
    expert = greedy_policy(hard_value_iteration(calm))
    uniform = np.full(calm.rewards.shape, 1 / calm.actions)
    everywhere = replace(calm, initial=np.full(calm.states, 1 / calm.states))
    rng = np.random.default_rng(seed)
    recorded = demonstrations(calm, expert, setting.episodes, setting.steps, rng)
    roamed = demonstrations(everywhere, uniform, setting.supplementary_episodes, setting.steps, rng)

    shares, _ = from_transitions(*recorded, calm.rewards.shape)
    policies = {
        "expert": expert,
        "best for the wind": greedy_policy(hard_value_iteration(windy)),
        "uniform": uniform,
        "behavioural cloning": cloned_policy(shares),
    }
    own, supplementary = (sampled_transitions(*rows, calm.states) for rows in (recorded, roamed))
    prior = setting.prior_share * policies["behavioural cloning"] + (1 - setting.prior_share) * uniform
    problems = windy_problems(own, supplementary, prior, calm.gamma, setting)
    policies |= {name: exact_iq_optimum(problem).policy for name, problem in problems.items()}
    return {name: Returns(expected_return(calm, p), expected_return(windy, p)) for name, p in policies.items()}


def windy_problems(
    expert: Transitions, supplementary: Transitions, prior: Floats, gamma: float, setting: WindySetting
) -> dict[str, IQProblem]:
    """The variants of IQ-Learn that the windy experiment compares, by name. prior (S, A)."""
    plain = IQProblem(expert, prior.shape[1], gamma, setting.temperature, chi_squared(setting.coefficient))
    pieces = Pieces(mixture_penalty=setting.coefficient)
    mixture = replace(plain, divergence=linear(), supplementary=supplementary, pieces=pieces)
    over_both = replace(mixture, value_term=ValueTerm.MIXTURE)
    return {
        "iq, expert only": plain,
        "iq, mixture penalty": mixture,
        "iq, mixture penalty and value": over_both,
        "iq, mixture penalty and value, KL to the clone": replace(over_both, prior=prior),
        "iq, mixture penalty, suppression": replace(mixture, pieces=replace(pieces, suppression_weight=setting.weight)),
        "iq, mixture penalty, conservative gap": replace(
            mixture, pieces=replace(pieces, conservative_weight=setting.weight)
        ),
    }

"""A finished run's recovered reward as a function of transitions, in the form that was asked for."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import torch

from iq_offline.algorithms.build import actions_of
from iq_offline.algorithms.encoders import ObservationLayout
from iq_offline.algorithms.linear_reward import LinearReward, fit_linear_reward
from iq_offline.algorithms.networks import Policy
from iq_offline.algorithms.noise import Stream, generator
from iq_offline.algorithms.recovery import Normalisation, Recovered, Recovery, normalisation, recovery_of
from iq_offline.algorithms.reward_model import RewardInputs, RewardModel
from iq_offline.batch import Batch
from iq_offline.data.spaces import DiscreteActions
from iq_offline.data.split import every_kth, rows_with_successors
from iq_offline.data.strict_json import first_line, parse_json
from iq_offline.data.table import TransitionTable
from iq_offline.errors import ConfigError, RunError, did_you_mean
from iq_offline.stages.fetch import open_dataset
from iq_offline.training import run_folder
from iq_offline.training.batches import Rows, TransitionSampler, observation_layout
from iq_offline.training.learnt import learner_of
from iq_offline.training.run_folder import RunFolder
from iq_offline.training.tensor_files import read_header, read_tensors

DEMONSTRATED_TRANSITIONS = 8192
"""At most so many set the scale of the normalised form, evenly spread."""
LINEAR_TRANSITIONS = 20_000
"""At most so many of each source the linear form is fitted to, evenly spread."""

SURVIVAL, SELDOM = 1.0, 0.1
"""What a step of the linear form is worth besides where demonstrations end SELDOM as often as other data do."""


class Form(StrEnum):
    """IMPLICIT: Q(s, a) - discount * V(s'), [IQ21] eq. 11. CANONICAL: with V taken out as potential, Q(s, a) - V(s).

    NORMALISED: a lower bound of it, from 0 for uniform actions to 1 for demonstrated ones at the same observations.
    LINEAR: the reward linear in the observation that explains the normalised one best, on the demonstrations and the
    data at hand. DISTILLED: the explicit reward that `distil` fitted.
    """

    IMPLICIT = "implicit"
    CANONICAL = "canonical"
    NORMALISED = "normalised"
    LINEAR = "linear"
    DISTILLED = "distilled"


def form_of(text: str) -> Form:
    """Raises ConfigError for a name that is none."""
    if text not in list(Form):
        raise ConfigError(f"--form {text} is unknown", did_you_mean(text, Form))
    return Form(text)


@dataclass(frozen=True)
class Rewarder:
    """Rewards of batches of raw transitions."""

    form: Form
    recovery: Recovery
    scale: Normalisation | None = None
    model: RewardModel | None = None
    linear: LinearReward | None = None
    sources: tuple[Batch, ...] = ()
    """What the linear form was fitted to."""
    policy: Policy | None = None
    """Of the linear form: its observations are standardised as the policy's."""
    survival: float = 0.0
    """Added to each step of the linear form."""
    why_not: str = ""
    """Why another form was asked for."""

    @classmethod
    def of(cls, run: RunFolder, form: Form, tables: Sequence[TransitionTable] = ()) -> "Rewarder":
        """In that form; canonical where there is no scale (`Normalisation.exists`), normalised where observations are
        pictures, of which there is no linear reward.

        `tables`: the data at hand, that the linear form is fitted to beside the demonstrations. Raises RunError for a
        method that learns no reward, and where the demonstrations are gone.
        """
        recovery = _recovery(run)
        if form is Form.DISTILLED:
            return cls(form, recovery, model=load_reward_model(run))
        if form not in (Form.NORMALISED, Form.LINEAR):
            return cls(form, recovery)
        demonstrated = demonstrations(run)
        scale = normalisation(_recovery(run), demonstrated)
        if not scale.exists:
            why = f"{run.manifest['run']} gives demonstrated actions no more than uniform ones"
            return cls(Form.CANONICAL, recovery, why_not=f"{why}: no scale to normalise by")
        normalised = cls(Form.NORMALISED, recovery, scale)
        if form is Form.NORMALISED:
            return normalised
        policy = run.policy()
        if policy.layout.pictures:
            return replace(normalised, why_not="pictures have no reward that is linear in them")
        at_hand = (_thinned(table, rows_with_successors(table), LINEAR_TRANSITIONS) for table in tables)
        sources = demonstrated, *at_hand
        linear = fit_linear_reward([(policy.standardise(one.observations), normalised(one)[0]) for one in sources])
        survival = survival_worth(run, tables)
        return cls(form, recovery, scale, linear=linear, sources=sources, policy=policy, survival=survival)

    @classmethod
    def exactly(cls, run: RunFolder, form: Form, tables: Sequence[TransitionTable] = ()) -> "Rewarder":
        """In that form, or RunError: for rewards that are written down."""
        found = cls.of(run, form, tables)
        if found.form is not form:
            raise RunError(found.why_not, f"give --form {found.form}, or train longer")
        return found

    def __call__(self, batch: Batch) -> tuple[torch.Tensor, Recovered]:
        """The rewards in the form asked for, (B,), and all that is known of them."""
        found = self.recovery(batch)
        if self.model is not None:
            return self.model(batch), found
        if self.linear is not None and self.policy is not None:
            return self.linear(self.policy.standardise(batch.observations)) + self.survival, found
        if self.form is Form.IMPLICIT:
            return found.rewards, found
        return found.canonical if self.scale is None else self.scale(found), found


def survival_worth(run: RunFolder, tables: Sequence[TransitionTable]) -> float:
    """SURVIVAL where staying alive is what the demonstrations show, else 0: a constant that Q does not hold.

    Adding a constant to a reward changes nothing while episodes go on for ever; where they end, it says whether ending
    is good. Demonstrations say that by how seldom they end: at most SELDOM times as often a step as some data at hand.
    """
    table, chosen = open_dataset(run.config.dataset), np.asarray(run.split["expert_episodes"])
    shown = _endings(table, chosen)
    most = max((_endings(other, np.arange(other.episodes.height)) for other in tables), default=0.0)
    return SURVIVAL if most > 0 and shown <= SELDOM * most else 0.0


def _endings(table: TransitionTable, episodes: Rows) -> float:
    """Terminations a step of those episodes."""
    ended, steps = (table.episodes[name].to_numpy()[episodes] for name in ("terminated", "steps"))
    return float(ended.sum() / steps.sum())


def load_reward_model(run: RunFolder) -> RewardModel:
    """The explicit reward of a run. Raises RunError where there is none."""
    path = run.path / run_folder.REWARD_MODEL
    if not path.is_file():
        raise RunError(f"{run.manifest['run']} has no explicit reward", f"fit one: iq-offline distil {run.path}")
    run.check_file(run_folder.REWARD_MODEL)
    try:
        header, tensors = read_header(path), read_tensors(path)
        hidden = tuple(int(size) for size in parse_json(header["hidden"]))
        if sum(hidden) > sum(tensor.numel() for tensor in tensors.values()):
            raise ValueError("its header names larger layers than it holds")
        model = RewardModel(run.policy(), RewardInputs(header["inputs"]), hidden)
        model.load_state_dict(tensors)
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise RunError(
            f"{path} is damaged: {first_line(error)}", f"fit it again: iq-offline distil {run.path}"
        ) from None
    if not all(tensor.isfinite().all() for tensor in tensors.values()):
        raise RunError(f"{path} holds values that are not finite", f"fit it again: iq-offline distil {run.path}")
    model.eval().requires_grad_(False)
    return model


def demonstrated_rows(run: RunFolder) -> tuple[TransitionTable, Rows]:
    """The expert's table and the rows of it that a run learnt from. Raises RunError where it has changed since."""
    table = open_dataset(run.config.dataset)
    if table.info.sha256 != run.manifest["dataset"]["sha256"]:
        raise RunError(f"{run.config.dataset} has changed since the run was trained", "fetch the original data again")
    config, chosen = run.config, np.asarray(run.split["expert_episodes"])
    table = table.less(run.policy().layout.offset)
    return table, every_kth(table, chosen, config.subsample, config.subsample_from, config.seed)


def demonstrations(run: RunFolder, most: int = DEMONSTRATED_TRANSITIONS) -> Batch:
    """The transitions that a run learnt from as its expert's, evenly thinned to `most`; their rewards are not read.

    Raises RunError where the dataset has changed since.
    """
    return _thinned(*demonstrated_rows(run), most)


def task_tables(run: RunFolder, datasets: tuple[str, ...]) -> list[TransitionTable]:
    """Those datasets, the run's own if none: of the run's task, each once. Raises ConfigError otherwise."""
    own = [run.config.dataset, *run.config.supplementary]
    tables = [task_table(run, dataset) for dataset in datasets or own]
    if len({table.info.name for table in tables}) < len(tables):
        raise ConfigError("a dataset is named twice", "name each dataset once")
    return tables


def task_table(run: RunFolder, dataset: str) -> TransitionTable:
    """A dataset as the run's policy takes its observations.

    Raises ConfigError for one of other observations or actions than the run's; fewer discrete ones will do.
    """
    table = open_dataset(dataset)
    check_task(run, table)
    return table.less(run.policy().layout.offset)


def check_task(run: RunFolder, table: TransitionTable) -> None:
    policy, layout, space = run.policy(), observation_layout(table), table.action_space
    shown = ("discrete", space.count) if isinstance(space, DiscreteActions) else ("continuous", space.width)
    known = actions_of(policy)
    fewer = shown[0] == known[0] == "discrete" and shown[1] < known[1]
    if not policy.layout.categories:  # a run of version 0.1 took every number as it is
        layout = replace(layout, categories=())
    if layout != policy.layout or not (shown == known or fewer):
        raise ConfigError(
            f"{table.info.name} has {_told(layout, shown)}; the run was trained on {_told(policy.layout, known)}",
            "name datasets of the run's own task (where a file declares no count of actions, its greatest action does)",
        )


def _told(layout: ObservationLayout, actions: tuple[str, int]) -> str:
    pictures = f" with pictures {', '.join(map(str, layout.pictures))}" if layout.pictures else ""
    categories = ", ".join(str(count) for count in layout.categories if count)
    pictures += f" with {categories} categories" if categories else ""
    return f"observations of {layout.vector} numbers{pictures} and {actions[1]} {actions[0]} actions"


def _thinned(table: TransitionTable, rows: Rows, most: int) -> Batch:
    chosen = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(int))]
    return TransitionSampler(table, chosen, torch.device("cpu")).gather(torch.arange(len(chosen)))


def _recovery(run: RunFolder) -> Recovery:
    if not run.config.algorithm.learns_reward:
        raise RunError(
            f"{run.manifest['run']} was trained by {run.config.method}, which learns no reward",
            "use a run of --method iq",
        )
    return recovery_of(learner_of(run), generator(run.config.seed, Stream.REWARD))

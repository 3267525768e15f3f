"""A finished run's recovered reward as a function of transitions, in the form that was asked for."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch

from iq_offline.algorithms.learner import Stream, generator
from iq_offline.algorithms.recovery import (
    ContinuousRecovery,
    DiscreteRecovery,
    Normalisation,
    Recovered,
    Recovery,
    normalisation,
)
from iq_offline.batch import Batch
from iq_offline.config import ContinuousIQConfig, DiscreteIQConfig, IQConfig
from iq_offline.data.table import rows_of_episodes
from iq_offline.errors import ConfigError, RunError, nearest
from iq_offline.stages.fetch import open_dataset
from iq_offline.training.batches import TransitionSampler
from iq_offline.training.learnt import absorbing_value_of, continuous_networks_of, discrete_networks_of
from iq_offline.training.run_folder import RunFolder

DEMONSTRATED_TRANSITIONS = 8192
"""At most so many set the scale of the normalised form, evenly spread."""


class Form(StrEnum):
    """IMPLICIT: Q(s, a) - discount * V(s'), [IQ21] eq. 11. CANONICAL: with V taken out as potential, Q(s, a) - V(s).

    NORMALISED: the canonical form, from 0 for uniform actions to 1 for demonstrated ones at the same observations.
    """

    IMPLICIT = "implicit"
    CANONICAL = "canonical"
    NORMALISED = "normalised"


def form_of(text: str) -> Form:
    """Raises ConfigError for a name that is none."""
    if text not in list(Form):
        raise ConfigError(f"--form {text} is unknown", f"valid: {nearest(text, Form)}")
    return Form(text)


@dataclass(frozen=True)
class Rewarder:
    """Rewards of batches of raw transitions."""

    form: Form
    recovery: Recovery
    scale: Normalisation | None

    @classmethod
    def of(cls, run: RunFolder, form: Form) -> "Rewarder":
        """Raises RunError for a method that learns no reward, and where the demonstrations of the scale are gone."""
        recovery = _recovery(run)
        scale = normalisation(recovery, demonstrations(run)) if form is Form.NORMALISED else None
        return cls(form, recovery, scale)

    def __call__(self, batch: Batch) -> tuple[torch.Tensor, Recovered]:
        """The rewards in the form asked for, (B,), and all that is known of them."""
        found = self.recovery(batch)
        if self.form is Form.IMPLICIT:
            return found.rewards, found
        return found.canonical if self.scale is None else self.scale(found.canonical), found


def demonstrations(run: RunFolder, most: int = DEMONSTRATED_TRANSITIONS) -> Batch:
    """The transitions that a run learnt from as its expert's, evenly thinned to `most`; their rewards are not read.

    Raises RunError where the dataset has changed since.
    """
    table = open_dataset(run.config.dataset)
    if table.info.sha256 != run.manifest["dataset"]["sha256"]:
        raise RunError(f"{run.config.dataset} has changed since the run was trained", "fetch the original data again")
    rows = rows_of_episodes(table.episodes[run.split["expert_episodes"]], run.config.subsample)
    chosen = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(int))]
    return TransitionSampler(table, chosen, torch.device("cpu")).gather(torch.arange(len(chosen)))


def _recovery(run: RunFolder) -> Recovery:
    algorithm = run.config.algorithm
    if not isinstance(algorithm, IQConfig):
        raise RunError(
            f"{run.manifest['run']} was trained by {run.config.method}, which learns no reward",
            "use a run of --method iq",
        )
    absorbing = absorbing_value_of(run)
    if isinstance(algorithm, DiscreteIQConfig):
        return DiscreteRecovery(discrete_networks_of(run), algorithm, absorbing)
    assert isinstance(algorithm, ContinuousIQConfig)
    noise = generator(run.config.seed, Stream.REWARD)
    return ContinuousRecovery(continuous_networks_of(run), algorithm, noise, absorbing)

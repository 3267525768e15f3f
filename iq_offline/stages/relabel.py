"""relabel: a dataset with a run's recovered reward in place of the recorded one."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from iq_offline.data.reading import Format
from iq_offline.data.split import rows_with_successors
from iq_offline.data.table import TransitionTable
from iq_offline.errors import ConfigError
from iq_offline.stages.convert import ConvertRequest, Relabelling, convert_dataset
from iq_offline.stages.rewarder import Form, Rewarder, form_of, task_table, task_tables
from iq_offline.training.batches import TransitionSampler
from iq_offline.training.run_folder import RunFolder

CHUNK = 8192


@dataclass(frozen=True)
class RelabelRequest:
    """What the command line asks of a relabelling.

    `fitted_to`: what the linear form is fitted to beside the demonstrations; the dataset itself if none.
    """

    dataset: str
    to: Path
    format: str = Format.MINARI
    form: str = Form.NORMALISED
    fitted_to: tuple[str, ...] = ()


def relabel_dataset(
    run: RunFolder, request: RelabelRequest, advance: Callable[[int], None] = lambda _: None
) -> dict[str, Any]:
    """Write the dataset with recovered rewards, read back and compared; returns its provenance.

    The provenance names the run, the form, the hashes of the policy and of the rewards, and how many last steps had no
    recorded successor: these take the reward of the step before. Raises what `convert` and `reward` raise.
    """
    if request.format not in (Format.MINARI, Format.D4RL):
        raise ConfigError(f"relabel writes no {request.format}", "give --format minari or --format d4rl")
    form = form_of(request.form)
    torch.set_num_threads(run.config.threads)
    table = task_table(run, request.dataset)
    if request.fitted_to and form is not Form.LINEAR:
        raise ConfigError(f"--form {form} is fitted to nothing here", "leave --fitted-to out, or give --form linear")
    fitted_to = task_tables(run, request.fitted_to) if request.fitted_to else [table]
    rewarder = Rewarder.exactly(run, form, fitted_to)
    rewards, repeated = _rewards(table, rewarder)
    record = {
        **{key: run.manifest[key] for key in ("run", "config_hash", "checkpoint_sha256")},
        "form": str(form),
        "scale": None if rewarder.scale is None else [rewarder.scale.uniform, rewarder.scale.demonstrated],
        "steps_without_successor": repeated,
        "rewards_sha256": hashlib.sha256(rewards[table.transition_rows].tobytes()).hexdigest(),
    }
    if rewarder.linear is not None:
        record["fitted_to"] = [{"dataset": one.info.name, "sha256": one.info.sha256} for one in fitted_to]
    episodes = zip(*(table.episodes[name].to_list() for name in ("start_row", "steps")), strict=True)
    relabelling = Relabelling([rewards[first : first + count] for first, count in episodes], record)
    wanted = ConvertRequest(output_format=request.format)
    return convert_dataset(request.dataset, request.to, wanted, advance, relabelling)


def _rewards(table: TransitionTable, rewarder: Rewarder) -> tuple[NDArray[np.float64], int]:
    """Rewards by row of the table, and how many steps had to take that of the step before (or zero, if alone)."""
    rows = rows_with_successors(table)
    sampler = TransitionSampler(table, rows, torch.device("cpu"))
    found = np.full(len(table.rows), np.nan)
    for place in torch.split(torch.arange(len(rows)), CHUNK):
        found[rows[place.numpy()]] = rewarder(sampler.gather(place))[0].double().numpy()
    steps = table.transition_rows
    missing = steps[np.isnan(found[steps])]
    starts = set(table.episodes["start_row"].to_list())
    for row in missing:
        found[row] = 0.0 if int(row) in starts else found[row - 1]
    return found, len(missing)

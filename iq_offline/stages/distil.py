"""distil: an explicit reward r(s, a[, s']), fitted to a run's recovered one."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from iq_offline.algorithms.noise import Stream, generator
from iq_offline.algorithms.reward_model import RewardInputs, RewardModel
from iq_offline.baselines.sources import Pool, drawn
from iq_offline.data.files import whole_file
from iq_offline.data.split import rows_with_successors
from iq_offline.data.table import TransitionTable
from iq_offline.errors import ConfigError, did_you_mean
from iq_offline.stages.rewarder import Form, Rewarder, form_of, task_tables
from iq_offline.training import run_folder
from iq_offline.training.batches import TransitionSampler
from iq_offline.training.run_folder import RunFolder
from iq_offline.training.tensor_files import tensor_bytes

CPU = torch.device("cpu")
HELD_OUT = 10
"""Every so many-th episode is not fitted: the explained variance is measured there."""
CHUNK = 8192
HIDDEN = (256, 256)
BATCH_SIZE = 256
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 1e-3


@dataclass(frozen=True)
class DistilRequest:
    """What the command line asks: data (the run's own if none), what the reward sees, the form, and how long."""

    datasets: tuple[str, ...] = ()
    inputs: str = RewardInputs.SA
    form: str = Form.NORMALISED
    updates: int = 5000


@dataclass(frozen=True)
class _Part:
    """One dataset's transitions and their recovered rewards, (N,); which episodes are held out."""

    sampler: TransitionSampler
    rewards: torch.Tensor
    held_out: torch.Tensor


def distil_reward(run: RunFolder, request: DistilRequest, on_update: Callable[[int], None]) -> dict[str, Any]:
    """Fit the explicit reward and write it into the run folder; returns how well it fits, on episodes held out.

    Writes reward_model.safetensors and reward_model.json. Raises RunError for a method that learns no reward,
    ConfigError for what does not fit.
    """
    if request.inputs not in list(RewardInputs):
        raise ConfigError(f"--inputs {request.inputs} is unknown", did_you_mean(request.inputs, RewardInputs))
    form = form_of(request.form)
    if form is Form.DISTILLED:
        raise ConfigError("a reward is not distilled from itself", "name another --form")
    policy = run.policy()
    if policy.layout.pictures:
        raise ConfigError("pictures are not distilled", "use the recovered reward itself: iq-offline relabel")
    torch.set_num_threads(run.config.threads)
    tables = task_tables(run, request.datasets)
    rewarder = Rewarder.exactly(run, form, tables)
    parts = [_part(table, rewarder) for table in tables]
    model = RewardModel(policy, RewardInputs(request.inputs), HIDDEN)
    _fit(model, parts, request.updates, run.config.seed, on_update)
    report = {
        "run": run.manifest["run"],
        "inputs": str(model.inputs),
        "form": str(form),
        "updates": request.updates,
        "fitted": _explained(model, parts, held_out=False),
        "held_out": _explained(model, parts, held_out=True),
    }
    header = {"inputs": str(model.inputs), "hidden": json.dumps(model.hidden)}
    with whole_file(run.path / run_folder.REWARD_MODEL) as temporary:
        temporary.write_bytes(tensor_bytes(model.state_dict(), header))
    run_folder.seal_record(run.path / run_folder.REWARD_MODEL_REPORT, report)
    return report


def _part(table: TransitionTable, rewarder: Rewarder) -> _Part:
    rows = rows_with_successors(table)
    sampler = TransitionSampler(table, rows, CPU)
    rewards = torch.cat([rewarder(sampler.gather(place))[0] for place in torch.split(torch.arange(len(rows)), CHUNK)])
    number = table.episode_numbers(rows)
    return _Part(sampler, rewards, torch.from_numpy(number % HELD_OUT == HELD_OUT - 1))


def _fit(model: RewardModel, parts: list[_Part], updates: int, seed: int, on_update: Callable[[int], None]) -> None:
    pool = Pool([part.sampler for part in parts], CPU)
    rewards, held_out = (torch.cat([getattr(part, name) for part in parts]) for name in ("rewards", "held_out"))
    fitted = (~held_out).double().numpy()
    model.mean.copy_(rewards[~held_out].mean())
    model.std.copy_(rewards[~held_out].std().clamp_min(1e-6))
    model.initialise(generator(seed, Stream.DISTILLED))
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, updates)
    draws = drawn(len(pool), BATCH_SIZE, generator(seed, Stream.DISTILLED_BATCHES), fitted)
    for step in range(updates):
        positions = next(draws)
        optimiser.zero_grad(set_to_none=True)
        model.loss(pool.gather(positions), rewards[positions]).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        on_update(step + 1)


@torch.no_grad()
def _explained(model: RewardModel, parts: list[_Part], *, held_out: bool) -> dict[str, float | int | None]:
    """Share of the recovered rewards' variance that the model explains; None without two transitions."""
    found, true = [], []
    for part in parts:
        chosen = torch.nonzero(part.held_out if held_out else ~part.held_out).squeeze(-1)
        found += [model(part.sampler.gather(place)) for place in torch.split(chosen, CHUNK)]
        true.append(part.rewards[chosen])
    rewards, n = torch.cat(true).double(), sum(len(part) for part in true)
    if n < 2 or float(rewards.std()) == 0:
        return {"r2": None, "n": n}
    error = (torch.cat(found).double() - rewards).square().mean() / rewards.var(correction=0)
    return {"r2": float(1 - error), "n": n}

"""export: a run's policy as one file that runs without this package, checked before it gets its name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from iq_offline.data.files import sha256_of_file, whole_file
from iq_offline.errors import ConfigError, DatasetError
from iq_offline.export.check import Observations, compare, random_observations
from iq_offline.export.formats import codec, format_of, raw_observations
from iq_offline.stages.fetch import open_dataset
from iq_offline.training.batches import TransitionSampler
from iq_offline.training.run_folder import RunFolder

RECORDED_OBSERVATIONS = 1024


def export_run(
    run: RunFolder, to: Path, asked: str | None, warn: Callable[[str], None], *, overwrite: bool = False
) -> dict[str, Any]:
    """Write the run's policy to `to`; the file appears once it gives the original's actions.

    The format is the one asked for, else that of the file's suffix. Where the run's data cannot be read any more, a
    warning says so and random observations have to do.
    Raises ConfigError for an unknown format and for a file that is there, PackageMissing, and RunError where the
    actions differ.
    """
    if to.exists() and not (overwrite or to.is_dir()):
        raise ConfigError(f"{to} exists", "name another file with --to, or give --overwrite to replace it")
    kind = format_of(to, asked)
    form, policy = codec(kind), run.policy()
    checked = {"random": random_observations(policy), "recorded": _recorded(run, warn)}
    with whole_file(to) as temporary:
        temporary.write_bytes(form.write(policy, _facts(run)))
        act = form.run(temporary.read_bytes())
        agreements = {name: compare(policy, act, seen) for name, seen in checked.items() if len(seen)}
    return {
        "run": run.manifest["run"],
        "file": str(to),
        "format": str(kind),
        "bytes": to.stat().st_size,
        "sha256": sha256_of_file(to),
        "checked": {name: len(seen) for name, seen in checked.items()},
        "largest_difference": max(agreement.largest_difference for agreement in agreements.values()),
    }


def _facts(run: RunFolder) -> dict[str, Any]:
    """What travels inside the file: where the policy is from, and what it takes."""
    policy = run.policy()
    return {
        "run": run.manifest["run"],
        "method": run.manifest["method"],
        "dataset": run.manifest["dataset"]["name"],
        "policy_sha256": run.manifest["policy_sha256"],
        "observation_numbers": policy.layout.vector,
        "observation_pictures": policy.layout.pictures,
        "observation_categories": policy.layout.categories,
        "observation_dtype": "float64" if policy.layout.offset else "float32",
    }


def _recorded(run: RunFolder, warn: Callable[[str], None]) -> Observations:
    """Observations of the run's own data, evenly spread; none where they are gone or are another task's."""
    policy = run.policy()
    size = len(policy.observation_mean)
    try:
        table = open_dataset(run.config.dataset)
    except DatasetError as error:
        warn(f"{error.problem}; checked on random observations alone")
        return np.zeros((0, size), dtype=np.float32)
    if table.offset != policy.layout.offset and table.observation_size == policy.layout.vector:
        table = table.less(policy.layout.offset)
    starts, steps = table.episodes["start_row"].to_numpy(), table.episodes["steps"].to_numpy()
    rows = np.concatenate([np.arange(start, start + count) for start, count in zip(starts, steps, strict=True)])
    spread = rows[np.linspace(0, len(rows) - 1, min(len(rows), RECORDED_OBSERVATIONS)).astype(int)]
    sampler = TransitionSampler(table, spread, torch.device("cpu"))
    observations = sampler.gather(torch.arange(len(spread))).observations.contiguous().numpy()
    if observations.shape[1] != size:
        warn(f"{run.config.dataset} is another task's data by now; checked on random observations alone")
        return np.zeros((0, size), dtype=np.float32)
    return raw_observations(policy, observations)

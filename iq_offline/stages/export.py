"""export: a run's policy as one file that runs without this package, checked before it gets its name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from iq_offline.data.files import sha256_of_file, whole_file
from iq_offline.data.table import rows_of_episodes
from iq_offline.errors import ConfigError, DatasetError
from iq_offline.export.check import Observations, compare, random_observations
from iq_offline.export.formats import codec, format_of, raw_observations
from iq_offline.stages.fetch import open_dataset
from iq_offline.training.batches import evenly_spread
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
        differences = [compare(policy, act, seen) for seen in checked.values() if len(seen)]
    return {
        "run": run.manifest["run"],
        "file": str(to),
        "format": str(kind),
        "bytes": to.stat().st_size,
        "sha256": sha256_of_file(to),
        "checked": {name: len(seen) for name, seen in checked.items()},
        "largest_difference": max(differences),
    }


def _facts(run: RunFolder) -> dict[str, Any]:
    """What travels inside the file: where the policy is from, and what it takes."""
    policy = run.policy()
    return {
        **{key: run.manifest[key] for key in ("run", "method", "policy_sha256")},
        "dataset": run.manifest["dataset"]["name"],
        "observation_numbers": policy.layout.vector,
        "observation_pictures": policy.layout.pictures,
        "observation_categories": policy.layout.categories,
        "observation_dtype": "float64" if policy.layout.offset else "float32",
    }


def _recorded(run: RunFolder, warn: Callable[[str], None]) -> Observations:
    """Observations of the run's own data, evenly spread; none where they are gone or are another task's."""
    policy = run.policy()
    none = np.zeros((0, len(policy.observation_mean)), dtype=np.float32)
    try:
        table = open_dataset(run.config.dataset)
    except DatasetError as error:
        warn(f"{error.problem}; checked on random observations alone")
        return none
    if table.offset != policy.layout.offset and table.observation_size == policy.layout.vector:
        table = table.less(policy.layout.offset)
    rows = rows_of_episodes(table.episodes, subsample=1)
    batch = evenly_spread(table, rows, RECORDED_OBSERVATIONS, torch.device("cpu"))
    observations = batch.observations.contiguous().numpy()
    if observations.shape[1] != none.shape[1]:
        warn(f"{run.config.dataset} is another task's data by now; checked on random observations alone")
        return none
    return raw_observations(policy, observations)

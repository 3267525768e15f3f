"""The Python API: each function does what the command of the same name does, through the same stage.

`iq_offline` exports these names and imports this module when the first of them is used. A mistake raises `UserError`,
whose message ends with a remedy. What a command prints as a warning is a `UserWarning` here.
"""

import json
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from iq_offline import console
from iq_offline.data.observations import Leaves, flattened, from_leaves, leaves, less, map_leaves
from iq_offline.data.spaces import DiscreteActions
from iq_offline.errors import ConfigError

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure

    from iq_offline.data.table import TransitionTable
    from iq_offline.training.loop import Progress
    from iq_offline.training.run_folder import RunFolder

Array = NDArray[Any]


@dataclass(frozen=True, repr=False)
class Dataset:
    """Recorded episodes, as `load_dataset` returns them.

    The arrays have a row per step, episode after episode, and are read from disk at each access.
    """

    source: str
    """The id, URL or absolute path that names the dataset."""
    _table: "TransitionTable" = field(compare=False)

    def __repr__(self) -> str:
        return f"Dataset({self.name!r}, {len(self.episodes)} episodes, {self.steps} steps)"

    @property
    def name(self) -> str:
        """The catalogue id, or the name of the file or folder."""
        return self._table.info.name

    @property
    def env_id(self) -> str | None:
        """The Gymnasium environment that policies are evaluated in; None where the dataset names none."""
        return self._table.info.env_id

    @property
    def steps(self) -> int:
        """The number of transitions N."""
        return self._table.steps

    @property
    def episodes(self) -> "pl.DataFrame":
        """One row per episode: number, steps, return, and whether it was terminated or truncated."""
        return self._table.episodes.select("episode", "steps", "return", "terminated", "truncated")

    @property
    def observations(self) -> Array:
        """Observations at which the recorded actions were taken, shape (N, D).

        The arrays of a dictionary observation lie side by side in the order of their names. Raises ConfigError for
        observations with pictures.
        """
        if self._table.pictures:
            raise ConfigError(f"the observations of {self.name} hold pictures", "read them with Minari or h5py")
        values, offset = self._table.observations(self._table.transition_rows), self._table.offset
        return values + np.array(offset) if offset else values

    @property
    def actions(self) -> Array:
        """Recorded actions: shape (N, A) for continuous actions, whole numbers of shape (N,) for discrete ones."""
        actions = self._table.actions(self._table.transition_rows)
        return actions[:, 0].astype(np.int64) if isinstance(self._table.action_space, DiscreteActions) else actions

    @property
    def rewards(self) -> Array:
        """Recorded rewards, shape (N,). No imitation method reads them."""
        return self._table.rewards(self._table.transition_rows)

    def summary(self) -> dict[str, Any]:
        """Counts, ranges, returns, duplicates, notes and defects: the object of `iq-offline inspect --json`."""
        from iq_offline.data.summary import summarise

        return summarise(self._table)


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Simulated returns of one policy."""

    env_id: str
    return_mean: float
    return_std: float
    """Population standard deviation over episodes."""
    length_mean: float
    """Steps per episode."""
    score: float | None
    """`return_mean` from 0 (random) to 100 (expert) of `reference`; None without a reference."""
    reference: str | None
    """The table that the score refers to: d4rl, minari or dataset."""
    episodes: "pl.DataFrame"
    """One row per simulated episode: episode, seed, length, return."""

    def __repr__(self) -> str:
        score = "" if self.score is None else f", score={self.score:.1f} ({self.reference})"
        return (
            f"Evaluation({self.env_id!r}, {len(self.episodes)} episodes, return={self.return_mean:.1f} ± "
            f"{self.return_std:.1f}{score})"
        )


@dataclass(frozen=True, repr=False)
class RewardComparison:
    """A run's recovered reward beside the true reward of recorded data."""

    pearson: float | None
    """Correlation of recovered and true reward over transitions; None where either is constant."""
    episode_pearson: float | None
    """The same over episodes, rewards summed over each episode's steps."""
    linear_baseline: float | None
    """The transition correlation of the linear cloning baseline, which knows the cloned policy but no dynamics; None
    where the form is not linear."""
    reading: str
    """What the numbers mean, in words."""
    transitions: "pl.DataFrame"
    """One row per transition: source, episode, step, true, recovered, and the baselines' rewards."""
    report: Mapping[str, Any]
    """Everything measured: the object of `iq-offline reward --json`."""

    def __repr__(self) -> str:
        shown = "undefined" if self.pearson is None else f"{self.pearson:.3f}"
        return f"RewardComparison(pearson={shown}, {self.reading!r})"


class Comparison(NamedTuple):
    """What `compare` returns: `table, figure = iq.compare(runs)`."""

    table: "pl.DataFrame"
    """One row per dataset, method, demonstrations and settings: mean return, interquartile mean, 95 % interval, score
    and reward correlations over seeds."""
    figure: "Figure"
    """Returns of every group, one panel per dataset."""


@dataclass(frozen=True, repr=False)
class Run:
    """A finished training run in its folder, as `train` and `load_run` return it."""

    path: Path
    _folder: "RunFolder" = field(compare=False)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def method(self) -> str:
        """The method that trained it."""
        return str(self._folder.manifest["method"])

    @property
    def dataset(self) -> str:
        """The name of the dataset that the demonstrations are from."""
        return str(self._folder.manifest["dataset"]["name"])

    @property
    def seed(self) -> int:
        """The training seed."""
        return int(self._folder.manifest["seed"])

    @property
    def config(self) -> dict[str, Any]:
        """Every setting of the run, as its config.toml has it; a setting that is off is None."""
        return self._folder.config.model_dump(mode="json")

    @property
    def metrics(self) -> "pl.DataFrame":
        """Training metrics: one row per logged step, null where a metric was not logged."""
        return self._folder.table("metrics.parquet")

    def evaluate(
        self,
        episodes: int = 20,
        *,
        env_id: str | None = None,
        env_kwargs: Mapping[str, Any] | None = None,
        video: str | Path | None = None,
        show_progress: bool = True,
    ) -> Evaluation:
        """Simulate the policy, with the same episode seeds for every run, and write the returns into the run folder.

        `env_id`, `env_kwargs`: another environment than the dataset's. `video`: an .mp4 file for the first episode.
        Raises RunError where no environment is known, and EnvironmentMissing where it is not installed.
        """
        from iq_offline.stages.eval import EvalRequest, evaluate_run

        _check_positive("episodes", episodes)
        request = EvalRequest(
            episodes, env_id, None if env_kwargs is None else dict(env_kwargs), Path(video).resolve() if video else None
        )
        with _progress(self.path.name, "episodes", episodes, show=show_progress) as advance:
            result = evaluate_run(self._folder, request, advance, _warn)
        keys = ("env_id", "return_mean", "return_std", "length_mean", "score", "reference")
        return Evaluation(**{key: result[key] for key in keys}, episodes=self._folder.table("returns.parquet"))

    def reward(self, *datasets: "Dataset | str | Path", form: str = "linear") -> RewardComparison:
        """Compare the recovered reward with the true reward of `datasets`; the run's own datasets if none are given.

        `form`: linear, normalised, canonical, implicit or distilled (`iq-offline reward --help` describes them).
        Writes the rewards and a plot into the run folder. Raises RunError for a method that learns no reward.
        """
        from iq_offline.evaluation.correlation import reading
        from iq_offline.stages.reward import RewardRequest, recover_reward

        named = tuple(map(_source, datasets))
        _bring(*named)
        report = recover_reward(self._folder, RewardRequest(named, form), lambda _: None, _warn)
        return RewardComparison(
            pearson=report["transition"]["pearson"],
            episode_pearson=report["episode"]["pearson"],
            linear_baseline=report.get("null_linear", {}).get("pearson"),
            reading=reading(report),
            transitions=self._folder.table("rewards.parquet"),
            report=report,
        )


class Policy:
    """A trained policy on numpy arrays, as `load_policy` returns it."""

    def __init__(self, folder: "RunFolder") -> None:
        from iq_offline.evaluation.actor import batch_actor
        from iq_offline.evaluation.simulation import LOCK_STEP

        policy = folder.policy()
        self.path = folder.path
        self._act, self._rows = batch_actor(policy, LOCK_STEP), LOCK_STEP
        self._size, self._offset = len(policy.observation_mean), np.array(policy.layout.offset)
        self._pictures = bool(policy.layout.pictures)

    def __repr__(self) -> str:
        return f"Policy({str(self.path)!r})"

    def predict(self, observation: Any) -> Array:
        """Return the deterministic action for one observation, or one action per row for a batch.

        `observation`: as the environment gives it, an array or a dictionary of arrays; a batch has one more dimension
        in front. Continuous actions have shape (A,) or (n, A) and are in the environment's units; discrete actions
        are whole numbers. Raises ConfigError where the number of values is not that of the training data.
        """
        values, is_batch = self._values(observation)
        chunks = [self._actions(values[first : first + self._rows]) for first in range(0, len(values), self._rows)]
        actions: Array = np.concatenate(chunks) if chunks else self._actions(values)
        return actions if is_batch else actions[0]

    def _actions(self, values: Array) -> Array:
        """At most as many rows as evaluation steps together: the arithmetic of each row is then evaluation's."""
        padded = np.zeros((self._rows, self._size), np.float32)
        padded[: len(values)] = values
        return self._act(padded)[: len(values)]

    def _values(self, observation: Any) -> tuple[Array, bool]:
        """What the network takes, (n, D), and whether a batch was given."""
        arrays = leaves(observation)
        count = self._batch_size(arrays)
        if list(arrays) == [""] and not self._pictures:
            array = arrays[""].reshape(1 if count is None else count, self._size)
            return less(array, self._offset) if len(self._offset) else array.astype(np.float32), count is not None
        if count is None:
            return flattened(observation, self._offset)[None], False
        rows = [flattened(from_leaves(_row(arrays, number)), self._offset) for number in range(count)]
        return np.array(rows, np.float32).reshape(count, self._size), True

    def _batch_size(self, arrays: Leaves) -> int | None:
        """How many observations there are; None for a single one. Raises ConfigError for any other number of values."""
        numbers = [array for array in arrays.values() if array.dtype.kind not in "US"]
        total, leading = sum(array.size for array in numbers), {array.shape[:1] for array in numbers}
        if len(leading) == 1 and leading != {()}:
            count = int(numbers[0].shape[0])
            deep = all(array.ndim > 1 for array in numbers)
            if total == count * self._size and (count > 1 or deep):
                return count
        if total == self._size:
            return None
        shapes = ", ".join(str(array.shape) for array in numbers)
        raise ConfigError(
            f"an observation of this policy has {self._size} numbers, and the shape given is {shapes}",
            "give one observation, or a batch with one observation per row",
        )


def load_dataset(name: str | Path) -> Dataset:
    """Open a dataset; fetch and verify it first if it is not on this machine.

    `name`: a D4RL name (`hopper-expert-v2`), a Minari id (`mujoco/hopper/expert-v0`), any other id that
    `iq-offline datasets` lists, a URL, or the path of a file or a Minari folder. Raises UserError for a dataset that
    cannot be found or read.
    """
    from iq_offline.stages.fetch import open_dataset

    source = _source(name)
    _bring(source)
    return Dataset(source, open_dataset(source))


def train(
    dataset: Dataset | str | Path,
    method: str = "iq",
    *,
    demos: int | None = None,
    subsample: int = 1,
    subsample_from: str = "first",
    select: str = "random",
    held_out: float | None = None,
    supplementary: Sequence[Dataset | str | Path] = (),
    seed: int = 0,
    updates: int | None = None,
    encoder: str = "nature",
    shift: int = 0,
    environment_steps: int | None = None,
    start_from: "Run | str | Path | None" = None,
    preset: str | None = None,
    settings: Mapping[str, Any] | None = None,
    device: str = "auto",
    threads: int = 1,
    compile: str = "auto",
    out: str | Path | None = None,
    keep_replay: str | Path | None = None,
    group: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    show_progress: bool = True,
) -> Run:
    """Train a policy from demonstrations and write its run folder.

    `dataset`: the demonstrations, opened or by name. `method`: a name that `iq-offline methods` lists.
    `demos`: the number of expert episodes; all by default. `subsample`: keep every k-th transition of an episode,
    from its `first` step or a `random` one (`subsample_from`). `select`: `random` episodes, or those of the `top`
    return. `held_out`: the share of episodes, between 0 and 1, that only the cloning loss is measured on.
    `supplementary`: reward-free datasets of any quality.
    `seed`: chooses the demonstrations, the initial weights and the batches. `updates`: gradient updates.
    `encoder`: of pictures, `nature` or `impala`. `shift`: pixels by which each batch's pictures are moved at random.
    `environment_steps`: steps that `iq-online` acts in the environment. `start_from`: a run of bc or iq whose policy it
    starts from. `keep_replay`: where to write what it experienced, as a dataset.
    `preset`: settings by name (`quick`, `reward`) or a TOML file. `settings`: values by dotted key,
    as in `{"temperature": 0.5, "prior.updates": 2000}`; `iq-offline methods NAME` lists the keys.
    `device`: auto, cpu or cuda. `threads`: of the processor; one makes runs repeatable. `compile`: auto, on or off.
    `out`: the run folder; a new folder in the store by default. `group`: the comparison in MLflow.
    `resume`: continue an interrupted run, or return the finished one; `overwrite`: replace it.

    The same arguments give the same tensors on the same machine. Raises UserError for what does not fit, and
    TrainingDiverged.
    """
    from iq_offline.stages.train import RunOptions, status, train_config, train_run

    source, others = _source(dataset), [_source(one) for one in supplementary]
    _bring(source, *others)
    overrides = [f"{key}={_text(value)}" for key, value in (settings or {}).items()]
    config = train_config(
        *(source, method, preset, updates, overrides, _warn, environment_steps),
        start_from=None if start_from is None else str(start_from.path if isinstance(start_from, Run) else start_from),
        demos=demos,
        subsample=subsample,
        subsample_from=subsample_from,
        select=select,
        held_out=held_out,
        supplementary=others,
        seed=seed,
        device=device,
        threads=threads,
        compile=compile,
        encoder=encoder,
        shift=shift,
    )
    replay = Path(keep_replay) if keep_replay else None
    options = RunOptions(Path(out) if out else None, group, overwrite, resume, keep_replay=replay)
    with _progress(f"{config.method} seed {seed}", "updates", show=show_progress) as advance:

        def tell(progress: "Progress | str") -> None:
            now = status(config, progress)
            advance(now.step, now.note, phase=now.phase, total=now.total)

        folder = train_run(config, options, tell, _warn)
    return Run(folder.path, folder)


def load_run(path: "Run | str | Path") -> Run:
    """Open a run folder, or a folder that holds exactly one run at any depth.

    Raises RunError where there is none, or more than one.
    """
    from iq_offline.training.run_folder import find_run

    if isinstance(path, Run):
        return path
    folder = find_run(Path(path))
    return Run(folder.path, folder)


def load_policy(run: "Run | str | Path") -> Policy:
    """Load the policy of a run, or of a run folder.

    Raises RunError where the folder holds no run or several, or where the run is damaged.
    """
    return Policy(load_run(run)._folder)


def compare(runs: "Iterable[Run | str | Path]") -> Comparison:
    """Compare runs over seeds, as `iq-offline report` does: a table, and a figure of their returns.

    `runs`: runs, run folders, or folders that hold runs at any depth. Runs that differ only in their seed share a row.
    A run that cannot be read is left out, with a warning. Raises RunError where no run is left.
    """
    from iq_offline.report.groups import cautions, grouped
    from iq_offline.report.loading import load_runs
    from iq_offline.report.plots import returns_figure
    from iq_offline.report.tables import summary_table

    named = [runs] if isinstance(runs, Run | str | Path) else runs
    results, failures = load_runs([run.path if isinstance(run, Run) else Path(run) for run in named])
    groups = grouped(results)
    problems = [f"{one.folder}: {one.problem}" for one in (*failures, *(f for run in results for f in run.failures))]
    for text in (*problems, *cautions(groups)):
        _warn(text)
    return Comparison(summary_table(groups), returns_figure(groups))


def _source(dataset: Dataset | str | Path) -> str:
    """What names a dataset: a path that exists as it is from anywhere, all else as it is given."""
    if isinstance(dataset, Dataset):
        return dataset.source
    path = Path(dataset).expanduser()
    return str(path.resolve()) if path.exists() else str(dataset)


def _bring(*datasets: str) -> None:
    """Fetch what is not on this machine yet, with a progress bar."""
    from iq_offline.data.download import FetchOptions, fetch

    for dataset in datasets:
        with console.transfer(dataset) as advance:
            fetch(dataset, FetchOptions(tell=console.note, advance=advance))


def _row(arrays: Leaves, number: int) -> Leaves:
    return map_leaves(lambda array: array[number], arrays)


def _text(value: Any) -> str:
    """A setting's value as `--set` has it."""
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value)


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise ConfigError(f"{name}={value} is not positive", "give at least 1")


@contextmanager
def _progress(title: str, unit: str, total: int | None = None, *, show: bool) -> Iterator[console.Advance]:
    if not show:
        yield lambda *_, **__: None
        return
    with console.progress(title, unit=unit, total=total) as advance:
        yield advance


def _warn(text: str) -> None:
    """A UserWarning at the line that called this package."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).startswith("iq_offline"):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, UserWarning, stacklevel=level)

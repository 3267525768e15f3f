"""Train, recover the reward, and correlate it with true rewards that training never saw.

python -m benchmarks reward recovery FOLDER --tasks hopper,walker2d,halfcheetah --recipes iq,reward --seeds 0-4

FOLDER holds TASK-expert.hdf5, TASK-medium.hdf5, TASK-random.hdf5 and TASK-replay.hdf5. Learns from 5 whole
demonstrations of the expert alone (with `--supplementary replay`, from that too, rewards unread). Judged on the mix of
expert, medium and random, and within replay, where true returns spread widely. A recipe is a preset of `iq` or a
method. A form is one of `reward --form`; distilled-s, distilled-sa or distilled-sas, fitted to the normalised one on
all four files; or FORM@STEPS, its mean over so many steps of an episode, the step's own in the middle. The log keeps
every run; those that it holds are not made again. No simulator is asked.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.arguments import Parser, names_of
from benchmarks.markdown import mean_and_worst, table
from benchmarks.run_log import append, is_logged, runs_of
from iq_offline.evaluation.correlation import reward_report
from iq_offline.stages.distil import DistilRequest, distil_reward
from iq_offline.stages.reward import RewardRequest, recover_reward
from iq_offline.stages.rewarder import Form
from iq_offline.stages.train import RunOptions, train_config, train_run
from iq_offline.training.run_folder import RunFolder

MIX = ("expert", "medium", "random")
FIGURES = {
    "mix transition": ("mix", "transition", "pearson"),
    "null: clone": ("mix", "null_bc", "pearson"),
    "null: clone, linear": ("mix", "null_linear", "pearson"),
    "mix episode": ("mix", "episode", "pearson"),
    "null: clone, episode": ("mix", "null_bc", "episode", "pearson"),
    "null: length": ("mix", "null_length", "pearson"),
    "replay transition": ("replay", "transition", "pearson"),
    "replay episode": ("replay", "episode", "pearson"),
    "replay null: length": ("replay", "null_length", "pearson"),
    "replay null: clone": ("replay", "null_bc", "episode", "pearson"),
    "replay null: clone, linear": ("replay", "null_linear", "episode", "pearson"),
    "replay, length out": ("replay", "length_controlled", "partial"),
    "replay ranking": ("replay", "ranking", "accuracy"),
}


def main(arguments: list[str]) -> None:
    """Run what the log lacks, then print means over seeds."""
    parser = Parser(__name__, __doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tasks", type=names_of, default="hopper,walker2d,halfcheetah")
    parser.add_argument("--recipes", type=names_of, default="iq,reward")
    parser.add_seeds("0-4")
    parser.add_argument("--demos", type=int, default=5)
    parser.add_argument(
        "--forms", type=names_of, default="linear,normalised", help="of the reward of each run, as above"
    )
    parser.add_argument("--supplementary", action="append", default=[], help="a kind, as in replay")
    parser.add_argument("--set", action="append", default=[], help="key=value, for all runs")
    parser.add_argument("--log", type=Path, default=Path("reward_recovery.jsonl"))
    options = parser.parse(arguments)
    for seed in options.seeds:
        for task in options.tasks:
            for recipe in options.recipes:
                key = {"task": task, "recipe": recipe, "seed": seed, "demos": options.demos}
                key |= {"supplementary": options.supplementary, "set": options.set}
                forms = [form for form in options.forms if not is_logged(options.log, key | {"form": form})]
                for form, found in (_run(options, task, recipe, seed, forms) if forms else {}).items():
                    append(options.log, key | {"form": form} | found)
    _print(options.log)


def _run(options: argparse.Namespace, task: str, recipe: str, seed: int, forms: list[str]) -> dict[str, dict[str, Any]]:
    files = {kind: str(options.folder / f"{task}-{kind}.hdf5") for kind in (*MIX, "replay", *options.supplementary)}
    with tempfile.TemporaryDirectory() as folder:
        config = train_config(
            files["expert"],
            preset=recipe,
            overrides=options.set,
            demos=options.demos,
            seed=seed,
            supplementary=[files[kind] for kind in options.supplementary],
        )
        run = train_run(config, RunOptions(Path(folder) / "run", tracked=False), lambda _: None, lambda _: None)
        sources = tuple(files[kind] for kind in (*MIX, "replay"))
        recovered: dict[str, pl.DataFrame] = {}
        return {form: _judged(run, sources, form, recovered) for form in forms}


def _judged(run: RunFolder, sources: tuple[str, ...], named: str, recovered: dict[str, pl.DataFrame]) -> dict[str, Any]:
    """`recovered`: what earlier forms of the run recovered by their names; grows by this one."""
    form, _, steps = named.partition("@")
    if form not in recovered:
        recovered[form] = _recovered(run, sources, form, recovered)
    transitions = recovered[form]
    if steps:
        mean = pl.col("recovered").rolling_mean(int(steps), min_samples=1, center=True)
        transitions = transitions.with_columns(mean.over("source", "episode"))
    names = transitions["source"].unique(maintain_order=True)
    replay = transitions.filter(pl.col("source") == names[-1])
    mix = transitions.filter(pl.col("source") != names[-1])
    return {"mix": reward_report(mix), "replay": reward_report(replay), "seconds": run.manifest["seconds"]}


def _recovered(run: RunFolder, sources: tuple[str, ...], named: str, others: dict[str, pl.DataFrame]) -> pl.DataFrame:
    form, _, inputs = named.partition("-")
    beside = next((other for other in others.values() if form in other.columns), None)
    if beside is not None:
        return beside.with_columns(pl.col(form).alias("recovered"))
    if form == Form.DISTILLED:
        distil_reward(run, DistilRequest(sources, inputs), lambda _: None)
    recover_reward(run, RewardRequest(sources, form), lambda _: None, lambda _: None)
    return pl.read_parquet(run.path / "rewards.parquet", glob=False)


def _print(log: Path) -> None:
    runs = runs_of(log)
    rows = []
    for task, recipe, form, beside, changed in dict.fromkeys(_group(run) for run in runs):
        own = [run for run in runs if _group(run) == (task, recipe, form, beside, changed)]
        label = " ".join([recipe, *([form] if form != "linear" else []), *([f"+ {beside}"] if beside else []), changed])
        cells = [mean_and_worst(_at(run, path) for run in own) for path in FIGURES.values()]
        rows.append([task, label.strip(), len(own), *cells])
    print(table(["task", "recipe", "seeds", *FIGURES], rows))


def _group(run: dict[str, Any]) -> tuple[str, str, str, str, str]:
    return run["task"], run["recipe"], run["form"], " ".join(run["supplementary"]), " ".join(run["set"])


def _at(found: Any, path: tuple[str, ...]) -> float | None:
    for name in path:
        found = None if found is None else found.get(name)
    return found

"""Commands that make runs: one, several seeds, a whole table; and one again."""

import ast
import math
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Exit, Option

import iq_offline
from iq_offline import console
from iq_offline.commands.arguments import Json, Run, bring
from iq_offline.errors import ConfigError
from iq_offline.methods import METHODS

MOST_SEEDS = 1000
LARGEST_SEED = 2**32 - 1


def _field_docs(module: str, name: str) -> dict[str, str]:
    """What the fields of a class say of themselves, from its source: importing it takes longer than `--help` may."""
    source = (Path(iq_offline.__file__).parent / module).read_text()
    body = next(node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == name).body
    return {
        field.target.id: str(ast.literal_eval(said.value))
        for field, said in pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(said, ast.Expr)
    }


HELP = _field_docs("config/train.py", "TrainConfig") | _field_docs("stages/train.py", "RunOptions")
"""What an option of `train` does is said once, where its field is."""


def methods(
    method: Annotated[str | None, Argument(help="One of them, for all its settings.")] = None,
    actions: Annotated[str, Option(help="continuous or discrete.")] = "continuous",
    preset: Annotated[str | None, Option(help="With these settings, as train has it.")] = None,
    json: Json = False,
) -> None:
    """List the methods; one by its name with every setting that --set takes."""
    from iq_offline.stages.methods import list_methods, method_settings

    if method is None:
        if preset is not None:
            raise ConfigError("--preset is for one method's settings", "name the method, too")
        rows = list_methods()
        if json:
            return console.show_json({"methods": rows})
        console.show_fields({row["method"]: row["about"] for row in rows})
        return console.show(f"{len(rows)} methods; iq-offline methods NAME tells every setting of one")
    told = method_settings(method, actions, preset)
    if json:
        return console.show_json(told)
    console.show(f"{told['method']}, {told['actions']} actions, [{told['table']}] in a preset's file")
    console.show(told["about"])
    console.show("* differs from the default; (...) is of a group that is off: setting a key of it turns it on")
    for setting in told["settings"]:
        console.show()
        console.show(_setting_line(setting))
        for line in setting["says"].splitlines():
            console.show(f"      {line}".rstrip())
    return None


def train(
    dataset: Annotated[str, Option(help=HELP["dataset"])],
    method: Annotated[
        str | None, Option(help=f"{', '.join(METHODS)}; iq if not given. `methods` describes each.")
    ] = None,
    preset: Annotated[
        str | None, Option(help="Settings by name (quick, reward, accept-episodes), or a TOML file.")
    ] = None,
    demos: Annotated[int | None, Option(min=1, help=HELP["demos"])] = None,
    subsample: Annotated[int, Option(min=1, help=HELP["subsample"])] = 1,
    subsample_from: Annotated[str, Option(help=HELP["subsample_from"])] = "first",
    select: Annotated[str, Option(help=HELP["select"])] = "random",
    held_out: Annotated[float | None, Option(help=HELP["held_out"])] = None,
    supplementary: Annotated[list[str] | None, Option(help=HELP["supplementary"])] = None,
    seed: Annotated[int | None, Option(min=0, max=LARGEST_SEED, help="One seed (default 0).")] = None,
    seeds: Annotated[str | None, Option(help="Several: 0-4 or 0,2,5.")] = None,
    updates: Annotated[int | None, Option(min=1, help="Gradient updates of the method.")] = None,
    overrides: Annotated[
        list[str] | None, Option("--set", help="A setting, key=value; `methods NAME` tells all.")
    ] = None,
    device: Annotated[str, Option(help=HELP["device"])] = "auto",
    threads: Annotated[int, Option(min=1, help=HELP["threads"])] = 1,
    out: Annotated[Path | None, Option(help=HELP["out"])] = None,
    group: Annotated[str | None, Option(help=HELP["group"])] = None,
    overwrite: Annotated[bool, Option("--overwrite", help=HELP["overwrite"])] = False,
    resume: Annotated[bool, Option("--resume", help=HELP["resume"])] = False,
    snapshot_seconds: Annotated[float, Option(min=0, help=HELP["snapshot_seconds"])] = 60.0,
    compiling: Annotated[str, Option("--compile", help=HELP["compile"])] = "auto",
    together: Annotated[
        bool, Option("--together", help="Batch the seeds' updates into one process: for a GPU.")
    ] = False,
    json: Json = False,
) -> None:
    """Train a policy from demonstrations and write its run folder."""
    if not math.isfinite(snapshot_seconds):
        raise ConfigError(f"--snapshot-seconds {snapshot_seconds} is no time", "give a number of seconds, such as 60")
    if held_out is not None and not 0 < held_out < 1:
        raise ConfigError(f"--held-out {held_out} is no share", "give a number between 0 and 1, such as 0.2")
    from iq_offline.stages.seeds import as_rows, train_seeds, train_together, workers_for
    from iq_offline.stages.train import RunOptions, percent, train_config, train_run

    bring(dataset, *(supplementary or ()))
    numbers = [seed or 0] if seeds is None else _seeds(seed, seeds)
    workers = 1 if device == "cuda" else workers_for(len(numbers), threads)
    if together and len(numbers) < 2:
        raise ConfigError("--together batches several seeds", "name them with --seeds 0-4, or leave --together out")
    config = train_config(
        *(dataset, method, preset, updates, overrides or (), console.warn),
        demos=demos,
        subsample=subsample,
        subsample_from=subsample_from,
        select=select,
        held_out=held_out,
        supplementary=supplementary or (),
        device=device,
        threads=threads,
        compile=compiling,
    )
    options = RunOptions(out, group, overwrite, resume, snapshot_seconds)
    runs = [
        (
            config.model_copy(update={"seed": number}),
            replace(options, out=out / f"seed-{number}") if out and seeds is not None else options,
        )
        for number in numbers
    ]
    if together or workers > 1:
        with console.bars(config.method, numbers) as advance_of:

            def tell(seed: int, percent: int, metrics: dict[str, float]) -> None:
                advance_of(seed, percent, _short(metrics))

            if together:
                folders = train_together(runs, tell, console.warn)
            else:
                folders = train_seeds(runs, workers, tell, console.warn)
    else:
        folders = []
        for config, options in runs:
            with console.progress(f"{config.method} seed {config.seed}", total=100) as advance:
                folders.append(
                    train_run(config, options, lambda p: advance(percent(p), _short(p.metrics)), console.warn)
                )
    if json:
        return console.show_json({"runs": as_rows(folders)})
    for folder in folders:
        console.show(str(folder.path))
    return None


def run(
    pipeline: Annotated[str, Argument(help="A shipped pipeline's name (demo, quick, ...), or a YAML file.")],
    cores: Annotated[int | None, Option(min=1, help="At most so many; the profile's if none.")] = None,
    profile: Annotated[str, Option(help="local, slurm, kubernetes, or a folder.")] = "local",
    dry_run: Annotated[bool, Option("--dry-run", help="Only list what would be done.")] = False,
    out: Annotated[Path | None, Option(help="The folder to work in; one of your store if none.")] = None,
    data: Annotated[Path | None, Option(help="The folder that {data} in the table stands for.")] = None,
) -> None:
    """Run a results table to its report, or go on with it where it stopped; what is finished is not done again."""
    from iq_offline.stages.run import RunRequest, run_pipeline

    request = RunRequest(pipeline, cores, profile, dry_run, out, data)
    with console.stages(pipeline) as advance:
        finished = run_pipeline(request, console.note, lambda found: advance(found.stages, found.text))
    if finished.text is not None:
        console.show(finished.text.rstrip())
    for failure in finished.failures:
        console.fail(failure)
    if finished.status:
        console.note(f"not finished; logs: {finished.folder / 'logs'}; the same command goes on from here")
        raise Exit(1)


def reproduce(
    run: Run,
    tolerance: Annotated[float, Option(min=0, help="Largest difference of a tensor; 0 is bit for bit.")] = 0.0,
    json: Json = False,
) -> None:
    """Train again from what a run recorded, and compare; exit 3 where the tensors differ by more than the tolerance."""
    from iq_offline.stages.reproduce import reproduce_run
    from iq_offline.stages.train import percent
    from iq_offline.training.run_folder import RunFolder

    if not math.isfinite(tolerance):
        raise ConfigError(f"--tolerance {tolerance} is no number", "give a largest difference, such as 1e-6")
    with console.progress(run.name, total=100) as advance:
        found = reproduce_run(RunFolder.open(run.resolve()), tolerance, lambda p: advance(percent(p), ""), console.warn)
    if json:
        console.show_json(found.to_json())
    else:
        console.show(found.sentence)
        console.show_table([] if found.bitwise else found.differences)
    if not found.reproduced:
        raise Exit(3)


def _setting_line(setting: dict[str, Any]) -> str:
    """A setting as `--set` would have it, and what it accepts."""
    text = setting["key"] if setting["value"] is None else f"{setting['key']}={setting['value']}"
    text = text if setting["is_on"] else f"({text})"
    return f"{'*' if setting['chosen'] else ' '} {text}   [{setting['accepts']}]"


def _seeds(seed: int | None, seeds: str) -> list[int]:
    if seed is not None:
        raise ConfigError("--seed and --seeds are both given", "give one of them")
    numbers: list[int] = []
    for part in seeds.split(","):
        bounds = re.fullmatch(r"([0-9]{1,10})(?:-([0-9]{1,10}))?", part)
        if bounds is None:
            raise ConfigError(f"--seeds {seeds[:100]} is not a list of seeds", "write it as 0-4 or 0,2,5")
        first, last = int(bounds[1]), int(bounds[2] or bounds[1])
        if last - first >= MOST_SEEDS or last > LARGEST_SEED:
            raise ConfigError(
                f"--seeds {part} is out of range", f"name at most {MOST_SEEDS:,} seeds, up to {LARGEST_SEED}"
            )
        numbers += range(first, last + 1)
    if not numbers or len(set(numbers)) < len(numbers):
        raise ConfigError(f"--seeds {seeds} names no seed, or one twice", "write it as 0-4 or 0,2,5")
    return numbers


def _short(metrics: dict[str, float]) -> str:
    return " ".join(f"{name} {value:.3g}" for name, value in list(metrics.items())[:1])

"""Commands that make runs: one, several seeds, a whole table; and one again."""

import ast
import math
import os
import re
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Exit, Option

import iq_offline
from iq_offline import console
from iq_offline.commands.arguments import Json, Run, bring, open_run, suggest, typed
from iq_offline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from iq_offline.stages.dry_run import StageJobs
    from iq_offline.training.loop import Progress
    from iq_offline.training.run_folder import RunFolder

DATA, METHOD, MACHINE, RESULT = "Demonstrations", "Method", "Machine", "Result"
"""Panels of the options of `train`."""
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
    method: Annotated[str | None, Argument(metavar="METHOD", help="The method to show.")] = None,
    actions: Annotated[str, Option(metavar="continuous|discrete", help="Kind of actions.")] = "continuous",
    preset: Annotated[str | None, Option(metavar="PRESET", help="Show the values with this preset.")] = None,
    json: Json = False,
) -> None:
    """List the methods, or show one with every setting that `train --set` accepts."""
    from iq_offline.stages.methods import list_methods, method_settings

    if method is None:
        if preset is not None:
            raise ConfigError("--preset needs a method", "name it: iq-offline methods METHOD --preset PRESET")
        rows = list_methods()
        if json:
            return console.show_json({"methods": rows})
        console.show_fields({row["method"]: row["about"] for row in rows})
        return console.show(f"{len(rows)} methods; `iq-offline methods METHOD` lists every setting of one")
    told = method_settings(method, actions, preset)
    if json:
        return console.show_json(told)
    console.show(f"{told['method']}, {told['actions']} actions, [{told['table']}] in a preset's file")
    console.show(told["about"])
    console.show("* differs from the default. (...) belongs to a group that is off: setting a key turns it on.")
    for setting in told["settings"]:
        console.show()
        console.show(_setting_line(setting))
        for line in setting["says"].splitlines():
            console.show(f"      {line}".rstrip())
    return None


def train(
    dataset: Annotated[str, Option(metavar="DATASET", help=HELP["dataset"], rich_help_panel=DATA)],
    method: Annotated[
        str | None,
        Option(metavar="METHOD", help="The method; `methods` lists all. (default: iq)", rich_help_panel=METHOD),
    ] = None,
    preset: Annotated[
        str | None,
        Option(
            metavar="PRESET",
            help="Settings by name (quick, reward), or a TOML file.",
            rich_help_panel=METHOD,
        ),
    ] = None,
    demos: Annotated[int | None, Option(min=1, metavar="N", help=HELP["demos"], rich_help_panel=DATA)] = None,
    subsample: Annotated[int, Option(min=1, metavar="K", help=HELP["subsample"], rich_help_panel=DATA)] = 1,
    subsample_from: Annotated[
        str, Option(metavar="first|random", help=HELP["subsample_from"], rich_help_panel=DATA)
    ] = "first",
    select: Annotated[str, Option(metavar="random|top", help=HELP["select"], rich_help_panel=DATA)] = "random",
    held_out: Annotated[float | None, Option(metavar="SHARE", help=HELP["held_out"], rich_help_panel=DATA)] = None,
    supplementary: Annotated[
        list[str] | None, Option(metavar="DATASET", help=HELP["supplementary"], rich_help_panel=DATA)
    ] = None,
    seed: Annotated[
        int | None,
        Option(min=0, max=LARGEST_SEED, metavar="N", help="One seed. (default: 0)", rich_help_panel=METHOD),
    ] = None,
    seeds: Annotated[
        str | None, Option(metavar="SEEDS", help="Several seeds: 0-4 or 0,2,5.", rich_help_panel=METHOD)
    ] = None,
    updates: Annotated[
        int | None,
        Option(
            min=1,
            metavar="N",
            help="Gradient updates of the method. Of the clone that it trains first: --set prior.updates=N.",
            rich_help_panel=METHOD,
        ),
    ] = None,
    encoder: Annotated[str, Option(metavar="nature|impala", help=HELP["encoder"], rich_help_panel=METHOD)] = "nature",
    shift: Annotated[int, Option(min=0, metavar="PIXELS", help=HELP["shift"], rich_help_panel=METHOD)] = 0,
    environment_steps: Annotated[
        int | None,
        Option(min=1, metavar="N", help="Steps that iq-online acts in the environment.", rich_help_panel=METHOD),
    ] = None,
    start_from: Annotated[str | None, Option(metavar="RUN", help=HELP["start_from"], rich_help_panel=METHOD)] = None,
    overrides: Annotated[
        list[str] | None,
        Option("--set", metavar="KEY=VALUE", help="A setting; `methods NAME` lists all.", rich_help_panel=METHOD),
    ] = None,
    device: Annotated[str, Option(metavar="auto|cpu|cuda", help=HELP["device"], rich_help_panel=MACHINE)] = "auto",
    threads: Annotated[int, Option(min=1, metavar="N", help=HELP["threads"], rich_help_panel=MACHINE)] = 1,
    out: Annotated[Path | None, Option(metavar="FOLDER", help=HELP["out"], rich_help_panel=RESULT)] = None,
    keep_replay: Annotated[
        Path | None, Option(metavar="DEST", help=HELP["keep_replay"], rich_help_panel=RESULT)
    ] = None,
    group: Annotated[str | None, Option(metavar="NAME", help=HELP["group"], rich_help_panel=RESULT)] = None,
    overwrite: Annotated[bool, Option("--overwrite", help=HELP["overwrite"], rich_help_panel=RESULT)] = False,
    resume: Annotated[bool, Option("--resume", help=HELP["resume"], rich_help_panel=RESULT)] = False,
    snapshot_seconds: Annotated[
        float, Option(min=0, metavar="SECONDS", help=HELP["snapshot_seconds"], rich_help_panel=RESULT)
    ] = 60.0,
    compiling: Annotated[
        str, Option("--compile", metavar="auto|on|off", help=HELP["compile"], rich_help_panel=MACHINE)
    ] = "auto",
    together: Annotated[
        bool, Option("--together", help="Batch the seeds' updates in one process, for a GPU.", rich_help_panel=MACHINE)
    ] = False,
    json: Annotated[
        bool, Option("--json", help="Print one JSON object and nothing else.", rich_help_panel=RESULT)
    ] = False,
) -> None:
    """Train a policy from demonstrations and write its run folder."""
    if not math.isfinite(snapshot_seconds):
        raise ConfigError(f"--snapshot-seconds {snapshot_seconds} is no time", "give a number of seconds, such as 60")
    if held_out is not None and not 0 < held_out < 1:
        raise ConfigError(f"--held-out {held_out} is no share", "give a number between 0 and 1, such as 0.2")
    from iq_offline.stages.seeds import as_rows, once, train_seeds, train_together, workers_for
    from iq_offline.stages.train import RunOptions, Status, status, stays_at_clone, train_config, train_run

    bring(dataset, *(supplementary or ()), known_defects=True)
    numbers = [seed or 0] if seeds is None else _seeds(seed, seeds)
    workers = 1 if device == "cuda" else workers_for(len(numbers), threads)
    if together and len(numbers) < 2:
        raise ConfigError("--together batches several seeds", "name them with --seeds 0-4, or leave --together out")
    warn = once(console.warn)
    config = train_config(
        *(dataset, method, preset, updates, overrides or (), warn, environment_steps),
        start_from=start_from,
        demos=demos,
        subsample=subsample,
        subsample_from=subsample_from,
        select=select,
        held_out=held_out,
        supplementary=supplementary or (),
        device=device,
        threads=threads,
        compile=compiling,
        encoder=encoder,
        shift=shift,
    )
    if keep_replay is not None and len(numbers) > 1:
        raise ConfigError("--keep-replay names one dataset, and several seeds are given", "give one --seed")
    options = RunOptions(out, group, overwrite, resume, snapshot_seconds, keep_replay=keep_replay)
    runs = [
        (
            config.model_copy(update={"seed": number}),
            replace(options, out=out / f"seed-{number}") if out and seeds is not None else options,
        )
        for number in numbers
    ]
    folders = []
    at_once = [numbers] if together or workers > 1 else [[number] for number in numbers]
    for some in at_once:
        with console.progress(*(f"{config.method} seed {number}" for number in some), unit="updates") as advance:

            def tell(seed: int, now: Status) -> None:
                advance(now.step, now.note, phase=now.phase, total=now.total, task=some.index(seed))  # noqa: B023

            if together:
                folders += train_together(runs, tell, warn)
            elif workers > 1:
                folders += train_seeds(runs, workers, tell, warn)
            else:
                own, its_options = runs[numbers.index(some[0])]
                folders.append(train_run(own, its_options, lambda p: tell(own.seed, status(own, p)), warn))  # noqa: B023
    if json:
        return console.show_json({"runs": as_rows(folders)})
    for folder in folders:
        console.show(str(folder.path))
        if alike := stays_at_clone(folder):
            console.note(alike)
    return suggest(f"eval {' '.join(typed(path) for path in _named_together(folders, out))}")


def _named_together(folders: "Sequence[RunFolder]", out: Path | None) -> list[Path]:
    """The folder that holds all of the runs, if one was named; else each."""
    return [out.resolve()] if out else [folder.path for folder in folders]


def run(
    pipeline: Annotated[
        str | None, Argument(metavar="PIPELINE", help="A shipped pipeline's name, or a YAML file; none: list them.")
    ] = None,
    cores: Annotated[
        int | None, Option(min=1, metavar="N", help="Processor cores to use. (default: the profile's)")
    ] = None,
    profile: Annotated[str, Option(metavar="PROFILE", help="local, slurm, kubernetes, or a folder.")] = "local",
    dry_run: Annotated[bool, Option("--dry-run", help="Show what would run, and run nothing.")] = False,
    out: Annotated[
        Path | None, Option(metavar="FOLDER", help="The folder to work in. (default: one in your store)")
    ] = None,
    data: Annotated[
        Path | None, Option(metavar="FOLDER", help="The folder that {data} stands for in the YAML file.")
    ] = None,
    json: Json = False,
) -> None:
    """Run a table of experiments to its report. What is finished is not done again."""
    from iq_offline.stages.run import RunRequest, list_tables, run_pipeline

    if pipeline is None:
        rows = list_tables()
        return console.show_json({"pipelines": rows}) if json else console.show_table(rows)
    request = RunRequest(pipeline, cores, profile, dry_run, out, data)
    with console.stages(pipeline) as advance:
        finished = run_pipeline(request, console.note, lambda found: advance(found.stages, found.text))
    if json:
        jobs = [asdict(one) for one in finished.planned]
        console.show_json({"folder": str(finished.folder), "done": finished.text is not None, "planned": jobs})
    elif dry_run:
        _show_planned(finished.planned, cores or os.cpu_count() or 1)
    elif finished.text is not None:
        console.show(finished.text.rstrip())
    for failure in finished.failures:
        console.fail(failure)
    if finished.status:
        console.note(f"not finished; logs: {finished.folder / 'logs'}; the same command goes on from here")
        raise Exit(1)
    return None


def _show_planned(planned: "Sequence[StageJobs]", cores: int) -> None:
    """The jobs of each stage and about how long they take; then of all."""
    console.show_table(
        [
            {
                "stage": one.stage,
                "jobs": one.jobs,
                "a job": f"about {console.duration(one.seconds / one.jobs)}",
                "all on one core": f"about {console.duration(one.seconds)}",
            }
            for one in planned
        ]
    )
    jobs, seconds = sum(one.jobs for one in planned), sum(one.seconds for one in planned)
    console.show(
        f"{jobs} jobs, about {console.duration(seconds / cores)} on {cores} cores" if jobs else "nothing to do"
    )


def reproduce(
    run: Run,
    tolerance: Annotated[
        float, Option(min=0, metavar="X", help="Largest difference of a tensor; 0 is bit for bit.")
    ] = 0.0,
    json: Json = False,
) -> None:
    """Train a run again from its record and compare the tensors. Exit 3 if they differ by more than the tolerance."""
    from iq_offline.stages.reproduce import reproduce_run
    from iq_offline.stages.train import status

    if not math.isfinite(tolerance):
        raise ConfigError(f"--tolerance {tolerance} is no number", "give a largest difference, such as 1e-6")
    folder = open_run(run)
    with console.progress(folder.path.name, unit="updates") as advance:

        def tell(progress: "Progress | str") -> None:
            now = status(folder.config, progress)
            advance(now.step, now.note, phase=now.phase, total=now.total)

        found = reproduce_run(folder, tolerance, tell, console.warn)
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

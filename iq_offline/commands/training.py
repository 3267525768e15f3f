"""Commands that make runs: one, several seeds, a whole table; and one again."""

import math
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from iq_offline import console
from iq_offline.commands.arguments import METHODS_HELP, Json, bring
from iq_offline.errors import ConfigError

MOST_SEEDS = 1000
LARGEST_SEED = 2**32 - 1


def methods(
    method: Annotated[str | None, typer.Argument(help="One of them, for all its settings.")] = None,
    actions: Annotated[str, typer.Option("--actions", help="continuous or discrete.")] = "continuous",
    preset: Annotated[str | None, typer.Option("--preset", help="With these settings, as train has it.")] = None,
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
    dataset: Annotated[str, typer.Option("--dataset", help="A catalogue id, a Minari id, a URL or a path.")],
    method: Annotated[str | None, typer.Option("--method", help=METHODS_HELP)] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", help="Settings by name (quick, or a method's own), or a TOML file.")
    ] = None,
    demos: Annotated[int | None, typer.Option("--demos", min=1, help="Expert episodes; all if not given.")] = None,
    subsample: Annotated[int, typer.Option("--subsample", min=1, help="Keep every k-th transition.")] = 1,
    subsample_from: Annotated[
        str, typer.Option("--subsample-from", help="An episode's first step, or a random one of its first k.")
    ] = "first",
    select: Annotated[str, typer.Option("--select", help="Episodes: random, or top (by return).")] = "random",
    held_out: Annotated[
        float | None, typer.Option("--held-out", help="Share of the episodes to set aside and watch the loss on.")
    ] = None,
    supplementary: Annotated[list[str] | None, typer.Option("--supplementary", help="Reward-free extra data.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, max=LARGEST_SEED, help="One seed (default 0).")] = None,
    seeds: Annotated[str | None, typer.Option("--seeds", help="Several: 0-4 or 0,2,5.")] = None,
    updates: Annotated[int | None, typer.Option("--updates", min=1, help="Gradient updates of the method.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="A setting, key=value; `methods NAME` tells all.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads; one makes runs repeatable.")] = 1,
    out: Annotated[Path | None, typer.Option("--out", help="The run folder; with --seeds, the folder of them.")] = None,
    group: Annotated[
        str | None, typer.Option("--group", help="The comparison in MLflow to file the runs under.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run that is there.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that was cut off; train where there is none.")
    ] = False,
    snapshot_seconds: Annotated[
        float, typer.Option("--snapshot-seconds", min=0, help="Time between snapshots to resume from.")
    ] = 60.0,
    compiling: Annotated[
        str, typer.Option("--compile", help="auto (long runs), on or off: the updates as compiled code.")
    ] = "auto",
    together: Annotated[
        bool, typer.Option("--together", help="Batch the seeds' updates into one process: for a GPU.")
    ] = False,
    json: Json = False,
) -> None:
    """Train a policy from demonstrations and write its run folder."""
    if not math.isfinite(snapshot_seconds):
        raise ConfigError(f"--snapshot-seconds {snapshot_seconds} is no time", "give a number of seconds, such as 60")
    if held_out is not None and not 0 < held_out < 1:
        raise ConfigError(f"--held-out {held_out} is no share", "give a number between 0 and 1, such as 0.2")
    from iq_offline.stages.seeds import as_rows, train_seeds, train_together, workers_for
    from iq_offline.stages.train import TrainRequest, percent, train_run

    bring(dataset, *(supplementary or ()))
    requests = [
        TrainRequest(
            dataset=dataset,
            method=method,
            preset=preset,
            demos=demos,
            subsample=subsample,
            subsample_from=subsample_from,
            select=select,
            held_out=held_out,
            supplementary=tuple(supplementary or ()),
            seed=number,
            updates=updates,
            overrides=tuple(overrides or ()),
            device=device,
            threads=threads,
            out=out / f"seed-{number}" if out and several else out,
            group=group,
            overwrite=overwrite,
            resume=resume,
            compile=compiling,
            snapshot_seconds=snapshot_seconds,
        )
        for number, several in _seeds(seed, seeds)
    ]
    title = method or preset or "iq"
    workers = 1 if device == "cuda" else workers_for(len(requests), threads)
    if together and len(requests) < 2:
        raise ConfigError("--together batches several seeds", "name them with --seeds 0-4, or leave --together out")
    if together or workers > 1:
        with console.bars(title, [request.seed for request in requests]) as advance_of:

            def tell(seed: int, percent: int, metrics: dict[str, float]) -> None:
                advance_of(seed, percent, _short(metrics))

            if together:
                runs = train_together(requests, tell, console.warn)
            else:
                runs = train_seeds(requests, workers, tell, console.warn)
    else:
        runs = []
        for request in requests:
            with console.progress(f"{title} seed {request.seed}", total=100) as advance:
                runs.append(train_run(request, lambda p: advance(percent(p), _short(p.metrics)), console.warn))
    if json:
        return console.show_json({"runs": as_rows(runs)})
    for run in runs:
        console.show(str(run.path))
    return None


def run(
    pipeline: Annotated[str, typer.Argument(help="A shipped pipeline's name (demo, quick, ...), or a YAML file.")],
    cores: Annotated[int | None, typer.Option("--cores", min=1, help="At most so many; the profile's if none.")] = None,
    profile: Annotated[str, typer.Option("--profile", help="local, slurm, kubernetes, or a folder.")] = "local",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be done.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="The folder to work in; one of your store if none.")] = None,
    data: Annotated[Path | None, typer.Option("--data", help="The folder that {data} in the table stands for.")] = None,
) -> None:
    """Run a results table to its report, or go on with it where it stopped; what is finished is not done again."""
    from iq_offline.stages.run import RunRequest, run_pipeline

    finished = run_pipeline(RunRequest(pipeline, cores, profile, dry_run, out, data), console.note)
    if finished.text is not None:
        console.show(finished.text.rstrip())
    if finished.status:
        console.note(f"not finished; logs: {finished.folder / 'logs'}; the same command goes on from here")
        raise typer.Exit(1)


def reproduce(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    tolerance: Annotated[
        float, typer.Option("--tolerance", min=0, help="Largest difference of a tensor; 0 is bit for bit.")
    ] = 0.0,
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
        raise typer.Exit(3)


def _setting_line(setting: dict[str, Any]) -> str:
    """A setting as `--set` would have it, and what it accepts."""
    text = setting["key"] if setting["value"] is None else f"{setting['key']}={setting['value']}"
    text = text if setting["is_on"] else f"({text})"
    return f"{'*' if setting['chosen'] else ' '} {text}   [{setting['accepts']}]"


def _seeds(seed: int | None, seeds: str | None) -> list[tuple[int, bool]]:
    if seeds is None:
        return [(seed or 0, False)]
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
    return [(number, True) for number in numbers]


def _short(metrics: dict[str, float]) -> str:
    return " ".join(f"{name} {value:.3g}" for name, value in list(metrics.items())[:1])

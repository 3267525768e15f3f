"""The command line: parse, call one stage, print. Heavy packages are imported by the command that needs them."""

import errno
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from iq_offline import __version__, console
from iq_offline.errors import ConfigError, Interrupted, UserError

app = typer.Typer(
    name="iq-offline",
    help="Offline imitation on D4RL and Minari datasets: from demonstrations to a policy, its reward and a comparison.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Dataset = Annotated[
    str, typer.Argument(help="A catalogue id, a Minari id, a URL, or the path of a file or a Minari folder.")
]
METHODS_HELP = (
    "iq (default), bc; iq-paper, iq-cql, iq-awr, ls-iq, csil, recoil, sprinql; bc-all, weighted-bc, filtered-bc, "
    "and {seabo,otr,uds,oracle}-{iql,td3bc,cql}."
)
Form = Annotated[
    str,
    typer.Option(
        "--form",
        help="normalised (0 for uniform actions, 1 for demonstrated ones), canonical (Q - V), implicit (Q - discount V "
        "of the next observation), or distilled (what `distil` fitted).",
    ),
]
Runs = Annotated[list[Path], typer.Argument(help="Run folders, or folders that hold some.")]


def main() -> None:
    """Run the command line. A user's error is told in two lines and exits 2; a bug keeps its traceback and exits 1."""
    try:
        app()
    except Interrupted as error:
        print(f"stopped: {error}", file=sys.stderr)
        sys.exit(128 + error.signal)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except PermissionError as error:
        print(f"error: no permission for {error.filename}\n  -> name a place that you may write to", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        print(f"error: the disk is full ({error})\n  -> free some space, or name another place", file=sys.stderr)
        sys.exit(2)


def _version(asked: bool) -> None:
    if asked:
        console.show(f"iq-offline {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Offline imitation on D4RL and Minari datasets: from demonstrations to a policy, its reward and a comparison."""


@app.command()
def datasets(
    pattern: Annotated[str, typer.Argument(help="Part of an id; * stands for anything.")] = "",
    family: Annotated[str, typer.Option("--family", help="Part of a family's name.")] = "",
    environment: Annotated[str, typer.Option("--env", help="Part of an environment's id.")] = "",
    on_disk: Annotated[bool, typer.Option("--on-disk", help="Only what is on this machine.")] = False,
    json: Json = False,
) -> None:
    """List the catalogue, with what is on disk and verified; one dataset by its full id in detail."""
    from iq_offline.data.catalogue import catalogue, find_entries

    exact = catalogue().get(pattern)
    found = [exact] if exact else find_entries(pattern, family, environment)
    rows = [
        entry.model_dump(mode="json")
        | {
            "on_disk": entry.on_disk,
            "verified": entry.verified,
            "path": str(entry.stored_path),
            "fetched": entry.record,
        }
        for entry in found
        if entry.on_disk or not on_disk
    ]
    if json:
        return console.show_json({"datasets": rows})
    if exact:
        return console.show_details(rows[0] if rows else {})
    console.show_table([_catalogue_row(row) for row in rows])
    return console.show(f"{len(rows)} datasets; iq-offline datasets ID tells all about one")


@app.command()
def fetch(
    dataset: Dataset,
    source: Annotated[str | None, typer.Option("--from", help="Take the data from this path or URL.")] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="Of Minari's remote: a commit or a tag.")] = None,
    repin: Annotated[bool, typer.Option("--repin", help="Accept other bytes than at the first fetch.")] = False,
    json: Json = False,
) -> None:
    """Fetch a dataset, verify it, and print where it lies."""
    from iq_offline.data.download import FetchOptions
    from iq_offline.stages.fetch import fetch_dataset

    with console.transfer(dataset) as advance:
        located = fetch_dataset(dataset, FetchOptions(source, revision, repin, console.note, advance))
    record = (located.entry.record if located.entry else None) or {}
    if json:
        told = {key: record.get(key) for key in ("sha256", "pinned", "source", "revision")}
        return console.show_json({"dataset": located.name, "path": str(located.path), "verified": bool(record)} | told)
    return console.show(str(located.path))


@app.command()
def convert(
    source: Annotated[str, typer.Argument(help="The dataset to convert: an id or a path.")],
    to: Annotated[Path, typer.Option("--to", help="Where to write: a Minari folder, or a file.")],
    output_format: Annotated[str, typer.Option("--format", help="minari, d4rl, d3rlpy or npz.")] = "minari",
    input_format: Annotated[
        str, typer.Option("--input-format", help="auto, d4rl, minari, d3rlpy, npz or dictionaries.")
    ] = "auto",
    ends: Annotated[
        str, typer.Option("--ends", help="Ends of a layout with one flag: auto, termination or truncation.")
    ] = "auto",
    dtype: Annotated[str, typer.Option("--dtype", help="Real numbers: keep, float32 or float64.")] = "keep",
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Leave out broken episodes, and count them.")
    ] = False,
    infos: Annotated[bool, typer.Option("--infos/--no-infos", help="Carry infos where the format can.")] = True,
    json: Json = False,
) -> None:
    """Convert a dataset, read it back, and write its provenance and a validation summary with it."""
    from iq_offline.stages.convert import ConvertRequest, convert_dataset

    _bring(source)
    request = ConvertRequest(output_format, input_format, ends, dtype, keep_going, infos)
    with console.counter("converting", "steps") as count:
        record = convert_dataset(source, to, request, count)
    if json:
        return console.show_json(record | {"path": str(to)})
    read, left_out = record["read"], record["left_out"]
    console.show(f"{to}: {read['episodes']} episodes, {read['steps']} steps, read back and equal")
    for note in [*record["notes"], *left_out["faults"]]:
        console.show(f"note: {note}")
    return _show_defects(record["written"]["defects"])


@app.command()
def inspect(
    dataset: Dataset,
    json: Json = False,
    episodes: Annotated[bool, typer.Option("--episodes", help="List every episode.")] = False,
    plot: Annotated[Path | None, typer.Option("--plot", help="Write a picture: .png, .pdf or .svg.")] = None,
) -> None:
    """Show counts, ranges, returns, saturated actions, duplicates and defects of a dataset."""
    from iq_offline.stages.inspect import inspect_dataset

    _bring(dataset)
    summary = inspect_dataset(dataset, plot, episodes=episodes)
    if json:
        return console.show_json(summary)
    defects, notes = summary.pop("defects"), summary.pop("notes")
    listed, actions = summary.pop("per_episode", []), summary.pop("actions")
    for key in ("return", "length"):
        summary[key] = "{mean:.1f} ± {std:.1f}, from {min:.1f} to {max:.1f}".format(**summary[key])
    console.show_fields(summary)
    console.show_table(listed)
    console.show_table([{"action": number} | action for number, action in enumerate(actions or [])])
    for note in notes:
        console.show(f"note: {note}")
    return _show_defects(defects)


@app.command()
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
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="One seed (default 0).")] = None,
    seeds: Annotated[str | None, typer.Option("--seeds", help="Several: 0-4 or 0,2,5.")] = None,
    updates: Annotated[int | None, typer.Option("--updates", min=1, help="Gradient updates of the method.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="key=value of the method's settings.")] = None,
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
    json: Json = False,
) -> None:
    """Train a policy from demonstrations and write its run folder."""
    if held_out is not None and not 0 < held_out < 1:
        raise ConfigError(f"--held-out {held_out} is no share", "give a number between 0 and 1, such as 0.2")
    from iq_offline.stages.seeds import as_rows, train_seeds, workers_for
    from iq_offline.stages.train import TrainRequest, train_run

    _bring(dataset, *(supplementary or ()))
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
    if workers > 1:
        with console.bars(title, [request.seed for request in requests]) as advance_of:
            runs = train_seeds(requests, workers, lambda n, done, m: advance_of(n, done, _short(m)), console.warn)
    else:
        runs = []
        for request in requests:
            with console.progress(f"{title} seed {request.seed}", total=100) as advance:
                runs.append(
                    train_run(request, lambda p: advance(100 * p.step // p.total, _short(p.metrics)), console.warn)
                )
    if json:
        return console.show_json({"runs": as_rows(runs)})
    for run in runs:
        console.show(str(run.path))
    return None


@app.command(name="eval")
def evaluate(
    runs: Runs,
    episodes: Annotated[int, typer.Option("--episodes", min=1, help="Simulated episodes a run.")] = 20,
    env_id: Annotated[str | None, typer.Option("--env-id", help="Another environment than the data's.")] = None,
    env_kwargs: Annotated[str | None, typer.Option("--env-kwargs", help="Its arguments, a JSON object.")] = None,
    video: Annotated[
        Path | None, typer.Option("--video", help="Film the first episode of one run: an .mp4 file.")
    ] = None,
    json: Json = False,
) -> None:
    """Simulate the last policy of each run; print returns and scores."""
    from iq_offline.stages.eval import EvalRequest, aggregate, evaluate_run
    from iq_offline.training.run_folder import find_runs

    request = EvalRequest(episodes, env_id, _json_object(env_kwargs), video.resolve() if video else None)
    found = find_runs(runs)
    if video and len(found) > 1:
        raise ConfigError(f"--video films one run, and these are {len(found)}", "name one of them")
    results = []
    for run in found:
        with console.progress(run.path.name, total=episodes) as advance:
            results.append(evaluate_run(run, request, advance, console.warn))
    combined = aggregate(results)
    if json:
        return console.show_json({"runs": results, "aggregate": combined})
    for result in results:
        console.show(_evaluation_line(result))
    return console.show_fields(combined)


@app.command()
def reward(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    dataset: Annotated[
        list[str] | None, typer.Option("--dataset", help="Recorded data; the run's own if none.")
    ] = None,
    form: Form = "normalised",
    plot: Annotated[Path | None, typer.Option("--plot", help="Write the picture here, too: .png, .svg, .pdf.")] = None,
    json: Json = False,
) -> None:
    """Correlate the recovered reward with the true reward of recorded data, beside two nulls."""
    from iq_offline.stages.reward import RewardRequest, as_text, recover_reward
    from iq_offline.training.run_folder import RunFolder

    _bring(*(dataset or ()))
    request = RewardRequest(tuple(dataset or ()), form, plot.resolve() if plot else None)
    report = recover_reward(RunFolder.open(run.resolve()), request, lambda _: None, console.warn)
    if json:
        return console.show_json(report)
    return console.show(as_text(report))


@app.command()
def report(runs: Runs, out: Annotated[Path, typer.Option("--out", help="The folder to write into.")]) -> None:
    """Write tables, plots and one HTML page of a comparison; print the table."""
    from iq_offline.stages.report import make_report

    console.show(make_report(runs, out.resolve(), console.warn).summary)


@app.command()
def select(
    runs: Runs,
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="Demonstrations to judge on; the runs' own if none.")
    ] = None,
    signal: Annotated[str, typer.Option("--signal", help="mean, median or worst (95th percentile) error.")] = "mean",
    json: Json = False,
) -> None:
    """Rank runs without a simulator, best first, by their error on demonstrations that none has learnt from."""
    from iq_offline.stages.select import SelectRequest, select_run
    from iq_offline.training.run_folder import find_runs

    _bring(*([dataset] if dataset else []))
    found = find_runs([run.resolve() for run in runs])
    with console.progress("select", total=len(found)) as advance:
        chosen = select_run(found, SelectRequest(dataset, signal), advance)
    if json:
        return console.show_json(chosen)
    console.show_table([{name: value for name, value in row.items() if name != "path"} for row in chosen["runs"]])
    if agreement := chosen["spearman_with_return"]:
        console.show(f"rank correlation with return, which chose nothing: {agreement}")
    return console.show(
        f"best by {chosen['signal']} on {chosen['transitions']} transitions: {chosen['runs'][0]['path']}"
    )


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    to: Annotated[Path, typer.Option("--to", help="The file to write: .onnx, .pt or .pt2.")],
    output_format: Annotated[
        str | None, typer.Option("--format", help="onnx, torchscript or torch-export; by the suffix if none.")
    ] = None,
    json: Json = False,
) -> None:
    """Write the policy as one file that runs without this package, checked against the original."""
    from iq_offline.stages.export import export_run
    from iq_offline.training.run_folder import RunFolder

    made = export_run(RunFolder.open(run.resolve()), to.resolve(), output_format, console.warn)
    if json:
        return console.show_json(made)
    checked = " and ".join(f"{count} {name}" for name, count in made["checked"].items())
    return console.show(
        f"{made['file']}: {made['format']}, {made['bytes']} bytes; the same actions as the original's on {checked} "
        f"observations (largest difference {made['largest_difference']:.1g})"
    )


@app.command()
def sync(
    runs: Runs,
    register: Annotated[
        str | None, typer.Option("--register", help="Make each run's policy a version of this registered model.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", help="A report's folder, to go onto the comparison in MLflow.")
    ] = None,
    json: Json = False,
) -> None:
    """Make MLflow's mirror of finished runs whole: runs, stages, policies, and the rows of their comparison."""
    from iq_offline.stages.sync import sync_runs
    from iq_offline.training.run_folder import find_runs

    found = find_runs(runs)
    done = iter(range(1, len(found) + 1))
    with console.progress("mirroring", total=len(found)) as advance:
        told = sync_runs(found, register, report, lambda: advance(next(done), ""))
    if json:
        return console.show_json(told)
    for run in told["runs"]:
        version = f", {register} version {run['version']}" if register else ""
        console.show(f"{Path(run['run']).name}: {'mirrored' if run['written'] else 'already there'}{version}")
    return None


@app.command()
def ui(
    host: Annotated[str, typer.Option("--host")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535)] = 5000,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open a browser, where there is one.")] = True,
) -> None:
    """Serve MLflow's interface on this project's store and open the latest comparison; stop it with Ctrl-C."""
    from iq_offline.stages.ui import prepare_ui, serve

    prepared = prepare_ui(host, port)
    console.show(f"comparison: {prepared.url}")
    raise typer.Exit(serve(prepared, open_browser=browser))


@app.command()
def doctor(json: Json = False) -> None:
    """Show versions, devices, threads, the store, and what is missing and how to get it."""
    from iq_offline.stages.doctor import examine

    found = examine()
    if json:
        return console.show_json(found)
    missing = found.pop("missing")
    versions = found.pop("versions")
    console.show_fields(found | {f"{name} version": number for name, number in versions.items()})
    for item in missing:
        console.show(f"missing: {item['module']} ({item['for']}); {item['remedy']}")
    return None


@app.command()
def gridworld(
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the demonstrations; all else is exact.")] = 0,
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps",
            min=1,
            max=100_000,
            help="Length of a demonstration. 4000 if none: what the bars need (docs/gridworld.md); with --windy 100.",
        ),
    ] = None,
    windy: Annotated[
        bool, typer.Option("--windy", help="The 10x10 grid where regularisers differ: returns without wind and with.")
    ] = False,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw the four grids: a .png, .svg or .pdf file.")] = None,
    json: Json = False,
) -> None:
    """Recover reward and value of the paper's 5x5 GridWorld (its figure 4) from 30 demonstrations, beside the truth."""
    from iq_offline.stages.gridworld import GridworldRequest, as_rows, run_gridworld

    found = run_gridworld(GridworldRequest(seed, steps, windy, plot.resolve() if plot else None))
    if json:
        return console.show_json(found)
    if windy:
        return console.show_table([{"discounted return of": name} | row for name, row in found["returns"].items()])
    console.show_grids(found["panels"])
    return console.show_table(as_rows(found))


@app.command()
def distil(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    dataset: Annotated[
        list[str] | None, typer.Option("--dataset", help="Transitions to fit it on; the run's own if none.")
    ] = None,
    inputs: Annotated[str, typer.Option("--inputs", help="What it sees: s, sa, or sas (the next observation).")] = "sa",
    form: Form = "normalised",
    updates: Annotated[int, typer.Option("--updates", min=1)] = 5000,
    json: Json = False,
) -> None:
    """Fit an explicit reward r(s, a) to the recovered one; `--form distilled` uses it from then on."""
    from iq_offline.stages.distil import DistilRequest, distil_reward
    from iq_offline.training.run_folder import RunFolder

    _bring(*(dataset or ()))
    request = DistilRequest(tuple(dataset or ()), inputs, form, updates)
    with console.progress("distil", total=updates) as advance:
        report = distil_reward(RunFolder.open(run.resolve()), request, lambda step: advance(step, ""))
    return console.show_json(report) if json else console.show_fields(report)


@app.command()
def relabel(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    dataset: Annotated[str, typer.Option("--dataset", help="The data to relabel.")],
    to: Annotated[Path, typer.Option("--to", help="Where to write: NAME-v0 for Minari, FILE.hdf5 for D4RL's layout.")],
    format: Annotated[str, typer.Option("--format", help="minari or d4rl.")] = "minari",
    form: Form = "normalised",
    json: Json = False,
) -> None:
    """Write a dataset with the recovered reward in place of the recorded one."""
    from iq_offline.stages.relabel import RelabelRequest, relabel_dataset
    from iq_offline.training.run_folder import RunFolder

    _bring(dataset)
    record = relabel_dataset(
        RunFolder.open(run.resolve()), RelabelRequest(dataset, to.absolute(), format, form), lambda _: None
    )
    if json:
        return console.show_json(record)
    console.show(
        f"{to}: {record['read']['episodes']} episodes, {record['read']['steps']} steps, {form} rewards of {run}"
    )
    return None


@app.command()
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


@app.command()
def reproduce(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    tolerance: Annotated[
        float, typer.Option("--tolerance", min=0, help="Largest difference of a tensor; 0 is bit for bit.")
    ] = 0.0,
    json: Json = False,
) -> None:
    """Train again from what a run recorded, and compare; exit 3 where the tensors differ by more than the tolerance."""
    from iq_offline.stages.reproduce import reproduce_run
    from iq_offline.training.run_folder import RunFolder

    with console.progress(run.name, total=100) as advance:
        found = reproduce_run(
            RunFolder.open(run.resolve()), tolerance, lambda p: advance(100 * p.step // p.total, ""), console.warn
        )
    if json:
        console.show_json(found.to_json())
    else:
        console.show(found.sentence)
        console.show_table([] if found.bitwise else found.differences)
    if not found.reproduced:
        raise typer.Exit(3)


def _bring(*datasets: str) -> None:
    """Fetch what is not on this machine yet, with a bar, and say what is to be said of it."""
    from iq_offline.data.download import FetchOptions, fetch

    for dataset in datasets:
        with console.transfer(dataset) as advance:
            fetch(dataset, FetchOptions(tell=console.note, advance=advance))


def _catalogue_row(row: dict[str, Any]) -> dict[str, Any]:
    known = "published" if row["sha256"] else "pinned" if (row["fetched"] or {}).get("pinned") else "-"
    return {
        "id": row["id"],
        "episodes": row["episodes"],
        "steps": row["steps"],
        "MB": None if row["bytes"] is None else round(row["bytes"] / 1e6, 1),
        "environment": row["env_id"],
        "hash": known,
        "here": "verified" if row["verified"] else "on disk" if row["on_disk"] else "-",
    }


def _seeds(seed: int | None, seeds: str | None) -> list[tuple[int, bool]]:
    if seeds is None:
        return [(seed or 0, False)]
    if seed is not None:
        raise ConfigError("--seed and --seeds are both given", "give one of them")
    numbers: list[int] = []
    for part in seeds.split(","):
        first, _, last = part.partition("-")
        if not first.isdigit() or (last and not last.isdigit()):
            raise ConfigError(f"--seeds {seeds} is not a list of seeds", "write it as 0-4 or 0,2,5")
        numbers += range(int(first), int(last or first) + 1)
    if not numbers or len(set(numbers)) < len(numbers):
        raise ConfigError(f"--seeds {seeds} names no seed, or one twice", "write it as 0-4 or 0,2,5")
    return [(number, True) for number in numbers]


def _json_object(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    import json

    try:
        content = json.loads(text)
    except json.JSONDecodeError:
        content = None
    if not isinstance(content, dict):
        raise ConfigError(f"--env-kwargs {text} is not a JSON object", """write it as '{"key": value}'""")
    return content


def _show_defects(defects: list[dict[str, Any]]) -> None:
    for defect in defects:
        console.show(f"defect: {defect['kind']} ({defect['count']}): {defect['handling']}")


def _evaluation_line(result: dict[str, Any]) -> str:
    score = (
        f"score {result['score']:.1f} ({result['reference']})" if result["score"] is not None else "no score reference"
    )
    share = 100 * result["return_mean"] / result["dataset_return_mean"] if result["dataset_return_mean"] > 0 else None
    of_data = f", {share:.1f} % of the data's mean" if share is not None else ""
    return (
        f"{result['run']}: return {result['return_mean']:.1f} ± {result['return_std']:.1f} over {result['episodes']} "
        f"episodes{of_data}, {score}"
    )


def _short(metrics: dict[str, float]) -> str:
    return " ".join(f"{name} {value:.3g}" for name, value in list(metrics.items())[:1])

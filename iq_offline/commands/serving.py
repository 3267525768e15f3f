"""Commands that hand runs on: files for other programs, MLflow, and what this machine has."""

from pathlib import Path
from typing import Annotated

from typer import Exit, Option

from iq_offline import console
from iq_offline.commands.arguments import Json, Run, Runs


def export(
    run: Run,
    to: Annotated[Path, Option(help="The file to write: .onnx, .pt or .pt2.")],
    output_format: Annotated[
        str | None, Option("--format", help="onnx, torchscript or torch-export; by the suffix if none.")
    ] = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace a file that is there.")] = False,
    json: Json = False,
) -> None:
    """Write the policy as one file that runs without this package, checked against the original."""
    from iq_offline.stages.export import export_run
    from iq_offline.training.run_folder import RunFolder

    made = export_run(RunFolder.open(run.resolve()), to.resolve(), output_format, console.warn, overwrite=overwrite)
    if json:
        return console.show_json(made)
    checked = " and ".join(f"{count} {name}" for name, count in made["checked"].items())
    return console.show(
        f"{made['file']}: {made['format']}, {made['bytes']} bytes; the same actions as the original's on {checked} "
        f"observations (largest difference {made['largest_difference']:.1g})"
    )


def sync(
    runs: Runs,
    register: Annotated[str | None, Option(help="Make each run's policy a version of this registered model.")] = None,
    report: Annotated[Path | None, Option(help="A report's folder, to go onto the comparison in MLflow.")] = None,
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


def ui(
    host: str = "127.0.0.1",
    port: Annotated[int, Option(min=1, max=65535)] = 5000,
    browser: Annotated[bool, Option("--browser/--no-browser", help="Open a browser, where there is one.")] = True,
) -> None:
    """Serve MLflow's interface on this project's store and open the latest comparison; stop it with Ctrl-C."""
    from iq_offline.stages.ui import prepare_ui, serve

    prepared = prepare_ui(host, port)
    console.show(f"comparison: {prepared.url}")
    raise Exit(serve(prepared, open_browser=browser))


def clean(
    dry_run: Annotated[bool, Option("--dry-run", help="List what would be removed, and remove nothing.")] = False,
    json: Json = False,
) -> None:
    """Remove caches that nothing uses and temporary files of dead processes; datasets and runs stay."""
    from iq_offline.stages.clean import clean as clean_store

    rows = clean_store(dry_run=dry_run)
    total = sum(int(str(row["bytes"])) for row in rows)
    if json:
        return console.show_json({"dry_run": dry_run, "items": rows, "bytes": total})
    for row in rows:
        console.show(f"{console.size(int(str(row['bytes'])))}  {row['kind']}  {row['path']} ({row['why']})")
    return console.show(f"{'would remove' if dry_run else 'removed'} {len(rows)}, {console.size(total)} in all")


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

"""Commands that hand runs on: files for other programs, MLflow, and what this machine has."""

import sys
from pathlib import Path
from typing import Annotated

from typer import Exit, Option

from iq_offline import console
from iq_offline.commands.arguments import Json, Run, Runs, open_run


def export(
    run: Run,
    to: Annotated[
        Path, Option(metavar="FILE", help="The file to write: .onnx, .pt (TorchScript) or .pt2 (torch.export).")
    ],
    output_format: Annotated[
        str | None,
        Option("--format", metavar="FORMAT", help="onnx, torchscript or torch-export. (default: by the suffix)"),
    ] = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace a file that is there.")] = False,
    json: Json = False,
) -> None:
    """Export a policy to one file that runs without this package; compare its actions with the original's."""
    from iq_offline.stages.export import export_run

    made = export_run(open_run(run), to.resolve(), output_format, console.warn, overwrite=overwrite)
    if json:
        return console.show_json(made)
    checked = " and ".join(f"{count} {name}" for name, count in made["checked"].items())
    return console.show(
        f"{made['file']}: {made['format']}, {console.size(made['bytes'])}; the same actions as the original's on "
        f"{checked} observations (largest difference {made['largest_difference']:.1g})"
    )


def sync(
    runs: Runs,
    register: Annotated[
        str | None, Option(metavar="NAME", help="Register each policy as a version of this model.")
    ] = None,
    report: Annotated[Path | None, Option(metavar="FOLDER", help="A report to attach to the comparison.")] = None,
    json: Json = False,
) -> None:
    """Upload finished runs that MLflow is missing: parameters, metrics, policies, and their comparison."""
    from iq_offline.stages.sync import sync_runs
    from iq_offline.training.run_folder import find_runs

    found = find_runs(runs)
    done = iter(range(1, len(found) + 1))
    with console.progress("uploading", unit="runs", total=len(found)) as advance:
        told = sync_runs(found, register, report, lambda: advance(next(done)))
    if json:
        return console.show_json(told)
    for run in told["runs"]:
        version = f", {register} version {run['version']}" if register else ""
        console.show(f"{Path(run['run']).name}: {'uploaded' if run['written'] else 'already there'}{version}")
    return None


def ui(
    host: Annotated[str, Option(metavar="HOST", help="Address to serve on.")] = "127.0.0.1",
    port: Annotated[int, Option(min=1, max=65535, metavar="PORT", help="Port to serve on.")] = 5000,
    browser: Annotated[bool, Option("--browser/--no-browser", help="Open a browser.")] = True,
    json: Json = False,
) -> None:
    """Serve MLflow's UI on this project's store and open the latest comparison. Ctrl-C stops it."""
    from iq_offline.stages.ui import prepare_ui, serve

    prepared = prepare_ui(host, port)

    def tell_address() -> None:
        console.show_json({"url": prepared.url}) if json else console.show(f"comparison: {prepared.url}")
        sys.stdout.flush()

    console.note("starting MLflow's server")
    raise Exit(serve(prepared, tell_address, open_browser=browser))


def clean(
    dry_run: Annotated[bool, Option("--dry-run", help="List what would be removed, and remove nothing.")] = False,
    json: Json = False,
) -> None:
    """Remove caches that nothing uses and temporary files of dead processes. Datasets and runs stay."""
    from iq_offline.stages.clean import clean as clean_store

    rows = clean_store(dry_run=dry_run)
    total = sum(int(str(row["bytes"])) for row in rows)
    if json:
        return console.show_json({"dry_run": dry_run, "items": rows, "bytes": total})
    for row in rows:
        console.show(f"{console.size(int(str(row['bytes'])))}  {row['kind']}  {row['path']} ({row['why']})")
    return console.show(f"{'would remove' if dry_run else 'removed'} {len(rows)}, {console.size(total)} in all")


def doctor(json: Json = False) -> None:
    """Show versions, devices and the store; what is missing and how to install it; defects of fetched datasets."""
    from iq_offline.stages.doctor import examine

    found = examine()
    if json:
        return console.show_json(found)
    missing, broken, defects, versions = (found.pop(key) for key in ("missing", "broken", "defects", "versions"))
    shown = found | {f"{name} version": number for name, number in versions.items()}
    console.show_fields({name.replace("_", " "): value for name, value in shown.items()})
    for item in missing:
        console.show(f"missing: {item['module']} ({item['for']}); {item['remedy']}")
    for item in broken:
        console.show(f"cannot be imported: {item['module']} ({item['error']}); {item['remedy']}")
    for item in defects:
        console.show(f"{item['dataset']}: {item['defect']}")
    return None

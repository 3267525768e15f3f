"""Commands on datasets: list, fetch, convert, look into."""

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from iq_offline import console
from iq_offline.commands.arguments import Dataset, Json, bring


def datasets(
    pattern: Annotated[str, Argument(help="Part of an id; * stands for anything.")] = "",
    family: Annotated[str, Option(help="Part of a family's name.")] = "",
    environment: Annotated[str, Option("--env", help="Part of an environment's id.")] = "",
    on_disk: Annotated[bool, Option("--on-disk", help="Only what is on this machine.")] = False,
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


def fetch(
    dataset: Dataset,
    source: Annotated[str | None, Option("--from", help="Take the data from this path or URL.")] = None,
    revision: Annotated[str | None, Option(help="Of Minari's remote: a commit or a tag.")] = None,
    repin: Annotated[bool, Option("--repin", help="Accept other bytes than at the first fetch.")] = False,
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


def convert(
    source: Annotated[str, Argument(help="The dataset to convert: an id or a path.")],
    to: Annotated[Path, Option(help="Where to write: a Minari folder, or a file.")],
    output_format: Annotated[str, Option("--format", help="minari, d4rl, d3rlpy or npz.")] = "minari",
    input_format: Annotated[str, Option(help="auto, d4rl, minari, d3rlpy, npz or dictionaries.")] = "auto",
    ends: Annotated[str, Option(help="Ends of a layout with one flag: auto, termination or truncation.")] = "auto",
    dtype: Annotated[str, Option(help="Real numbers: keep, float32 or float64.")] = "keep",
    keep_going: Annotated[bool, Option("--keep-going", help="Leave out broken episodes, and count them.")] = False,
    infos: Annotated[bool, Option("--infos/--no-infos", help="Carry infos where the format can.")] = True,
    json: Json = False,
) -> None:
    """Convert a dataset, read it back, and write its provenance and a validation summary with it."""
    from iq_offline.stages.convert import ConvertRequest, convert_dataset

    bring(source)
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


def inspect(
    dataset: Dataset,
    json: Json = False,
    episodes: Annotated[bool, Option("--episodes", help="List every episode.")] = False,
    plot: Annotated[Path | None, Option(help="Write a picture: .png, .pdf or .svg.")] = None,
) -> None:
    """Show counts, ranges, returns, saturated actions, duplicates and defects of a dataset."""
    from iq_offline.stages.inspect import inspect_dataset

    bring(dataset)
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


def _show_defects(defects: list[dict[str, Any]]) -> None:
    for defect in defects:
        console.show(f"defect: {defect['kind']} ({defect['count']}): {defect['handling']}")

"""Commands on datasets: list, fetch, convert, look into."""

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from iq_offline import console
from iq_offline.commands.arguments import Dataset, Json, bring


def datasets(
    pattern: Annotated[str, Argument(metavar="PATTERN", help="Part of an id; * stands for anything.")] = "",
    family: Annotated[str, Option(metavar="NAME", help="Part of a family's name.")] = "",
    environment: Annotated[str, Option("--env", metavar="ID", help="Part of an environment's id.")] = "",
    on_disk: Annotated[bool, Option("--on-disk", help="Only datasets on this machine.")] = False,
    json: Json = False,
) -> None:
    """List the datasets that can be fetched by name, and what is on this machine. A full id shows all of one."""
    from iq_offline.data.catalogue import Kind, catalogue, find_entries

    exact = catalogue().get(pattern)
    found = [exact] if exact else find_entries(pattern, family, environment)
    rows = [
        entry.model_dump(mode="json")
        | {
            "on_disk": entry.on_disk or entry.kind is Kind.BUNDLED,
            "verified": entry.verified,
            "path": str(entry.stored_path),
            "fetched": entry.record,
        }
        for entry in found
        if entry.on_disk or entry.kind is Kind.BUNDLED or not on_disk
    ]
    if json:
        return console.show_json({"datasets": rows})
    if exact:
        return console.show_details(rows[0] if rows else {})
    console.show_table([_catalogue_row(row) for row in rows])
    defective = sum(bool(row["defects"]) for row in rows)
    known = f", {defective} with known defects" if defective else ""
    return console.show(f"{len(rows)} datasets{known}; `iq-offline datasets ID` shows all about one")


def fetch(
    dataset: Dataset,
    source: Annotated[str | None, Option("--from", metavar="PATH|URL", help="Take the data from here.")] = None,
    revision: Annotated[str | None, Option(metavar="REVISION", help="A commit or tag of Minari's remote.")] = None,
    repin: Annotated[bool, Option("--repin", help="Accept other bytes than at the first fetch.")] = False,
    json: Json = False,
) -> None:
    """Download a dataset, verify every byte, and print its path."""
    from iq_offline.data.download import FetchOptions
    from iq_offline.stages.fetch import fetch_dataset

    with console.transfer(dataset) as advance:
        located = fetch_dataset(dataset, FetchOptions(source, revision, repin, console.note, advance))
    record = (located.entry.record if located.entry else None) or {}
    if json:
        told = {key: record.get(key) for key in ("sha256", "pinned", "source", "revision")}
        return console.show_json({"dataset": located.name, "path": str(located.path), "verified": bool(record)} | told)
    entry = located.entry
    for caution in (*entry.known_defects, *filter(None, (entry.env_note, entry.reference_note))) if entry else ():
        console.note(caution)
    return console.show(str(located.path))


def convert(
    source: Dataset,
    to: Annotated[Path, Option(metavar="PATH", help="Where to write: a Minari folder NAME-v0, or a file.")],
    output_format: Annotated[
        str, Option("--format", metavar="FORMAT", help="Format to write: minari, d4rl, d3rlpy or npz.")
    ] = "minari",
    input_format: Annotated[
        str, Option(metavar="FORMAT", help="Format to read: auto, d4rl, minari, d3rlpy, npz or dictionaries.")
    ] = "auto",
    ends: Annotated[
        str,
        Option(
            metavar="auto|termination|truncation",
            help="What the end of an episode means where the format has one flag for both.",
        ),
    ] = "auto",
    dtype: Annotated[str, Option(metavar="keep|float32|float64", help="Type of real numbers.")] = "keep",
    keep_going: Annotated[bool, Option("--keep-going", help="Leave out broken episodes, and count them.")] = False,
    infos: Annotated[bool, Option("--infos/--no-infos", help="Write infos if the format has a place for them.")] = True,
    frames: Annotated[str | None, Option(metavar="HxW", help="Resize pictures: height x width, as in 84x84.")] = None,
    gray: Annotated[bool, Option("--gray", help="Make pictures gray.")] = False,
    stack: Annotated[int, Option(metavar="K", help="Frames of an observation, stacked when sampled.")] = 1,
    json: Json = False,
) -> None:
    """Convert a dataset to another format, read it back, and write its provenance beside it."""
    from iq_offline.data.frames import Frames
    from iq_offline.stages.convert import ConvertRequest, convert_dataset

    bring(source)
    wanted = Frames.of_options(frames, stack, gray=gray)
    request = ConvertRequest(output_format, input_format, ends, dtype, keep_going, infos, wanted)
    with console.progress("converting", unit="steps") as advance:
        record = convert_dataset(source, to, request, lambda steps: advance(steps))
    if json:
        return console.show_json(record | {"path": str(to)})
    read, left_out = record["read"], record["left_out"]
    console.show(f"{to}: {read['episodes']:,} episodes, {read['steps']:,} steps, read back and equal")
    for note in [*record["notes"], *left_out["faults"]]:
        console.show(f"note: {note}")
    return _show_defects(record["written"]["defects"])


def inspect(
    dataset: Dataset,
    json: Json = False,
    episodes: Annotated[bool, Option("--episodes", help="List every episode.")] = False,
    plot: Annotated[Path | None, Option(metavar="FILE", help="Write a plot: .png, .pdf or .svg.")] = None,
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
        mean, std, low, high = (console.readable(summary[key][part]) for part in ("mean", "std", "min", "max"))
        summary[key] = f"{mean} ± {std}, from {low} to {high}"
    for key in ("observation_range", "action_range", "reward_range"):
        summary[key] = summary[key] and " to ".join(map(console.readable, summary[key]))
    summary["observation_layout"] = {
        name: f"{kind} {'x'.join(map(str, shape)) or 'scalar'}"
        for name, (kind, *shape) in summary["observation_layout"].items()
    }
    console.show_fields({name.replace("_", " "): value for name, value in summary.items()})
    console.show_table(listed)
    console.show_table([{"action": number} | action for number, action in enumerate(actions or [])])
    for note in notes:
        console.show(f"note: {note}")
    return _show_defects(defects)


def _catalogue_row(row: dict[str, Any]) -> dict[str, Any]:
    from iq_offline.data.catalogue import Kind

    known = "published" if row["sha256"] else "pinned" if (row["fetched"] or {}).get("pinned") else "-"
    return {
        "id": row["id"],
        "episodes": row["episodes"],
        "steps": row["steps"],
        "MB": None if row["bytes"] is None else round(row["bytes"] / 1e6, 1),
        "environment": row["env_id"],
        "hash": known,
        "defects": len(row["defects"]) or None,
        "here": "bundled"
        if row["kind"] == Kind.BUNDLED
        else "verified"
        if row["verified"]
        else "on disk"
        if row["on_disk"]
        else "-",
    }


def _show_defects(defects: list[dict[str, Any]]) -> None:
    for defect in defects:
        console.show(f"defect {defect['kind']}: {defect['count']:,} {defect['handling']}")

"""Commands that judge runs: simulate, compare, choose."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from iq_offline import console
from iq_offline.commands.arguments import Json, Runs, bring, suggest, typed
from iq_offline.errors import ConfigError
from iq_offline.methods import METHODS

if TYPE_CHECKING:
    from iq_offline.training.run_folder import RunFolder


def evaluate(
    runs: Runs,
    episodes: Annotated[int, Option(min=1, metavar="N", help="Simulated episodes per run.")] = 20,
    env_id: Annotated[str | None, Option(metavar="ID", help="Another environment than the dataset's.")] = None,
    env_kwargs: Annotated[
        str | None, Option(metavar="JSON", help="The environment's arguments, a JSON object.")
    ] = None,
    video: Annotated[Path | None, Option(metavar="FILE.mp4", help="Film the first episode; of one run only.")] = None,
    json: Json = False,
) -> None:
    """Evaluate the last policy of each run in simulation. Every run meets the same episode seeds."""
    from iq_offline.stages.eval import EvalRequest, aggregates, evaluate_run
    from iq_offline.training.run_folder import find_runs

    request = EvalRequest(episodes, env_id, _json_object(env_kwargs), video.resolve() if video else None)
    found = find_runs(runs)
    if video and len(found) > 1:
        raise ConfigError(f"--video films one run, and these are {len(found)}", "name one of them")
    results = []
    for run in found:
        with console.progress(_label(run.manifest), unit="episodes", total=episodes) as advance:
            results.append(evaluate_run(run, request, advance, console.warn) | {"path": str(run.path)})
    rows = aggregates(found)
    if json:
        keys = ("return_iqm", "score_iqm", "score_ci95")
        alone = {key: rows[0][key] if len(rows) == 1 else None for key in keys}
        return console.show_json({"runs": results, "methods": rows, "aggregate": alone})
    labels = [_label(run.manifest) for run in found]
    unique = len(set(labels)) == len(labels)
    console.show_table(
        [
            {"run": label if unique else f"{label} ({run.path.name})"} | _evaluation_row(result)
            for run, label, result in zip(found, labels, results, strict=True)
        ]
    )
    if len(found) > 1:
        console.show()
        console.show_table([_aggregate_row(row) for row in rows])
    names = " ".join(typed(path.resolve()) for path in runs)
    lacking = [run.path for run in found if _lacks_reward(run)]
    rewards = [f"reward {typed(lacking[0])}"] if lacking else []
    return suggest(*rewards, f"report {names} --out report")


def report(
    runs: Runs,
    out: Annotated[Path, Option(metavar="FOLDER", help="The folder to write into.")],
    json: Json = False,
) -> None:
    """Compare runs in tables, plots and one HTML page; print the table."""
    from iq_offline.stages.report import make_report

    named = " ".join(typed(path.resolve()) for path in runs)
    made = make_report(runs, out.resolve(), console.warn)
    if not json:
        console.show(made.summary)
        return suggest(f"eval {named}") if made.files.aggregate.is_empty() else None
    files = made.files
    return console.show_json(
        {
            "html": str(files.html),
            "plots": [str(path) for path in files.plots],
            "summary": files.summary.to_dicts(),
            "aggregate": files.aggregate.to_dicts(),
            "failures": [
                {"run": str(one.folder), "problem": one.problem, "remedy": one.remedy} for one in files.failures
            ],
        }
    )


def select(
    runs: Runs,
    dataset: Annotated[
        str | None,
        Option(metavar="DATASET", help="Demonstrations to rank on. (default: the runs' own, unseen by all of them)"),
    ] = None,
    signal: Annotated[
        str, Option(metavar="mean|median|worst", help="Which error ranks; worst is the 95th percentile.")
    ] = "mean",
    json: Json = False,
) -> None:
    """Rank runs without a simulator, best first, by their error on demonstrations that none has learnt from."""
    from iq_offline.stages.select import SelectRequest, select_run
    from iq_offline.training.run_folder import find_runs

    bring(*([dataset] if dataset else []))
    found = find_runs([run.resolve() for run in runs])
    with console.progress("ranking", unit="runs", total=len(found)) as advance:
        chosen = select_run(found, SelectRequest(dataset, signal), advance, console.warn)
    if json:
        return console.show_json(chosen)
    console.show_table([{name: value for name, value in row.items() if name != "path"} for row in chosen["runs"]])
    if (agreement := (chosen["spearman_with_return"] or {}).get(chosen["signal"])) is not None:
        console.show(f"rank correlation of this signal with the return, which chose nothing: {agreement:.3f}")
    return console.show(
        f"best by {chosen['signal']} error on {chosen['transitions']:,} transitions: {chosen['runs'][0]['path']}"
    )


def verify(runs: Runs, json: Json = False) -> None:
    """Check every file of run folders: schema, checksums, weights, split and data. Exit 2 if a run is damaged."""
    from iq_offline.errors import RunError
    from iq_offline.stages.verify import verify_run
    from iq_offline.training.run_folder import RunFolder, run_paths

    checked: list[dict[str, Any]] = []
    for path in run_paths(runs):
        try:
            checked.append(verify_run(RunFolder.open(path), console.warn))
        except RunError as error:
            problem = {"problem": error.problem, "remedy": error.remedy}
            checked.append({"run": str(path), "sound": False, "problems": [problem]})
    if json:
        console.show_json({"runs": checked})
    else:
        for one in checked:
            console.show(f"{one['run']}: {'sound' if one['sound'] else 'damaged'}")
            for found in one["problems"]:
                console.show(f"  {found['problem']}\n    -> {found['remedy']}")
    if damaged := sum(not one["sound"] for one in checked):
        raise RunError(f"{damaged} of {len(checked)} runs are damaged", "do what each problem above asks for")


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


def _label(manifest: dict[str, Any]) -> str:
    return f"{manifest['method']}/{manifest['dataset']['name']}/{manifest['seed']}"


def _evaluation_row(result: dict[str, Any]) -> dict[str, Any]:
    of_data = result["dataset_return_mean"]
    return {
        "return (mean)": f"{result['return_mean']:.1f}",
        "std": f"{result['return_std']:.1f}",
        "episodes": result["episodes"],
        "% of data": f"{100 * result['return_mean'] / of_data:.1f}" if of_data > 0 else None,
        "score": None if result["score"] is None else f"{result['score']:.1f}",
        "reference": result["reference"],
    }


def _aggregate_row(row: dict[str, Any]) -> dict[str, Any]:
    """Of one method and task."""
    interval = row["return_ci95"]
    return {
        "method": row["group"],
        "dataset": row["dataset"],
        "runs": row["runs"],
        "return (IQM)": None if row["return_iqm"] is None else f"{row['return_iqm']:.1f}",
        "95 % interval": None if interval is None else f"{interval[0]:.1f} to {interval[1]:.1f}",
        "score (IQM)": None if row["score_iqm"] is None else f"{row['score_iqm']:.1f}",
    }


def _lacks_reward(run: "RunFolder") -> bool:
    """Whether a reward can be recovered from the run, and was not yet."""
    method = METHODS.get(run.manifest["method"])
    return method is not None and method.learns_reward and not (run.path / "reward.json").exists()

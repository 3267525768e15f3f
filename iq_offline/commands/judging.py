"""Commands that judge runs: simulate, compare, choose."""

from pathlib import Path
from typing import Annotated, Any

from typer import Option

from iq_offline import console
from iq_offline.commands.arguments import Json, Runs, bring
from iq_offline.errors import ConfigError


def evaluate(
    runs: Runs,
    episodes: Annotated[int, Option(min=1, help="Simulated episodes a run.")] = 20,
    env_id: Annotated[str | None, Option(help="Another environment than the data's.")] = None,
    env_kwargs: Annotated[str | None, Option(help="Its arguments, a JSON object.")] = None,
    video: Annotated[Path | None, Option(help="Film the first episode of one run: an .mp4 file.")] = None,
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


def report(runs: Runs, out: Annotated[Path, Option(help="The folder to write into.")]) -> None:
    """Write tables, plots and one HTML page of a comparison; print the table."""
    from iq_offline.stages.report import make_report

    console.show(make_report(runs, out.resolve(), console.warn).summary)


def select(
    runs: Runs,
    dataset: Annotated[str | None, Option(help="Demonstrations to judge on; the runs' own if none.")] = None,
    signal: Annotated[str, Option(help="mean, median or worst (95th percentile) error.")] = "mean",
    json: Json = False,
) -> None:
    """Rank runs without a simulator, best first, by their error on demonstrations that none has learnt from."""
    from iq_offline.stages.select import SelectRequest, select_run
    from iq_offline.training.run_folder import find_runs

    bring(*([dataset] if dataset else []))
    found = find_runs([run.resolve() for run in runs])
    with console.progress("select", total=len(found)) as advance:
        chosen = select_run(found, SelectRequest(dataset, signal), advance, console.warn)
    if json:
        return console.show_json(chosen)
    console.show_table([{name: value for name, value in row.items() if name != "path"} for row in chosen["runs"]])
    if agreement := chosen["spearman_with_return"]:
        console.show(f"rank correlation with return, which chose nothing: {agreement}")
    return console.show(
        f"best by {chosen['signal']} on {chosen['transitions']} transitions: {chosen['runs'][0]['path']}"
    )


def verify(runs: Runs, json: Json = False) -> None:
    """Check every file of run folders: schema, checksums, weights, split and data. Exit 2 where a run is damaged."""
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

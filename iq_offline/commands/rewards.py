"""Commands on the recovered reward: correlate, fit, write; and the grid world where it is known exactly."""

from pathlib import Path
from typing import Annotated

from typer import Option

from iq_offline import console
from iq_offline.commands.arguments import Form, Json, Run, bring


def reward(
    run: Run,
    dataset: Annotated[list[str] | None, Option(help="Recorded data; the run's own if none.")] = None,
    form: Form = "linear",
    plot: Annotated[Path | None, Option(help="Write the picture here, too: .png, .svg, .pdf.")] = None,
    json: Json = False,
) -> None:
    """Correlate the recovered reward with the true reward of recorded data, beside nulls."""
    from iq_offline.stages.reward import RewardRequest, as_text, recover_reward
    from iq_offline.training.run_folder import RunFolder

    bring(*(dataset or ()))
    request = RewardRequest(tuple(dataset or ()), form, plot.resolve() if plot else None)
    report = recover_reward(RunFolder.open(run.resolve()), request, lambda _: None, console.warn)
    if json:
        return console.show_json(report)
    return console.show(as_text(report))


def gridworld(
    seed: Annotated[int, Option(min=0, help="Of the demonstrations; all else is exact.")] = 0,
    steps: Annotated[
        int | None,
        Option(
            min=1,
            max=100_000,
            help="Length of a demonstration. 4000 if none: what the bars need (docs/gridworld.md); with --windy 100.",
        ),
    ] = None,
    windy: Annotated[
        bool, Option("--windy", help="The 10x10 grid where regularisers differ: returns without wind and with.")
    ] = False,
    plot: Annotated[Path | None, Option(help="Draw the four grids: a .png, .svg or .pdf file.")] = None,
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


def distil(
    run: Run,
    dataset: Annotated[list[str] | None, Option(help="Transitions to fit it on; the run's own if none.")] = None,
    inputs: Annotated[str, Option(help="What it sees: s, sa, or sas (the next observation).")] = "sa",
    form: Form = "normalised",
    updates: Annotated[int, Option(min=1)] = 5000,
    json: Json = False,
) -> None:
    """Fit an explicit reward r(s, a) to the recovered one; `--form distilled` uses it from then on."""
    from iq_offline.stages.distil import DistilRequest, distil_reward
    from iq_offline.training.run_folder import RunFolder

    bring(*(dataset or ()))
    request = DistilRequest(tuple(dataset or ()), inputs, form, updates)
    with console.progress("distil", total=updates) as advance:
        report = distil_reward(RunFolder.open(run.resolve()), request, lambda step: advance(step, ""))
    return console.show_json(report) if json else console.show_fields(report)


def relabel(
    run: Run,
    dataset: Annotated[str, Option(help="The data to relabel.")],
    to: Annotated[Path, Option(help="Where to write: NAME-v0 for Minari, FILE.hdf5 for D4RL's layout.")],
    format: Annotated[str, Option(help="minari or d4rl.")] = "minari",
    form: Form = "normalised",
    fitted_to: Annotated[
        list[str] | None,
        Option(help="With --form linear: the data that it is fitted to; DATASET if none."),
    ] = None,
    json: Json = False,
) -> None:
    """Write a dataset with the recovered reward in place of the recorded one."""
    from iq_offline.stages.relabel import RelabelRequest, relabel_dataset
    from iq_offline.training.run_folder import RunFolder

    bring(dataset, *(fitted_to or ()))
    request = RelabelRequest(dataset, to.absolute(), format, form, tuple(fitted_to or ()))
    record = relabel_dataset(RunFolder.open(run.resolve()), request)
    if json:
        return console.show_json(record)
    console.show(
        f"{to}: {record['read']['episodes']} episodes, {record['read']['steps']} steps, {form} rewards of {run}"
    )
    return None

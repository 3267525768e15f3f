"""Commands on the recovered reward: correlate, fit, write; and the grid world where it is known exactly."""

from pathlib import Path
from typing import Annotated

from typer import Option

from iq_offline import console
from iq_offline.commands.arguments import Form, Json, Run, bring, open_run


def reward(
    run: Run,
    dataset: Annotated[
        list[str] | None,
        Option(metavar="DATASET", help="Recorded data; repeat it for several. (default: the run's own)"),
    ] = None,
    form: Form = "linear",
    plot: Annotated[Path | None, Option(metavar="FILE", help="Write the plot here too: .png, .svg or .pdf.")] = None,
    json: Json = False,
) -> None:
    """Compare the recovered reward with the true reward of recorded data, and with baselines."""
    from iq_offline.stages.reward import RewardRequest, as_text, recover_reward

    bring(*(dataset or ()))
    request = RewardRequest(tuple(dataset or ()), form, plot.resolve() if plot else None)
    report = recover_reward(open_run(run), request, lambda _: None, console.warn)
    if json:
        return console.show_json(report)
    return console.show(as_text(report))


def gridworld(
    seed: Annotated[int, Option(min=0, metavar="N", help="Seed of the demonstrations; all else is exact.")] = 0,
    steps: Annotated[
        int | None,
        Option(
            min=1,
            max=100_000,
            metavar="N",
            help="Steps of a demonstration. (default: 4000; 100 with --windy)",
        ),
    ] = None,
    windy: Annotated[
        bool, Option("--windy", help="Use the 10x10 grid: compare regularisers by their returns with and without wind.")
    ] = False,
    plot: Annotated[Path | None, Option(metavar="FILE", help="Draw the four grids: .png, .svg or .pdf.")] = None,
    json: Json = False,
) -> None:
    """Recover the reward and value of the 5x5 GridWorld of IQ-Learn's figure 4, beside the exact ones."""
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
    dataset: Annotated[
        list[str] | None, Option(metavar="DATASET", help="Transitions to fit on. (default: the run's own)")
    ] = None,
    inputs: Annotated[
        str, Option(metavar="s|sa|sas", help="Inputs: observation; and action; and next observation.")
    ] = "sa",
    form: Form = "normalised",
    updates: Annotated[int, Option(min=1, metavar="N", help="Gradient updates.")] = 5000,
    json: Json = False,
) -> None:
    """Fit an explicit reward network r(s, a) to the recovered reward. `--form distilled` then uses it."""
    from iq_offline.stages.distil import DistilRequest, distil_reward

    bring(*(dataset or ()))
    request = DistilRequest(tuple(dataset or ()), inputs, form, updates)
    with console.progress("distilling", unit="updates", total=updates) as advance:
        report = distil_reward(open_run(run), request, lambda step: advance(step))
    if json:
        return console.show_json(report)
    shown = {f"{part}, {name}": value for part in ("fitted", "held_out") for name, value in report.pop(part).items()}
    return console.show_fields(report | {name.replace("_", " "): value for name, value in shown.items()})


def relabel(
    run: Run,
    dataset: Annotated[str, Option(metavar="DATASET", help="The data to relabel.")],
    to: Annotated[
        Path, Option(metavar="PATH", help="Where to write: NAME-v0 for Minari, FILE.hdf5 for D4RL's layout.")
    ],
    format: Annotated[str, Option(metavar="minari|d4rl", help="The format to write.")] = "minari",
    form: Form = "normalised",
    fitted_to: Annotated[
        list[str] | None,
        Option(metavar="DATASET", help="Data that --form linear is fitted to. (default: the data to relabel)"),
    ] = None,
    json: Json = False,
) -> None:
    """Write a dataset with the recovered reward in place of the recorded one."""
    from iq_offline.stages.relabel import RelabelRequest, relabel_dataset

    bring(dataset, *(fitted_to or ()))
    request = RelabelRequest(dataset, to.absolute(), format, form, tuple(fitted_to or ()))
    record = relabel_dataset(open_run(run), request)
    if json:
        return console.show_json(record)
    console.show(
        f"{to}: {record['read']['episodes']:,} episodes, {record['read']['steps']:,} steps, {form} rewards of {run}"
    )
    return None

"""inspect: what a dataset holds, in numbers and in one picture."""

from pathlib import Path
from typing import Any

from iq_offline.data.summary import per_episode, summarise
from iq_offline.stages.fetch import open_dataset


def inspect_dataset(dataset: str, plot: Path | None = None, *, episodes: bool = False) -> dict[str, Any]:
    """The summary of a dataset; with `episodes`, each of them under `per_episode`. Writes a picture to `plot`.

    Raises ConfigError for a name that is no picture's, and every error of opening the dataset.
    """
    if plot:
        from iq_offline.report.stage_plots import check_picture

        check_picture(plot)
    table = open_dataset(dataset)
    summary = summarise(table)
    if episodes:
        summary["per_episode"] = per_episode(table).to_dicts()
    if plot:
        from iq_offline.report.stage_plots import write_dataset_plot

        write_dataset_plot(table, summary, plot)
    return summary

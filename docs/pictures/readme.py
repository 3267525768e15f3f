#!/usr/bin/env python3
"""Make readme.png: the returns of runs, and the true and the recovered reward of the paper's GridWorld.

make demo
.venv/bin/python docs/pictures/readme.py .demo/runs
"""

import io
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import iq_offline as iq
from iq_offline.tabular.experiments import paper_experiment

PICTURE = Path(__file__).with_name("readme.png")
HEIGHT = 640


def main(runs: str) -> None:
    """Write the picture of the runs in a folder."""
    returns = iq.compare(runs).figure
    images = [pixels(returns), pixels(rewards(returns.get_size_inches()[1]))]
    width = sum(image.shape[1] for image in images)
    joined = np.ones((HEIGHT, width, 3), np.float32)
    start = 0
    for image in images:
        joined[: image.shape[0], start : start + image.shape[1]] = image
        start += image.shape[1]
    plt.imsave(PICTURE, joined)
    print(PICTURE)


def rewards(inches: float) -> Figure:
    """True and recovered reward, cell by cell, in a figure of that height."""
    panels = paper_experiment(seed=0).panels
    figure, axes = plt.subplots(2, 1, figsize=(0.55 * inches, inches), layout="constrained")
    for axis, name in zip(axes, ("true_reward", "recovered_reward"), strict=True):
        shown = axis.imshow(panels[name], cmap="cividis")
        axis.set_title(name.replace("_", " "))
        axis.set_xticks([])
        axis.set_yticks([])
        figure.colorbar(shown, ax=axis, shrink=0.7)
    return figure


def pixels(figure: Figure) -> np.ndarray:
    """A figure as red, green and blue, `HEIGHT` pixels high."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=HEIGHT / figure.get_size_inches()[1], facecolor="white")
    stream.seek(0)
    image: np.ndarray = plt.imread(stream)[:HEIGHT, :, :3]
    return image


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/pictures/readme.py RUNS")
    main(sys.argv[1])

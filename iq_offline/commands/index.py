"""Every command of the command line by name: its group, what it does in a sentence, its code, and examples.

`iq-offline --help` is drawn from this table alone, without Typer and Rich, which take longer to import than help may.
The examples end each command's own help; a test parses them all.
"""

import os
import shutil
import sys
import textwrap
from dataclasses import dataclass

ABOUT = (
    "Offline imitation learning: from demonstrations to a policy, the reward behind it, and a comparison of methods."
)
GROUPS = ("Data", "Training", "Evaluation", "Reports", "Service")
WIDEST = 100
"""Columns of the help on a wide terminal."""


@dataclass(frozen=True)
class Entry:
    """One command."""

    group: str
    summary: str
    """An imperative sentence."""
    code: str
    """`module:function` below `iq_offline.commands`."""
    examples: tuple[str, ...]
    """What follows `iq-offline`."""


COMMANDS: dict[str, Entry] = {
    "datasets": Entry(
        "Data",
        "List the datasets that can be fetched by name.",
        "data:datasets",
        ("datasets", 'datasets "hopper*"', "datasets hopper-medium-v2"),
    ),
    "fetch": Entry(
        "Data",
        "Download a dataset and verify every byte.",
        "data:fetch",
        ("fetch demo/swimmer/expert-v0", "fetch hopper-medium-v2", "fetch hopper-medium-v2 --from hopper.hdf5"),
    ),
    "convert": Entry(
        "Data",
        "Convert a dataset to another format.",
        "data:convert",
        ("convert demos.npz --to demos-v0", "convert demo/swimmer/expert-v0 --to swimmer.hdf5 --format d4rl"),
    ),
    "inspect": Entry(
        "Data",
        "Show what a dataset holds, and its defects.",
        "data:inspect",
        ("inspect demo/swimmer/expert-v0", "inspect demos.hdf5 --episodes --plot demos.png"),
    ),
    "methods": Entry(
        "Training",
        "List the methods, or every setting of one.",
        "training:methods",
        ("methods", "methods iq", "methods iq --actions discrete"),
    ),
    "train": Entry(
        "Training",
        "Train a policy from demonstrations.",
        "training:train",
        (
            "train --dataset demo/swimmer/expert-v0 --method bc --demos 5 --out runs/bc",
            "train --dataset demo/swimmer/expert-v0 --method iq --demos 5 --seeds 0-4 --out runs/iq",
            "train --dataset demos.hdf5 --supplementary more.hdf5 --set prior.updates=2000",
        ),
    ),
    "run": Entry(
        "Training",
        "Run a table of experiments, or resume it.",
        "training:run",
        ("run demo --cores 2", "run demo --dry-run", "run table.yaml --profile slurm"),
    ),
    "reproduce": Entry(
        "Training",
        "Train a run again and compare the tensors.",
        "training:reproduce",
        ("reproduce runs/iq/seed-0", "reproduce runs/iq/seed-0 --tolerance 1e-6"),
    ),
    "eval": Entry(
        "Evaluation",
        "Evaluate policies in simulation.",
        "judging:evaluate",
        ("eval runs", "eval runs/bc runs/iq --episodes 50", "eval runs/iq/seed-0 --video first.mp4"),
    ),
    "reward": Entry(
        "Evaluation",
        "Compare the recovered reward with the true one.",
        "rewards:reward",
        (
            "reward runs/iq/seed-0",
            "reward runs/iq/seed-0 --dataset demo/swimmer/expert-v0 --dataset demo/swimmer/mixed-v0",
        ),
    ),
    "select": Entry(
        "Evaluation",
        "Rank runs without a simulator.",
        "judging:select",
        ("select runs --dataset demo/swimmer/expert-v0", "select runs/bc runs/iq --signal median"),
    ),
    "distil": Entry(
        "Evaluation",
        "Fit an explicit reward network to a recovered reward.",
        "rewards:distil",
        ("distil runs/iq/seed-0", "distil runs/iq/seed-0 --inputs s --updates 2000"),
    ),
    "relabel": Entry(
        "Evaluation",
        "Write a dataset with the recovered reward.",
        "rewards:relabel",
        ("relabel runs/iq/seed-0 --dataset demo/swimmer/mixed-v0 --to relabelled-v0",),
    ),
    "gridworld": Entry(
        "Evaluation",
        "Recover a reward where the exact one is known.",
        "rewards:gridworld",
        ("gridworld --plot gridworld.png", "gridworld --windy"),
    ),
    "report": Entry(
        "Reports",
        "Compare runs in tables, plots and one HTML page.",
        "judging:report",
        ("report runs --out report", "report runs/bc runs/iq --out report --json"),
    ),
    "ui": Entry(
        "Reports",
        "Open MLflow at the comparison.",
        "serving:ui",
        ("ui", "ui --port 5001 --no-browser"),
    ),
    "sync": Entry(
        "Reports",
        "Upload finished runs that MLflow is missing.",
        "serving:sync",
        ("sync runs", "sync runs/iq --register swimmer --report report"),
    ),
    "export": Entry(
        "Service",
        "Export a policy to ONNX, TorchScript or torch.export.",
        "serving:export",
        ("export runs/iq/seed-0 --to policy.onnx", "export runs/iq/seed-0 --to policy.pt"),
    ),
    "verify": Entry(
        "Service",
        "Check the files of run folders.",
        "judging:verify",
        ("verify runs", "verify runs/iq/seed-0 --json"),
    ),
    "clean": Entry(
        "Service",
        "Remove caches and leftovers.",
        "serving:clean",
        ("clean --dry-run", "clean"),
    ),
    "doctor": Entry(
        "Service",
        "Show the installation, and what it lacks.",
        "serving:doctor",
        ("doctor", "doctor --json"),
    ),
}
OPTIONS = {
    "--version": "Print the version.",
    "--install-completion": "Install completion for this shell.",
    "--show-completion": "Print the completion script of this shell.",
    "--help": "Show this message. COMMAND --help shows a command's options and examples.",
}


def overview() -> str:
    """What `iq-offline --help` prints: the commands in their groups, in boxes as Rich draws them."""
    width = min(WIDEST, shutil.get_terminal_size((80, 24)).columns)
    bold, name_style, dim, plain = ("\x1b[1m", "\x1b[36m", "\x1b[2m", "\x1b[0m") if _is_coloured() else ("",) * 4
    lines = [f" {bold}Usage:{plain} iq-offline COMMAND [OPTIONS]", "", *textwrap.wrap(ABOUT, width - 2), ""]
    lines = [line if line.startswith(" ") or not line else f" {line}" for line in lines]
    boxes = {group: {name: one.summary for name, one in COMMANDS.items() if one.group == group} for group in GROUPS}
    column = max(map(len, (*COMMANDS, *OPTIONS)))
    for title, rows in {**boxes, "Options": OPTIONS}.items():
        lines.append(f"{dim}╭─ {title} {'─' * (width - len(title) - 5)}╮{plain}")
        for name, summary in rows.items():
            first, *rest = textwrap.wrap(summary, width - column - 6)
            texts = [(name, first), *(("", line) for line in rest)]
            for label, text in texts:
                padding = " " * (width - column - 6 - len(text))
                lines.append(f"{dim}│{plain} {name_style}{label:<{column}}{plain}  {text}{padding} {dim}│{plain}")
        lines.append(f"{dim}╰{'─' * (width - 2)}╯{plain}")
    start = (
        "fetch demo/swimmer/expert-v0",
        "train --dataset demo/swimmer/expert-v0 --demos 5 --out runs/iq",
        "eval runs",
    )
    lines += [f" {bold}Start:{plain}", *(f"   iq-offline {example}" for example in start)]
    return "\n".join(lines)


def _is_coloured() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"

"""Run folders to report on."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from written_runs import write_folder

WriteRun = Callable[..., Path]


@pytest.fixture
def write_run(tmp_path: Path) -> WriteRun:
    """Call it to write one run folder below the test's own folder; returns the folder.

    `supplementary`: the data that the run's configuration names beside the expert's.
    """

    def write(name: str, supplementary: Sequence[str] | None = None, **facts: Any) -> Path:
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        write_folder(folder, **facts)
        if supplementary is not None:
            config = folder / "config.toml"
            config.write_text(f"supplementary = {json.dumps(list(supplementary))}\n{config.read_text()}")
        return folder

    return write

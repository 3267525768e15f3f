"""Run folders to report on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from written_runs import write_folder

WriteRun = Callable[..., Path]


@pytest.fixture
def write_run(tmp_path: Path) -> WriteRun:
    """Call it to write one run folder below the test's own folder; returns the folder."""

    def write(name: str, **facts: Any) -> Path:
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        write_folder(folder, **facts)
        return folder

    return write

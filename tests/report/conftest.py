"""Run folders to report on."""

from pathlib import Path

import pytest
from written_runs import WriteRun, run_writer


@pytest.fixture
def write_run(tmp_path: Path) -> WriteRun:
    """`run_writer` of the test's own folder."""
    return run_writer(tmp_path)

"""Benchmarks set the number of threads: it is as it was afterwards."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """The number of torch's threads is put back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)

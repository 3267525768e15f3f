"""The recordings of released experts, where they are at hand: every file has the counts that are known."""

from pathlib import Path

import pytest

from iq_offline.data.catalogue import Located
from iq_offline.data.table import open_table

DATA = Path(__file__).parents[3] / "shared" / "data"
# Steps, episodes, mean and standard deviation of the episode return, as published with the files.
KNOWN = {
    "hopper-expert": (50_000, 50, 3728.2, 3.2),
    "hopper-medium": (50_227, 112, 1638.0, 820.4),
    "hopper-replay": (80_146, 270, 976.5, 877.2),
    "hopper-replay-low": (54_243, 240, 702.3, 368.8),
    "hopper-random": (20_021, 902, 17.0, 14.2),
    "halfcheetah-expert": (50_000, 50, 4160.3, 84.8),
    "halfcheetah-medium": (50_000, 50, 1688.1, 76.3),
    "halfcheetah-replay": (80_000, 80, 1190.8, 1334.9),
    "halfcheetah-replay-low": (64_000, 64, 640.4, 780.9),
    "halfcheetah-random": (20_000, 20, -293.6, 79.1),
    "halfcheetah-fast-expert": (50_000, 50, 12051.1, 169.6),
    "halfcheetah-fast-replay": (100_000, 100, 3216.5, 2950.7),
    "walker2d-expert": (49_816, 50, 5366.8, 212.3),
    "halfcheetah-fast-replay-low": (81_000, 81, 2021.7, 1615.6),
    "walker2d-replay-low": (34_343, 177, 599.8, 557.6),
    "walker2d-medium": (50_085, 291, 489.9, 290.6),
    "walker2d-replay": (80_256, 226, 1460.7, 1758.4),
    "walker2d-random": (20_001, 924, 2.9, 6.5),
    "ant-expert": (50_000, 50, 4709.6, 102.9),
    "ant-random": (20_155, 119, -59.7, 92.5),
    "cartpole-expert": (25_000, 50, 500.0, 0.0),
    "acrobot-expert": (7_391, 100, -72.9, 15.2),
    "lunarlander-expert": (40_326, 100, 245.0, 31.9),
    "lunarlander-random": (20_075, 208, -184.9, 112.2),
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_real_file_has_its_published_counts(name: str):
    """A real file has the episodes and returns that are known."""
    path = DATA / f"{name}.hdf5"
    if not path.is_file():
        pytest.skip(f"{name}.hdf5 is not on this machine")
    steps, episodes, mean, std = KNOWN[name]
    table = open_table(Located(name, path))
    returns = table.episodes["return"].to_numpy()
    assert (table.steps, len(table.episodes)) == (steps, episodes)
    assert returns.mean() == pytest.approx(mean, abs=0.051)
    assert returns.std() == pytest.approx(std, abs=0.051)
    assert not table.episodes["unflagged"].any()
    assert table.episodes["successor_known"].all()

"""Names cut to a length: what they share goes, what tells them apart stays."""

import pytest

from iq_offline.report.shortening import shortened, wrapped


def test_long_single_name_loses_its_middle():
    """What fits is left alone; a single name that is too long loses its middle."""
    assert shortened(["abc", "abcdefghij"], 7) == ["abc", "abc~hij"]


def test_rows_show_the_setting_that_differs():
    kinds = ("off", "policy", "mixture")
    rows = [f"anchor=none entropy={kind} value_term=expert" for kind in kinds]
    assert shortened(rows, 40) == [f"anchor=none en~opy={kind} va~erm=expert" for kind in kinds]
    assert shortened(rows, 30) == [f"a~r=none e~y={kind} v~m=ex~rt" for kind in kinds]


def test_key_is_cut_alike_in_every_row():
    """A key is cut alike in every row, and nothing else of a row that fits."""
    rows = [f"supplementary={name}" for name in ("hopper-replay-low", "hopper-replay", "none")]
    assert shortened(rows, 23) == ["su~ry=hopper-replay-low", "su~ry=hopper-replay", "su~ry=none"]


def test_shared_beginnings_and_ends_are_cut_first():
    """Names with the same beginning and the same end show their middle."""
    names = [f"mujoco/hopper-with-wind/{kind}-of-version-zero" for kind in ("expert", "medium")]
    assert all(kind in cut for kind, cut in zip(("expert", "medium"), shortened(names, 32), strict=True))


@pytest.mark.parametrize("size", [12, 20, 45])
def test_different_names_stay_different_and_fit(size):
    """Different names stay different and fit; equal ones stay equal."""
    names = ["x" * 50 + middle + "y" * 50 for middle in ("a", "b", "c")] + [f"k={n} " * 9 for n in range(40)]
    cut = shortened([*names, names[0]], size)
    assert max(map(len, cut)) <= size
    assert len(set(cut)) == len(names)
    assert cut[0] == cut[-1]


def test_label_folds_at_commas_and_between_settings():
    label = "filtered-bc, 3 demos, 1 step in 20, supplementary=halfcheetah-fast-replay-low"
    assert wrapped([label], 32, 4) == [
        "filtered-bc, 3 demos,\n1 step in 20, supplementary=\nhalfcheetah-fast-replay-low",
    ]


def test_long_word_breaks_at_slashes_then_hyphens():
    """A word that fills more than a line breaks behind a slash; a part that does so too, behind a hyphen."""
    assert wrapped(["iq, demo/cartpole/expert-v0"], 14, 6) == ["iq, demo/\ncartpole/\nexpert-v0"]
    assert wrapped(["iq, demo/swimmer-of-five-links/v0"], 14, 6) == ["iq, demo/\nswimmer-of-\nfive-links/\nv0"]
    assert wrapped(["demo/cartpole/expert-v0"], 23, 1) == ["demo/cartpole/expert-v0"]


def test_label_of_many_lines_is_shortened():
    """A label that needs more lines than it has is shortened, and stays different from others."""
    labels = [" ".join(f"setting_number_{place}={value}" for place in range(8)) for value in (1, 2)]
    folded = wrapped(labels, 32, 2)
    assert all(len(line) <= 32 for label in folded for line in label.split("\n"))
    assert all(label.count("\n") < 2 for label in folded)
    assert len(set(folded)) == 2

"""Names cut to a length: what they share goes, what tells them apart stays."""

import pytest

from iq_offline.report.shortening import shortened, wrapped


def test_what_fits_is_left_alone_and_a_single_name_loses_its_middle():
    assert shortened(["abc", "abcdefghij"], 7) == ["abc", "abc~hij"]


def test_rows_that_differ_in_one_setting_show_it():
    kinds = ("off", "policy", "mixture")
    rows = [f"anchor=none entropy={kind} value_term=expert" for kind in kinds]
    assert shortened(rows, 40) == [f"anchor=none en~opy={kind} va~erm=expert" for kind in kinds]
    assert shortened(rows, 30) == [f"a~r=none e~y={kind} v~m=ex~rt" for kind in kinds]


def test_a_key_is_cut_alike_in_every_row_and_nothing_else_of_a_row_that_fits():
    rows = [f"supplementary={name}" for name in ("hopper-replay-low", "hopper-replay", "none")]
    assert shortened(rows, 23) == ["su~ry=hopper-replay-low", "su~ry=hopper-replay", "su~ry=none"]


def test_names_of_one_beginning_and_one_end_show_their_middle():
    names = [f"mujoco/hopper-with-wind/{kind}-of-version-zero" for kind in ("expert", "medium")]
    assert all(kind in cut for kind, cut in zip(("expert", "medium"), shortened(names, 32), strict=True))


@pytest.mark.parametrize("size", [12, 20, 45])
def test_different_names_stay_different_and_fit_and_equal_ones_stay_equal(size):
    names = ["x" * 50 + middle + "y" * 50 for middle in ("a", "b", "c")] + [f"k={n} " * 9 for n in range(40)]
    cut = shortened([*names, names[0]], size)
    assert max(map(len, cut)) <= size
    assert len(set(cut)) == len(names)
    assert cut[0] == cut[-1]


def test_a_label_is_folded_at_its_commas_and_between_settings():
    label = "filtered-bc, 3 demos, 1 step in 20, supplementary=halfcheetah-fast-replay-low"
    assert wrapped([label], 32, 4) == [
        "filtered-bc, 3 demos,\n1 step in 20, supplementary=\nhalfcheetah-fast-replay-low",
    ]


def test_what_needs_more_lines_is_shortened_and_stays_different():
    labels = [" ".join(f"setting_number_{place}={value}" for place in range(8)) for value in (1, 2)]
    folded = wrapped(labels, 32, 2)
    assert all(len(line) <= 32 for label in folded for line in label.split("\n"))
    assert all(label.count("\n") < 2 for label in folded)
    assert len(set(folded)) == 2

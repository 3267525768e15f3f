"""Supplementary data by name: short, alike from task to task, never two sets under one name."""

import pytest
from matplotlib.figure import Figure

from iq_offline.report.comparison import aggregate_table, variants
from iq_offline.report.groups import grouped
from iq_offline.report.loading import load_runs
from iq_offline.report.pictures import pictures
from iq_offline.report.supplementary import set_names
from iq_offline.report.tables import as_text, summary_table
from iq_offline.report.write import write_report


def replay_runs(write_run, **facts):
    """bc alone, iq alone and beside two files, on hopper and a faster half-cheetah; iq beside `replay` has 2 and 4."""
    returns = {("bc", None): 1.0, ("iq", None): 1.0, ("iq", "replay"): None, ("iq", "replay-low"): 3.0}
    return [
        write_run(
            f"{task}-{method}-{kind}",
            supplementary=[] if kind is None else [f"/data/{place}/{task}-{kind}.hdf5"],
            dataset=f"{task}-expert",
            method=method,
            returns=[own or replay],
            **{"reference": None, "data_return": 10.0} | facts,
        )
        for task, place, replay in (("hopper", "one", 2.0), ("halfcheetah-fast", "another/folder", 4.0))
        for (method, kind), own in returns.items()
    ]


@pytest.mark.parametrize(
    ("expert", "source", "beside", "across"),
    [
        ("hopper-expert", "/data/hopper-replay.hdf5", "hopper-replay", "replay"),
        ("hopper-expert", "/data/hopper-replay-low.hdf5", "hopper-replay-low", "replay-low"),
        ("halfcheetah-fast-expert", "/data/halfcheetah-fast-replay.hdf5", "halfcheetah-fast-replay", "replay"),
        ("hopper-expert-v2", "hopper-medium-v2", "hopper-medium-v2", "medium-v2"),
        ("demo/swimmer/expert-v0", "demo/swimmer/mixed-v0", "demo/swimmer/mixed-v0", "mixed-v0"),
        ("hopper-expert", "/data/hop-replay.npz", "hop-replay", "hop-replay"),
        ("hopper-expert", "/data/hopper-expert.hdf5", "hopper-expert", "expert"),
        ("hopper", "/data/hopper.v2", "hopper.v2", "hopper.v2"),
    ],
)
def test_a_set_is_called_by_its_dataset_and_over_tasks_without_what_names_the_task(expert, source, beside, across):
    assert set_names([(source,)], expert, across=False) == {(source,): beside}
    assert set_names([(source,)], expert, across=True) == {(source,): across}


def test_several_datasets_are_joined_and_none_is_said():
    three = ("/d/hopper-random.hdf5", "/d/hopper-medium.hdf5")
    assert set_names([three, ()], "hopper-expert", across=True) == {three: "random+medium", (): "none"}


def test_sets_that_would_look_alike_keep_longer_names_and_the_others_their_short_ones():
    stems = [("/d/hopper-replay.hdf5",), ("/d/replay.hdf5",), ("/d/hopper-low.hdf5",)]
    assert list(set_names(stems, "hopper-expert", across=True).values()) == ["low", "hopper-replay", "replay"]
    folders = [("/d/new/hopper-replay.hdf5",), ("/d/old/hopper-replay.hdf5",)]
    assert list(set_names(folders, "hopper-expert", across=True).values()) == [
        "new/hopper-replay.hdf5",
        "old/hopper-replay.hdf5",
    ]
    deep = [("/d/new/x/a.hdf5",), ("/d/old/x/a.hdf5",)]
    assert list(set_names(deep, "b", across=True).values()) == ['["/d/new/x/a.hdf5"]', '["/d/old/x/a.hdf5"]']


def test_rows_name_the_dataset_and_the_comparison_over_tasks_pairs_what_is_the_same_kind_of_data(write_run):
    results = load_runs(replay_runs(write_run))[0]
    table = summary_table(results)
    assert table.filter(dataset="hopper-expert")["settings"].to_list() == [
        "",
        *(f"supplementary={name}" for name in ("hopper-replay", "hopper-replay-low", "none")),
    ]
    found = {row["variant"]: row for row in aggregate_table(grouped(results)).iter_rows(named=True)}
    assert found.keys() == {"bc", *(f"iq, supplementary={name}" for name in ("none", "replay", "replay-low"))}
    # 2 and 4 of 10: 20 and 40 percent, both better than 1.
    replay = found["iq, supplementary=replay"]
    assert (replay["tasks"], replay["aggregate_mean"], replay["improvement"]) == (2, pytest.approx(30.0), 1.0)


def test_two_files_of_one_stem_are_two_rows_and_two_variants(write_run):
    folders = [
        write_run(place, supplementary=[f"/d/{place}/hopper-replay.hdf5"], dataset="hopper-expert", returns=[1.0])
        for place in ("new", "old")
    ]
    groups = grouped(load_runs(folders)[0])
    assert len(groups) == len(variants(groups)) == 2


def test_runs_without_supplementary_data_share_a_row_whether_their_configuration_says_so_or_not(write_run):
    results = load_runs([write_run("a"), write_run("b", supplementary=[], seed=1)])[0]
    assert [group.settings for group in grouped(results)] == [""]


@pytest.mark.usefixtures("undrawn")
def test_no_path_is_printed(write_run, tmp_path):
    files = write_report(replay_runs(write_run), tmp_path / "out")
    for text in (as_text(files.summary), as_text(files.aggregate), (tmp_path / "out" / "summary.csv").read_text()):
        assert "replay-low" in text
        assert "/data" not in text


@pytest.mark.slow
def test_axes_keep_most_of_a_picture_however_long_the_settings_are(write_run, monkeypatch):
    """A layout that finds no room warns, and a warning fails the test."""
    shown = []
    save = Figure.savefig

    def measured(figure, *args, **options):
        save(figure, *args, **options)
        shown.extend(axes.get_window_extent().size / figure.dpi for axes in figure.axes if axes.axison)

    monkeypatch.setattr(Figure, "savefig", measured)
    settings = "\n".join(f"a_rather_long_name_of_a_setting_{number} = {{value}}" for number in range(6))
    folders = [
        write_run(
            f"{method}-{place}",
            supplementary=[f"/data/a/long/place/{'-'.join(['hopper', *['replay'] * (place + 1)])}.hdf5"],
            dataset="hopper-expert",
            method=method,
            demos=demos,
            algorithm=settings.format(value=place),
            returns=[500.0, 700.0],
            rewards={"transition": 0.5},
        )
        for method, demos in (("bc", 1), ("iq", 5), ("a-method-of-a-long-name", 5))
        for place in range(4)
    ]
    assert len(pictures(grouped(load_runs(folders)[0]))) == 6
    assert len(shown) > 20
    assert min(width for width, _ in shown) > 1.5
    assert min(height for _, height in shown) > 1.2

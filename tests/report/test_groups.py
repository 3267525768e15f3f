"""Supplementary data by name: short, alike from task to task, never two sets under one name."""

import pytest
from matplotlib.figure import Figure

from iq_offline.report.comparison import variants
from iq_offline.report.groups import grouped, supplementary_names
from iq_offline.report.loading import load_runs
from iq_offline.report.plots import pictures
from iq_offline.report.tables import aggregate_table, as_csv, as_text, summary_table


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
        ("demo/swimmer/expert-v0", "/w/datasets/demo-swimmer-mixed-v0-da0c43-v0", "demo/swimmer/mixed-v0", "mixed-v0"),
        ("hopper-expert", "/data/hop-replay.npz", "hop-replay", "hop-replay"),
        ("hopper-expert", "/data/hopper-expert.hdf5", "hopper-expert", "expert"),
        ("hopper", "/data/hopper.v2", "hopper.v2", "hopper.v2"),
    ],
)
def test_set_is_named_after_its_dataset(expert, source, beside, across):
    """Supplementary data are called by their dataset; over tasks, without the words that name the task."""
    assert supplementary_names([(source,)], expert, across=False) == {(source,): beside}
    assert supplementary_names([(source,)], expert, across=True) == {(source,): across}


def test_names_of_several_datasets_are_joined():
    """Several datasets are joined by a plus; no dataset is called `none`."""
    three = ("/d/hopper-random.hdf5", "/d/hopper-medium.hdf5")
    assert supplementary_names([three, ()], "hopper-expert", across=True) == {three: "random+medium", (): "none"}


def test_similar_sets_keep_longer_names():
    """Sets that would look alike keep longer names, and the others their short ones."""
    stems = [("/d/hopper-replay.hdf5",), ("/d/replay.hdf5",), ("/d/hopper-low.hdf5",)]
    assert list(supplementary_names(stems, "hopper-expert", across=True).values()) == ["low", "hopper-replay", "replay"]
    folders = [("/d/new/hopper-replay.hdf5",), ("/d/old/hopper-replay.hdf5",)]
    assert list(supplementary_names(folders, "hopper-expert", across=True).values()) == [
        "new/hopper-replay.hdf5",
        "old/hopper-replay.hdf5",
    ]
    deep = [("/d/new/x/a.hdf5",), ("/d/old/x/a.hdf5",)]
    assert list(supplementary_names(deep, "b", across=True).values()) == ['["/d/new/x/a.hdf5"]', '["/d/old/x/a.hdf5"]']


def test_same_kind_of_data_pairs_over_tasks(write_run):
    """Rows name the dataset; the comparison over tasks pairs what is the same kind of data."""
    results = load_runs(replay_runs(write_run))[0]
    table = summary_table(grouped(results))
    assert table.filter(dataset="hopper-expert")["settings"].to_list() == [
        "",
        *(f"supplementary={name}" for name in ("hopper-replay", "hopper-replay-low", "none")),
    ]
    found = {row["variant"]: row for row in aggregate_table(grouped(results)).iter_rows(named=True)}
    assert found.keys() == {"bc", *(f"iq, supplementary={name}" for name in ("none", "replay", "replay-low"))}
    # 2 and 4 of 10: 20 and 40 percent, both better than 1.
    replay = found["iq, supplementary=replay"]
    assert (replay["tasks"], replay["aggregate_mean"], replay["improvement"]) == (2, pytest.approx(30.0), 1.0)


def test_files_of_one_stem_are_two_rows(write_run):
    """Two files with one stem are two rows and two variants."""
    folders = [
        write_run(place, supplementary=[f"/d/{place}/hopper-replay.hdf5"], dataset="hopper-expert", returns=[1.0])
        for place in ("new", "old")
    ]
    groups = grouped(load_runs(folders)[0])
    assert len(groups) == len(variants(groups)) == 2


def test_runs_without_supplementary_data_share_a_row(write_run):
    """They do so whether or not their configuration has the key."""
    results = load_runs([write_run("a"), write_run("b", supplementary=[], seed=1)])[0]
    assert [group.settings for group in grouped(results)] == [""]


def test_no_path_is_printed(write_run):
    groups = grouped(load_runs(replay_runs(write_run))[0])
    for text in (as_text(summary_table(groups)), as_text(aggregate_table(groups)), as_csv(summary_table(groups))):
        assert "replay-low" in text
        assert "/data" not in text


@pytest.mark.slow
def test_long_settings_leave_room_for_axes(write_run, monkeypatch):
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
        for place in range(2)
    ]
    assert len(pictures(grouped(load_runs(folders)[0]))) == 7
    assert len(shown) > 20
    assert min(width for width, _ in shown) > 1.5
    assert min(height for _, height in shown) > 1.2

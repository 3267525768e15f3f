"""Plots: PNG files, the same bytes each time, that show the data and nothing of the machine."""

import polars as pl
import pytest

from iq_offline.report.comparison_plots import by_demonstrations
from iq_offline.report.groups import grouped
from iq_offline.report.loading import load_runs
from iq_offline.report.pictures import _in_turn, _returns, pictures
from iq_offline.report.plots import MAX_POINTS, _sampled, curves_plot, returns_plot, reward_plot

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iq_offline.report.plots.DPI", 40)


def two_by_two(write_run, **facts):
    folders = [
        write_run(f"{method}-{seed}", method=method, seed=seed, returns=[500.0 + seed, 700.0], rewards=rewards, **facts)
        for method, rewards in (("bc", None), ("iq", {"transition": 0.5}))
        for seed in (0, 1)
    ]
    return load_runs(folders)[0]


def test_every_kind_of_plot_is_a_png_without_a_software_tag_and_equal_over_two_calls(write_run):
    groups = grouped(two_by_two(write_run))
    once, again = pictures(groups), pictures(groups)
    of_the_dataset = [f"hopper-expert-v2-{kind}.png" for kind in ("returns", "curves", "reward", "episodes")]
    assert [picture.file_name for picture in once] == ["all-tasks-iqm.png", "all-tasks-profiles.png", *of_the_dataset]
    assert [picture.png for picture in once] == [picture.png for picture in again]
    assert all(picture.png.startswith(PNG) and b"Software" not in picture.png for picture in once)


def test_returns_are_drawn_against_the_number_of_demonstrations_where_there_are_several(write_run):
    def picture_of(results):
        return {one.file_name: one.png for one in pictures(grouped(results))}.get("hopper-expert-v2-demonstrations.png")

    sizes = [("bc", 1), ("bc", None), ("iq", 5), ("iq", 1), ("ls-iq", 5)]
    folders = [
        write_run(f"{method}-{demos}-{seed}", method=method, demos=demos, seed=seed, returns=[100.0 * (demos or 9)])
        for method, demos in sizes
        for seed in (0, 1)
    ]
    results = load_runs(folders)[0]
    lines = by_demonstrations(grouped(results))
    assert {name: [group.demos for group in line] for name, line in lines.items()} == {"bc": [1, None], "iq": [1, 5]}
    drawn = picture_of(results)
    assert drawn is not None
    results[-3].evaluation["return_mean"] += 50
    assert picture_of(results) != drawn
    assert picture_of([run for run in results if run.manifest["demos"] == 5]) is None


def test_plots_do_not_follow_the_callers_matplotlib_settings_and_leave_them_alone(write_run):
    import matplotlib as mpl

    groups = grouped(two_by_two(write_run))
    plain = returns_plot(groups)
    with mpl.rc_context({"font.size": 30.0}):
        assert returns_plot(groups) == plain
        assert mpl.rcParams["font.size"] == 30.0


def test_curves_change_with_the_metrics_and_nulls_are_no_points(write_run):
    results = two_by_two(write_run)
    before = curves_plot(grouped(results))
    path = results[-1].folder / "metrics.parquet"
    pl.read_parquet(path).with_columns(pl.col("loss") * 2).write_parquet(path)
    assert curves_plot(grouped(results)) != before


def test_the_scatter_shows_the_rewards(write_run):
    results = two_by_two(write_run)
    groups, run = grouped(results), results[-1]
    before = reward_plot(groups, [run])
    path = run.folder / "rewards.parquet"
    pl.read_parquet(path).with_columns(-pl.col("recovered")).write_parquet(path)
    assert reward_plot(groups, [run]) != before


def test_a_scatter_holds_at_most_4000_points_the_same_each_time():
    transitions = pl.DataFrame({"true": range(10_000)})
    sampled = _sampled(transitions)
    assert len(sampled) == sampled["true"].n_unique() == MAX_POINTS == 4000
    assert sampled["true"].is_sorted()
    assert sampled.equals(_sampled(transitions))


@pytest.mark.usefixtures("undrawn")
def test_more_runs_than_panels_are_counted_in_the_caption(write_run):
    folders = [write_run(f"r{seed}", seed=seed, rewards={}) for seed in range(13)]
    captions = [picture.caption for picture in pictures(grouped(load_runs(folders)[0]))]
    assert captions[-1].endswith(" 12 of 13 runs.")


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("dataset", ["a$b$_{", "<b>", "..", "a/b"])
def test_odd_dataset_names_make_plain_file_names(write_run, dataset):
    for picture in pictures(grouped([*two_by_two(write_run, dataset=dataset)])):
        assert set(picture.file_name) <= set("abcdefghijklmnopqrstuvwxyz-.")
        assert not picture.file_name.startswith(".")


@pytest.mark.usefixtures("undrawn")
def test_two_names_that_become_one_file_name_are_numbered(write_run):
    results = load_runs([write_run("a", dataset="x/y"), write_run("b", dataset="x y")])[0]
    assert [picture.file_name for picture in pictures(grouped(results))] == ["x-y-curves.png", "x-y-2-curves.png"]


def test_more_runs_than_panels_show_each_rows_first_seed_before_its_second(write_run):
    folders = [
        write_run(f"{demos}-{seed}", demos=demos, seed=seed, rewards={}) for demos in (1, 2, 3) for seed in range(5)
    ]
    shown = _in_turn(grouped(load_runs(folders)[0]))
    assert [run.run for run in shown[:4]] == ["1-0", "2-0", "3-0", "1-1"]
    assert len(shown) == 15


@pytest.mark.usefixtures("undrawn")
def test_many_rows_of_returns_go_on_in_a_second_picture(write_run):
    folders = [write_run(f"r{demos}", demos=demos, returns=[1.0]) for demos in range(1, 26)]
    found = _returns("d", "d", grouped(load_runs(folders)[0]))
    assert [(picture.file_name, picture.title) for picture in found] == [
        ("d-returns-1.png", "d: returns (1 of 2)"),
        ("d-returns-2.png", "d: returns (2 of 2)"),
    ]


@pytest.mark.usefixtures("undrawn")
def test_runs_without_results_have_only_learning_curves(write_run):
    (picture,) = pictures(grouped(load_runs([write_run("a")])[0]))
    assert picture.title == "hopper-expert-v2: learning curves"

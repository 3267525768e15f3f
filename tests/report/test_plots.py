"""Plots: PNG files, the same bytes each time, that show the data and nothing of the machine."""

import struct

import numpy as np
import polars as pl
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from iq_offline.report import plots
from iq_offline.report.figures import GREY, mark_anchors
from iq_offline.report.groups import grouped
from iq_offline.report.loading import load_runs
from iq_offline.report.plots import (
    MAX_POINTS,
    ReturnScale,
    by_demonstrations,
    curve_of,
    curves_plot,
    demonstrations_plot,
    is_folded,
    limit_values,
    pictures,
    returns_figure,
    returns_pictures,
    returns_plot,
    rewards_plot,
    runs_in_turn,
    sampled,
    transition_plot,
)
from iq_offline.report.recovered import reward_levels

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iq_offline.report.figures.DPI", 40)


def two_by_two(write_run, **facts):
    folders = [
        write_run(f"{method}-{seed}", method=method, seed=seed, returns=[500.0 + seed, 700.0], rewards=rewards, **facts)
        for method, rewards in (("bc", None), ("iq", {"transition": 0.5}))
        for seed in (0, 1)
    ]
    return load_runs(folders)[0]


def test_every_kind_of_picture_is_a_png(write_run):
    """Every kind of plot is a PNG without a software tag, in the order of the page."""
    drawn = pictures(grouped(two_by_two(write_run)))
    of_the_dataset = [f"hopper-expert-v2-{kind}.png" for kind in ("returns", "curves", "reward", "episodes")]
    over_all = [f"all-tasks-{kind}.png" for kind in ("iqm", "profiles", "rewards")]
    assert [picture.file_name for picture in drawn] == [*over_all, *of_the_dataset]
    for picture in drawn:
        drawings = [png for png in (picture.png, picture.phone_png) if png is not None]
        assert len(drawings) == 1 + (not is_folded(picture.file_name))
        assert all(png.startswith(PNG) and b"Software" not in png for png in drawings)
        widths = [struct.unpack(">I", png[16:20])[0] for png in drawings]
        assert widths == [260, 144][: len(widths)]


def test_scores_are_anchored_at_random_and_expert(write_run):
    """The axis of returns reaches from the random policy's 0 to the expert's 100, however little the methods differ."""
    folders = [write_run(m, method=m, returns=[r], data_return=100.0) for m, r in (("bc", 50.0), ("iq", 50.5))]
    groups = grouped(load_runs(folders)[0])
    scale = ReturnScale.of(groups)
    assert (scale.name, scale.marks) == ("return in % of the dataset's mean", ("return 0", "data's mean"))
    assert scale([0.0, 50.0, 100.0]).tolist() == [0.0, 50.0, 100.0]
    axes = Figure().subplots()
    axes.plot(scale([50.0, 50.5]), [0, 1])
    mark_anchors(axes, scale.marks)
    low, high = axes.get_xlim()
    assert low < 0
    assert high > 100
    assert [text.get_text() for text in axes.texts] == ["return 0", "data's mean"]


def test_curves_join_cloning_and_method(write_run):
    """A curve begins with the cloning phase, whose metrics have a prefix, and says how long that is."""
    ((run,), _) = load_runs([write_run("a", method="iq", seed=3)])
    curve = curve_of("loss", "iq", run, run.table("metrics.parquet"))
    assert (curve.seed, curve.cloning_updates) == (3, 40)
    assert curve.points["step"].to_list() == list(range(0, 100, 10))
    later = curve_of("expert_reward", "iq", run, run.table("metrics.parquet"))
    assert later.points["step"].min() == 50
    assert curve_of("action_error", "iq", run, run.table("metrics.parquet")) is None


def test_shading_is_explained_where_it_is(write_run):
    """The caption of the curves speaks of shading only where a run has a cloning phase."""
    runs = [write_run("a", method="iq"), write_run("b", method="bc")]
    metrics = runs[1] / "metrics.parquet"
    pl.read_parquet(metrics).select("step", "loss").write_parquet(metrics)
    captions = {
        name: next(picture.caption for picture in pictures(grouped(load_runs(own)[0])))
        for name, own in {"bc": runs[1:], "both": runs}.items()
    }
    assert "Shaded" not in captions["bc"]
    assert "Shaded: behavioural cloning" in captions["both"]


def test_rewards_plot_follows_the_correlations(write_run):
    """The chart of rewards shows each baseline that has a correlation, and changes with it."""
    rewards = {"transition": 0.5, "null_bc": 0.2, "episode": 0.9, "null_length": 0.8}
    results = load_runs([write_run("a", rewards=rewards)])[0]
    levels = reward_levels(grouped(results))
    assert [(level.level, level.means) for level in levels] == [
        ("transition", {"recovered reward": 0.5, "cloning": 0.2}),
        ("episode", {"recovered reward": 0.9, "episode length": 0.8}),
    ]
    before = rewards_plot(levels)
    results[0].reward["null_bc"]["pearson"] = 0.7
    assert rewards_plot(reward_levels(grouped(results))) != before


def test_returns_are_drawn_by_number_of_demonstrations(write_run):
    """Where a method has several numbers of demonstrations, its returns are drawn against them."""
    sizes = [("bc", 1), ("bc", None), ("iq", 5), ("iq", 1), ("ls-iq", 5)]
    folders = [
        write_run(f"{method}-{demos}-{seed}", method=method, demos=demos, seed=seed, returns=[100.0 * (demos or 9)])
        for method, demos in sizes
        for seed in (0, 1)
    ]
    results = load_runs(folders)[0]
    lines = by_demonstrations(grouped(results))
    assert {name: [group.demos for group in line] for name, line in lines.items()} == {"bc": [1, None], "iq": [1, 5]}
    assert "hopper-expert-v2-demonstrations.png" in [picture.file_name for picture in pictures(grouped(results))]
    drawn = demonstrations_plot(lines)
    results[-3].evaluation["return_mean"] += 50
    assert demonstrations_plot(by_demonstrations(grouped(results))) != drawn
    assert by_demonstrations(grouped([run for run in results if run.manifest["demos"] == 5])) == {}


def test_plots_ignore_and_keep_matplotlib_settings(write_run):
    """Plots do not follow the caller's settings of Matplotlib, and leave them alone."""
    import matplotlib as mpl

    groups = grouped(two_by_two(write_run))
    plain = returns_plot(groups)
    with mpl.rc_context({"font.size": 30.0}):
        assert returns_plot(groups) == plain
        assert mpl.rcParams["font.size"] == 30.0


def test_curves_change_with_the_metrics(write_run):
    """Learning curves show the metrics, of which nulls are no points."""
    results = two_by_two(write_run)
    before = curves_plot(grouped(results))
    path = results[-1].folder / "metrics.parquet"
    pl.read_parquet(path).with_columns(pl.col("loss") * 2).write_parquet(path)
    assert curves_plot(grouped(results)) != before


@pytest.mark.parametrize(
    ("values", "limits"), [([0.0, 0.0], (-0.05, 1.0)), ([1e-9, -2e-9], (-1.0, 1.0)), ([3.0, 3.0], (-0.3, 6.0))]
)
def test_constant_curves_have_plain_axes(values, limits):
    """A constant metric is a line in the middle or a little above the axis; its rounding is not enlarged."""
    axes = Figure().subplots()
    axes.plot(values)
    limit_values(axes, np.array(values))
    assert axes.get_ylim() == pytest.approx(limits)


def test_curves_without_negative_values_start_at_zero():
    axes = Figure().subplots()
    axes.plot([0.0, 0.002])
    limit_values(axes, np.array([0.0, 0.002]))
    low, high = axes.get_ylim()
    assert 0.002 < high < 0.003
    assert low == pytest.approx(-0.05 * high)


def test_legend_is_grey_and_lines_have_butt_ends(write_run):
    """Marks of the legend have no row's colour, and an interval's line ends where the interval does."""
    figure = returns_figure(grouped(two_by_two(write_run)))
    (axes,) = figure.axes
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    for name in ("an episode", "a seed's mean"):
        assert to_hex(handles[name].get_facecolor()[0]) == GREY
    assert {line.get_solid_capstyle() for line in axes.lines} == {"butt"}


def test_scatter_changes_with_the_rewards(write_run):
    results = two_by_two(write_run)
    groups, run = grouped(results), results[-1]
    before = transition_plot(groups, [run])
    path = run.folder / "rewards.parquet"
    pl.read_parquet(path).with_columns(-pl.col("recovered")).write_parquet(path)
    assert transition_plot(groups, [run]) != before


def test_scatter_samples_at_most_4000_points():
    """A scatter holds at most 4000 points, the same each time."""
    transitions = pl.DataFrame({"true": range(10_000)})
    points = sampled(transitions)
    assert len(points) == points["true"].n_unique() == MAX_POINTS == 4000
    assert points["true"].is_sorted()
    assert points.equals(sampled(transitions))


def test_caption_counts_runs_beyond_the_panels(write_run, monkeypatch):
    monkeypatch.setattr(plots, "MAX_PANELS", 2)
    folders = [write_run(f"r{seed}", seed=seed, rewards={}) for seed in range(3)]
    captions = [picture.caption for picture in pictures(grouped(load_runs(folders)[0]))]
    assert captions[-1].endswith(" 2 of 3 runs.")


def test_odd_dataset_names_make_plain_file_names(write_run):
    datasets = ["a$b$_{", "<b>", "..", "a/b"]
    folders = [write_run(str(place), dataset=dataset) for place, dataset in enumerate(datasets)]
    names = [picture.file_name for picture in pictures(grouped(load_runs(folders)[0]))]
    assert len(set(names)) == 4
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz-.0123456789") for name in names)
    assert not any(name.startswith(".") for name in names)


def test_equal_file_names_are_numbered(write_run):
    results = load_runs([write_run("a", dataset="x/y"), write_run("b", dataset="x y")])[0]
    assert [picture.file_name for picture in pictures(grouped(results))] == ["x-y-curves.png", "x-y-2-curves.png"]


def test_panels_show_first_seeds_before_second_seeds(write_run):
    """Where not all runs have a panel, each row's first seed comes before any row's second."""
    folders = [
        write_run(f"{demos}-{seed}", demos=demos, seed=seed, rewards={}) for demos in (1, 2, 3) for seed in range(5)
    ]
    shown = runs_in_turn(grouped(load_runs(folders)[0]))
    assert [run.run for run in shown[:4]] == ["1-0", "2-0", "3-0", "1-1"]
    assert len(shown) == 15


def test_many_rows_continue_in_second_picture(write_run, monkeypatch):
    monkeypatch.setattr(plots, "MAX_ROWS", 2)
    folders = [write_run(f"r{demos}", demos=demos, returns=[1.0]) for demos in (1, 2, 3)]
    found = returns_pictures("d", "d", grouped(load_runs(folders)[0]))
    assert [(picture.file_name, picture.title) for picture in found] == [
        ("d-returns-1.png", "d: returns (1 of 2)"),
        ("d-returns-2.png", "d: returns (2 of 2)"),
    ]


def test_runs_without_results_show_learning_curves_alone(write_run):
    (picture,) = pictures(grouped(load_runs([write_run("a")])[0]))
    assert picture.title == "hopper-expert-v2: learning curves"

"""Tables against numbers worked out by hand."""

import pytest

from iq_offline.report.groups import cautions, grouped, missing_stages
from iq_offline.report.loading import load_runs
from iq_offline.report.tables import as_markdown, as_text, concise, first_columns, runs_table, summary_table


def only_row(folders):
    (row,) = summary_table(grouped(load_runs(folders)[0])).iter_rows(named=True)
    return row


def test_row_over_four_seeds_by_hand(write_run):
    # Means 100, 200, 300, 1000: their mean is 400; a quarter cut from each end leaves 200 and 300, so the IQM is 250.
    returns = [[90.0, 110.0], [200.0, 200.0], [300.0, 300.0], [900.0, 1100.0]]
    scores = [10.0, 20.0, 30.0, 100.0]
    row = only_row(
        [write_run(f"s{i}", seed=i, returns=returns[i], score=scores[i], data_return=800.0) for i in range(4)]
    )
    assert (row["seeds"], row["episodes"], row["return_mean"], row["return_iqm"]) == (4, 8, 400.0, 250.0)
    assert (row["score_iqm"], row["reference"]) == (25.0, "d4rl")
    assert row["percent_of_data"] == pytest.approx(50.0)
    assert 100.0 <= row["return_low"] <= 250.0 <= row["return_high"] <= 1000.0


def test_one_seed_has_no_interval(write_run):
    row = only_row([write_run("a", returns=[1.0, 3.0])])
    assert (row["return_iqm"], row["return_low"], row["return_high"]) == (2.0, None, None)


def test_correlations_are_means_over_seeds(write_run):
    """Correlations are means over seeds, and stand beside their nulls."""
    first = {"transition": 0.5, "episode": 0.9, "null_bc": 0.3, "null_bc_episode": 0.6, "null_length": 0.8}
    second = first | {"transition": 0.7, "null_length": 0.6}
    row = only_row([write_run("a", seed=0, rewards=first), write_run("b", seed=1, rewards=second)])
    names = ["transition", "null_bc", "episode", "null_bc_episode", "null_length"]
    assert [row[f"{name}_pearson"] for name in names] == pytest.approx([0.6, 0.3, 0.9, 0.6, 0.7])


def test_without_stages_every_result_is_null(write_run):
    row = only_row([write_run("a")])
    known = {"dataset", "method", "demos", "subsample", "settings", "seeds"}
    assert {name for name, value in row.items() if value is not None} == known


def test_undefined_correlation_is_left_out_of_mean(write_run):
    """An undefined correlation is null, and the other seed's counts."""
    folders = [write_run("a", seed=0, rewards={}), write_run("b", seed=1, rewards={"transition": 0.4})]
    row = only_row(folders)
    assert (row["transition_pearson"], row["episode_pearson"]) == (0.4, None)


def test_scores_of_two_references_are_never_averaged(write_run):
    folders = [
        write_run("a", seed=0, returns=[1.0], score=10.0, reference="d4rl"),
        write_run("b", seed=1, returns=[3.0], score=90.0, reference="minari"),
    ]
    row = only_row(folders)
    assert (row["return_mean"], row["score_iqm"], row["reference"]) == (2.0, None, "mixed")
    assert "d4rl and minari" in cautions(grouped(load_runs(folders)[0]))[0]


def test_environments_and_settings_never_share_a_row(write_run):
    """Returns of two environments, or runs with two settings, never share a row."""
    folders = [
        write_run("a", returns=[1.0]),
        write_run("b", returns=[3.0], env_id="Hopper-v5", reference=None),
        write_run("c", returns=[5.0], algorithm="temperature = 1.0"),
    ]
    table = summary_table(grouped(load_runs(folders)[0])).sort("return_mean")
    assert table["return_mean"].to_list() == [1.0, 3.0, 5.0]
    assert table["settings"].to_list() == [
        "env=Hopper-v2 temperature=3.0",
        "env=Hopper-v5 temperature=3.0",
        "env=Hopper-v2 temperature=1.0",
    ]
    assert table["percent_of_data"].to_list() == pytest.approx([0.1, None, 0.5])


@pytest.mark.parametrize("data_return", [None, 0.0, -40.0])
def test_percent_of_nonpositive_return_is_null(write_run, data_return):
    assert only_row([write_run("a", returns=[-50.0], data_return=data_return)])["percent_of_data"] is None


def test_order_of_rows(write_run):
    """Rows are ordered by dataset, then bc before iq, then demonstrations with all of them last."""
    order = [("a", "bc", None), ("a", "iq", 1), ("a", "iq", 5), ("a", "iq", None), ("b", "bc", 1), ("b", "iq", 1)]
    folders = [write_run(str(i), dataset=d, method=m, demos=n) for i, (d, m, n) in enumerate(order)]
    table = summary_table(grouped(load_runs(folders[::-1])[0]))
    assert table.select("dataset", "method", "demos").rows() == order
    assert runs_table(grouped(load_runs(folders[::-1])[0]))["run"].to_list() == ["0", "1", "2", "3", "4", "5"]


def test_runs_table_has_each_runs_own_numbers(write_run):
    folders = [write_run("a", seed=1, returns=[1.0, 3.0], score=7.0), write_run("b", seed=0)]
    table = runs_table(grouped(load_runs(folders)[0]))
    columns = ("run", "seed", "episodes", "return_mean", "return_std", "score", "seconds")
    assert table.select(columns).rows() == [("b", 0, None, None, None, None, 2.5), ("a", 1, 2, 2.0, 1.0, 7.0, 2.5)]


def test_missing_stages_are_listed_with_their_commands(write_run, monkeypatch):
    """Missing stages are listed with the command that runs them; bc has no reward to recover."""
    folders = [write_run("a b", method="iq"), write_run("c", method="bc"), write_run("d", returns=[1.0], rewards={})]
    monkeypatch.chdir(folders[0].parent)
    assert [(item.run, item.command) for item in missing_stages(load_runs(folders)[0])] == [
        ("a b", "iq-offline eval 'a b'"),
        ("a b", "iq-offline reward 'a b'"),
        ("c", "iq-offline eval c"),
    ]


def test_half_evaluated_row_and_repeated_seed_are_cautioned(write_run):
    folders = [write_run("a", returns=[1.0], rewards={}), write_run("b")]
    text = "\n".join(cautions(grouped(load_runs(folders)[0])))
    assert "1 of 2 runs are evaluated" in text
    assert "1 of 2 runs have a recovered reward" in text
    assert "seed occurs more than once" in text


def test_text_alignment_decimals_and_dashes(write_run):
    """Text is aligned, with one decimal, two for correlations, and a dash for null."""
    folders = [write_run("a", method="bc", returns=[1234.56]), write_run("b", rewards={"transition": 0.456})]
    text = as_text(
        summary_table(grouped(load_runs(folders)[0])).select("method", "seeds", "return_mean", "transition_pearson")
    )
    header, bc, iq = text.splitlines()
    assert header.split() == ["method", "seeds", "return", "(mean)", "reward", "r"]
    assert bc.split() == ["bc", "1", "1234.6", "-"]
    assert header.index("return (mean)") + len("return (mean)") == bc.index("1234.6") + len("1234.6")
    assert iq.split() == ["iq", "1", "-", "0.46"]


def test_concise_table_has_eight_columns(write_run):
    """People see at most eight columns: what names a row, then returns, interval, score and improvement."""
    folders = [
        write_run(
            f"{m}{seed}",
            method=m,
            seed=seed,
            subsample=20,
            returns=[1.0 + seed],
            score=2.0,
            rewards={"transition": 0.5},
        )
        for m in ("bc", "iq")
        for seed in (0, 1)
    ]
    table = concise(summary_table(grouped(load_runs(folders)[0])))
    assert table.columns == [
        *("dataset", "method", "demos", "subsample"),
        *("return_iqm", "return_interval", "score_iqm", "improvement"),
    ]


def test_keys_that_say_nothing_are_left_out(write_run):
    """Whole episodes of all demonstrations need no column that says so."""
    table = first_columns(summary_table(grouped(load_runs([write_run("a", demos=None, returns=[1.0])])[0])))
    assert not {"demos", "subsample", "settings"} & set(table.columns)
    assert "return_interval" not in table.columns[:6]


@pytest.mark.parametrize("width", [80, 100, 120])
def test_text_fits_its_width(write_run, width):
    """It does so however long the dataset's name is."""
    folder = write_run("a", dataset="a/very/long/dataset/name/" * 5, returns=[123456.7], rewards={"transition": -0.5})
    for table in (summary_table(grouped(load_runs([folder])[0])), runs_table(grouped(load_runs([folder])[0]))):
        assert max(map(len, as_text(table, width=width).splitlines())) <= width


def test_markdown_rows_have_equal_cells(write_run):
    """Every line of Markdown has as many cells as the header; bars in names are escaped."""
    lines = as_markdown(summary_table(grouped(load_runs([write_run("a", dataset="x|y")])[0]))).splitlines()
    assert len(lines) == 3
    assert "x\\|y" in lines[2]
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1

"""The written report: its files, and a page that needs nothing but itself."""

import re
from html.parser import HTMLParser

import polars as pl
import pytest

from iq_offline.errors import RunError
from iq_offline.report.write import write_report


class References(HTMLParser):
    """Every src and href of a page."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, _tag, attrs):
        self.found += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]


def four_runs(write_run, **facts):
    return [
        write_run(f"{method}-{seed}", method=method, seed=seed, returns=[500.0, 700.0], rewards=rewards, **facts)
        for method, rewards in (("bc", None), ("iq", {"transition": 0.5}))
        for seed in (0, 1)
    ]


def test_a_report_is_a_page_three_tables_and_the_plots_and_can_be_written_twice(write_run, tmp_path):
    folders, out = four_runs(write_run), tmp_path / "out"
    first = write_report(folders, out)
    content = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    names = {"report.html", "summary.csv", "summary.md", "runs.csv"} | {path.name for path in first.plots}
    assert {path.name for path in content} == names
    assert len(first.plots) == 4
    second = write_report(folders, out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == content
    assert (second.html, second.plots) == (first.html, first.plots)
    assert first.summary.equals(second.summary)
    assert pl.read_csv(out / "summary.csv")["return_iqm"].to_list() == [600.0, 600.0]
    assert len(pl.read_csv(out / "runs.csv")) == 4


def test_the_page_loads_nothing_and_links_to_the_run_folders(write_run, tmp_path):
    page = write_report(four_runs(write_run), tmp_path / "out").html.read_text()
    assert page.count('<img src="data:image/png;base64,') == 4
    references = References(page).found
    assert all(value.startswith(("data:image/png;base64,", "../runs/", "#")) for value in references)
    assert "../runs/iq-1/" in references
    assert not re.search(r"https?://|@import|url\(|<script|<link", page)
    assert str(tmp_path) not in page


def test_the_page_tells_what_it_compared_and_where_it_came_from(write_run, tmp_path):
    page = write_report(four_runs(write_run), tmp_path / "out").html.read_text()
    for said in ("4 runs on 1 dataset", "Seeds: 0, 1", "ab" * 32, "Hopper-v2", "c0ffee", "2.5.0", "last checkpoint"):
        assert said in page
    assert "Nothing is missing" in page


def test_the_page_lists_what_is_not_done_and_shows_dashes(write_run, tmp_path, monkeypatch):
    folder = write_run("lonely")
    monkeypatch.chdir(tmp_path)
    page = write_report([folder], tmp_path / "out").html.read_text()
    assert "<code>iq-offline eval runs/lonely</code>" in page
    assert "<code>iq-offline reward runs/lonely</code>" in page
    assert "2 results still missing" in page
    assert '<td class="number">-</td>' in page


def test_names_from_the_data_are_text_not_markup(write_run, tmp_path):
    page = write_report([write_run("a b&c", dataset="<b>bold</b>", returns=[1.0])], tmp_path / "out").html.read_text()
    assert "<b>" not in page
    assert "&lt;b&gt;bold&lt;/b&gt;" in page
    assert 'href="../runs/a%20b%26c/"' in page


def test_a_folder_that_is_not_a_run_leaves_nothing_written(write_run, tmp_path):
    with pytest.raises(RunError):
        write_report([write_run("a"), tmp_path], tmp_path / "out")
    assert not (tmp_path / "out").exists()

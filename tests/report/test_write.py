"""The written report: its files, and a page that needs nothing but itself."""

import re
from html.parser import HTMLParser

import polars as pl
import pytest
from written_runs import run_writer

from iq_offline.errors import RunError
from iq_offline.methods import METHODS
from iq_offline.stages.report import write_report


class References(HTMLParser):
    """Every src and href of a page."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, _tag, attrs):
        self.found += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]


def table(page, name):
    """The rows of a table, as HTML."""
    content = page.split(f'<table id="{name}">')[1].split("</table>")[0]
    return content.split("<tr")[1:]


def four_runs(write_run, **facts):
    return [
        write_run(f"{method}-{seed}", method=method, seed=seed, returns=[500.0, 700.0], rewards=rewards, **facts)
        for method, rewards in (("bc", None), ("iq", {"transition": 0.5}))
        for seed in (0, 1)
    ]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The report of four runs: its files, and what lies in its folder `out`, below the parent of `runs`."""
    parent = tmp_path_factory.mktemp("report")
    folders = four_runs(run_writer(parent))
    return write_report(folders, parent / "out"), folders


@pytest.fixture(scope="module")
def page(written):
    return written[0].html.read_text()


def test_report_files_are_equal_when_written_twice(written):
    """A report is a page, its tables and the plots; written twice, it has the same bytes."""
    first, folders = written
    out = first.html.parent
    content = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    names = {"report.html", "aggregate.csv", "aggregate.md", "summary.csv", "summary.md", "runs.csv"}
    assert {path.name for path in content} == names | {path.name for path in first.plots}
    assert len(first.plots) == 6
    second = write_report(folders, out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == content
    assert (second.html, second.plots) == (first.html, first.plots)
    assert first.summary.equals(second.summary)
    assert pl.read_csv(out / "summary.csv")["return_iqm"].to_list() == [600.0, 600.0]
    assert len(pl.read_csv(out / "runs.csv")) == 4


def test_page_loads_nothing_and_links_to_runs(written, page):
    assert page.count('<img src="data:image/png;base64,') == 6
    references = References(page).found
    assert all(value.startswith(("data:image/png;base64,", "../runs/", "#")) for value in references)
    assert "../runs/iq-1/" in references
    assert not re.search(r"https?://|@import|url\(|<script|<link", page)
    assert str(written[0].html.parents[1]) not in page


def test_page_says_what_it_compared(page):
    """The page says what it compared, and what the runs were made with."""
    for said in ("4 runs on 1 dataset", "Seeds: 0, 1", "ab" * 32, "Hopper-v2", "c0ffee", "2.5.0", "last checkpoint"):
        assert said in page
    assert "Nothing is missing" in page


def test_legend_describes_methods_from_their_registry(page):
    for method in ("bc", "iq"):
        assert f"<dt>method {method}</dt><dd>{METHODS[method].summary}</dd>" in page
    assert METHODS["csil"].summary not in page


def test_page_lists_missing_stages_and_shows_dashes(write_run, tmp_path, monkeypatch):
    folder = write_run("lonely")
    monkeypatch.chdir(tmp_path)
    page = write_report([folder], tmp_path / "out").html.read_text()
    assert "<code>iq-offline eval runs/lonely</code>" in page
    assert "<code>iq-offline reward runs/lonely</code>" in page
    assert "2 results still missing" in page
    assert '<td class="number">-</td>' in page


def test_names_from_data_are_no_markup(write_run, tmp_path):
    page = write_report([write_run("a b&c", dataset="<b>bold</b>", returns=[1.0])], tmp_path / "out").html.read_text()
    assert "<b>" not in page
    assert "&lt;b&gt;bold&lt;/b&gt;" in page
    assert 'href="../runs/a%20b%26c/"' in page


def test_missing_path_leaves_nothing_written(write_run, tmp_path):
    with pytest.raises(RunError):
        write_report([write_run("a"), tmp_path / "gone"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_numbers_link_to_run_folders(page):
    """Every number of a run leads to its folder, and every seed of a row to its run."""
    summary, runs = table(page, "summary"), table(page, "runs")
    assert re.findall(r'<a class="n" href="([^"]+)">(?:0|1)</a>', summary[2]) == ["../runs/bc-0/", "../runs/bc-1/"]
    for row in runs[2:]:
        run = re.search(r'<th scope="row"><a href="\.\./runs/([^/]+)/">\1</a></th>', row)[1]
        numbers = re.findall(r'<td class="number">(.+?)</td>', row)
        linked = [number for number in numbers if number != "-"]
        assert len(linked) >= 8
        assert all(f'href="../runs/{run}/"' in number for number in linked)


def test_row_of_one_run_links_to_its_folder(write_run, tmp_path):
    page = write_report([write_run("only", returns=[5.0])], tmp_path / "out").html.read_text()
    assert '<a class="n" tabindex="-1" href="../runs/only/">5.0</a>' in table(page, "summary")[2]


def test_page_is_accessible(page):
    """Headers have a scope, pictures a text, tables a caption; dark scheme and print are styled; anchors exist."""
    assert '<html lang="en">' in page
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    headers, images = re.findall(r"<th\b[^>]*>", page), re.findall(r"<img [^>]+>", page)
    assert all('scope="' in header for header in headers)
    assert all(re.search(r'alt="[^"]{20,}"', image) and 'width="' in image for image in images)
    assert page.count("<table") == page.count("<caption>") == page.count('role="region" tabindex="0"')
    anchors = set(re.findall(r'href="#([^"]+)"', page))
    assert anchors <= set(re.findall(r'id="([^"]+)"', page))


def test_differing_settings_stand_first_and_are_marked(write_run, tmp_path):
    folders = [
        write_run("a", method="bc", algorithm="learning_rate = 0.001\nwidth = 64"),
        write_run("b", method="iq", algorithm="learning_rate = 0.0003\nwidth = 64\ntemperature = 3.0"),
    ]
    page = write_report(folders, tmp_path / "out").html.read_text()
    assert "2 rows, 1 of" in page
    rows = re.findall(r'<tr(?: class="differs")?><th scope="row">.*</tr>', page.split('class="configuration"')[1])
    assert rows[0] == '<tr class="differs"><th scope="row">≠ learning_rate</th><td>0.001</td><td>0.0003</td></tr>'
    assert '<tr><th scope="row">temperature</th><td>·</td><td>3.0</td></tr>' in rows
    assert '<tr><th scope="row">width</th><td>64</td><td>64</td></tr>' in rows


def test_failed_runs_are_listed_with_links(write_run, tmp_path):
    """Runs that failed are listed with a link, and cost the others nothing."""
    folders = four_runs(write_run)
    (folders[0] / "evaluation.json").write_text("{")
    (folders[1] / "manifest.json").unlink()
    files = write_report(folders, tmp_path / "out")
    page = files.html.read_text()
    failed = " ".join(table(page, "failed"))
    assert 'href="../runs/bc-0/"' in failed
    assert "evaluation.json is damaged" in failed
    assert 'href="../runs/bc-1/"' in failed
    assert "no manifest.json" in failed
    assert "2 failures" in page
    assert [failure.folder.name for failure in files.failures] == ["bc-1", "bc-0"]
    assert files.summary["method"].to_list() == ["bc", "iq"]


def test_constant_returns_raise_no_warning(write_run, tmp_path):
    """One run with constant returns makes a report without a warning."""
    files = write_report([write_run("a", method="bc", returns=[7.0, 7.0])], tmp_path / "out")
    (row,) = files.aggregate.iter_rows(named=True)
    assert (row["aggregate_mean"], row["aggregate_iqm"], row["aggregate_low"]) == (
        pytest.approx(0.7),
        pytest.approx(0.7),
        None,
    )
    assert row["improvement"] is None


@pytest.mark.slow
def test_many_runs_make_a_small_page(write_run, tmp_path):
    """A page of 60 runs stays below a megabyte and shows each of them."""
    folders = [
        write_run(f"{method}-{demos}-{seed}", method=method, demos=demos, seed=seed, returns=[1.0 * seed, 2.0 * demos])
        for method in ("bc", "iq", "csil")
        for demos in (1, 5)
        for seed in range(10)
    ]
    page = write_report(folders, tmp_path / "out").html
    assert page.stat().st_size < 1_000_000
    assert len(table(page.read_text(), "runs")) == 62

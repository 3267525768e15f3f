"""The written report: its files, and a page that needs nothing but itself."""

import re
from html.parser import HTMLParser

import polars as pl
import pytest

from iq_offline.errors import RunError
from iq_offline.report.write import write_report

pytestmark = pytest.mark.usefixtures("undrawn")


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


def test_a_report_is_a_page_its_tables_and_the_plots_and_can_be_written_twice(write_run, tmp_path):
    folders, out = four_runs(write_run), tmp_path / "out"
    first = write_report(folders, out)
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


def test_the_page_loads_nothing_and_links_to_the_run_folders(write_run, tmp_path):
    page = write_report(four_runs(write_run), tmp_path / "out").html.read_text()
    assert page.count('<img src="data:image/png;base64,') == 6
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


def test_a_path_that_is_not_there_leaves_nothing_written(write_run, tmp_path):
    with pytest.raises(RunError):
        write_report([write_run("a"), tmp_path / "gone"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_every_number_of_a_run_leads_to_its_folder_and_every_seed_of_a_row_to_its_run(write_run, tmp_path):
    page = write_report(four_runs(write_run), tmp_path / "out").html.read_text()
    summary, runs = table(page, "summary"), table(page, "runs")
    assert re.findall(r'<a class="n" href="([^"]+)">(?:0|1)</a>', summary[2]) == ["../runs/bc-0/", "../runs/bc-1/"]
    for row in runs[2:]:
        run = re.search(r'<th scope="row"><a href="\.\./runs/([^/]+)/">\1</a></th>', row)[1]
        numbers = re.findall(r'<td class="number">(.+?)</td>', row)
        linked = [number for number in numbers if number != "-"]
        assert len(linked) >= 8
        assert all(f'href="../runs/{run}/"' in number for number in linked)


def test_a_row_of_one_run_leads_straight_to_its_folder(write_run, tmp_path):
    page = write_report([write_run("only", returns=[5.0])], tmp_path / "out").html.read_text()
    assert '<a class="n" tabindex="-1" href="../runs/only/">5.0</a>' in table(page, "summary")[2]


def test_the_page_is_readable_by_machine_and_ear(write_run, tmp_path):
    page = write_report(four_runs(write_run), tmp_path / "out").html.read_text()
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


def test_settings_that_differ_stand_first_and_are_marked(write_run, tmp_path):
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


def test_runs_that_failed_are_listed_with_a_link_and_cost_nothing_else(write_run, tmp_path):
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


def test_one_run_with_constant_returns_makes_a_report_without_a_warning(write_run, tmp_path):
    files = write_report([write_run("a", method="bc", returns=[7.0, 7.0])], tmp_path / "out")
    (row,) = files.aggregate.iter_rows(named=True)
    assert (row["aggregate_mean"], row["aggregate_iqm"], row["aggregate_low"]) == (
        pytest.approx(0.7),
        pytest.approx(0.7),
        None,
    )
    assert row["improvement"] is None


@pytest.mark.slow
def test_three_hundred_runs_make_a_page_of_a_sane_size(write_run, tmp_path):
    folders = [
        write_run(f"{method}-{demos}-{seed}", method=method, demos=demos, seed=seed, returns=[1.0 * seed, 2.0 * demos])
        for method in ("bc", "iq", "csil")
        for demos in (1, 5, 10, 20)
        for seed in range(25)
    ]
    page = write_report(folders, tmp_path / "out").html
    assert page.stat().st_size < 3_000_000
    assert len(table(page.read_text(), "runs")) == 302

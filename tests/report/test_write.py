"""The written report: its files, and a page that needs nothing but itself."""

import base64
import json
import re
from html.parser import HTMLParser
from urllib.parse import unquote

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


@pytest.fixture
def undrawn(monkeypatch):
    """Reports without pictures, which take most of the time."""
    monkeypatch.setattr("iq_offline.stages.report.pictures", lambda _: [])


def test_report_files_are_equal_when_written_twice(written):
    """A report is a page, its tables and the plots; written twice, it has the same bytes."""
    first, folders = written
    out = first.html.parent
    content = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    names = {"report.html", "aggregate.csv", "aggregate.md", "summary.csv", "summary.md", "runs.csv"}
    assert {path.name for path in content} == names | {path.name for path in first.plots}
    assert len(first.plots) == 7
    second = write_report(folders, out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == content
    assert (second.html, second.plots) == (first.html, first.plots)
    assert first.summary.equals(second.summary)
    assert pl.read_csv(out / "summary.csv")["return_iqm"].to_list() == [600.0, 600.0]
    assert len(pl.read_csv(out / "runs.csv")) == 4


def test_page_loads_nothing_and_links_to_runs(written, page):
    assert page.count('<img src="data:image/png;base64,') == 7
    assert page.count('srcset="data:image/png;base64,') == 4
    references = References(page).found
    assert all(value.startswith(("data:image/png;base64,", "../runs/", "#")) for value in references)
    assert "../runs/iq-1/manifest.json" in references
    assert not re.search(r"https?://|@import|url\(|<script|<link", page)
    assert str(written[0].html.parents[1]) not in page


def test_links_to_files_open_what_exists(written, page):
    """Every address on the page is a place on it, or a file that is there."""
    out = written[0].html.parent
    for address in References(page).found:
        if not address.startswith(("data:", "#")):
            assert (out / unquote(address)).is_file(), address


def test_verdict_stands_before_the_tables(page):
    """The first thing on the page is a sentence made from the numbers."""
    headline = re.search(r'<div class="verdict" id="verdict">\n<p><strong>(.+?)</strong>', page)[1]
    assert headline == (
        "On hopper-expert-v2, 5 demonstrations, bc and iq tie: 60.0 against 60.0 (P = 0.50, 95 % CI 0.50 to 0.50, "
        "2 seeds: more seeds needed)."
    )
    assert page.index(headline) < page.index("<table")


def test_tables_show_at_most_eight_columns(page):
    """No table has more than eight columns; those with more are continued in folded parts."""
    heads = re.findall(r"<thead><tr>(.*?)</tr></thead>", page, flags=re.DOTALL)
    assert max(head.count("<th ") for head in heads) <= 8
    assert 'id="summary-2"' in page.split("<details><summary>More columns</summary>")[1]


@pytest.mark.usefixtures("undrawn")
def test_first_film_is_on_the_page(write_run, tmp_path):
    """The film of the first run that has one is inside the page with its strip; a film that is gone is no error."""
    folders = [write_run(f"iq-{seed}", seed=seed, returns=[1.0]) for seed in range(3)]
    for folder, name in zip(folders, ("gone.mp4", "first.mp4", "second.mp4"), strict=True):
        record = json.loads((folder / "evaluation.json").read_text())
        (folder / "evaluation.json").write_text(json.dumps(record | {"video": str(tmp_path / name)}))
    for name in ("first.mp4", "second.mp4"):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "first.jpg").write_bytes(b"strip")
    page = write_report(folders, tmp_path / "out").html.read_text()
    assert page.count("<video") == 1
    assert f'src="data:video/mp4;base64,{base64.b64encode(b"first.mp4").decode()}"' in page
    assert "iq, seed 1: first evaluated episode" in page
    assert f'src="data:image/jpeg;base64,{base64.b64encode(b"strip").decode()}"' in page
    assert "<figcaption>Film strip" in page


def test_large_films_and_pictures_are_links(write_run, tmp_path, monkeypatch):
    """What would make the page too large is a link to its file."""
    folder, film = write_run("iq-0", returns=[1.0]), tmp_path / "film.mp4"
    record = json.loads((folder / "evaluation.json").read_text())
    (folder / "evaluation.json").write_text(json.dumps(record | {"video": str(film)}))
    film.write_bytes(b"x" * 600_000)
    film.with_suffix(".jpg").write_bytes(b"x" * 300_000)
    monkeypatch.setattr("iq_offline.report.page.PICTURE_BYTES", 0)
    files = write_report([folder], tmp_path / "out")
    page = files.html.read_text()
    assert 'src="../film.mp4"' in page
    assert "data:image" not in page
    assert "data:video" not in page
    assert all(f'href="plots/{plot.name}"' in page for plot in files.plots)


def test_page_says_what_it_compared(page):
    """The page says what it compared, and what the runs were made with."""
    for said in ("4 runs on 1 dataset", "Seeds: 0, 1", "ab" * 32, "Hopper-v2", "c0ffee", "2.5.0", "last checkpoint"):
        assert said in page
    assert "Nothing is missing" in page


def test_legend_describes_methods_from_their_registry(page):
    for method in ("bc", "iq"):
        assert f"<dt>method {method}</dt><dd>{METHODS[method].summary}</dd>" in page
    assert METHODS["csil"].summary not in page


@pytest.mark.usefixtures("undrawn")
def test_page_lists_missing_stages_and_shows_dashes(write_run, tmp_path, monkeypatch):
    folder = write_run("lonely")
    monkeypatch.chdir(tmp_path)
    page = write_report([folder], tmp_path / "out").html.read_text()
    assert "<code>iq-offline eval runs/lonely</code>" in page
    assert "<code>iq-offline reward runs/lonely</code>" in page
    assert "2 results still missing" in page
    assert '<td class="number">-</td>' in page


@pytest.mark.usefixtures("undrawn")
def test_names_from_data_are_no_markup(write_run, tmp_path):
    page = write_report([write_run("a b&c", dataset="<b>bold</b>", returns=[1.0])], tmp_path / "out").html.read_text()
    assert "<b>" not in page
    assert "&lt;b&gt;bold&lt;/b&gt;" in page
    assert 'href="../runs/a%20b%26c/manifest.json"' in page


def test_missing_path_leaves_nothing_written(write_run, tmp_path):
    with pytest.raises(RunError):
        write_report([write_run("a"), tmp_path / "gone"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_numbers_link_to_run_folders(page):
    """Every number of a run, and every seed of a row, leads to the run's entry: its method, seed and files."""
    summary, runs, folders = table(page, "summary"), table(page, "runs"), table(page, "run-folders")
    assert re.findall(r'href="([^"]+)" title="seed (0|1)"', summary[2]) == [("#run-1", "0"), ("#run-2", "1")]
    for number, row in enumerate(runs[2:], start=1):
        method, seed = ("bc", "iq")[number > 2], (number - 1) % 2
        assert f'<th scope="row"><a href="#run-{number}">{method}, seed {seed}</a></th>' in row
        linked = [cell for cell in re.findall(r'<td class="number">(.+?)</td>', row) if cell != "-"]
        assert len(linked) >= 4
        assert all(f'href="#run-{number}"' in cell for cell in linked)
        assert f'id="run-{number}"' in folders[number]
        assert f'href="../runs/{method}-{seed}/manifest.json"' in folders[number]


@pytest.mark.usefixtures("undrawn")
def test_row_of_one_run_links_to_its_folder(write_run, tmp_path):
    page = write_report([write_run("only", returns=[5.0])], tmp_path / "out").html.read_text()
    assert '<a class="n" tabindex="-1" href="#run-1">5.0</a>' in table(page, "summary")[2]


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


@pytest.mark.usefixtures("undrawn")
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


@pytest.mark.usefixtures("undrawn")
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
    """A page of 60 runs stays below three megabytes and shows each of them."""
    folders = [
        write_run(f"{method}-{demos}-{seed}", method=method, demos=demos, seed=seed, returns=[1.0 * seed, 2.0 * demos])
        for method in ("bc", "iq", "csil")
        for demos in (1, 5)
        for seed in range(10)
    ]
    page = write_report(folders, tmp_path / "out").html
    assert page.stat().st_size < 3_000_000
    assert len(table(page.read_text(), "runs")) == 1 + 2 + 60  # the head, and a title for each number of demonstrations

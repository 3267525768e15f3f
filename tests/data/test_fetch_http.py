"""Fetching a file over HTTP from servers that drop, lie, stall, redirect and change: whole and verified, or nothing."""

import email.utils
import hashlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from filelock import FileLock
from local_servers import Place, Server, serving

from iq_offline import paths
from iq_offline.data import catalogue as catalogue_module
from iq_offline.data import download
from iq_offline.data.catalogue import CatalogueEntry, Kind
from iq_offline.data.download import FetchOptions, fetch
from iq_offline.data.remotes import http
from iq_offline.errors import DatasetUnreadable, DownloadFailed, UnknownDataset

CONTENT = np.random.default_rng(0).bytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    patience = http.Patience(connect_seconds=2, read_seconds=0.3, tries=3, backoff_seconds=0.01)
    monkeypatch.setattr(http, "PATIENCE", patience)
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "d4rl"))


@pytest.fixture
def server():
    with serving() as running:
        yield running


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch, server: Server):
    """Put an entry into the catalogue: listed(*paths, sha256=..., bytes=...)."""

    def put(*places: str, **known: object) -> CatalogueEntry:
        urls = tuple(place if "://" in place else f"{server.url}{place}" for place in places)
        values = {"sha256": SHA256, "bytes": len(CONTENT)} | known
        entry = CatalogueEntry(id="test/x", family="test", kind=Kind.FILE, file="x.bin", urls=urls, **values)
        monkeypatch.setattr(catalogue_module, "catalogue", lambda: {entry.id: entry})
        return entry

    return put


def fetched() -> bytes:
    return fetch("test/x").path.read_bytes()


def refused(error: type[Exception] = DownloadFailed) -> str:
    with pytest.raises(error) as caught:
        fetch("test/x")
    assert not (paths.home() / "datasets" / "test" / "x" / "x.bin").exists()
    return str(caught.value)


def test_a_file_comes_whole_verified_and_recorded(server, listed):
    server.places["/x"] = Place(CONTENT)
    entry = listed("/x")
    seen: list[tuple[int, int | None]] = []
    located = fetch("test/x", FetchOptions(advance=lambda done, total: seen.append((done, total))))
    assert located.path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    record = json.loads(entry.record_path.read_text())
    assert (record["sha256"], record["bytes"], record["pinned"]) == (SHA256, len(CONTENT), False)
    assert record["source"] == f"{server.url}/x"
    assert entry.verified
    assert list((paths.home() / "downloads").rglob("*.part*")) == []


def test_what_is_verified_makes_no_network_call(server, listed, monkeypatch):
    server.places["/x"] = Place(CONTENT)
    listed("/x")
    fetched()

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a network call")

    monkeypatch.setattr(socket, "socket", forbidden)
    monkeypatch.setattr(socket, "create_connection", forbidden)
    assert fetched() == CONTENT
    assert len(server.requests) == 1


def test_a_dropped_connection_is_resumed_where_it_broke(server, listed):
    server.places["/x"] = Place(CONTENT, drops=[1_000_000, 500_000])
    listed("/x")
    assert fetched() == CONTENT
    starts = [int(request.headers.get("range", "bytes=0-")[6:-1]) for request in server.requests]
    assert starts[0] == 0
    assert 0 <= 1_000_000 - starts[1] < http.CHUNK_BYTES
    assert 0 <= starts[1] + 500_000 - starts[2] < http.CHUNK_BYTES
    assert sum(request.sent for request in server.requests) < len(CONTENT) + 2 * http.CHUNK_BYTES
    assert server.requests[1].headers["if-range"] == '"one"'


def test_a_download_that_another_process_began_is_continued(server, listed):
    server.places["/x"] = Place(CONTENT, drops=[1_000_000, 0, 0, 0])
    listed("/x")
    assert "3 tries" in refused()
    assert fetched() == CONTENT
    assert server.requests[-1].headers["range"].startswith("bytes=9")


@pytest.mark.parametrize("known", [len(CONTENT), None], ids=["size known", "size unknown"])
def test_a_complete_partial_file_is_not_sent_again(known, server, listed, monkeypatch):
    """What was all there when the process died is not sent again."""
    server.places["/x"] = Place(CONTENT)
    listed("/x", bytes=known)
    with monkeypatch.context() as patch:
        patch.setattr(download, "_move", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fetched()
    assert fetched() == CONTENT
    assert [request.sent for request in server.requests] == [len(CONTENT), 0]
    assert list((paths.home() / "downloads").rglob("*x.bin*")) == []


def test_a_file_that_changed_meanwhile_is_begun_again(server, listed):
    def change(place: Place) -> None:
        if len(server.requests) == 2:
            place.content, place.etag = CONTENT, '"two"'

    server.places["/x"] = Place(b"an older file " * 200_000, drops=[1_000_000], before=change)
    listed("/x", bytes=None)
    assert fetched() == CONTENT
    assert server.requests[1].headers["range"].startswith("bytes=9")
    assert server.requests[1].sent == len(CONTENT)


@pytest.mark.parametrize(
    ("known", "place"),
    [(len(CONTENT), {"longest_part": 700_000}), (None, {"longest_part": 700_000}), (len(CONTENT), {"chunked": True})],
    ids=["in parts", "in parts, size unknown", "no length"],
)
def test_a_part_never_passes_for_the_whole(known, place, server, listed):
    server.places["/x"] = Place(CONTENT, drops=[1_000_000], **place)
    listed("/x", sha256=None, bytes=known)
    assert fetched() == CONTENT
    assert sum(request.sent for request in server.requests) < len(CONTENT) + http.CHUNK_BYTES


def test_a_date_validates_a_partial_file(server, listed):
    """A date proves that it is the same file too."""
    dated = {"Last-Modified": "Tue, 01 Sep 2026 10:00:00 GMT"}
    server.places["/x"] = Place(CONTENT, etag=None, headers=dated, drops=[1_000_000])
    listed("/x")
    assert fetched() == CONTENT
    assert server.requests[1].headers["if-range"] == dated["Last-Modified"]
    assert server.requests[1].headers["range"].startswith("bytes=9")


def test_a_damaged_partial_file_is_begun_again(server, listed):
    """A partial file that was damaged meanwhile is begun again."""
    server.places["/x"] = Place(CONTENT, drops=[1_000_000, 0, 0, 0])
    listed("/x")
    refused()
    (partial,) = (paths.home() / "downloads").rglob("x.bin")
    partial.write_bytes(bytes(partial.stat().st_size))
    assert fetched() == CONTENT
    assert server.requests[-1].sent == len(CONTENT)


@pytest.mark.parametrize("place", [{"ranges": False}, {"etag": None}, {"etag": 'W/"one"'}])
def test_without_range_support_the_download_restarts(place, server, listed):
    """Where a rest cannot be asked for it begins again."""
    server.places["/x"] = Place(CONTENT, drops=[1_000_000], **place)
    listed("/x")
    assert fetched() == CONTENT
    assert server.requests[-1].sent == len(CONTENT)


def test_a_stalled_server_is_given_up_and_resumed(server, listed):
    server.places["/x"] = Place(CONTENT, stall_seconds=1.0)
    listed("/x")
    assert fetched() == CONTENT
    assert server.requests[1].headers["range"].startswith("bytes=14")


def test_a_busy_server_is_asked_again_later(server, listed, monkeypatch):
    """A busy server is asked again when it says."""
    waits: list[float] = []
    monkeypatch.setattr(http.time, "sleep", waits.append)
    server.places["/x"] = Place(CONTENT, statuses=[503, 429], retry_after="7")
    listed("/x")
    assert fetched() == CONTENT
    assert waits == [7.0, 7.0]


def test_retry_after_may_be_a_date_or_nonsense(server, listed, monkeypatch):
    """A time to wait may be a date or nonsense and is never long."""
    waits: list[float] = []
    monkeypatch.setattr(http.time, "sleep", waits.append)
    soon, far = (email.utils.formatdate(time.time() + seconds, usegmt=True) for seconds in (12, 9_999))
    for after in (soon, far, "soon", "\u00b2"):
        server.places["/x"] = Place(CONTENT, statuses=[503], retry_after=after)
        listed("/x")
        (paths.home() / "datasets/test/x/x.bin").unlink(missing_ok=True)
        assert fetched() == CONTENT
    assert 9 < waits[0] <= 12
    assert waits[1] == http.PATIENCE.longest_wait_seconds
    assert max(waits[2:]) < 0.1


def test_a_wrong_length_is_refused_before_reading(server, listed):
    """A length that is not the catalogue's is refused before it is read."""
    server.places["/x"] = Place(CONTENT + b"more")
    listed("/x")
    assert "announces 3,000,004 bytes, not 3,000,000" in refused()


def test_a_server_announcing_too_little_is_refused(server, listed):
    """A server that announces too little is not believed."""
    server.places["/x"] = Place(CONTENT, announced=1_000_000)
    listed("/x", bytes=None)
    assert "its SHA-256 is" in refused()


def test_a_server_announcing_too_much_is_refused(server, listed):
    """A server that announces too much never passes for whole."""
    server.places["/x"] = Place(CONTENT, announced=len(CONTENT) + 10)
    listed("/x", bytes=None)
    assert "tries" in refused()


def test_an_endless_answer_is_cut_off(server, listed):
    server.places["/x"] = Place(CONTENT + bytes(500_000), chunked=True)
    listed("/x")
    assert "sends more than the 3,000,000 bytes" in refused()


def test_wrong_bytes_are_discarded_for_a_mirror(server, listed):
    """Wrong bytes are thrown away and a mirror is used."""
    server.places |= {"/x": Place(bytes(len(CONTENT))), "/mirror": Place(CONTENT)}
    listed("/x", "/mirror")
    assert fetched() == CONTENT
    assert json.loads((paths.home() / "datasets/test/x/fetched.json").read_text())["source"].endswith("/mirror")


def test_wrong_bytes_everywhere_leave_nothing(server, listed):
    """Wrong bytes everywhere leave nothing and name both hashes."""
    server.places["/x"] = Place(bytes(len(CONTENT)))
    listed("/x")
    message = refused()
    assert SHA256 in message
    assert hashlib.sha256(bytes(len(CONTENT))).hexdigest() in message
    assert list((paths.home() / "downloads").rglob("*x.bin*")) == []


def test_every_failing_host_is_listed_with_its_reason(server, listed):
    """Every host that fails is listed with its reason."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{free.getsockname()[1]}/x"
    listed(dead, "/gone")
    message = refused()
    assert f"{dead}: " in message
    assert "refused" in message
    assert f"{server.url}/gone: it answers 404" in message
    assert "--from PATH" in message


def test_redirects_are_followed_and_a_circle_is_not(server, listed):
    server.places |= {"/a": Place(redirect="/b"), "/b": Place(CONTENT), "/loop": Place(redirect="/loop")}
    listed("/loop", "/a")
    assert fetched() == CONTENT
    listed("/loop", sha256="0" * 64)
    (paths.home() / "datasets/test/x/x.bin").unlink()
    assert "redirects in a circle" in refused()


@pytest.mark.parametrize("hops", [["https://a/x"], ["http://a/x", "https://a/y"]], ids=["at once", "later"])
def test_no_redirect_from_https_to_http_is_followed(hops, server, listed, monkeypatch):
    """A redirect from HTTPS to HTTP is not followed."""
    import requests

    asked: list[str] = []

    def send(_: object, request: requests.PreparedRequest, **__: object) -> requests.Response:
        asked.append(request.url)
        answer = requests.Response()
        answer.status_code, answer.url, answer.request = 302, request.url, request
        answer.headers["Location"] = [*hops, f"{server.url}/x"][len(asked)]
        answer.raw = io.BytesIO()
        return answer

    server.places["/x"] = Place(CONTENT)
    listed(hops[0])
    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", send)
    assert "from https to http" in refused()
    assert asked == hops
    assert server.requests == []


def test_a_full_disk_is_reported_before_writing(server, listed, monkeypatch):
    """A full disk is told before anything is written."""
    server.places["/x"] = Place(CONTENT)
    listed("/x")
    usage = type("Usage", (), {"free": 1_000_000})
    monkeypatch.setattr(http.shutil, "disk_usage", lambda _: usage)
    assert "needs 0.00 GB more" in refused()
    assert list((paths.home() / "downloads").rglob("x.bin")) == []


def test_an_endless_download_leaves_nothing_on_full_disk(server, listed, monkeypatch):
    """What has no end leaves nothing where the disk is full."""
    server.places["/x"] = Place(CONTENT, chunked=True)
    listed("/x", sha256=None, bytes=None)
    free = iter([10**9] * 20 + [0])
    monkeypatch.setattr(http.shutil, "disk_usage", lambda _: type("Usage", (), {"free": next(free)}))
    assert "0.00 GB are free" in refused()
    assert list((paths.home() / "downloads").rglob("*x.bin*")) == []


def test_a_local_copy_that_does_not_fit_fails(listed, tmp_path, monkeypatch):
    """A local copy that does not fit is not begun."""
    listed("/x")
    (tmp_path / "copy.hdf5").write_bytes(CONTENT)
    monkeypatch.setattr(http.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1_000_000}))
    with pytest.raises(DownloadFailed, match=r"where 0\.00 GB are free"):
        fetch("test/x", FetchOptions(source=str(tmp_path / "copy.hdf5")))
    assert list(paths.home().rglob("x.bin")) == []


@pytest.mark.parametrize(
    "page", [b"<!doctype html><title>Log in</title>", b"\xef\xbb\xbf\n <html>", b"<?xml?><Error/>"]
)
def test_a_web_page_is_not_pinned(page, server, listed):
    """A web page in place of a file is not pinned."""
    server.places |= {"/x": Place(page), "/mirror": Place(CONTENT)}
    listed("/x", sha256=None, bytes=None)
    assert "it is a web page, not data" in refused()
    assert not (paths.home() / "pins.json").exists()
    listed("/x", "/mirror", sha256=None, bytes=None)
    assert fetched() == CONTENT


def test_a_broken_hdf5_file_is_not_pinned(server, tmp_path):
    """What is no whole HDF5 file is not pinned and the next fetch brings it."""
    with h5py.File(tmp_path / "made.hdf5", "w") as file:
        file["rewards"] = np.zeros(300)
    whole = (tmp_path / "made.hdf5").read_bytes()
    for fault in (b'{"error": "quota exceeded"}', whole[:-400]):
        server.places["/made.hdf5"] = Place(fault)
        with pytest.raises(DownloadFailed, match="it is no whole HDF5 file"):
            fetch(f"{server.url}/made.hdf5")
        assert not (paths.home() / "pins.json").exists()
    server.places["/made.hdf5"] = Place(whole, etag='"two"')
    assert fetch(f"{server.url}/made.hdf5").path.read_bytes() == whole


def test_an_unknown_hash_is_pinned_and_enforced(server, listed):
    """An unknown hash is pinned and said and held to."""
    server.places["/x"] = Place(CONTENT)
    entry = listed("/x", sha256=None, bytes=None)
    told: list[str] = []
    located = fetch("test/x", FetchOptions(tell=told.append))
    assert told == [f"no hash is published for test/x: pinned to SHA-256 {SHA256}"]
    assert entry.verified
    assert json.loads(entry.record_path.read_text())["pinned"]
    pin = json.loads((paths.home() / "pins.json").read_text())["test/x"]
    assert (pin["sha256"], pin["bytes"], pin["source"]) == (SHA256, len(CONTENT), f"{server.url}/x")
    located.path.unlink()
    server.places["/x"] = Place(CONTENT[::-1], etag='"two"')
    assert f"not {SHA256}" in refused()
    assert fetch("test/x", FetchOptions(repin=True)).path.read_bytes() == CONTENT[::-1]
    assert fetched() == CONTENT[::-1]


def test_a_file_without_its_record_is_only_verified(server, listed):
    """A file without its record is verified again not fetched again."""
    server.places["/x"] = Place(CONTENT)
    entry = listed("/x")
    fetched()
    entry.record_path.unlink()
    assert not entry.verified
    assert fetched() == CONTENT
    assert entry.verified
    assert len(server.requests) == 1


def test_a_changed_file_is_fetched_again(server, listed):
    """A file that was changed on disk is fetched again."""
    server.places["/x"] = Place(CONTENT)
    entry = listed("/x")
    fetched()
    entry.stored_path.write_bytes(CONTENT[:-1])
    assert fetched() == CONTENT
    assert len(server.requests) == 2


def test_a_flipped_byte_is_found_and_fetched_again(server, listed):
    """A flipped byte on disk is found and the file fetched again."""
    server.places["/x"] = Place(CONTENT)
    entry = listed("/x")
    fetched()
    with entry.stored_path.open("r+b") as file:
        file.write(b"X" if CONTENT[:1] != b"X" else b"Y")
    assert not entry.verified
    assert fetched() == CONTENT
    assert len(server.requests) == 2


def test_a_local_copy_is_taken_and_verified(server, listed, tmp_path):
    listed("/x")
    (tmp_path / "copy.hdf5").write_bytes(CONTENT)
    assert fetch("test/x", FetchOptions(source=str(tmp_path / "copy.hdf5"))).path.read_bytes() == CONTENT
    (tmp_path / "wrong.hdf5").write_bytes(CONTENT[1:])
    with pytest.raises(DatasetUnreadable, match="its SHA-256 is"):
        fetch("test/x", FetchOptions(source=str(tmp_path / "wrong.hdf5")))
    assert fetched() == CONTENT
    with pytest.raises(UnknownDataset, match="no file at"):
        fetch("test/x", FetchOptions(source=str(tmp_path / "none.hdf5")))
    assert server.requests == []


def test_d4rls_own_download_is_used_if_right(server, listed, tmp_path):
    """What D4RL has downloaded is used if it is right."""
    server.places["/x"] = Place(CONTENT)
    listed("/x")
    (tmp_path / "d4rl").mkdir()
    (tmp_path / "d4rl" / "x.bin").write_bytes(bytes(len(CONTENT)))
    assert fetched() == CONTENT
    assert len(server.requests) == 1
    (paths.home() / "datasets/test/x/x.bin").unlink()
    (tmp_path / "d4rl" / "x.bin").write_bytes(CONTENT)
    assert fetched() == CONTENT
    assert len(server.requests) == 1


def test_a_url_is_a_dataset_too(server, tmp_path):
    with h5py.File(tmp_path / "made.hdf5", "w") as file:
        file["rewards"] = np.zeros(3)
    server.places["/some/made.hdf5"] = Place((tmp_path / "made.hdf5").read_bytes())
    located = fetch(f"{server.url}/some/made.hdf5")
    assert located.path.read_bytes() == (tmp_path / "made.hdf5").read_bytes()
    assert located.path.is_relative_to(paths.home())
    fetch(f"{server.url}/some/made.hdf5")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "url", ["ftp://a/x.hdf5", "http:///x.hdf5", "https://a/..", "hf://a/../b-v0", "file:///etc/passwd"]
)
def test_a_url_that_cannot_be_fetched_is_refused(url: str):
    with pytest.raises(UnknownDataset):
        fetch(url)


def test_two_processes_download_once(server, home):
    server.places["/slow.bin"] = Place(CONTENT, bytes_per_second=1_500_000)
    both = [start_fetch(f"{server.url}/slow.bin") for _ in range(2)]
    answers = [process.communicate(timeout=20) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert answers[0][0] == answers[1][0]
    assert "waiting for it" in answers[0][1] + answers[1][1]
    assert sum(request.sent for request in server.requests) == len(CONTENT)
    assert (home / "downloads").is_dir()
    assert list((home / "downloads").iterdir()) == []


def test_an_interrupted_fetch_ends_cleanly_and_is_continued(server, home):
    server.places["/slow.bin"] = Place(CONTENT, stall_seconds=60.0)
    process = start_fetch(f"{server.url}/slow.bin")
    while process.poll() is None and not any(part.stat().st_size for part in (home / "downloads").rglob("slow.bin")):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in complaint
    assert fetch(f"{server.url}/slow.bin").path.read_bytes() == CONTENT
    assert int(server.requests[-1].headers["range"][6:-1]) > 0


def start_fetch(url: str) -> "subprocess.Popen[str]":
    """The command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "iq_offline", "fetch", url],
        env=os.environ | {"PYTHONPATH": str(Path(download.__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # where the tests run in the background an interrupt is ignored, and a child would go on ignoring it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_what_is_verified_waits_for_nobody(server, listed):
    server.places["/x"] = Place(CONTENT)
    entry = listed("/x")
    fetched()
    told: list[str] = []
    with FileLock(entry.record_path.with_name("fetch.lock")):
        assert fetch("test/x", FetchOptions(tell=told.append)).path.is_file()
    assert told == []


def test_two_at_once_download_once(server, listed):
    server.places["/x"] = Place(CONTENT, bytes_per_second=6_000_000)
    listed("/x")
    told: list[str] = []
    threads = [threading.Thread(target=lambda: fetch("test/x", FetchOptions(tell=told.append))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests) == 1
    assert told == ["another process is fetching test/x: waiting for it"]


@pytest.mark.slow
def test_killed_at_any_moment_the_next_fetch_completes(server, home):
    """Killed at any moment nothing passes for whole and the next completes."""
    data = np.random.default_rng(1).bytes(6_000_000)
    server.places["/slow.bin"] = Place(data, bytes_per_second=6_000_000)
    code = "import sys, requests; from iq_offline.data.download import fetch; "
    code += "print('begun', flush=True); fetch(sys.argv[1])"
    command = [sys.executable, "-c", code, f"{server.url}/slow.bin"]
    environment = os.environ | {"PYTHONPATH": str(Path(download.__file__).parents[2])}
    for pause in np.random.default_rng(2).uniform(0.0, 0.9, size=5):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        for file in (home / "datasets").rglob("slow.bin"):
            assert file.read_bytes() == data
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    (file,) = (home / "datasets").rglob("slow.bin")
    assert file.read_bytes() == data
    assert any("range" in request.headers for request in server.requests)

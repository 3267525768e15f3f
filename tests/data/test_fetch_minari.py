"""Fetching a Minari dataset by its remotes' own protocols, from servers on this machine that speak them."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from local_servers import Place, Server, serve_bucket, serve_hub, serving

from iq_offline import paths
from iq_offline.data import download
from iq_offline.data.catalogue import locate
from iq_offline.data.download import FetchOptions, fetch
from iq_offline.data.formats import d4rl, minari
from iq_offline.data.remotes import http
from iq_offline.data.remotes.listing import Listing, RemoteFile
from iq_offline.errors import ConfigError, DatasetUnreadable, DownloadFailed, PackageMissing, UnknownDataset

FIRST, SECOND = "a" * 40, "b" * 40
ID = "mujoco/thing/expert-v0"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(http, "PATIENCE", http.Patience(2, 0.5, 3, 0.01))
    for name in ("HF_TOKEN", "MINARI_REMOTE"):
        monkeypatch.delenv(name, raising=False)


def files_of(folder: Path, prefix: str) -> dict[str, bytes]:
    """A dataset's files as a remote has them."""
    return {
        f"{prefix}/{file.relative_to(folder).as_posix()}": file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


@pytest.fixture
def dataset(numbered, write_d4rl, tmp_path: Path) -> Path:
    """A Minari dataset of two episodes, outside the store."""
    (tmp_path / "made").mkdir()
    minari.write_into(d4rl.read(write_d4rl(numbered([3, 4], terminated=[True, False])), "x"), tmp_path / "made", ID)
    return tmp_path / "made"


@pytest.fixture
def newer(numbered, write_d4rl, tmp_path: Path) -> Path:
    """The same dataset as its author changed it later."""
    path = write_d4rl(numbered([3, 4, 5], terminated=[True, False, True]), name="newer.hdf5")
    (tmp_path / "newer").mkdir()
    minari.write_into(d4rl.read(path, "x"), tmp_path / "newer", ID)
    return tmp_path / "newer"


@pytest.fixture
def hub(dataset: Path, newer: Path, monkeypatch: pytest.MonkeyPatch):
    """A hub whose main branch is at the first commit."""
    pytest.importorskip("huggingface_hub")
    with serving() as server:
        commits = {
            commit: files_of(folder, "thing/expert-v0") for commit, folder in ((FIRST, dataset), (SECOND, newer))
        }
        for files in commits.values():
            files["README.md"] = b"the repository's own"
            files["other/simple-v0/data/metadata.json"] = b"{}"
        serve_hub(server, "farama-minari/mujoco", commits, FIRST)
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture
def bucket(dataset: Path, monkeypatch: pytest.MonkeyPatch):
    """A bucket of Google Cloud Storage with the dataset."""
    with serving() as server:
        serve_bucket(server, "minari-remote", files_of(dataset, ID))
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        monkeypatch.setenv("MINARI_REMOTE", "gcp://minari-remote")
        yield server


def lengths(located) -> list[int]:
    return [len(episode) for episode in minari.read(located.path, "x")]


def test_the_hubs_dataset_comes_at_one_verified_commit(hub: Server, dataset: Path):
    """The hub's dataset comes at one commit verified and Minari finds it."""
    told: list[str] = []
    located = fetch(ID, FetchOptions(tell=told.append))
    assert located.path == paths.minari_home() / ID
    assert files_of(located.path, "") == files_of(dataset, "")
    record = located.entry.record
    assert record["revision"] == FIRST
    assert set(record["files"]) == {"data/main_data.hdf5", "data/metadata.json"}
    assert told == [f"no hash is published for {ID}: pinned to SHA-256 {record['sha256']} at revision {FIRST}"]
    import minari as official

    assert ID in official.list_local_datasets()
    assert [len(episode.rewards) for episode in official.load_dataset(ID)] == [3, 4]
    assert all("README" not in request.path and "simple" not in request.path for request in hub.requests)


def test_what_is_there_makes_no_network_call(hub: Server, monkeypatch):
    fetch(ID)
    asked = len(hub.requests)

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a network call")

    monkeypatch.setattr(socket, "socket", forbidden)
    assert lengths(fetch(ID)) == [3, 4]
    assert len(hub.requests) == asked


def test_a_moved_store_is_verified_without_the_network(hub: Server):
    """A store that was moved is verified again without the network."""
    entry = fetch(ID).entry
    asked = len(hub.requests)
    for file in entry.stored_path.rglob("*.hdf5"):
        file.write_bytes(file.read_bytes())
    assert not entry.verified
    assert fetch(ID).entry.verified
    assert len(hub.requests) == asked


def test_a_moving_branch_mixes_no_files(hub: Server, dataset: Path):
    """A branch that moves between two files does not mix them."""

    def move(_: Place) -> None:
        serve_hub(hub, "farama-minari/mujoco", {FIRST: files_of(dataset, "thing/expert-v0")}, SECOND)

    for path, place in hub.places.items():
        if path.startswith(f"/datasets/farama-minari/mujoco/resolve/{FIRST}"):
            place.before = move
    assert files_of(fetch(ID).path, "") == files_of(dataset, "")


def test_a_revision_can_be_named_and_stays_pinned(hub: Server, dataset: Path, newer: Path):
    """A revision can be named and the pinned one is kept."""
    assert lengths(fetch(ID)) == [3, 4]
    commits = {commit: files_of(folder, "thing/expert-v0") for commit, folder in ((FIRST, dataset), (SECOND, newer))}
    serve_hub(hub, "farama-minari/mujoco", commits, SECOND)
    import shutil

    shutil.rmtree(paths.minari_home() / ID)
    assert lengths(fetch(ID)) == [3, 4]
    assert lengths(fetch(ID, FetchOptions(revision=SECOND))) == [3, 4, 5]
    shutil.rmtree(paths.minari_home() / ID)
    assert lengths(fetch(ID, FetchOptions(repin=True))) == [3, 4, 5]


def test_a_large_file_that_breaks_off_is_resumed(hub: Server):
    store = hub.places[f"/datasets/farama-minari/mujoco/resolve/{FIRST}/thing/expert-v0/data/main_data.hdf5"].redirect
    store = store.removeprefix(hub.url)
    hub.places[store].drops = [10]
    assert lengths(fetch(ID)) == [3, 4]
    assert len(hub.asked(store)) == 2


@pytest.mark.parametrize("file", ["data/main_data.hdf5", "data/metadata.json"])
def test_wrong_bytes_of_any_file_are_refused(file: str, hub: Server):
    """Wrong bytes of any file are refused and leave nothing."""
    source = f"/datasets/farama-minari/mujoco/resolve/{FIRST}/thing/expert-v0/{file}"
    place = hub.places[source]
    target = hub.places[place.redirect.removeprefix(hub.url)] if place.redirect else place
    target.content = bytes(len(target.content))
    with pytest.raises(DownloadFailed, match=r"its (SHA-256|git's SHA-1) is"):
        fetch(ID)
    assert not (paths.minari_home() / ID).exists()


@pytest.mark.usefixtures("hub")
def test_a_dataset_missing_on_the_hub_is_reported():
    """A dataset that the hub does not have is told."""
    with pytest.raises(DownloadFailed, match="could not be listed"):
        fetch("atari/pong/expert-v0")


def test_no_network_is_told_with_a_remedy(monkeypatch):
    pytest.importorskip("huggingface_hub")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
    with pytest.raises(DownloadFailed, match="HF_ENDPOINT names a mirror"):
        fetch(ID)


def test_a_token_goes_only_to_the_hub(hub: Server, dataset: Path, monkeypatch):
    """A token goes to the hub and to no other host."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    source = f"/datasets/farama-minari/mujoco/resolve/{FIRST}/thing/expert-v0/data/main_data.hdf5"
    with serving() as store:
        store.places["/large"] = Place((dataset / "data" / "main_data.hdf5").read_bytes())
        hub.places[source].redirect = f"{store.url}/large"
        assert lengths(fetch(ID)) == [3, 4]
        assert hub.asked(source)[0].headers["authorization"] == "Bearer hf_secret"
        assert ["authorization" in request.headers for request in store.requests] == [False]


NAMES = ["../x", "/etc/passwd", "data/../../x", "", ".", "data/./x", "a\\..\\b", "a\0b", "a\nb", "data/" + "x" * 250]


@pytest.mark.parametrize("path", NAMES)
def test_a_file_name_outside_the_dataset_is_refused(path: str):
    """A file name that leaves the dataset is refused."""
    with pytest.raises(DatasetUnreadable, match="outside the dataset"):
        Listing("hf://o/r/x-v0", FIRST, (RemoteFile(path, "http://127.0.0.1/x", 1),))


@pytest.mark.parametrize("names", [("data/x", "data/x"), ("data", "data/x"), ("data/x/y", "data/x")])
def test_file_names_that_cannot_be_together_are_refused(names: tuple[str, str]):
    with pytest.raises(DatasetUnreadable, match=r"more than once|a file too"):
        Listing("hf://o/r/x-v0", FIRST, tuple(RemoteFile(path, "http://127.0.0.1/x", 1) for path in names))


@pytest.mark.parametrize("path", ["thing/expert-v0/../../../x", "other/simple-v0/data/metadata.json", "/etc/passwd"])
def test_foreign_files_in_a_listing_are_harmless(path: str, hub: Server, home: Path):
    """A hub that lists what is not the dataset's has no effect."""
    honest = hub.answer

    def answer(asked: str, query: dict[str, list[str]]):
        status, content = honest(asked, query)
        if "/tree/" in asked:
            content = [*content, content[0] | {"path": path}]
        return status, content

    hub.answer = answer
    with pytest.raises(DatasetUnreadable, match="outside the dataset"):
        fetch(ID)
    assert not paths.minari_home().exists()
    assert not (home / "downloads").exists()


def test_a_fetch_killed_before_its_record_is_verified(hub: Server, monkeypatch):
    """A fetch that was killed before its record is verified by its pin."""
    with monkeypatch.context() as patch:
        patch.setattr(download, "record", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fetch(ID)
    asked, told = len(hub.requests), []
    assert not locate(ID).verified
    assert fetch(ID, FetchOptions(tell=told.append)).entry.verified
    assert (len(hub.requests), told) == (asked, [])
    assert locate(ID).record["revision"] == FIRST


@pytest.mark.slow
def test_killed_at_any_moment_the_next_fetch_completes(hub: Server, dataset: Path, home: Path):
    """Killed at any moment nothing passes for whole and the next completes."""
    code = "import sys; from iq_offline.data.download import fetch; print('begun', flush=True); fetch(sys.argv[1])"
    command = [sys.executable, "-c", code, ID]
    environment = os.environ | {"PYTHONPATH": str(Path(download.__file__).parents[2])}
    for place in hub.places.values():
        place.bytes_per_second = 2 * len(place.content)
    whole = files_of(dataset, "")
    for pause in np.random.default_rng(3).uniform(0.0, 1.6, size=4):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(pause)
        process.kill()
        process.communicate()
        assert files_of(paths.minari_home() / ID, "") in ({}, whole)
    located = fetch(ID)
    assert files_of(located.path, "") == whole
    assert located.entry.verified
    assert list((home / "downloads").iterdir()) == []


@pytest.mark.usefixtures("hub")
def test_a_changed_dataset_is_reported_and_fetched_again(dataset: Path):
    """A dataset that was changed since is said to be and fetched again."""
    located = fetch(ID)
    (located.path / "data" / "metadata.json").write_text("{}")
    told: list[str] = []
    assert files_of(fetch(ID, FetchOptions(tell=told.append)).path, "") == files_of(dataset, "")
    assert told == [f"{located.path} is not as it was fetched: fetching it again"]


def test_files_at_the_named_revision_are_kept(hub: Server):
    """What is there at the revision that a branch names is not sent again."""
    fetch(ID)
    asked = len([request for request in hub.requests if "/resolve/" in request.path])
    assert lengths(fetch(ID, FetchOptions(revision="main"))) == [3, 4]
    assert len([request for request in hub.requests if "/resolve/" in request.path]) == asked


@pytest.mark.usefixtures("hub")
def test_a_vanished_revision_is_reported_with_both_remedies():
    """A revision that is gone is told with both ways on."""
    with pytest.raises(DownloadFailed, match="has no revision cccc") as caught:
        fetch(ID, FetchOptions(revision="c" * 40))
    assert "--revision" in caught.value.remedy
    assert "--repin" in caught.value.remedy


@pytest.mark.usefixtures("hub")
def test_disk_space_is_checked_for_all_files_first(home: Path, monkeypatch):
    """The disk must have room for all files before the first."""
    monkeypatch.setattr(http.shutil, "disk_usage", lambda _: type("Usage", (), {"free": http.SPARE_BYTES + 1000}))
    with pytest.raises(DownloadFailed, match=f"{ID} needs"):
        fetch(ID)
    assert [file for file in (home / "downloads").rglob("*") if file.is_file()] == []


@pytest.mark.usefixtures("hub")
def test_what_minari_left_half_written_is_repaired():
    half = paths.minari_home() / ID / "data"
    half.mkdir(parents=True)
    (half / "metadata.json").write_text("{}")
    told: list[str] = []
    assert lengths(fetch(ID, FetchOptions(tell=told.append))) == [3, 4]
    assert f"{half.parent} is not whole: fetching it again" in told


def test_the_users_own_dataset_is_used_unverified(hub: Server, dataset: Path):
    """A whole dataset of the user's own is used as it is."""
    (paths.minari_home() / "mujoco" / "thing").mkdir(parents=True)
    dataset.rename(paths.minari_home() / ID)
    told: list[str] = []
    located = fetch(ID, FetchOptions(tell=told.append))
    assert lengths(located) == [3, 4]
    assert not located.entry.verified
    assert "not verified" in told[0]
    assert hub.requests == []


@pytest.mark.parametrize("options", [FetchOptions(revision=SECOND), FetchOptions(repin=True)])
def test_the_users_own_dataset_is_never_replaced(options: FetchOptions, hub: Server, dataset: Path):
    """A dataset of the user's own is never replaced."""
    (paths.minari_home() / "mujoco" / "thing").mkdir(parents=True)
    dataset.rename(paths.minari_home() / ID)
    with pytest.raises(ConfigError, match="was there before any fetch"):
        fetch(ID, options)
    assert lengths(locate(str(paths.minari_home() / ID))) == [3, 4]
    assert hub.requests == []


def test_another_organisation_is_named_by_a_url(hub: Server, dataset: Path):
    serve_hub(hub, "someone/mine", {FIRST: files_of(dataset, "walk-v3")}, FIRST)
    assert lengths(fetch("hf://someone/mine/walk-v3")) == [3, 4]
    asked = len(hub.requests)
    assert lengths(fetch("hf://someone/mine/walk-v3")) == [3, 4]
    assert len(hub.requests) == asked


def test_another_organisations_dataset_is_not_confused(hub: Server, newer: Path):
    """Another organisation's dataset of the same id is not taken for it."""
    assert lengths(fetch(ID)) == [3, 4]
    serve_hub(hub, "someone/mujoco", {SECOND: files_of(newer, "thing/expert-v0")}, SECOND)
    with pytest.raises(ConfigError, match="is here already, from hf://farama-minari/mujoco/thing/expert-v0"):
        fetch(f"hf://someone/{ID}")
    assert lengths(fetch(f"hf://someone/{ID}", FetchOptions(repin=True))) == [3, 4, 5]


def test_the_bucket_is_read_by_page_and_verified(dataset: Path, monkeypatch):
    """The bucket is read page by page and verified."""
    with serving() as server:
        objects = files_of(dataset, ID) | {f"{ID}/notes.txt": b"", f"{ID}-other/data/metadata.json": b"{}"}
        serve_bucket(server, "minari-remote", objects)
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        monkeypatch.setenv("MINARI_REMOTE", "gcp://minari-remote")
        located = fetch(ID)
        assert lengths(located) == [3, 4]
        assert located.entry.record["revision"].startswith("generations-")
        assert not list(located.path.glob("*-other*"))


def test_objects_are_fetched_at_their_listed_generations(bucket: Server):
    """The bucket's objects are asked for at the generations that were listed."""
    fetch(ID)
    asked = {request.path.rpartition("/")[2]: request.query for request in bucket.requests if "alt" in request.query}
    assert asked == {
        "main_data.hdf5": {"alt": ["media"], "generation": ["17"]},
        "metadata.json": {"alt": ["media"], "generation": ["18"]},
    }
    with pytest.raises(ConfigError, match="keeps no other revision"):
        fetch(ID, FetchOptions(revision="generations-0"))


def test_a_busy_bucket_is_asked_again(bucket: Server):
    honest, busy = bucket.answer, [503, 429]
    bucket.answer = lambda path, query: (busy.pop(), {}) if busy else honest(path, query)
    assert lengths(fetch(ID)) == [3, 4]
    assert busy == []


@pytest.mark.parametrize("page", [[1], {"items": [{"name": f"{ID}/x"}]}, {"items": 5}, "", None])
def test_an_answer_that_is_no_buckets_is_refused(page: object, bucket: Server):
    bucket.answer = lambda _, __: (200, page)
    with pytest.raises(DownloadFailed, match="is not Google Cloud Storage's"):
        fetch(ID)


def test_wrong_bytes_of_the_bucket_are_refused(bucket: Server):
    place = bucket.places[f"/storage/v1/b/minari-remote/o/{ID}/data/main_data.hdf5"]
    place.content = bytes(len(place.content))
    with pytest.raises(DownloadFailed, match="its MD5 is"):
        fetch(ID)
    assert not (paths.minari_home() / ID).exists()


def test_options_that_do_not_fit_are_refused(monkeypatch):
    with pytest.raises(ConfigError, match="is a Minari dataset, a folder"):
        fetch(ID, FetchOptions(source="/somewhere"))
    with pytest.raises(ConfigError, match="has no revisions"):
        fetch("demo/cartpole/expert-v0", FetchOptions(revision="main"))
    monkeypatch.setenv("MINARI_REMOTE", "ftp://x")
    with pytest.raises(ConfigError, match="is no remote of Minari's"):
        fetch(ID)


@pytest.mark.parametrize("name", ["../../x-v0", "a/../b-v0", "a//b-v0", ".hidden/b-v0"])
def test_an_id_that_leaves_the_store_is_refused(name: str):
    with pytest.raises(UnknownDataset):
        locate(name)


@pytest.mark.usefixtures("hub")
def test_the_records_say_what_came_from_where():
    entry = fetch(ID).entry
    content = json.loads(entry.record_path.read_text())
    assert content["source"] == "hf://farama-minari/mujoco/thing/expert-v0"
    assert content["bytes"] == sum(
        file.stat().st_size for file in (paths.minari_home() / ID).rglob("*") if file.is_file()
    )


def test_without_the_hubs_client_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(PackageMissing, match="needs the package huggingface_hub") as caught:
        fetch(ID)
    assert "iq-offline[remote]" in caught.value.remedy

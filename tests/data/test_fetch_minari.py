"""Fetching a Minari dataset by its remotes' own protocols, from servers on this machine that speak them."""

import json
import socket
import sys
from pathlib import Path

import pytest
from local_servers import Place, Server, serve_bucket, serve_hub, serving

from iq_offline import paths
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


def lengths(located) -> list[int]:
    return [len(episode) for episode in minari.read(located.path, "x")]


def test_the_hubs_dataset_comes_at_one_commit_verified_and_minari_finds_it(hub: Server, dataset: Path):
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


def test_a_store_that_was_moved_is_verified_again_without_the_network(hub: Server):
    entry = fetch(ID).entry
    asked = len(hub.requests)
    for file in entry.stored_path.rglob("*.hdf5"):
        file.write_bytes(file.read_bytes())
    assert not entry.verified
    assert fetch(ID).entry.verified
    assert len(hub.requests) == asked


def test_a_branch_that_moves_between_two_files_does_not_mix_them(hub: Server, dataset: Path):
    def move(_: Place) -> None:
        serve_hub(hub, "farama-minari/mujoco", {FIRST: files_of(dataset, "thing/expert-v0")}, SECOND)

    for path, place in hub.places.items():
        if path.startswith(f"/datasets/farama-minari/mujoco/resolve/{FIRST}"):
            place.before = move
    assert files_of(fetch(ID).path, "") == files_of(dataset, "")


def test_a_revision_can_be_named_and_the_pinned_one_is_kept(hub: Server, dataset: Path, newer: Path):
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
def test_wrong_bytes_of_any_file_are_refused_and_leave_nothing(file: str, hub: Server):
    source = f"/datasets/farama-minari/mujoco/resolve/{FIRST}/thing/expert-v0/{file}"
    place = hub.places[source]
    target = hub.places[place.redirect.removeprefix(hub.url)] if place.redirect else place
    target.content = bytes(len(target.content))
    with pytest.raises(DownloadFailed, match=r"its (SHA-256|git's SHA-1) is"):
        fetch(ID)
    assert not (paths.minari_home() / ID).exists()


@pytest.mark.usefixtures("hub")
def test_a_dataset_that_the_hub_does_not_have_is_told():
    with pytest.raises(DownloadFailed, match="could not be listed"):
        fetch("atari/pong/expert-v0")


def test_no_network_is_told_with_a_remedy(monkeypatch):
    pytest.importorskip("huggingface_hub")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
    with pytest.raises(DownloadFailed, match="HF_ENDPOINT names a mirror"):
        fetch(ID)


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "data/../../x", "", "a\\..\\b"])
def test_a_file_name_that_leaves_the_dataset_is_refused(path: str):
    with pytest.raises(DatasetUnreadable, match="outside the dataset"):
        Listing("hf://o/r/x-v0", FIRST, (RemoteFile(path, "http://127.0.0.1/x", 1),))


@pytest.mark.usefixtures("hub")
def test_what_minari_left_half_written_is_repaired():
    half = paths.minari_home() / ID / "data"
    half.mkdir(parents=True)
    (half / "metadata.json").write_text("{}")
    told: list[str] = []
    assert lengths(fetch(ID, FetchOptions(tell=told.append))) == [3, 4]
    assert f"{half.parent} is not whole: fetching it again" in told


def test_a_whole_dataset_of_the_users_own_is_used_as_it_is(hub: Server, dataset: Path):
    (paths.minari_home() / "mujoco" / "thing").mkdir(parents=True)
    dataset.rename(paths.minari_home() / ID)
    told: list[str] = []
    located = fetch(ID, FetchOptions(tell=told.append))
    assert lengths(located) == [3, 4]
    assert not located.entry.verified
    assert "not verified" in told[0]
    assert hub.requests == []


def test_another_organisation_is_named_by_a_url(hub: Server, dataset: Path):
    serve_hub(hub, "someone/mine", {FIRST: files_of(dataset, "walk-v3")}, FIRST)
    assert lengths(fetch("hf://someone/mine/walk-v3")) == [3, 4]


def test_the_bucket_is_read_page_by_page_and_verified(dataset: Path, monkeypatch):
    with serving() as server:
        objects = files_of(dataset, ID) | {f"{ID}/notes.txt": b"", f"{ID}-other/data/metadata.json": b"{}"}
        serve_bucket(server, "minari-remote", objects)
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        monkeypatch.setenv("MINARI_REMOTE", "gcp://minari-remote")
        located = fetch(ID)
        assert lengths(located) == [3, 4]
        assert located.entry.record["revision"].startswith("generations-")
        assert not list(located.path.glob("*-other*"))


def test_wrong_bytes_of_the_bucket_are_refused(dataset: Path, monkeypatch):
    with serving() as server:
        serve_bucket(server, "minari-remote", files_of(dataset, ID))
        place = server.places[f"/storage/v1/b/minari-remote/o/{ID}/data/main_data.hdf5"]
        place.content = bytes(len(place.content))
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        monkeypatch.setenv("MINARI_REMOTE", "gcp://minari-remote")
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

"""State files that are damaged, URLs and redirects that are none: told, and nothing else is lost by them."""

import json
import time

import pytest
from local_servers import Place, serving

from iq_offline import paths
from iq_offline.data.catalogue import CatalogueEntry, locate
from iq_offline.data.download import fetch
from iq_offline.data.remotes import http
from iq_offline.errors import ConfigError, DownloadFailed, UnknownDataset

CONTENT = b"0123456789" * 100
DAMAGED = [
    b"",
    b"\xff\xfe",
    b"[" * 100_000,
    b"[]",
    b'{"state": 3}',
    b'{"sha256": "x"}',
    b'{"bytes": ' + b"9" * 5000 + b"}",
]


@pytest.mark.parametrize("content", DAMAGED)
def test_damaged_record_counts_as_unverified(content: bytes):
    """The listing goes on, and a fetch verifies the file again."""
    with serving() as server:
        server.places["/x.bin"] = Place(CONTENT)
        entry = locate(f"{server.url}/x.bin")
        assert isinstance(entry, CatalogueEntry)
        fetch(f"{server.url}/x.bin")
        assert entry.verified
        entry.record_path.write_bytes(content)
        assert not entry.verified
        assert fetch(f"{server.url}/x.bin").path.read_bytes() == CONTENT
        assert entry.verified
        assert len(server.requests) == 1


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[" * 100_000, b"[]", b'{"x": 3}', b'{"x": {"sha256": 3}}'])
def test_damaged_pins_are_told(content: bytes, home):
    """With the file and what to do: without its pins a dataset would be taken for what it may not be."""
    home.mkdir(parents=True, exist_ok=True)
    (paths.home() / "pins.json").write_bytes(content)
    with serving() as server:
        server.places["/x.bin"] = Place(CONTENT)
        with pytest.raises(ConfigError, match=r"pins\.json[\s\S]*remove it"):
            fetch(f"{server.url}/x.bin")


@pytest.mark.parametrize("url", ["http://[::1/x.bin", "http://[zz]/x.bin", "http://host:99999/x.bin"])
def test_impossible_urls_are_refused(url: str):
    """Before anything is asked of the network."""
    with pytest.raises(UnknownDataset):
        fetch(url)


@pytest.mark.parametrize("target", ["http://[::1", "http://[zz]/x", "file:///etc/passwd", "ftp://a/x"])
def test_impossible_redirects_are_told(target: str):
    """A redirect to what is no URL, or no URL of ours, is the server's fault and named as such."""
    with serving() as server:
        server.places["/x.bin"] = Place(redirect=target)
        with pytest.raises(DownloadFailed, match="redirects to"):
            fetch(f"{server.url}/x.bin")


def test_silence_ends_the_tries(monkeypatch):
    """No other try once nothing has come for `silence_seconds`."""
    patience = http.Patience(read_seconds=0.2, tries=50, backoff_seconds=0.01, silence_seconds=0.3)
    monkeypatch.setattr(http, "PATIENCE", patience)
    with serving() as server:
        server.places["/x.bin"] = Place(CONTENT, before=lambda _: time.sleep(0.5))
        with pytest.raises(DownloadFailed, match=r"[23] tries"):
            fetch(f"{server.url}/x.bin")


def test_no_written_file_holds_the_password(home):
    """Of a fetch with a password and a token: every file in the home is searched."""
    with serving() as server:
        server.places["/x.bin"] = Place(CONTENT)
        url = server.url.replace("://", "://ann:hunter2secret@")
        fetch(f"{url}/x.bin?token=othersecret")
        assert server.requests[0].headers["authorization"].startswith("Basic ")
        assert server.requests[0].query == {"token": ["othersecret"]}
        assert fetch(f"{server.url}/x.bin").path.read_bytes() == CONTENT
        assert len(server.requests) == 1
    written = [file for file in home.rglob("*") if file.is_file()]
    assert json.loads((home / "pins.json").read_text())
    assert not [file for file in written if b"secret" in file.read_bytes()]

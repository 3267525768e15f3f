"""A password or token in a URL is in no file that a run writes, and in nothing that is printed."""

from pathlib import Path

import pytest
from local_servers import Place, serving
from typer.testing import CliRunner

from iq_offline.cli import app

SECRETS = (b"hunter2secret", b"othersecret")


def test_no_file_of_a_run_holds_a_secret(
    home: Path, tmp_path: Path, linear_task: Path, monkeypatch: pytest.MonkeyPatch
):
    """Fetch, train, mirror, verify and report from a URL with password and token: every byte written is searched."""
    out, printed = tmp_path / "out", b""
    monkeypatch.chdir(tmp_path)
    content = linear_task.read_bytes()
    linear_task.unlink()
    with serving() as server:
        server.places["/linear.hdf5"] = Place(content)
        url = server.url.replace("://", "://ann:hunter2secret@") + "/linear.hdf5?token=othersecret"
        small = ["--method", "bc", "--updates", "5", "--set", "hidden_sizes=[4]", "--device", "cpu"]
        for command in (
            ["train", "--dataset", url, *small, "--out", str(out / "run")],
            ["sync", str(out / "run")],
            ["verify", str(out / "run")],
            ["report", str(out / "run"), "--out", str(out / "report")],
            ["inspect", url],
            ["train", "--dataset", url + "x", *small, "--out", str(out / "wrong"), "--set", "no_such=1"],
        ):
            result = CliRunner().invoke(app, command)
            printed += result.output.encode() + str(result.exception).encode()
        assert result.exit_code != 0
        assert (out / "run" / "tracking.json").is_file()
        assert (out / "report" / "report.html").is_file()
    written = [file for folder in (home, out) for file in folder.rglob("*") if file.is_file()]
    assert len(written) > 15
    holding = [str(file) for file in written if any(secret in file.read_bytes() for secret in SECRETS)]
    assert holding == []
    assert not any(secret in printed for secret in SECRETS)

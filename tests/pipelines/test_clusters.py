"""A table on a cluster: Slurm for real, where there is one; Kubernetes with a stand-in that checks and runs jobs."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from iq_offline.pipeline import kubernetes

PROFILES = Path(__file__).parents[2] / "pipelines" / "profiles"
KUBECTL = """#!{python}
import json, os, pathlib, subprocess, sys
jobs = pathlib.Path({jobs!r})
verb = sys.argv[1]
if verb == "create":
    job = json.load(sys.stdin)
    pod = job["spec"]["template"]["spec"]
    (container,), (volume,) = pod["containers"], pod["volumes"]
    assert (job["apiVersion"], job["kind"], pod["restartPolicy"]) == ("batch/v1", "Job", "Never")
    assert container["volumeMounts"][0]["name"] == volume["name"]
    name = job["metadata"]["name"]
    (jobs / name).write_text(json.dumps(job))
    environment = os.environ | {{entry["name"]: entry["value"] for entry in container["env"]}}
    log = (jobs / f"{{name}}.log").open("w")
    ended = subprocess.run(container["command"], cwd=container["workingDir"], env=environment, stdout=log, stderr=log)
    (jobs / f"{{name}}.status").write_text(json.dumps({{"failed" if ended.returncode else "succeeded": 1}}))
elif verb == "get":
    print(json.dumps({{"status": json.loads((jobs / f"{{sys.argv[3]}}.status").read_text())}}))
"""


def slurm_is_here() -> bool:
    """Whether there is a Slurm with an idle node, and the plugin for it."""
    if shutil.which("sinfo") is None or importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        return False
    try:
        told = subprocess.run(["sinfo", "-h"], capture_output=True, text=True, check=False, timeout=30).stdout
    except subprocess.TimeoutExpired:
        return False
    return "idle" in told


needs_slurm = pytest.mark.skipif(
    not slurm_is_here(), reason="no Slurm with an idle node here, or iq-offline[cluster] is not installed"
)
needs_generic = pytest.mark.skipif(
    importlib.util.find_spec("snakemake_executor_plugin_cluster_generic") is None,
    reason="iq-offline[cluster] is not installed",
)


@pytest.fixture
def table(tmp_path, linear_task) -> Path:
    content = {"name": "tiny", "methods": ["bc"], "device": "cpu", "demos": 2, "updates": 20, "ends_in": "outcomes"}
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(content | {"datasets": {"linear": str(linear_task)}}))
    return file


def ran(table: Path, profile: str, out: Path, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "iq_offline", "run", str(table), "--profile", profile, "--out", str(out)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)


@pytest.mark.slow
@needs_slurm
def test_slurm_runs_a_table(table, tmp_path):
    result = ran(table, "slurm", tmp_path / "work")
    assert result.returncode == 0, result.stderr
    assert "linear-bc-2x1-seed0 exit 0" in result.stdout
    log = (tmp_path / "work" / "logs" / "snakemake.log").read_text()
    assert log.count("has been submitted with SLURM jobid") == 2


@pytest.mark.slow
@needs_generic
def test_kubernetes_runs_a_table_by_its_manifests(table, tmp_path, home):
    (tmp_path / "bin").mkdir()
    (tmp_path / "jobs").mkdir()
    stand_in = tmp_path / "bin" / "kubectl"
    stand_in.write_text(KUBECTL.format(python=sys.executable, jobs=str(tmp_path / "jobs")))
    stand_in.chmod(0o755)
    result = ran(table, "kubernetes", tmp_path / "work", PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert result.returncode == 0, result.stderr
    assert "linear-bc-2x1-seed0 exit 0" in result.stdout
    jobs = [json.loads(file.read_text()) for file in (tmp_path / "jobs").glob("iq-offline-*[0-9a-f]")]
    containers = [job["spec"]["template"]["spec"]["containers"][0] for job in jobs]
    assert len(containers) == 2
    assert {"name": "IQ_OFFLINE_HOME", "value": str(home)} in containers[0]["env"]
    assert containers[0]["resources"]["requests"] == {"cpu": "1", "memory": "4000M"}


def test_job_manifest_matches_the_profile():
    """A job's manifest says what the profile asks for."""
    options = kubernetes._parser().parse_args(
        [
            "submit",
            "--image",
            "i:1",
            "--volume",
            "claim",
            "--mount",
            "/shared",
            "--cores",
            "2",
            "--gpus",
            "1",
            "/shared/job.sh",
        ]
    )
    job = kubernetes.manifest(options, "name", {"HF_HOME": "/shared/hf", "SECRET": "x"}, "/shared/work")
    pod = job["spec"]["template"]["spec"]
    assert pod["volumes"] == [{"name": "shared", "persistentVolumeClaim": {"claimName": "claim"}}]
    (container,) = pod["containers"]
    assert container == {
        "name": "job",
        "image": "i:1",
        "command": ["/bin/sh", "/shared/job.sh"],
        "workingDir": "/shared/work",
        "env": [{"name": "HF_HOME", "value": "/shared/hf"}],
        "resources": {"requests": {"cpu": "2", "memory": "4000M"}, "limits": {"nvidia.com/gpu": "1"}},
        "volumeMounts": [{"name": "shared", "mountPath": "/shared"}],
    }
    assert (job["spec"]["backoffLimit"], pod["restartPolicy"]) == (0, "Never")


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ({}, "running"),
        ({"active": 1}, "running"),
        ({"succeeded": 1}, "success"),
        ({"failed": 1}, "failed"),
        ({"conditions": [{"type": "Failed", "status": "True"}]}, "failed"),
    ],
)
def test_job_states_use_snakemakes_words(status, told):
    """A job's state is reported in Snakemake's words."""
    assert kubernetes.state({"status": status}) == told


def test_cluster_and_profile_name_one_volume():
    """The cluster's objects and the profile name the same volume."""
    objects = list(yaml.safe_load_all((PROFILES / "kubernetes" / "cluster.yaml").read_text()))
    assert [found["kind"] for found in objects] == ["PersistentVolumeClaim", "Role", "RoleBinding"]
    profile = yaml.safe_load((PROFILES / "kubernetes" / "config.yaml").read_text())
    assert f"--volume {objects[0]['metadata']['name']} " in profile["cluster-generic-submit-cmd"]
    assert objects[2]["roleRef"]["name"] == objects[1]["metadata"]["name"]


def test_profiles_go_on_past_failed_jobs():
    """Every profile goes on past a failed job and shows its log."""
    for file in PROFILES.glob("*/config.yaml"):
        profile = yaml.safe_load(file.read_text())
        kept = {key: profile[key] for key in ("keep-going", "rerun-incomplete", "show-failed-logs")}
        assert set(kept.values()) == {True}, file
        assert "rules" not in profile["quiet"], "Snakemake would hide a failed job's log with them"

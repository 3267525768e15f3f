"""Snakemake's jobs as Kubernetes jobs: the three commands that the profile names, around `kubectl`.

python -m iq_offline.pipeline.kubernetes submit --image I --volume CLAIM --mount PATH [...] JOBSCRIPT   prints an id
python -m iq_offline.pipeline.kubernetes status ID                                 success, running or failed
python -m iq_offline.pipeline.kubernetes cancel ID...

The stages write into each other's folders, so all pods share one volume; plugins that carry files instead lose what a
later stage adds to a run.
"""

import argparse
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PASSED_ON = ("IQ_OFFLINE_HOME", "MLFLOW_TRACKING_URI", "MINARI_DATASETS_PATH", "HF_HOME", "HF_ENDPOINT")
"""Variables that a pod gets, where they are set."""
DAY_SECONDS = 86_400


def main(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit status."""
    options = _parser().parse_args(arguments)
    if options.command == "submit":
        job = manifest(options, f"iq-offline-{uuid.uuid4().hex[:12]}", os.environ, str(Path.cwd()))
        _kubectl("create", "-f", "-", content=json.dumps(job))
        print(job["metadata"]["name"])
    elif options.command == "status":
        print(state(json.loads(_kubectl("get", "job", options.id, "-o", "json"))))
    else:
        _kubectl("delete", "job", "--ignore-not-found", *options.ids)
    return 0


def manifest(options: argparse.Namespace, name: str, environment: Mapping[str, str], folder: str) -> dict[str, Any]:
    """The Kubernetes job that runs a job script where it was submitted, on the shared volume."""
    quantities = {"cpu": str(options.cores), "memory": f"{options.memory_mb}M"}
    limits = {"nvidia.com/gpu": str(options.gpus)} if options.gpus else {}
    container = {
        "name": "job",
        "image": options.image,
        "command": ["/bin/sh", options.jobscript],
        "workingDir": folder,
        "env": [{"name": key, "value": environment[key]} for key in PASSED_ON if key in environment],
        "resources": {"requests": quantities} | ({"limits": limits} if limits else {}),
        "volumeMounts": [{"name": "shared", "mountPath": options.mount}],
    }
    volume = {"name": "shared", "persistentVolumeClaim": {"claimName": options.volume}}
    pod = {"restartPolicy": "Never", "containers": [container], "volumes": [volume]}
    labels = {"app": "iq-offline"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "backoffLimit": 0,
            "ttlSecondsAfterFinished": DAY_SECONDS,
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def state(job: Mapping[str, Any]) -> str:
    """What Snakemake wants to know of a Kubernetes job."""
    status = job.get("status", {})
    if status.get("succeeded"):
        return "success"
    ended = any(one["type"] == "Failed" and one["status"] == "True" for one in status.get("conditions", ()))
    return "failed" if ended or status.get("failed") else "running"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    submit = commands.add_parser("submit")
    submit.add_argument("--image", required=True)
    submit.add_argument("--volume", required=True, help="a persistent volume claim")
    submit.add_argument("--mount", required=True, help="where it lies in every pod, and here")
    submit.add_argument("--cores", type=int, default=1)
    submit.add_argument("--memory-mb", type=int, default=4000)
    submit.add_argument("--gpus", type=int, default=0)
    submit.add_argument("jobscript")
    commands.add_parser("status").add_argument("id")
    commands.add_parser("cancel").add_argument("ids", nargs="+")
    return parser


def _kubectl(*arguments: str, content: str | None = None) -> str:
    return subprocess.run(["kubectl", *arguments], input=content, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

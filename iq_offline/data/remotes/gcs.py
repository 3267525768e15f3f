"""Minari's remote on Google Cloud Storage, by the public JSON interface: no account and no package needed."""

import hashlib
import os
from typing import Any
from urllib.parse import quote

from iq_offline.data.remotes import http
from iq_offline.data.remotes.listing import Listing, RemoteFile
from iq_offline.errors import DownloadFailed

DEFAULT_HOST = "https://storage.googleapis.com"
PAGES = 1000


def list_dataset(bucket: str, dataset: str) -> Listing:
    """The dataset's objects at their present generations. Raises DownloadFailed.

    `STORAGE_EMULATOR_HOST` is honoured, as Google's clients do.
    """
    host = os.environ.get("STORAGE_EMULATOR_HOST", DEFAULT_HOST).rstrip("/")
    host = host if "://" in host else f"http://{host}"
    base, place = f"{host}/storage/v1/b/{quote(bucket, safe='')}/o", f"gcp://{bucket}/{dataset}"
    files, generations = [], []
    for item in _objects(base, f"{dataset}/", place):
        if item["name"].endswith("/"):
            continue
        generations.append(f"{item['name']} {item['generation']}")
        files.append(
            RemoteFile(
                path=item["name"].removeprefix(f"{dataset}/"),
                url=f"{base}/{quote(item['name'], safe='')}?alt=media&generation={item['generation']}",
                bytes=int(item["size"]),
                md5=item.get("md5Hash"),
            )
        )
    revision = hashlib.sha256("\n".join(sorted(generations)).encode()).hexdigest()[:40]
    return Listing(place, f"generations-{revision}", tuple(files))


def _objects(base: str, prefix: str, place: str) -> list[dict[str, Any]]:
    import requests

    found: list[dict[str, Any]] = []
    query = {"prefix": prefix, "fields": "items(name,size,md5Hash,generation),nextPageToken"}
    timeout = (http.PATIENCE.connect_seconds, http.PATIENCE.read_seconds)
    for _ in range(PAGES):
        try:
            answer = requests.get(base, params=query, timeout=timeout)
            answer.raise_for_status()
            page = answer.json()
        except (requests.RequestException, ValueError) as error:
            raise DownloadFailed(f"{place} could not be listed: {error}", "check the id and the network") from None
        found += page.get("items", [])
        if "nextPageToken" not in page:
            break
        query["pageToken"] = page["nextPageToken"]
    return found

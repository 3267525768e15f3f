"""Minari's remote on Google Cloud Storage, by the public JSON interface: no account and no package needed."""

import hashlib
import os
from collections.abc import Iterator
from urllib.parse import quote

from pydantic import BaseModel, Field, ValidationError

from iq_offline.data.remotes import http
from iq_offline.data.remotes.listing import Listing, RemoteFile, below
from iq_offline.errors import DownloadFailed

DEFAULT_HOST = "https://storage.googleapis.com"
PAGES = 1000


class _Object(BaseModel):
    """An object of a bucket, by the names that the interface gives its fields."""

    name: str
    size: int = Field(ge=0)
    generation: int
    md5Hash: str | None = None


class _Page(BaseModel):
    """Some objects of a bucket, and what to ask for the next ones with."""

    items: tuple[_Object, ...] = ()
    nextPageToken: str | None = None


def list_dataset(bucket: str, dataset: str) -> Listing:
    """The dataset's objects at their present generations. Raises DownloadFailed.

    `STORAGE_EMULATOR_HOST` is honoured, as Google's clients do.
    """
    host = os.environ.get("STORAGE_EMULATOR_HOST") or DEFAULT_HOST
    host = (host if "://" in host else f"http://{host}").rstrip("/")
    base, place = f"{host}/storage/v1/b/{quote(bucket, safe='')}/o", f"gcp://{bucket}/{dataset}"
    files, generations = [], []
    for item in _objects(base, f"{dataset}/", place):
        if item.name.endswith("/"):
            continue
        generations.append(f"{item.name} {item.generation}")
        files.append(
            RemoteFile(
                path=below(dataset, item.name),
                url=f"{base}/{quote(item.name, safe='')}?alt=media&generation={item.generation}",
                bytes=item.size,
                md5=item.md5Hash,
            )
        )
    revision = hashlib.sha256("\n".join(sorted(generations)).encode()).hexdigest()[:40]
    return Listing(place, f"generations-{revision}", tuple(files))


def _objects(base: str, prefix: str, place: str) -> Iterator[_Object]:
    query = {"prefix": prefix, "fields": "items(name,size,md5Hash,generation),nextPageToken"}
    with http.connect() as session:
        for _ in range(PAGES):
            try:
                page = _Page.model_validate(http.get_json(session, base, query, place))
            except ValidationError as error:
                where = ".".join(map(str, error.errors()[0]["loc"]))
                raise DownloadFailed(
                    f"{place} could not be listed: the answer's {where or 'form'} is not Google Cloud Storage's",
                    "check MINARI_REMOTE and STORAGE_EMULATOR_HOST",
                ) from None
            yield from page.items
            if page.nextPageToken is None:
                return
            query["pageToken"] = page.nextPageToken
    raise DownloadFailed(f"{place} lists more than {PAGES} pages of objects", "check the id")

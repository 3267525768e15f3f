"""Minari's remote on the Hugging Face hub: the first part of an id is a repository, the rest a folder in it."""

import os
from contextlib import suppress
from importlib import import_module

from iq_offline.data.remotes.listing import Listing, RemoteFile, below
from iq_offline.errors import DownloadFailed, PackageMissing

FULL_COMMIT = 40


def list_dataset(organisation: str, dataset: str, revision: str | None) -> Listing:
    """The dataset's files at one commit: that of `revision`, or of the main branch now.

    `HF_ENDPOINT` and `HF_TOKEN` are honoured. Raises DownloadFailed, PackageMissing without huggingface_hub.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        from huggingface_hub import HfApi, get_token, hf_hub_url
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RevisionNotFoundError
        from huggingface_hub.hf_api import RepoFile
    except ModuleNotFoundError as error:
        raise PackageMissing(
            f"fetching from the Hugging Face hub needs the package {error.name}", "pip install 'iq-offline[remote]'"
        ) from None
    name, _, folder = dataset.partition("/")
    repository, endpoint = f"{organisation}/{name}", os.environ.get("HF_ENDPOINT") or None
    api = HfApi(endpoint=endpoint)
    place = f"hf://{repository}/{folder}"
    errors: tuple[type[Exception], ...] = (HfHubHTTPError, HFValidationError, *_network_errors())
    try:
        commit = api.dataset_info(repository, revision=revision, timeout=30).sha or ""
        found = list(api.list_repo_tree(repository, folder, recursive=True, revision=commit, repo_type="dataset"))
    except RevisionNotFoundError:
        raise DownloadFailed(
            f"{place} has no revision {revision}",
            "name another: iq-offline fetch DATASET --revision REVISION; or take the newest: --repin",
        ) from None
    except errors as error:
        raise _failed(place, error) from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _failed(place, ValueError(f"the answer is not the hub's ({type(error).__name__}: {error})")) from None
    if len(commit) != FULL_COMMIT:
        raise DownloadFailed(
            f"{place}: the hub names no commit for {revision or 'main'}",
            "name one: iq-offline fetch DATASET --revision REVISION",
        )
    files = tuple(
        RemoteFile(
            path=below(folder, item.path),
            url=hf_hub_url(repository, item.path, repo_type="dataset", revision=commit, endpoint=endpoint),
            bytes=item.size,
            sha256=item.lfs.sha256 if item.lfs else None,
            git_sha1=None if item.lfs else item.blob_id,
        )
        for item in found
        if isinstance(item, RepoFile)
    )
    token = get_token()
    return Listing(place, commit, files, {"Authorization": f"Bearer {token}"} if token else {})


def _network_errors() -> tuple[type[Exception], ...]:
    """What the hub's client raises where the network fails: it has changed its HTTP library more than once."""
    found: list[type[Exception]] = [OSError]
    for library, error in (("httpx2", "HTTPError"), ("httpx", "HTTPError"), ("requests", "RequestException")):
        with suppress(ModuleNotFoundError):
            found.append(getattr(import_module(library), error))
    return tuple(found)


def _failed(place: str, error: Exception) -> DownloadFailed:
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return DownloadFailed(
        f"{place} could not be listed: {reason}",
        "check the id and the network (HF_ENDPOINT names a mirror); a local copy goes into Minari's store",
    )

"""Downloading over HTTP(S): resumed, retried, from mirrors, never more than was announced, never kept unverified.

pooch starts again from zero after a break and trusts what a server says of a file's length; here a partial file
survives a kill, is continued only where the server proves that it is still the same file, and is thrown away where
its hash is wrong.
"""

import json
import os
import random
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urljoin, urlsplit

from iq_offline.credentials import masked, public_url
from iq_offline.data.files import whole_file
from iq_offline.data.strict_json import read_json
from iq_offline.errors import DownloadFailed

if TYPE_CHECKING:
    import requests

T = TypeVar("T")

CHUNK_BYTES = 1 << 16
"""At most so much is lost where a connection breaks."""
SPARE_BYTES = 64 << 20
"""What a download leaves free on the disk."""
REDIRECTS = 10
RETRIED = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server, and how often to ask again while nothing comes."""

    connect_seconds: float = 10.0
    read_seconds: float = 30.0
    tries: int = 5
    backoff_seconds: float = 0.5
    longest_wait_seconds: float = 30.0
    silence_seconds: float = 45.0
    """No other try where nothing has come for so long."""


PATIENCE = Patience()

Advance = Callable[[int, int | None], None]
"""Is told the bytes that are there, and the bytes that there will be where that is known."""
Verify = Callable[[Path], str | None]
"""Says what is wrong with a finished file, or None."""


@dataclass(frozen=True)
class Wanted:
    """A file to get: its places in order, its size where it is known, and what to send along."""

    name: str
    urls: Sequence[str]
    bytes: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    tell: Callable[[str], None] = lambda _: None
    """Is told of each try that failed, when another follows."""


class _Unavailable(Exception):
    """This place does not give the file; the next one may."""


class _Interrupted(Exception):
    """The transfer stopped early; another try may go on. `wait`: the seconds that the server asked for."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


def connect() -> "requests.Session":
    """A session for one or many downloads. It follows redirects, but never from https down to http."""
    import requests

    session = requests.Session()
    session.max_redirects = REDIRECTS
    session.hooks["response"] = [lambda response, *_, **__: _check_redirect(response)]
    return session


def download(
    session: "requests.Session", wanted: Wanted, partial: Path, verify: Verify, advance: Advance = lambda _, __: None
) -> str:
    """Bring the file to `partial`, whole and verified, on the disk; returns the URL that gave it.

    A `partial` that is there already is continued; `discard` it, or `forget` where it came from, when it has been
    taken. Raises DownloadFailed, which lists each URL and its reason.
    """
    partial.parent.mkdir(parents=True, exist_ok=True)
    advance(_size(partial), wanted.bytes)
    reasons = []
    for url in wanted.urls:
        continued = _resumable(partial, url)[0] > 0
        try:
            wrong = _verified_from(session, url, wanted, partial, verify, advance)
            if wrong and continued:  # what an earlier process left may have been damaged since
                wrong = _verified_from(session, url, wanted, partial, verify, advance)
        except _Unavailable as reason:
            wrong = str(reason)
        if wrong is None:
            return url
        reasons.append(f"{public_url(url)}: {masked(wrong, url)}")
    listed = "\n  ".join(reasons) or "no place to get it from is known"
    raise DownloadFailed(
        f"{wanted.name} could not be fetched:\n  {listed}",
        "try again later, or get the file by other means and name it: iq-offline fetch DATASET --from PATH",
    )


def get_json(session: "requests.Session", url: str, query: Mapping[str, str], name: str) -> Any:
    """What a service answers in JSON. Raises DownloadFailed."""

    def ask() -> Any:
        with session.get(url, params=query, timeout=_timeout()) as response:
            _check_status(response)
            try:
                return response.json()
            except RecursionError:
                raise _Unavailable("its answer is nested too deeply") from None

    try:
        return _with_retries(ask, lambda: 0)
    except _Unavailable as reason:
        told = masked(str(reason), url)
        raise DownloadFailed(f"{name} could not be listed: {told}", "check the id and the network") from None


def _verified_from(
    session: "requests.Session", url: str, wanted: Wanted, partial: Path, verify: Verify, advance: Advance
) -> str | None:
    """The file from one URL; returns what is wrong with it, and then keeps nothing of it."""
    tell = lambda said: wanted.tell(f"{public_url(url)}: {masked(said, url)}")  # noqa: E731
    _with_retries(lambda: _transfer(session, url, wanted, partial, advance), lambda: _size(partial), tell)
    wrong = verify(partial)
    if wrong:
        discard(partial)
    return wrong


def _with_retries(attempt: Callable[[], T], size: Callable[[], int], tell: Callable[[str], None] = lambda _: None) -> T:
    """The attempt's result, in as many tries as it takes while some of them bring something."""
    import requests
    import urllib3

    failures, last = 0, time.monotonic()
    while True:
        before = size()
        try:
            return attempt()
        except requests.TooManyRedirects:
            raise _Unavailable("it redirects in a circle") from None
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            broken = _Interrupted(_innermost_reason(error))
        except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
            raise _Unavailable(_innermost_reason(error)) from None  # ValueError: a redirect to what is no URL
        except _Interrupted as error:
            broken = error
        came = size() > before
        failures, last = (1, time.monotonic()) if came else (failures + 1, last)
        if failures >= PATIENCE.tries or time.monotonic() - last >= PATIENCE.silence_seconds:
            raise _Unavailable(f"{broken} ({failures} tries)")
        tell(f"{broken}; trying again")
        backoff = PATIENCE.backoff_seconds * 2 ** (failures - 1) * random.uniform(0.5, 1.5)
        time.sleep(min(backoff if broken.wait is None else broken.wait, PATIENCE.longest_wait_seconds))


def _transfer(session: "requests.Session", url: str, wanted: Wanted, partial: Path, advance: Advance) -> None:
    start, validator = _resumable(partial, url)
    headers = {"Accept-Encoding": "identity", **wanted.headers}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": validator}
    with session.get(url, headers=headers, stream=True, timeout=_timeout()) as response:
        if response.status_code == 416:
            if response.headers.get("Content-Range") == f"bytes */{start}":
                return  # all of it was there already
            discard(partial)
            raise _Interrupted("it has less than was there before")
        _check_status(response)
        start = _first_byte(response, start)
        limit = _limit(_full_size(response, start), wanted)
        if limit is not None:
            check_space(partial.parent, limit - start, wanted.name)
        _remember(partial, url, response)
        size = _receive(response, partial, start, limit, wanted.name, advance)
    if limit is not None and size < limit:
        raise _Interrupted(f"it broke off after {size:,} of {limit:,} bytes")


def _receive(
    response: "requests.Response", partial: Path, size: int, limit: int | None, name: str, advance: Advance
) -> int:
    """Write what comes after the first `size` bytes, but no more than `limit` in all; returns what is there then."""
    with partial.open("r+b" if size else "wb") as file:
        file.truncate(size)
        file.seek(size)
        for chunk in response.iter_content(CHUNK_BYTES):
            size += len(chunk)
            if limit is not None and size > limit:
                discard(partial)
                raise _Unavailable(f"it sends more than the {limit:,} bytes that were announced")
            if limit is None:
                _check_endless(partial, len(chunk), name)
            file.write(chunk)
            advance(size, limit)
        file.flush()
        os.fsync(file.fileno())
    return size


def _check_endless(partial: Path, more: int, name: str) -> None:
    """Of what has no known end, nothing is kept where the disk has no room for more."""
    try:
        check_space(partial.parent, more, name)
    except DownloadFailed:
        discard(partial)
        raise


def _timeout() -> tuple[float, float]:
    return PATIENCE.connect_seconds, PATIENCE.read_seconds


def _check_status(response: "requests.Response") -> None:
    """Raises _Interrupted or _Unavailable for an answer that has no content."""
    if response.status_code in RETRIED:
        raise _Interrupted(f"it answers {response.status_code}", _seconds(response.headers.get("Retry-After", "")))
    if response.status_code not in {200, 206}:
        raise _Unavailable(f"it answers {response.status_code} {response.reason}")


def _seconds(after: str) -> float | None:
    """A `Retry-After`, which is a number of seconds or a date."""
    if (number := _number(after)) is not None:
        return float(number)
    with suppress(ValueError):
        return max(0.0, parsedate_to_datetime(after).timestamp() - time.time())
    return None


def _first_byte(response: "requests.Response", asked: int) -> int:
    """Where the answer's bytes begin. Raises _Unavailable where they are not the ones that were asked for."""
    if response.headers.get("Content-Encoding", "identity").strip().lower() not in {"", "identity"}:
        raise _Unavailable("it sends the file compressed, which was not asked for")
    if response.status_code == 200:
        return 0
    given = response.headers.get("Content-Range", "").removeprefix("bytes ").split("-")[0]
    if given != str(asked):
        raise _Unavailable(f"it answers with bytes from {given or 'nowhere'}, not from {asked}")
    return asked


def _full_size(response: "requests.Response", start: int) -> int | None:
    """The whole file's size. A part's own length does not tell it: a server may send less than was asked for."""
    if response.status_code == 206:
        whole = _number(response.headers.get("Content-Range", "").rpartition("/")[2])
        if whole is None:
            raise _Unavailable("it sends a part, and does not say of how much")
        if whole < start:
            raise _Unavailable(f"it sends a part from {start:,} on, of {whole:,} bytes")
        return whole
    length = _number(response.headers.get("Content-Length", ""))
    return None if length is None else start + length


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else None


def _limit(total: int | None, wanted: Wanted) -> int | None:
    if total is not None and wanted.bytes is not None and total != wanted.bytes:
        raise _Unavailable(f"it announces {total:,} bytes, not {wanted.bytes:,}")
    return wanted.bytes if total is None else total


def _check_redirect(response: "requests.Response") -> None:
    """Called before a redirect is followed. Raises _Unavailable where it leaves https."""
    if not response.is_redirect:
        return
    try:
        target = urlsplit(urljoin(response.url, response.headers.get("Location", "")))
        _ = target.port
    except ValueError as error:
        response.close()
        raise _Unavailable(f"it redirects to what is no URL ({error})") from None
    if target.scheme not in {"http", "https"} or not target.hostname:
        response.close()
        raise _Unavailable(f"it redirects to {target.scheme or 'nowhere'}, which is not fetched from")
    if urlsplit(response.url).scheme == "https" and target.scheme != "https":
        response.close()
        raise _Unavailable(f"it redirects from https to {target.scheme}")


def check_space(folder: Path, needed: int, name: str) -> None:
    """Raises DownloadFailed where so many bytes more would fill the disk."""
    free = shutil.disk_usage(folder).free
    if needed + SPARE_BYTES > free:
        raise DownloadFailed(
            f"{name} needs {needed / 1e9:.2f} GB more at {folder}, where {free / 1e9:.2f} GB are free",
            "free some space, or set IQ_OFFLINE_HOME to a larger disk",
        )


def _resumable(partial: Path, url: str) -> tuple[int, str]:
    """How much is there that the server can be asked to go on from, and what proves that it is the same file."""
    try:
        known = read_json(_origin_file(partial))
        validator = str(known["validator"]) if known["url"] == public_url(url) else ""
    except (OSError, ValueError, KeyError, TypeError):
        validator = ""
    return (_size(partial), validator) if validator else (0, "")


def _remember(partial: Path, url: str, response: "requests.Response") -> None:
    tag = response.headers.get("ETag", "")
    validator = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")
    with whole_file(_origin_file(partial)) as temporary:
        temporary.write_text(json.dumps({"url": public_url(url), "validator": validator}))


def _origin_file(partial: Path) -> Path:
    return partial.with_name(f".{partial.name}.place")


def _size(partial: Path) -> int:
    return partial.stat().st_size if partial.is_file() else 0


def discard(partial: Path) -> None:
    """Throw away a download: what is there of it, and what is known of its place."""
    partial.unlink(missing_ok=True)
    forget(partial)


def forget(partial: Path) -> None:
    """Drop what is known of a download's place: it is whole, and needs no server any more."""
    _origin_file(partial).unlink(missing_ok=True)


def _innermost_reason(error: Exception) -> str:
    """The innermost reason of an error of the network, in one line."""
    while isinstance(error.__cause__ or error.__context__, Exception):
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return " ".join(str(error).split())[:200] or type(error).__name__

"""HTTP answers that are wrong: a server in a thread, which answers one request a connection."""

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random

from fuzz import mutations

SLOW_SECONDS = 1.0


def answer(fault: str, body: bytes, url: str, random: Random) -> bytes:
    """The bytes of an answer with a fault of `mutations.HTTP`; `body` is the sound content, `url` the server's."""
    number = len(body)
    heads = {
        "length too large": f"Content-Length: {number + random.randint(1, 10**15)}",
        "length too small": f"Content-Length: {random.randrange(number or 1)}",
        "negative length": "Content-Length: -5",
        "length of 5000 digits": f"Content-Length: {'9' * 5000}",
        "two lengths": f"Content-Length: {number}\r\nContent-Length: {number // 2}",
        "chunked garbage": "Transfer-Encoding: chunked",
        "gzip garbage": f"Content-Encoding: gzip\r\nContent-Length: {number}",
        "deflate garbage": f"Content-Encoding: deflate\r\nContent-Length: {number}",
        "bad range": f"Content-Range: bytes x-y/z\r\nContent-Length: {number}",
        "control characters in a header": f"X: \x00\x1b[2J\r\nContent-Length: {number}",
        "not UTF-8 header": f"ETag: \xff\xfe\r\nContent-Disposition: filename=\xff\r\nContent-Length: {number}",
    }
    targets = {
        "redirect loop": f"{url}/again",
        "redirect to a bad address": random.choice(("http://[::1", "http://[", "http://:0", "//", "http://a:b@c:d/")),
        "redirect to a file": "file:///etc/hostname",
        "redirect to nothing": "",
        "redirect port": "http://127.0.0.1:999999/",
    }
    if fault in heads:
        return f"HTTP/1.1 200 OK\r\n{heads[fault]}\r\n\r\n".encode("latin-1") + body
    if fault in targets:
        return f"HTTP/1.1 302 Found\r\nLocation: {targets[fault]}\r\nContent-Length: 0\r\n\r\n".encode()
    if fault.startswith("status "):
        code = fault.removeprefix("status ")
        return f"HTTP/1.1 {code} x\r\nContent-Length: {number}\r\n\r\n".encode() + body
    return _other(fault, body, random)


def _other(fault: str, body: bytes, random: Random) -> bytes:
    head = b"HTTP/1.1 200 OK\r\n"
    sized = head + f"Content-Length: {len(body)}\r\n\r\n".encode()
    flipped = mutations.flip_bits(body, random)
    return {
        "no length": head + b"Connection: close\r\n\r\n" + body,
        "chunk too large": head + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n" + body,
        "chunk cut": head + b"Transfer-Encoding: chunked\r\n\r\n" + f"{len(body):x}\r\n".encode() + body[:50],
        "no answer": b"",
        "headers without end": head + b"X: y\r\n" * 500,
        "slow": sized + body,
        "html": head + b"Content-Type: text/html\r\nContent-Length: 27\r\n\r\n<html><b>Sign in</b></html>",
        "retry-after garbage": b"HTTP/1.1 503 x\r\nRetry-After: \xff-5 x\r\nContent-Length: 0\r\n\r\n",
        "empty": head + b"Content-Length: 0\r\n\r\n",
        "flipped": sized + flipped,
        "sound": sized + body,
    }.get(fault, sized + gzip.compress(body))


@contextmanager
def serving(respond: Callable[[str, str], bytes], pause: float = 0.0) -> Iterator[str]:
    """A server on a free port of this machine, until the block ends; yields its URL.

    `respond`: the bytes of an answer, by the request's path and the server's URL. `pause`: seconds before a body.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    threading.Thread(target=_serve, args=(listener, respond, url, pause), daemon=True).start()
    try:
        yield url
    finally:
        listener.close()


def _serve(listener: socket.socket, respond: Callable[[str, str], bytes], url: str, pause: float) -> None:
    while True:
        try:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(2)
                method, target = connection.recv(1 << 16).decode("latin-1").split(" ")[:2]
                head, end, body = respond(target, url).partition(b"\r\n\r\n")
                connection.sendall(head + end)
                time.sleep(pause)
                if method != "HEAD":
                    connection.sendall(body)
        except (OSError, ValueError):
            if listener.fileno() < 0:
                return

"""A pipeline's command, handed to the command server that runs it.

Every job of a pipeline pays for what this imports: nothing but what it needs.
"""

import os
import signal
import socket
import sys

SOCKET = "IQ_OFFLINE_WARM"
"""The environment variable that holds the path of the server's socket."""
STREAMS = (0, 1, 2)


def send_command(arguments: list[str]) -> None:
    """Let the server run a command, and exit as it does. Returns where there is no server."""
    place = os.environ.get(SOCKET)
    if not place:
        return
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(place)
        except OSError:
            return
        # The command is in this process group too: a signal reaches it, and its status comes back.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        body = packed(arguments, os.getcwd(), dict(os.environ))  # noqa: PTH109
        socket.send_fds(connection, [len(body).to_bytes(8, "big")], STREAMS)
        connection.sendall(body)
        status = connection.recv(1)
    sys.exit(status[0] if status else "the process that ran this command has ended before it")


def packed(arguments: list[str], folder: str, environment: dict[str, str]) -> bytes:
    """A command as bytes: none of its texts can hold a zero."""
    variables = [f"{name}={value}" for name, value in environment.items()]
    return b"\0".join(os.fsencode(text) for text in (folder, str(len(arguments)), *arguments, *variables))


def unpacked(body: bytes) -> tuple[list[str], str, dict[str, str]]:
    """The arguments, folder and environment of `packed`."""
    folder, count, *texts = map(os.fsdecode, body.split(b"\0"))
    arguments, variables = texts[: int(count)], texts[int(count) :]
    return arguments, folder, dict(variable.split("=", 1) for variable in variables)

"""MLflow's server as `iq-offline ui` runs it: the page opens for model training, and the assistant stays closed.

MLflow keeps both choices in the browser and has no setting of its own for them. The server finds `create_app` by its
name in the package's entry points, of the group `mlflow.app`.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Message, Receive, Send], Awaitable[None]]
APP = "iq-offline"
CHOICES = """<script>
for (const [key, value] of [
  ["mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true"],
  ["mlflow.workflowType_v1", '"machine_learning"'],
]) if (localStorage.getItem(key) === null) localStorage.setItem(key, value);
</script>"""
"""A choice that the user has made in that browser stays."""
CONDITIONS = {b"if-none-match", b"if-modified-since"}
"""Headers of a browser that holds the page without the choices."""
REPLACED = {b"content-length", b"etag", b"last-modified"}
"""Headers of the page as it is without the choices."""


def create_app() -> ASGIApp:
    """MLflow's own app with the choices in its page."""
    from mlflow.server.fastapi_app import app

    return with_choices(app)


def with_choices(app: ASGIApp) -> ASGIApp:
    """The app, whose page `/` makes the choices before its scripts run."""

    async def chosen(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/":
            return await app(scope, receive, send)
        headers = [header for header in scope["headers"] if header[0] not in CONDITIONS]
        return await app({**scope, "headers": headers}, receive, _Page(send))

    return chosen


class _Page:
    """Sends a page once it is whole, with the choices at the beginning of its head."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message = {}
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        self._body += message.get("body", b"")
        if message.get("more_body"):
            return
        body = self._body.replace(b"<head>", b"<head>" + CHOICES.encode(), 1)
        headers = [header for header in self._start["headers"] if header[0].lower() not in REPLACED]
        length = (b"content-length", str(len(body)).encode())
        await self._send({**self._start, "headers": [*headers, length]})
        await self._send({"type": "http.response.body", "body": body})

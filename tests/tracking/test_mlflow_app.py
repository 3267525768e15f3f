"""MLflow's page with its choices made: model training, and the assistant closed."""

import asyncio

from iq_offline.tracking.mlflow_app import CHOICES, with_choices

HEAD, REST = b"<html><head>", b"<title>MLflow</title></head></html>"


async def two_parts(scope, receive, send):  # noqa: ARG001
    """A server that sends the page in two parts, whatever is asked for, and never answers that it is unchanged."""
    assert all(name != b"if-none-match" for name, _ in scope["headers"])
    headers = [(b"content-type", b"text/html"), (b"content-length", b"46"), (b"etag", b"x")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": HEAD, "more_body": True})
    await send({"type": "http.response.body", "body": REST})


def answer(path: str, *headers: tuple[bytes, bytes]) -> list[dict]:
    sent: list[dict] = []

    async def send(message):
        sent.append(message)

    asyncio.run(with_choices(two_parts)({"type": "http", "path": path, "headers": headers}, None, send))
    return sent


def test_page_makes_its_choices_first():
    """The page begins with the choices, and its headers say its new length and no tag of the old content."""
    start, body = answer("/", (b"if-none-match", b"x"))
    assert body["body"] == HEAD + CHOICES.encode() + REST
    assert start["status"] == 200
    assert start["headers"] == [
        (b"content-type", b"text/html"),
        (b"content-length", str(len(body["body"])).encode()),
    ]


def test_other_paths_pass_unchanged():
    start, first, second = answer("/ajax-api/2.0/mlflow/runs/search")
    assert (b"etag", b"x") in start["headers"]
    assert (first["body"], second["body"]) == (HEAD, REST)

"""The self-test of an instance: it answers its golden samples before it says that it is ready."""

import json
from typing import Any

from starlette.types import ASGIApp, Message

from iris_api.bundle.files import BundleError
from iris_api.bundle.golden import is_golden
from iris_api.bundle.manifest import MANIFEST, Manifest


async def answer_golden_samples(app: ASGIApp, manifest: Manifest, tolerance: float) -> None:
    """Put each golden sample to the application as a client would, and raise BundleError if an answer is off."""
    for number, sample in enumerate(manifest.golden_samples, 1):
        status, answer = await _post(app, "/predict", json.dumps(sample.input).encode())
        promised = sample.model_dump()
        classification = manifest.classes is not None
        if status != 200 or not is_golden(promised, answer, classification=classification, tolerance=tolerance):
            raise BundleError(
                f"{MANIFEST} of {manifest.name} {manifest.version}: golden sample {number}, {sample.input}, must be "
                f"answered {sample.prediction!r} {sample.probabilities or ''}, but the answer was {status} {answer}. "
                "The model does not compute here what it did at its training: train it again."
            )


async def _post(app: ASGIApp, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"content-type", b"application/json")],
    }
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], json.loads(b"".join(message.get("body", b"") for message in sent[1:]))

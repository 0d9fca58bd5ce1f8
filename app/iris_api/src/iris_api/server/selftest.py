"""An instance answers its golden samples before it says that it is ready."""

import json
from typing import Any

from starlette.types import ASGIApp, Message

from iris_api.bundle.files import BundleError
from iris_api.bundle.manifest import MANIFEST, GoldenSample, Manifest


async def answer_golden_samples(app: ASGIApp, manifest: Manifest, tolerance: float) -> None:
    """Put each golden sample to the application as a client would, and raise BundleError if an answer is off."""
    for number, sample in enumerate(manifest.golden_samples, 1):
        status, answer = await _post(app, "/predict", json.dumps(sample.input).encode())
        found = answer.get("prediction"), answer.get("prediction_proba")
        if status != 200 or not is_golden(manifest, sample, *found, tolerance):
            raise BundleError(
                f"{MANIFEST} of {manifest.name} {manifest.version}: golden sample {number}, {sample.input}, must be "
                f"answered {sample.prediction!r} {sample.probabilities or ''}, but the answer was {status} {answer}. "
                "The model does not compute here what it did at its training: train it again."
            )


def is_golden(
    manifest: Manifest, sample: GoldenSample, prediction: Any, probabilities: list[float] | None, tolerance: float
) -> bool:
    """Tell whether an answer is the one that a golden sample promises."""

    def agrees(found: float, expected: float) -> bool:
        return abs(found - expected) <= tolerance * max(1.0, abs(expected))

    if manifest.classes is None:
        return agrees(prediction, float(sample.prediction))
    expected, found = sample.probabilities or [], probabilities or []
    return prediction == sample.prediction and len(found) == len(expected) and all(map(agrees, found, expected))


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

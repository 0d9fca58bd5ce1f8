"""Asks what `bundles` has packed, by each engine that serves it, and compares with the estimator's own answers.

    python served.py FOLDER...    prints a line of JSON for each: {"case", "engine", "error"}, null where all agree

A release, and what a model imports beside, is all that it needs: it runs on a host by the host's own Python.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

TOLERANCE = 1e-6


def ask(folder: Path, engine: str) -> str | None:
    """Return what is wrong with the answers to the rows of a case by an engine, or None if they are the estimator's."""
    from iris_api.engines.model import Model
    from iris_api.server.app import build_app
    from iris_api.settings import Settings

    content = json.loads((folder / "rows.json").read_text())
    bundle = folder / "bundle"
    # A thousand rows are answered on a busy machine, too.
    settings = Settings(model_dir=bundle, max_body_bytes=10**7, request_deadline=600, graceful_timeout=700)
    app = build_app(settings, Model.load(bundle, engine))  # type: ignore[arg-type]
    answers = asyncio.run(_post(app, json.dumps(content["rows"]).encode()))
    if not isinstance(answers, list):
        return f"it answers {answers}"
    found = [answer["prediction"] for answer in answers]
    expected = content["expected"]
    values, own = np.array(found), np.array(expected["prediction"])
    # Classes and labels are equal, numbers near.
    if own.dtype.kind == "f" and values.shape == own.shape:
        if not np.allclose(values, own, rtol=TOLERANCE, atol=TOLERANCE):
            return f"predictions are off by up to {np.abs(values - own).max():.1e}"
    elif found != expected["prediction"]:
        return f"{sum(one != other for one, other in zip(found, expected['prediction'], strict=True))} rows differ"
    for name in ("prediction_proba", "scores"):
        if expected[name] is not None:
            differences = np.abs(np.array([answer[name] for answer in answers]) - expected[name])
            if not (differences <= TOLERANCE).all():
                return f"{name} is off by up to {differences.max():.1e}"
    return None


async def _post(app: Any, body: bytes) -> Any:
    """Return what /predict answers, as ASGI hands it on."""
    sent: list[dict[str, Any]] = []
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        return waiting.pop() if waiting else await asyncio.Event().wait()  # type: ignore[return-value]

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    scope = {"type": "http", "method": "POST", "path": "/predict", "raw_path": b"/predict", "query_string": b""}
    scope |= {"headers": headers, "http_version": "1.1", "scheme": "http", "asgi": {"version": "3.0"}}  # type: ignore[dict-item]
    await app(
        scope | {"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "root_path": "", "state": {}}, receive, send
    )
    return json.loads(b"".join(message.get("body", b"") for message in sent))


def engines_of(folder: Path) -> list[str]:
    """Return the engines that a bundle allows."""
    manifest = json.loads((folder / "bundle" / "manifest.json").read_text())
    return ["sklearn", "onnx"] if manifest.get("onnx") else ["sklearn"]


def main(folders: Sequence[str]) -> int:
    """Print what each case answers by each engine; what can't be asked at all says why."""
    for folder in map(Path, folders):
        case = json.loads((folder / "rows.json").read_text())["case"]
        for engine in engines_of(folder):
            try:
                error = ask(folder, engine)
            except Exception as problem:
                error = f"{type(problem).__name__}: {problem}"
            print(json.dumps({"case": case, "engine": engine, "error": error}), flush=True)
    return 0


if __name__ == "__main__":
    # Shown by an environment that has none of these, before anything is asked.
    importlib.import_module("iris_api")
    sys.exit(main(sys.argv[1:]))

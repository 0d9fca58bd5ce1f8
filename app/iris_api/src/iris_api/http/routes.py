"""The paths of the API, as FastAPI knows and documents them."""

import json
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field, create_model

from iris_api.bundle.golden import is_golden
from iris_api.bundle.manifest import Manifest
from iris_api.engines.model import Model, Prediction
from iris_api.http.asgi import respond
from iris_api.http.errors import BUSY, ErrorBody
from iris_api.predict.batching import Awaited
from iris_api.predict.codec import RowCodec
from iris_api.predict.endpoint import Endpoint
from iris_api.predict.errors import ApiError
from iris_api.predict.metrics import Metrics
from iris_api.predict.reply import JSON, Answer
from iris_api.predict.rows import RowParser
from iris_api.settings import Settings

PROBE = "/probe"


class HealthBody(BaseModel):
    """Answer of /health."""

    status: str


def build_router(
    settings: Settings, model: Model, parser: RowParser, endpoint: Endpoint, probe: Endpoint, metrics: Metrics
) -> APIRouter:
    """Return the routes of one instance, the Open Inference Protocol's apart; `probe` counts nothing."""
    router = APIRouter()
    manifest = model.manifest
    ready_body = {
        "status": "ok",
        "model": manifest.name,
        "model_version": manifest.version,
        "engine": model.engine.name,
        "release": settings.release,
        "deployment": settings.deployment,
        "instance": settings.name,
    }
    answer_model = _answer_model(manifest)

    @router.post(
        "/predict",
        summary="Answer a row, or a list of rows",
        responses={
            200: {
                "model": answer_model | list[answer_model],  # type: ignore[valid-type]
                "content": {"application/json": {"example": _example_answer(manifest, parser)}},
            },
            413: {
                "model": ErrorBody,
                "description": (
                    f"More than {settings.max_body_bytes} bytes, {settings.max_rows} rows or {settings.max_values} "
                    f"values, or rows that are predicted to take more than {settings.request_deadline:g} s."
                ),
            },
            415: {
                "model": ErrorBody,
                "description": "The body is declared as something else, or compressed otherwise than by gzip.",
            },
            422: {"model": ErrorBody, "description": "The body is not valid; `details` says where and why."},
            503: {"model": ErrorBody, "description": BUSY},
        },
        openapi_extra=_request_body(manifest, parser),
    )
    async def predict(request: Request) -> Response:
        """Each number must be finite and possible; unknown, missing and repeated names are refused.

        A list is answered by a list, each element as if it had been asked for alone. So are rows as lines: CSV
        (text/csv), with the features' names as its first line, and JSON with an object a line (application/x-ndjson).
        A body may be compressed (Content-Encoding: gzip).
        """
        return await respond(endpoint, request)

    @router.get("/health", summary="Is it alive", response_model=HealthBody)
    async def health() -> Response:
        """The process is alive: its event loop turns. It listens only since its model gave the right answers."""
        return JSONResponse({"status": "ok"})

    # The gateway does not pass on what follows, so that its public documentation is silent about it.

    @router.get("/health/ready", include_in_schema=False)
    async def ready(request: Request) -> Response:
        """Whether this instance wants requests, and what it would answer them with."""
        if not request.app.state.ready:
            raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, "not_ready", "This instance is starting or stopping.")
        return JSONResponse(ready_body)

    sample = manifest.golden_samples[0]

    @router.get(PROBE, include_in_schema=False)
    async def probe_model() -> Response:
        """Answer a golden sample as /predict would, for the monitoring, and see that the answer is still right."""
        awaited: Awaited[Answer] = Awaited()
        probe.submit(((b"content-type", JSON),), json.dumps(sample.input).encode(), awaited.settle)
        body = (await awaited.future).body
        classification = manifest.classes is not None
        promised, tolerance = sample.model_dump(), model.engine.tolerance
        if not is_golden(promised, json.loads(body), classification=classification, tolerance=tolerance):
            raise RuntimeError(f"The golden sample {sample.input} was answered {body.decode()}.")
        return Response(body, media_type=JSON.decode())

    @router.get("/metrics", include_in_schema=False)
    async def prometheus_metrics() -> Response:
        """Metrics in Prometheus' text format."""
        return Response(metrics.render(), media_type=CONTENT_TYPE_LATEST)

    return router


def _answer_model(manifest: Manifest) -> type[BaseModel]:
    """Return the schema of the answer to one row, which `RowCodec` puts together."""
    target = manifest.target
    fields: dict[str, Any] = {}
    if manifest.outputs:
        kinds = [_kind_of_output(manifest, number) for number in range(len(manifest.outputs))]
        several: Any = list[Any]
        if len(set(kinds)) == 1:
            several = list[kinds[0]]  # type: ignore[valid-type]
        fields["prediction"] = (several, Field(description="The values, in the order of `outputs`."))
        named: dict[str, Any] = {
            f"output_{number}": (kind, Field(alias=output.name, title=output.name, description=output.description))
            for number, (kind, output) in enumerate(zip(kinds, manifest.outputs, strict=True))
        }
        fields["outputs"] = (create_model("Outputs", **named), Field(description="The values by their names."))
    elif manifest.classes is None:
        unit = f", in {target.unit}" if target.unit else ""
        fields["prediction"] = (float, Field(description=f"{target.description}{unit}."))
    else:
        kind: Any = type(manifest.classes[0].value)
        fields["prediction"] = (kind, Field(description="What the model's own `predict` answers: a class."))
        if manifest.probabilities:
            description = "Probability of each class; they add up to 1."
            fields["prediction_proba"] = (list[float], Field(description=description))
        # A target may have any name, a field of Python may not: the name that counts is the alias.
        about = f"{target.description}: the name of that class."
        fields["target"] = (str, Field(alias=target.name, title=target.name, description=about))
    if manifest.scores:
        about = f"What `{manifest.scores.method}` of the model answers; the further from 0, the clearer."
        fields["scores"] = (list[float], Field(description=about))
    return create_model("Prediction", **fields, model=(str, ...), model_version=(str, ...))


def _kind_of_output(manifest: Manifest, number: int) -> Any:
    """Return the type of one of several values that a model answers."""
    first = manifest.golden_samples[0].prediction
    assert isinstance(first, list)
    return type(first[number])


def _example_answer(manifest: Manifest, parser: RowParser) -> dict[str, Any]:
    sample = manifest.golden_samples[0]
    name = manifest.class_name(sample.prediction) if manifest.classes else None
    prediction = Prediction(sample.prediction, None, name, sample.probabilities, sample.scores)
    return RowCodec(manifest, parser).answer(prediction)


def _request_body(manifest: Manifest, parser: RowParser) -> dict[str, Any]:
    """Return the request body's description in OpenAPI; the codec reads it, so that FastAPI does not know it."""
    examples: dict[str, Any] = {}
    for sample in manifest.golden_samples:
        name = manifest.class_name(sample.prediction) if manifest.classes else "row"
        examples.setdefault(name, {"value": sample.input})
    examples["a list"] = {"value": [sample.input for sample in manifest.golden_samples[:2]]}
    content = {"schema": parser.json_schema(), "examples": examples}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}

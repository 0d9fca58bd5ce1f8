"""What the API answers."""

import json
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field, ValidationError

from iris_api.errors import ApiError, Detail, ErrorBody, invalid
from iris_api.metrics import Metrics
from iris_api.model import Model, NoAnswerError
from iris_api.settings import Settings

_MOST_DETAILS = 10
_LONGEST_NAME = 64


class PredictionBody(BaseModel):
    """Answer of /predict."""

    prediction: int = Field(description="Number of the most probable class.")
    prediction_proba: list[float] = Field(description="Probability of each class; they add up to 1.")
    species: str = Field(description="Name of the most probable class.")
    model: str
    model_version: str


class HealthBody(BaseModel):
    """Answer of /health."""

    status: str


def build_router(settings: Settings, model: Model, metrics: Metrics) -> APIRouter:
    """Return the routes of one instance."""
    router = APIRouter()
    manifest = model.manifest
    names = [feature.name for feature in manifest.features]
    ready_body = {
        "status": "ok",
        "model": manifest.name,
        "model_version": manifest.version,
        "release": settings.release,
        "instance": settings.name,
    }

    @router.post(
        "/predict",
        summary="Answer one row",
        responses={
            200: {"model": PredictionBody, "content": {"application/json": {"example": _example_answer(model)}}},
            413: {"model": ErrorBody, "description": f"The body is longer than {settings.max_body_bytes} bytes."},
            415: {"model": ErrorBody, "description": "The body is not declared as application/json."},
            422: {"model": ErrorBody, "description": "The body is not valid; `details` says where and why."},
        },
        openapi_extra=_request_body(model),
    )
    async def predict(request: Request) -> Response:
        """Each number must be finite and physically possible; unknown, missing and repeated names are refused."""
        row = parse(model.row, await read_json_body(request, settings.max_body_bytes))
        try:
            (answer,) = model.predict([[getattr(row, name) for name in names]])
        except NoAnswerError:
            raise invalid("no_answer", "The model has no finite answer for these values.") from None
        species = manifest.classes[answer.label]
        metrics.predictions.labels(species).inc()
        return JSONResponse(
            {
                "prediction": answer.label,
                "prediction_proba": answer.probabilities,
                "species": species,
                "model": manifest.name,
                "model_version": manifest.version,
            }
        )

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

    @router.get("/metrics", include_in_schema=False)
    async def prometheus_metrics() -> Response:
        """Metrics in Prometheus' text format."""
        return Response(metrics.render(), media_type=CONTENT_TYPE_LATEST)

    return router


async def read_json_body(request: Request, limit: int) -> bytes:
    """Return the body of a request that says it is JSON, without ever holding more than the limit."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise ApiError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "The body must be JSON, with the header Content-Type: application/json.",
        )
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise ApiError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body_too_large", f"The body is longer than {limit} bytes."
            )
    return bytes(body)


def parse(schema: type[BaseModel], body: bytes) -> BaseModel:
    """Turn a body into a row of the model, or say which field is wrong and why."""
    try:
        content = _decoder.decode(body.decode())
    except UnicodeDecodeError:
        raise _invalid_json("is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise _invalid_json(f"{error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise _invalid_json("is nested too deeply") from None
    except ValueError:
        # What is left is Python's own limit on the digits of an integer.
        raise _invalid_json("has a number with too many digits") from None
    if not isinstance(content, dict):
        raise invalid("invalid_input", "The body must be a JSON object.", Detail(field="body", reason="not an object"))
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        details = [
            Detail(field=".".join(map(str, problem["loc"]))[:_LONGEST_NAME] or "body", reason=problem["msg"])
            for problem in problems[:_MOST_DETAILS]
        ]
        raise invalid("invalid_input", "The body does not have the fields it must have.", *details) from None


def _invalid_json(reason: str) -> ApiError:
    return invalid("invalid_json", "The body is not valid JSON.", Detail(field="body", reason=reason))


def _refuse_repeated_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        # JSON leaves open which of them counts: a guard in front of us could have read another one.
        raise invalid(
            "invalid_input", "A name appears twice in the body.", Detail(field="body", reason="repeated name")
        )
    return content


def _refuse_constant(_constant: str) -> float:
    raise _invalid_json("NaN and Infinity are not JSON")


_decoder = json.JSONDecoder(object_pairs_hook=_refuse_repeated_names, parse_constant=_refuse_constant)


def _example_answer(model: Model) -> dict[str, Any]:
    sample = model.manifest.golden_samples[0]
    return {
        "prediction": sample.prediction,
        "prediction_proba": sample.probabilities,
        "species": model.manifest.classes[sample.prediction],
        "model": model.manifest.name,
        "model_version": model.manifest.version,
    }


def _request_body(model: Model) -> dict[str, Any]:
    """Describe the body for OpenAPI; the endpoint reads it by itself, so that FastAPI cannot."""
    examples: dict[str, Any] = {}
    for sample in model.manifest.golden_samples:
        examples.setdefault(model.manifest.classes[sample.prediction], {"value": sample.input})
    content = {"schema": model.row.model_json_schema(), "examples": examples}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}

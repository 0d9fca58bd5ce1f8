"""The paths of these dialects, as FastAPI knows and documents them."""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, Field, create_model

from iris_api import __version__
from iris_api.bundle.manifest import Manifest
from iris_api.dialects.kserve import INSTANCES
from iris_api.dialects.mlflow import INPUTS, RECORDS, SPLIT
from iris_api.http.asgi import respond
from iris_api.http.errors import BUSY, ErrorBody
from iris_api.predict.endpoint import Endpoint
from iris_api.predict.errors import ApiError
from iris_api.predict.rows import ROW

INVOCATIONS = "/invocations"
_ROW = {"$ref": f"#/components/schemas/{ROW}"}


class MlflowError(BaseModel):
    """Body of an answer of MLflow's scoring server that is not a success."""

    error_code: str = Field(description="MLflow's name of the error: BAD_REQUEST, INVALID_PARAMETER_VALUE, ...")
    message: str = Field(description="What is wrong, in which row and field.")
    code: str = Field(description="The same for programs, as /predict has it.")
    request_id: str = Field(description="Under which the request is found in the logs.")


class Models(BaseModel):
    """The models that are served."""

    models: list[str]


class ModelReady(BaseModel):
    """Whether a model wants requests."""

    name: str
    ready: bool


def predict_path(manifest: Manifest) -> str:
    """Return the path that takes requests of KServe's version 1."""
    return f"/v1/models/{manifest.name}:predict"


def build_router(manifest: Manifest, invocations: Endpoint, instances: Endpoint) -> APIRouter:
    """Return the routes of MLflow's scoring server and of KServe's version 1, each with what answers its requests."""
    mlflow, kserve = APIRouter(tags=["MLflow"]), APIRouter(tags=["KServe, version 1"])
    predictions = _predictions(manifest)

    @mlflow.get("/ping", summary="Is it alive", response_class=PlainTextResponse)
    async def ping() -> Response:
        """The same as /health, as MLflow's clients and SageMaker ask for it."""
        return PlainTextResponse("\n")

    @mlflow.get("/version", summary="Of the server", response_class=PlainTextResponse)
    async def version() -> Response:
        """The version of this server, and not of MLflow, which is not installed."""
        return PlainTextResponse(__version__)

    @kserve.get("/v1/models", summary="Which models there are", response_model=Models)
    async def models() -> Response:
        return JSONResponse({"models": [manifest.name]})

    @kserve.get(
        f"/v1/models/{manifest.name}",
        summary="Does the model want requests",
        response_model=ModelReady,
        responses={503: {"model": ErrorBody, "description": "Starting or stopping."}},
    )
    async def model(request: Request) -> Response:
        if not request.app.state.ready:
            raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, "not_ready", "This instance is starting or stopping.")
        return JSONResponse({"name": manifest.name, "ready": True})

    def answer(
        router: APIRouter,
        path: str,
        endpoint: Endpoint,
        error: type[BaseModel],
        body: Mapping[str, Any],
        about: str,
    ) -> None:
        async def answer_rows(request: Request) -> Response:
            return await respond(endpoint, request)

        route: Callable[[Any], Any] = router.post(
            path,
            summary="Answer rows",
            description=about,
            response_model=predictions,
            responses={
                400: {"model": error, "description": "The body is not valid; the message names row and field."},
                413: {"model": error, "description": "Too many bytes, rows, values, or too much to compute."},
                415: {"model": error, "description": "The body is declared as something else."},
                503: {"model": error, "description": BUSY},
            },
            openapi_extra={"requestBody": {"required": True, "content": body}},
        )
        route(answer_rows)

    answer(
        mlflow,
        INVOCATIONS,
        invocations,
        MlflowError,
        _invocations_body(manifest),
        "As MLflow's scoring server. A table as dataframe_split or dataframe_records; instances: a list of rows, as "
        "objects or arrays; inputs: the same, or an object with a list for each feature; or CSV (text/csv), whose "
        "first line names the columns. NaN is read as null. A nullable feature may be left out, and other columns are "
        "ignored, but not both at once. There are no params.",
    )
    answer(
        kserve,
        predict_path(manifest),
        instances,
        ErrorBody,
        _instances_body(manifest),
        "Rows as objects by the features' names, or as arrays in their order.",
    )
    both = APIRouter()
    both.include_router(mlflow)
    both.include_router(kserve)
    return both


def _predictions(manifest: Manifest) -> type[BaseModel]:
    first = manifest.golden_samples[0].prediction
    kind: Any = type(first)
    if isinstance(first, list):
        kind = list[type(first[0])] if len(set(map(type, first))) == 1 else list[Any]  # type: ignore[misc]
    elif manifest.classes is None:
        kind = float
    about = "What the model's own `predict` answers, row by row."
    return create_model("Predictions", predictions=(list[kind], Field(description=about)))


def _invocations_body(manifest: Manifest) -> dict[str, Any]:
    names = manifest.feature_names
    objects = [sample.input for sample in manifest.golden_samples[:2]]
    arrays = manifest.golden_rows[:2]
    array = {"type": "array", "items": {}, "minItems": len(names), "maxItems": len(names)}
    # With other columns beside the features, and without what may be missing.
    loose = {"type": "object", "description": f"Values by the features' names, as in {ROW}."}
    rows = {"type": "array", "minItems": 1, "items": {"oneOf": [loose, array]}}
    columns = {"type": "object", "additionalProperties": {"type": "array", "items": {}}}
    split = {
        "type": "object",
        "properties": {
            "index": {},
            "columns": {"type": "array", "items": {"type": ["string", "integer"]}},
            "data": {"type": "array", "minItems": 1, "items": {"type": "array", "items": {}}},
        },
        "required": ["data"],
        "additionalProperties": False,
    }
    forms = {
        SPLIT: (split, {"columns": names, "data": arrays}),
        RECORDS: ({"type": "array", "minItems": 1, "items": loose}, objects),
        INSTANCES: (rows, objects),
        INPUTS: ({"oneOf": [rows, columns]}, dict(zip(names, map(list, zip(*arrays, strict=True)), strict=True))),
    }
    schema = {
        "oneOf": [
            {"type": "object", "title": form, "properties": {form: about}, "required": [form]}
            for form, (about, _) in forms.items()
        ]
    }
    examples = {form: {"value": {form: example}} for form, (_, example) in forms.items()}
    return {"application/json": {"schema": schema, "examples": examples}}


def _instances_body(manifest: Manifest) -> dict[str, Any]:
    names = manifest.feature_names
    array = {"type": "array", "items": {}, "minItems": len(names), "maxItems": len(names)}
    schema = {
        "type": "object",
        "properties": {INSTANCES: {"type": "array", "minItems": 1, "items": {"oneOf": [_ROW, array]}}},
        "required": [INSTANCES],
    }
    examples = {
        "objects": {"value": {INSTANCES: [sample.input for sample in manifest.golden_samples[:2]]}},
        "arrays": {"value": {INSTANCES: manifest.golden_rows[:2]}},
    }
    return {"application/json": {"schema": schema, "examples": examples}}

"""The paths of the Open Inference Protocol, version 2 (KServe, Triton)."""

import csv
import io
from collections.abc import Sequence
from functools import cache
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from iris_api import __version__
from iris_api.bundle.manifest import Manifest
from iris_api.engines.model import Model
from iris_api.http.asgi import respond
from iris_api.http.errors import BUSY, ErrorBody
from iris_api.predict.endpoint import Endpoint
from iris_api.predict.errors import ApiError
from iris_api.v2.inputs import describe_inputs, example_inputs
from iris_api.v2.schemas import (
    IndexedModel,
    InferRequest,
    InferResponse,
    Live,
    ModelConfig,
    ModelMetadata,
    ModelNames,
    NoShape,
    Ready,
    ServerMetadata,
    TensorConfig,
    TensorMetadata,
)

PLATFORMS = {"sklearn": "sklearn", "onnx": "onnxruntime_onnx"}


def infer_paths(manifest: Manifest) -> list[str]:
    """Return the paths that take inference requests."""
    return [f"/v2{path}/infer" for path in _model_paths(manifest)]


def _model_paths(manifest: Manifest) -> list[str]:
    return [f"/models/{manifest.name}", f"/models/{manifest.name}/versions/{manifest.version}"]


def build_router(model: Model, outputs: list[TensorMetadata], endpoint: Endpoint) -> APIRouter:
    """Return the routes of the protocol; the endpoint answers inference requests."""
    manifest = model.manifest
    router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])
    server = ServerMetadata(name="iris-api", version=__version__, extensions=["binary_tensor_data"])
    metadata = ModelMetadata(
        name=manifest.name,
        versions=[manifest.version],
        platform=PLATFORMS[model.engine.name],
        inputs=describe_inputs(manifest, _as_csv(manifest.feature_names)),
        outputs=outputs,
    )
    limits = endpoint.limits
    config = ModelConfig(
        name=manifest.name,
        platform=metadata.platform,
        max_batch_size=min(limits.rows, limits.values // len(manifest.features)),
        input=[_configured(tensor) for tensor in metadata.inputs],
        output=[_configured(tensor) for tensor in outputs],
    )
    not_ready: dict[int | str, dict[str, Any]] = {503: {"model": ErrorBody, "description": "Starting or stopping."}}

    def require_ready(request: Request) -> None:
        if not request.app.state.ready:
            raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, "not_ready", "This instance is starting or stopping.")

    @router.get("", summary="What this server is", response_model=ServerMetadata)
    async def server_metadata() -> Response:
        return JSONResponse(server.model_dump())

    @router.get("/health/live", summary="Is it alive", response_model=Live)
    async def live() -> Response:
        return JSONResponse({"live": True})

    @router.get("/health/ready", summary="Does it want requests", response_model=Ready, responses=not_ready)
    async def ready(request: Request) -> Response:
        require_ready(request)
        return JSONResponse({"ready": True})

    @router.get("/models", summary="Which models there are", response_model=ModelNames)
    async def models() -> Response:
        return JSONResponse({"models": [manifest.name]})

    @router.post(
        "/repository/index", summary="What is in the repository", response_model=list[IndexedModel], responses=not_ready
    )
    async def index(request: Request) -> Response:
        """The model of this server, which is ready whenever there is an answer: a body has no influence on it."""
        require_ready(request)
        return JSONResponse([IndexedModel(name=manifest.name, version=manifest.version).model_dump()])

    async def model_metadata() -> Response:
        return JSONResponse(metadata.model_dump(exclude_none=True))

    async def model_config() -> Response:
        return JSONResponse(config.model_dump(exclude_none=True))

    async def model_ready(request: Request) -> Response:
        require_ready(request)
        return JSONResponse({"name": manifest.name, "ready": True})

    async def infer(request: Request) -> Response:
        """Rows as one tensor of rows x features, flat or nested, or as a tensor for each feature, by its name.

        What is wrong with them is answered 400. The binary tensor extension holds for inputs and for every output.
        """
        return await respond(endpoint, request)

    for path in _model_paths(manifest):
        router.get(path, summary="What the model takes and answers", response_model=ModelMetadata)(model_metadata)
        router.get(f"{path}/config", summary="The model as Triton configures one", response_model=ModelConfig)(
            model_config
        )
        router.get(f"{path}/ready", summary="Does the model want requests", response_model=Ready, responses=not_ready)(
            model_ready
        )
        router.post(
            f"{path}/infer",
            summary="Answer rows",
            response_model=InferResponse,
            responses={
                200: {
                    "content": {
                        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
                    },
                },
                400: {"model": ErrorBody, "description": "The body is not valid; `error` says where and why."},
                413: {"model": ErrorBody, "description": "Too many bytes, rows, values, or too much to compute."},
                415: {"model": ErrorBody, "description": "The body is declared as something else."},
                503: {"model": ErrorBody, "description": BUSY},
            },
            openapi_extra=_request_body(manifest),
        )(infer)
    return router


def _configured(tensor: TensorMetadata) -> TensorConfig:
    """Return a tensor as Triton configures one: without the number of rows, and a value alone as a list of one."""
    data_type = "TYPE_STRING" if tensor.datatype == "BYTES" else f"TYPE_{tensor.datatype}"
    alone = NoShape(shape=[]) if len(tensor.shape) == 1 else None
    return TensorConfig(name=tensor.name, data_type=data_type, dims=tensor.shape[1:] or [1], reshape=alone)


def _request_body(manifest: Manifest) -> dict[str, Any]:
    example = {"value": {"inputs": example_inputs(manifest)}}
    content = {"schema": _without_references(InferRequest), "examples": {"one row": example}}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


@cache
def _without_references(model: type[BaseModel]) -> dict[str, Any]:
    """Return a model's JSON Schema with each definition where it is referred to, as OpenAPI needs it here."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def resolve(part: Any) -> Any:
        if isinstance(part, list):
            return [resolve(each) for each in part]
        if not isinstance(part, dict):
            return part
        rest = {key: resolve(value) for key, value in part.items() if key != "$ref"}
        if "$ref" in part:
            rest = resolve(definitions[part["$ref"].rpartition("/")[2]]) | rest
        return rest

    resolved: dict[str, Any] = resolve(schema)
    return resolved


def _as_csv(texts: Sequence[str]) -> str:
    """Join texts with commas; one that has a comma, a quote or an end of line stands in double quotes (RFC 4180)."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(texts)
    return line.getvalue()

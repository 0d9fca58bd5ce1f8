"""Builds the application of one instance."""

import asyncio
import gc
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from iris_api import __version__
from iris_api.bundle.files import BundleError
from iris_api.bundle.manifest import MANIFEST
from iris_api.dialects import routes as dialects
from iris_api.dialects.kserve import InstancesCodec
from iris_api.dialects.mlflow import InvocationsCodec
from iris_api.engines.model import Model
from iris_api.http import docs, errors, routes
from iris_api.http.middleware import RequestContext
from iris_api.predict.batching import Batcher
from iris_api.predict.codec import RowCodec
from iris_api.predict.counts import Uncounted
from iris_api.predict.durations import Durations
from iris_api.predict.endpoint import Endpoint
from iris_api.predict.limits import Limits
from iris_api.predict.metrics import Metrics
from iris_api.predict.rows import ROW, RowParser
from iris_api.server.notify import heartbeat, notify
from iris_api.server.replacement import replace, replacements
from iris_api.server.selftest import answer_golden_samples
from iris_api.settings import Settings
from iris_api.v2 import routes as v2
from iris_api.v2.codec import TensorCodec

logger = logging.getLogger(__name__)

# The code with which a gunicorn worker says that another try would fail alike: the master then gives up and says so.
_WORKER_BOOT_ERROR = 3
# How many requests of the most rows, and of the most values, may wait.
_WAITING_REQUESTS = 4


class Application(FastAPI):
    """FastAPI behind our middleware, and not around it: what FastAPI does in front of every middleware takes 10 us."""

    context: RequestContext
    # The server's worker puts in its place what refuses new connections.
    stop_listening: Callable[[], None] = staticmethod(lambda: None)

    row_schema: dict[str, Any]

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document; in it a row has a name, which generators make a class of."""
        document = super().openapi()
        document["components"]["schemas"][ROW] = self.row_schema
        return document

    @property
    def direct(self) -> RequestContext:
        """What our own server asks for answers without ASGI: see `http.direct` and `protocol`."""
        return self.context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, or the start and stop of the application."""
        await self.context(scope, receive, send)


def build_app(settings: Settings, model: Model) -> Application:
    """Return the application that serves a model; raise BundleError if the model does not fit these settings."""
    manifest = model.manifest
    metrics = Metrics(settings, manifest, model.engine.name)
    metrics.replacements = replacements
    limits = Limits.of(settings)
    parser = RowParser(manifest, limits)
    durations = Durations.measured(model, settings.max_rows)
    if (seconds := durations.predict(1)) > settings.request_deadline:
        raise BundleError(
            f"{MANIFEST} of {manifest.name} {manifest.version}: an answer to one row takes {seconds:.1f} s here, but "
            f"must come within {settings.request_deadline:g} s. Make the model smaller, try the other engine, or raise "
            "IRIS_API_REQUEST_DEADLINE (fortress_request_deadline)."
        )
    batcher = Batcher(
        model,
        metrics,
        durations,
        deadline=settings.request_deadline,
        max_batch_rows=settings.max_batch_rows,
        # Rows of many values are fewer: what waits is held in memory.
        max_waiting_rows=min(
            settings.max_waiting_rows or _WAITING_REQUESTS * settings.max_rows,
            _WAITING_REQUESTS * settings.max_values // len(manifest.features),
        ),
    )
    rows, tensors = RowCodec(manifest, parser), TensorCodec(manifest, parser)
    predict, infer, invocations, instances = (
        Endpoint(codec, batcher, metrics, limits)
        for codec in (rows, tensors, InvocationsCodec(manifest, parser), InstancesCodec(manifest, parser))
    )
    served = f"{manifest.name} {manifest.version} by {model.engine.name} on {settings.bind}"

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.ready = True
        notify("READY=1", f"STATUS=Serving {served}")
        logger.info("Serving %s", served)
        pulse = asyncio.create_task(heartbeat())
        yield
        app.state.ready = False
        pulse.cancel()
        with suppress(asyncio.CancelledError):
            await pulse

    app = Application(
        title=f"{manifest.name} API",
        description=manifest.description,
        version=__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.state.ready = False
    app.state.metrics = metrics
    app.row_schema = parser.row_schema()
    batcher.long_lane.on_overrun = partial(replace, app, f"{manifest.name} {manifest.version}")
    endpoints = {
        "/predict": predict,
        **dict.fromkeys(v2.infer_paths(manifest), infer),
        dialects.INVOCATIONS: invocations,
        dialects.predict_path(manifest): instances,
    }
    metrics.paths = [*endpoints, routes.PROBE]
    metrics.reset()
    app.context = RequestContext(
        super(Application, app).__call__,
        metrics=metrics,
        headers={"X-Served-By": settings.name, "X-Model-Version": manifest.version},
        endpoints=endpoints,
        bytes_in_flight=settings.max_bytes_in_flight,
    )
    errors.install(app)
    probe = Endpoint(rows, batcher, Uncounted(), limits)
    app.include_router(routes.build_router(settings, model, parser, predict, probe, metrics))
    app.include_router(v2.build_router(model, tensors.outputs, infer))
    app.include_router(dialects.build_router(manifest, invocations, instances))
    docs.install(app)
    return app


def create_app() -> Application:
    """Load the model, check its golden samples and return the application; gunicorn's worker calls this.

    Whatever is wrong with the bundle ends the process, with one line in the log.
    """
    settings = Settings.from_environ(os.environ)
    notify(f"STATUS=Loading {settings.model_dir}")
    try:
        model = Model.load(settings.model_dir, settings.engine, settings.skops_trusted, settings.memory_max)
        app = build_app(settings, model)
        asyncio.run(answer_golden_samples(app, model.manifest, model.engine.tolerance))
    except BundleError as error:
        logger.critical("Model refused: %s", error)
        notify(f"STATUS=Model refused: {error}")
        sys.exit(_WORKER_BOOT_ERROR)
    # The golden samples were no traffic.
    app.state.metrics.reset()
    # What is loaded now stays: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    return app

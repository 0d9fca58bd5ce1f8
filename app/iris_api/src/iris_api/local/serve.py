"""`iris-model serve`: an instance's own application in this one process, without gunicorn, systemd or a gateway.

`iris_api.packing.programs` starts it as a program of its own. Its settings are an instance's, in the
environment.
"""

import asyncio
import errno
import json
import logging
import os
import shlex
import socket
import sys
from typing import TYPE_CHECKING

from iris_api.bundle.files import BundleError
from iris_api.bundle.manifest import Manifest
from iris_api.local.bundle import (
    FOR_ROWS,
    complain,
    complain_of_missing,
    missing_packages,
    say_what_differs,
    user_environment,
)
from iris_api.settings import Settings, SettingsError

if TYPE_CHECKING:
    from iris_api.server.app import Application

NEEDED = {
    "fastapi": "fastapi",
    "fastapi_swagger": "fastapi-swagger",
    "httptools": "httptools",
    "prometheus_client": "prometheus-client",
    "uvicorn": "uvicorn",
    **FOR_ROWS,
}
_ENGINES = {"sklearn": "the estimator itself", "onnx": "ONNX Runtime"}
# For requests that are being answered when it is to end.
_GRACE_SECONDS = 3


def main() -> int:
    """Serve until Ctrl-C; return the exit code."""
    if missing := missing_packages(NEEDED):
        return complain_of_missing("serve", missing)
    logging.basicConfig(level="WARNING", format="%(levelname)s: %(message)s")
    # Why the other engine was not taken.
    logging.getLogger("iris_api.engines").setLevel("INFO")
    try:
        settings = Settings.from_environ(os.environ)
        with _listener(settings) as listener:
            return _serve(_application(settings), settings, listener)
    except (SettingsError, BundleError) as error:
        return complain(str(error))
    except OSError as error:
        return complain(_why_not(settings, error))
    except KeyboardInterrupt:
        print("\nStopped.")
        return 0


def _listener(settings: Settings) -> socket.socket:
    """Return a socket at the address: if that is taken it is said before the model is loaded."""
    family = socket.AF_INET6 if settings.bind_address.version == 6 else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    # One that has just ended does not keep its port.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((str(settings.bind_address), settings.port))
    except OSError:
        listener.close()
        raise
    return listener


def _why_not(settings: Settings, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {settings.port} is in use by another program: take another one, --port {settings.port + 1}"
    if error.errno == errno.EACCES:
        return f"port {settings.port} is for root alone: take another one, --port 8000"
    return f"cannot serve on {settings.bind} ({error.strerror})."


def _application(settings: Settings) -> "Application":
    """Return the application, which has answered its golden samples; raise BundleError if it does not."""
    with user_environment(settings.model_dir):
        from iris_api.engines.model import Model
        from iris_api.server.app import build_app
        from iris_api.server.selftest import answer_golden_samples

        model = Model.load(settings.model_dir, settings.engine, settings.skops_trusted)
        app = build_app(settings, model)
        asyncio.run(answer_golden_samples(app, model.manifest, model.engine.tolerance))
    say_what_differs(settings.model_dir, model)
    # The golden samples were no traffic.
    app.state.metrics.reset()
    app.state.told = _greeting(model.manifest, model.engine.name, settings)
    return app


def _greeting(manifest: Manifest, engine: str, settings: Settings) -> str:
    url = f"http://{settings.bind}"
    row = shlex.quote(json.dumps(manifest.golden_samples[0].input, ensure_ascii=False))
    return f"""\
{manifest.name} {manifest.version} is served by {_ENGINES[engine]} on {url}
until you press Ctrl-C. Ask it from another terminal:

    curl -H 'Content-Type: application/json' -d {row} {url}/predict

Documentation to try it in a browser: {url}/docs
Metrics for Prometheus:               {url}/metrics
"""


def _serve(app: "Application", settings: Settings, listener: socket.socket) -> int:
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                print(app.state.told, flush=True)

    config = uvicorn.Config(
        app,
        http="iris_api.server.protocol:Protocol",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=settings.keepalive,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    server = Server(config)
    server.run(sockets=[listener])
    return 0 if server.started else 1


if __name__ == "__main__":
    sys.exit(main())

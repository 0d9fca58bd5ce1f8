"""gunicorn with a uvicorn worker as it comes, but without its access log: under what `limit` runs."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from uvicorn_worker import UvicornWorker


class Worker(UvicornWorker):  # type: ignore[misc]  # its base comes without types
    """uvicorn's own defaults, on uvloop and httptools."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {"loop": "uvloop", "http": "httptools", "access_log": False}


wsgi_app = "limit:app"
worker_class = Worker
bind = f"127.0.0.1:{os.environ['PORT']}"
keepalive = 75
control_socket_disable = True

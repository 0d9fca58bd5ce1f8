"""The application, and a request that kills the process it reaches; put on the host by one test alone."""

import os
import signal

from iris_api.server import app as server


def create_app():
    """Return the application with a weak spot."""
    app = server.create_app()

    async def poisoned(scope, receive, send):
        for name, value in scope.get("headers", ()):
            if name == b"x-request-id" and value.startswith(b"poison-"):
                os.kill(os.getpid(), signal.SIGKILL)
        await app(scope, receive, send)

    return poisoned

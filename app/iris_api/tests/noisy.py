"""The application with a path that says all it can about what it is asked, in every way that a library might."""

import logging
import sys
import warnings
from urllib.parse import unquote

from fastapi import FastAPI, Request

from iris_api.server.app import create_app


class Leaving:
    """Raises where nobody can catch it."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __del__(self) -> None:
        raise RuntimeError(self.text)


def create() -> FastAPI:
    app = create_app()

    @app.get("/noise/{path:path}")
    async def noise(request: Request) -> None:
        text = "".join([request.scope["path"], unquote(request.url.query, errors="surrogateescape"), "\ud800\n<3>{"])
        agent = request.scope["headers"][1][1]
        warnings.warn(text, stacklevel=1)
        # As from a library in C, or one that does not know better.
        print(text, agent, file=sys.stderr)
        Leaving(text)
        logging.getLogger("library").warning(text)
        logging.getLogger("library").warning("%d", text)
        logging.getLogger("library").warning("%s", agent, extra={"ratio": float("nan"), "agent": agent})
        raise RuntimeError(text)

    return app

"""The application with a path that blocks its event loop."""

import time

from fastapi import FastAPI

from iris_api.server.app import create_app


def create() -> FastAPI:
    app = create_app()

    @app.get("/block")
    async def block() -> None:
        time.sleep(600)

    return app

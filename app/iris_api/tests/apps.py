"""Applications that tests share: building one takes longer than most of them."""

from __future__ import annotations

from functools import cache

from iris_api.engines.model import Model
from iris_api.server.app import Application, build_app
from iris_api.settings import Settings

load = cache(Model.load)
"""Return a model, which nobody changes."""
build = cache(build_app)


def serving(settings: Settings, model: Model) -> Application:
    """Return an application that has not answered anything yet, of whoever asked for these settings and this model.

    What it keeps from one request to the next is what it counts, and how long calls take.
    """
    app = build(settings, model)
    app.state.metrics.reset()
    return app

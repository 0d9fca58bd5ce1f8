"""The configuration of gunicorn under the name that units of release 1.0.0 call it by."""

from iris_api.server.gunicorn_conf import *  # noqa: F403

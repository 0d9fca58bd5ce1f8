"""Replaces this process: a call of the model that does not end can't be stopped, but its process can.

The master, gunicorn or systemd, starts a new one.
"""

import asyncio
import logging
import mmap
import os
import signal
from typing import Any

from iris_api.server.notify import notify

logger = logging.getLogger(__name__)

# Seconds for requests that are being answered; then the process ends whatever it does.
_DRAIN = 2.0
# Shared with the master, which imports this before it makes a worker, and so with all workers to come.
_count = mmap.mmap(-1, 8)


def replacements() -> int:
    """Return how many workers of this instance have replaced themselves."""
    return int.from_bytes(_count[:], "little")


def replace(app: Any, model: str, rows: int, seconds: float) -> None:
    """Take no more requests, answer those that are there, and end this process.

    `app` is the application, which is no longer ready; `model`, `rows` and `seconds` say in the log which call it was.
    Call it once, in the event loop's thread.
    """
    _count[:] = (replacements() + 1).to_bytes(8, "little")
    text = f"A call of {model} with {rows} rows has not ended after {seconds:.1f} s; this worker is replaced"
    logger.critical(text, extra={"model": model, "rows": rows, "seconds": round(seconds, 3)})
    app.state.ready = False
    app.stop_listening()
    notify(f"STATUS={text}", patience=0)
    asyncio.get_running_loop().call_later(_DRAIN, os._exit, 1)
    # The server closes its idle connections, answers what it has, and lets the signal end the process.
    os.kill(os.getpid(), signal.SIGTERM)

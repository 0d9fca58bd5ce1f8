"""An instance as it always is, which notes where it stands whenever another tick of its processor time is over.

Python delivers the signal between two instructions: time spent in C, in the kernel included, goes to the frame that
called it. What the event loop itself takes is called by nobody; it is found at the entry of the next callback.
"""

from __future__ import annotations

import dis
import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

from iris_api.server.gunicorn_conf import *  # noqa: F403  # it is this configuration, and a bit more

RESUME = dis.opmap["RESUME"]
LOOP = "the event loop"

_samples: Counter[tuple[str, ...]] = Counter()


def post_worker_init(worker: Any) -> None:
    """Begin once the model is loaded."""
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGPROF, _sample)
    signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)


def _leave(*_: object) -> None:
    """Hand over the samples. uvicorn, once it has shut down, raises the signal that made it do so anew."""
    signal.setitimer(signal.ITIMER_PROF, 0)
    path = Path(os.environ["PROFILE"]) / f"{os.getpid()}.json"
    path.write_text(json.dumps(list(_samples.items())))
    sys.exit(0)


def _sample(_signal: int, frame: FrameType | None) -> None:
    """Count the stack of what is running below the event loop, innermost first, each as module:function."""
    stack: list[str] = []
    outermost = frame
    while frame and "/asyncio/runners.py" not in frame.f_code.co_filename:
        module = frame.f_globals.get("__name__", "")
        stack.append(f"{module}:{frame.f_code.co_qualname}")
        outermost, frame = frame, frame.f_back
    assert outermost
    entering = len(stack) == 1 and outermost.f_code.co_code[outermost.f_lasti] == RESUME
    _samples[(LOOP,) if entering or not stack else tuple(stack)] += 1

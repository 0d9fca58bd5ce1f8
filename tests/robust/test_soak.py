"""Under full load every answer is right, and the memory of the instances stays where it is.

SOAK_SECONDS says for how long.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import threading
import time
from pathlib import Path
from statistics import linear_regression

from benchmarks import load
from benchmarks.inputs import Case, make_cases, named
from benchmarks.stacks import NUMBERS, PREDICT
from tests.blackbox.gateway import Gateway
from tests.robust.site_under_test import Instance, Site

SECONDS = int(os.environ.get("SOAK_SECONDS", "60"))
CONNECTIONS = 16
TURN_SECONDS = 10
SAMPLE_SECONDS = 1 + SECONDS // 600
WARM_UP = 1 / 3
"""Share of the time in which memory may do what it likes."""
FLAT_MB = 1
"""How much it may grow in the rest, by a straight line through it, however many the requests."""

Samples = list[tuple[float, dict[str, float]]]


def inferred(case: Case) -> str:
    """Return a row as the protocol takes it."""
    tensor = {"name": "input", "shape": [1, 2], "datatype": "FP64", "data": [case.petal_length, case.petal_width]}
    return json.dumps({"inputs": [tensor], "outputs": [{"name": "prediction_proba"}]})


def growth(samples: Samples, name: str) -> float:
    """Return by how many MB an instance has grown since it was warm."""
    start, end = samples[0][0], samples[-1][0]
    warm = [(when, memory[name]) for when, memory in samples if when >= start + WARM_UP * (end - start)]
    slope = linear_regression(*zip(*warm, strict=True)).slope
    return slope * (warm[-1][0] - warm[0][0])


def test_memory_is_flat_under_full_load(site: Site, unharmed: list[Instance], tmp_path: Path) -> None:
    gateway = Gateway()
    login = "Basic " + base64.b64encode(":".join(gateway.auth).encode()).decode()
    cases = make_cases("iris", seed=SECONDS)
    load.write_cases([(named(case), case) for case in cases], tmp_path / "predict", CONNECTIONS)
    load.write_cases([(inferred(case), case) for case in cases], tmp_path / "infer", CONNECTIONS)
    turns = itertools.cycle(
        [
            (load.Target(f"{gateway.url}/predict", login, PREDICT), tmp_path / "predict"),
            (load.Target(f"{gateway.url}/v2/models/iris/infer", login, rf'"data":%s*{NUMBERS}'), tmp_path / "infer"),
        ]
    )
    samples: Samples = []
    over = threading.Event()

    def sample() -> None:
        while not over.wait(SAMPLE_SECONDS):
            samples.append((time.monotonic(), site.memory(unharmed)))

    sampler = threading.Thread(target=sample)
    sampler.start()
    requests = 0
    try:
        end = time.monotonic() + SECONDS
        while (left := end - time.monotonic()) > 0:
            loaded = load.run(*next(turns), CONNECTIONS, max(1, min(TURN_SECONDS, round(left))))
            assert not loaded.errors, f"{loaded.errors}, such as {loaded.example}"
            requests += loaded.requests
    finally:
        over.set()
        sampler.join()
    assert len(samples) >= SECONDS / SAMPLE_SECONDS / 4, "memory was hardly looked at"
    grown = {name: round(growth(samples, name), 2) for name in samples[0][1]}
    lines = [f"{when - samples[0][0]:6.0f} s {memory}" for when, memory in samples[:: max(1, len(samples) // 12)]]
    print(f"{requests} requests in {SECONDS} s, all answered rightly; grown by {grown} MB", *lines, sep="\n")
    assert max(grown.values()) <= FLAT_MB

"""What a monitored site says: its Prometheus, its host's clock, and the manifest of the model that serves."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from testinfra.host import Host


def prometheus(host: Host, path: str) -> Any:
    """Query Prometheus' API on the host."""
    answer = json.loads(host.check_output(f"curl --silent --max-time 5 'http://127.0.0.1:9090/api/v1/{path}'"))
    assert answer["status"] == "success", answer.get("error")
    return answer["data"]


def query(host: Host, expression: str) -> list[dict[str, Any]]:
    """Return what a query finds now."""
    result: list[dict[str, Any]] = prometheus(host, f"query?query={quote(expression)}")["result"]
    return result


def now(host: Host) -> float:
    """Return the time of the host's clock."""
    return float(host.check_output("date +%s.%N"))


def wait_for(what: Callable[[], Any], seconds: float) -> bool:
    """Return whether what is asked for becomes true in this time."""
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(2)
    return True


def features_of(host: Host) -> list[dict[str, Any]]:
    """Return the features of the model that serves on this host: numbers, of which none is ever missing."""
    manifest = host.file("/opt/iris-api/current/model/manifest.json")
    if not manifest.exists:
        pytest.skip("the instances are on other hosts")
    found: list[dict[str, Any]] = json.loads(manifest.content_string)["features"]
    assert all(feature.get("reference") and not feature.get("nullable") for feature in found)
    return found


def value_in(feature: dict[str, Any], number: int) -> float:
    """Return a value in the middle of a bin."""
    edges = [feature["training_minimum"], *feature["reference"]["edges"], feature["training_maximum"]]
    return float((edges[number] + edges[number + 1]) / 2)

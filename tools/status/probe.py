"""What a host says of itself: this text is run there by python3 over SSH, so it needs the standard library alone.

Nothing here raises: what could not be read is in `problems`, so that the rest is seen all the same.
"""

import json
import math
import os
import re
import subprocess
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

# All that is asked over HTTP is on this host; a service that hangs must not hold up the rest.
HTTP_SECONDS = 2.0
# Of the end of the access log, some 20,000 requests: read in a tenth of a second.
LOG_BYTES = 8 << 20
PROPERTIES = ("Id", "LoadState", "ActiveState", "SubState", "NRestarts")
ROOT = Path("/")


def survey(told: dict[str, Any], root: Path = ROOT) -> dict[str, Any]:
    """Return what this host is asked: `told` has its groups, the units of each, queries, and for how many seconds back.

    A test gives another root of the files.
    """
    problems: list[str] = []

    def attempt(what: str, function: Callable[[], Any]) -> Any:
        try:
            return function()
        except Exception as error:
            problems.append(f"{what}: {error}")
            return None

    found: dict[str, Any] = {"time": time.time(), "root": os.geteuid() == 0}
    names = list(told["units"])
    if "api" in told["groups"]:
        settings = attempt("/etc/iris-api/deploy.json", lambda: json.loads(_text(root, "etc/iris-api/deploy.json")))
        ports = [settings["base_port"] + number for number in range(settings["instances"])] if settings else []
        address = settings["bind_address"] if settings else ""
        names += [f"iris-api@{number}" for number in range(1, len(ports) + 1)]
        with ThreadPoolExecutor(max(1, len(ports))) as threads:
            found["instances"] = list(threads.map(lambda port: _ready(address, port), ports))
        found["current"] = attempt("/opt/iris-api/current", lambda: os.readlink(root / "opt/iris-api/current"))
        found["history"] = attempt("/opt/iris-api/history.jsonl", lambda: _last_events(root))
        hold = root / "opt/iris-api/hold.json"
        found["hold"] = attempt(str(hold), lambda: json.loads(hold.read_text()) if hold.exists() else None)
    found["units"] = attempt("systemctl", lambda: _units(names))
    if "gateway" in told["groups"]:
        found["certificates"] = attempt("the dates of the certificate", lambda: _certificates(root))
        found["traffic"] = attempt("/var/log/nginx/access.log", lambda: traffic(root, time.time() - told["seconds"]))
    if "monitoring" in told["groups"]:
        found["prometheus"] = _prometheus(told["prometheus_port"], told["queries"]) | {"seconds": told["seconds"]}
    return found | {"problems": problems}


def _text(root: Path, path: str) -> str:
    return (root / path).read_text(encoding="utf-8")


def _get(url: str) -> Any:
    # What this host's environment says of proxies is for the outside.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=HTTP_SECONDS) as answer:
        return json.load(answer)


def _ready(address: str, port: int) -> dict[str, Any]:
    host = f"[{address}]" if ":" in address else address
    try:
        return {"ready": True, **_get(f"http://{host}:{port}/health/ready")}
    except (OSError, ValueError) as error:
        return {"ready": False, "why": str(error)}


def _last_events(root: Path) -> list[dict[str, Any]]:
    """Return the last events, without those of somebody who held deployments."""
    events = []
    for line in _text(root, "opt/iris-api/history.jsonl").splitlines()[-50:]:
        # One that a power cut left unfinished is none, as for iris-deploy.
        try:
            event = json.loads(line)
            if event["event"] not in ("held", "unlocked"):
                events.append(event)
        except (ValueError, KeyError, TypeError):
            continue
    return events[-2:]


def _units(names: list[str]) -> list[dict[str, str]]:
    command = ["systemctl", "show", "--property", ",".join(PROPERTIES), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=HTTP_SECONDS)
    return parsed_units(done.stdout)


def parsed_units(shown: str) -> list[dict[str, str]]:
    """Return the properties of each unit, as `systemctl show` writes them; not of one that is not installed."""
    blocks = [dict(line.split("=", 1) for line in block.splitlines()) for block in shown.strip().split("\n\n")]
    return [block for block in blocks if block.get("LoadState") != "not-found"]


def _certificates(root: Path) -> dict[str, dict[str, float]]:
    """Return for the `gateway`'s certificate, and the `ca`'s, not_before and not_after in seconds since 1970."""
    found: dict[str, dict[str, float]] = {}
    text = _text(root, "var/lib/prometheus/node-exporter/fortress_certificate.prom")
    pattern = r'^fortress_certificate_(not_\w+)_seconds\{certificate="(\w+)"\} (\S+)$'
    for date, certificate, value in re.findall(pattern, text, re.MULTILINE):
        found.setdefault(certificate, {})[date] = float(value)
    return found


def traffic(root: Path, since: float) -> dict[str, float]:
    """Return requests for predictions and errors since a time, p99 in seconds, and of how many seconds.

    Of the access log's last LOG_BYTES, and of what instances were asked for: what the limit refused does not count.
    """
    path = root / "var/log/nginx/access.log"
    with path.open("rb") as log:
        size = path.stat().st_size
        log.seek(max(0, size - LOG_BYTES))
        lines = log.read().splitlines()[1 if size > LOG_BYTES else 0 :]
    times: list[float] = []
    first, errors = since, 0
    for line in lines:
        try:
            entry = json.loads(line)
            when, status, seconds = entry["msec"], entry["status"], entry["request_time"]
            is_of_api = entry["upstream_addr"] and not entry["path"].startswith("/grafana/")
            is_prediction = is_of_api and entry["method"] == "POST"
        except (ValueError, KeyError):
            continue
        if size > LOG_BYTES and not times:
            first = max(since, when)
        if when >= since and is_prediction:
            times.append(seconds)
            errors += status >= 500 or status < 100
    times.sort()
    # The least value that 99 of 100 do not exceed.
    p99 = times[-(-99 * len(times) // 100) - 1] if times else 0.0
    return {"requests": len(times), "errors": errors, "p99": p99, "seconds": round(time.time() - first)}


def _prometheus(port: int, queries: dict[str, str]) -> dict[str, Any]:
    """Return targets, firing alerts and the value of each query; `error` where Prometheus does not answer."""
    base = f"http://127.0.0.1:{port}/api/v1"
    paths = {"targets": "targets?state=active", "alerts": "alerts"}
    paths |= {name: f"query?query={quote(query)}" for name, query in queries.items()}
    try:
        with ThreadPoolExecutor(len(paths)) as threads:
            answers = dict(
                zip(paths, threads.map(lambda path: _get(f"{base}/{path}")["data"], paths.values()), strict=True)
            )
    except (OSError, ValueError, KeyError) as error:
        return {"error": str(error)}
    return {
        "targets": [
            {"labels": target["labels"], "health": target["health"], "error": target["lastError"]}
            for target in answers["targets"]["activeTargets"]
        ],
        "alerts": [
            {"labels": alert["labels"], "annotations": alert["annotations"], "since": alert["activeAt"]}
            for alert in answers["alerts"]["alerts"]
            if alert["state"] == "firing"
        ],
        "values": {name: _number(answers[name]["result"]) for name in queries},
    }


def _number(result: list[dict[str, Any]]) -> float | None:
    """Return the value of a query; None where there is none, or NaN, which JSON has not: a quantile of no requests."""
    value = float(result[0]["value"][1]) if result else math.nan
    return value if math.isfinite(value) else None

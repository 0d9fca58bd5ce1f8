"""The load as a test sees it: `with load() as traffic: ...`, then what became of every request."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from testinfra.host import Host

from tests import ROOT
from tests.faults.load import LATE

RATE = 108
"""Requests a second of all kinds together."""
KINDS = {"new connection": "new", "keep-alive": "keep-alive", "http2": "http2"}
WARM_UP = 2.0


@dataclass(frozen=True)
class Kind:
    """What one kind of client saw."""

    sent: int
    ok: int
    slowest_ms: float
    gap_s: float
    """Longest time without a right answer, from the begin of the load to its end."""
    late_ms: float
    found_closed: int
    """Kept connections that the server had closed, noticed before a request was sent."""
    hit_closed: int
    """Kept connections whose closing met a request; asked again at once, over a new one."""
    retried: int
    """Requests that nginx asked of a second instance, by its own log."""


class Traffic:
    """A load in a process of its own, from `with` to the end of the block and `linger` seconds longer."""

    def __init__(self, host: Host, cases: Path, password: str, linger: float) -> None:
        self.host, self.cases, self.password, self.linger = host, cases, password, linger
        self.run = f"f{time.time_ns() // 1_000_000:x}"
        self.began = self.ended = self.struck = 0.0
        self.kinds: dict[str, Kind] = {}
        self.failures: list[dict[str, Any]] = []
        self.answered: list[tuple[float, float, str]] = []

    def __enter__(self) -> Self:
        """Start, and return once the clients are warm."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.load"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.tell(
            json.dumps(
                {
                    "address": os.environ["FORTRESS_HOST"],
                    "name": os.environ["FORTRESS_DOMAIN"],
                    "trust": os.environ["FORTRESS_CA"],
                    "login": [os.environ["FORTRESS_USER"], self.password],
                    "run": self.run,
                    "cases": str(self.cases),
                }
            )
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "warm\n", "the load did not start"
        time.sleep(WARM_UP)
        self.tell("begin")
        self.began = self.struck = time.monotonic()
        time.sleep(1)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Go on for a while, then end and read what was seen."""
        try:
            if kind is None:
                time.sleep(self.linger)
            self.ended = time.monotonic()
            seen = json.loads(self.process.communicate(timeout=60)[0])
        finally:
            self.process.kill()
            self.process.wait()
        retried = self.retried()
        for name, what in seen.items():
            self.failures += what["failures"]
            self.answered += [tuple(answer) for answer in what["answered"]]
            self.kinds[name] = Kind(
                sent=what["sent"],
                ok=what["ok"],
                slowest_ms=what["slowest_ms"],
                gap_s=longest_gap((answer[1] for answer in what["answered"]), self.began, self.ended),
                late_ms=what["late_ms"],
                found_closed=what["closings"]["idle"],
                hit_closed=what["closings"]["hit"],
                retried=retried[KINDS[name]],
            )
        self.failures.sort(key=lambda failure: float(failure["ended"]))
        self.answered.sort(key=lambda answer: answer[1])

    def tell(self, line: str) -> None:
        """Write a line to the load."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def strike(self) -> None:
        """Remember that this is the moment of the fault."""
        self.struck = time.monotonic()

    @property
    def failed(self) -> dict[str, int]:
        """How many requests of each kind failed."""
        return {name: kind.sent - kind.ok for name, kind in self.kinds.items()}

    @property
    def sent(self) -> int:
        """How many requests all clients sent."""
        return sum(kind.sent for kind in self.kinds.values())

    def retried(self) -> Counter[str]:
        """Count by kind the requests for which nginx asked two instances."""
        logs = "/var/log/nginx/access.log /var/log/nginx/access.log.1"
        pattern = f'"request_id":"{self.run}-.*"upstream_addr":"[^" ]* '
        # Requests of the warm-up are in it too; nothing happens to them.
        lines = self.host.run(f"grep --no-filename --no-messages '{pattern}' {logs}").stdout.splitlines()
        return Counter(str(json.loads(line)["request_id"]).split("-", 1)[1].rpartition("-")[0] for line in lines)

    def recovered_after(self) -> float:
        """Return the seconds from the fault to the first good answer of the time in which none fails any more."""
        last = max((float(failure["began"]) for failure in self.failures), default=self.struck)
        return next((ended for began, ended, _ in self.answered if began > last), float("inf")) - self.struck

    def assert_nothing_failed(self) -> None:
        """Assert that every request got the right answer, and that the load was what it should be."""
        assert not self.failures, self.explain()
        self.assert_enough()

    def assert_late_at_most(self, seconds: float, *, waited: bool = False) -> None:
        """Assert that all answers were right, and those late within so many seconds.

        Late are those that nginx asked for again; where they `waited` for the same instance, others too.
        """
        assert all(failure["reason"].startswith(LATE) for failure in self.failures), self.explain()
        assert all(failure["ended"] - failure["began"] < seconds for failure in self.failures), self.explain()
        assert waited or len(self.failures) <= sum(kind.retried for kind in self.kinds.values()), self.explain()
        self.assert_enough()

    def assert_enough(self) -> None:
        """Assert that no request is unaccounted for and that the load was kept up."""
        assert sum(kind.ok for kind in self.kinds.values()) + len(self.failures) == self.sent, self.kinds
        assert self.sent >= 0.95 * RATE * (self.ended - self.began) > 0, self.kinds

    def explain(self) -> str:
        """Return what failed, when and why, and what nginx wrote about it."""
        lines = [f"{len(self.failures)} of {self.sent} requests failed; seconds are counted from the fault:"]
        for failure in self.failures[:20]:
            began, ended = failure["began"] - self.struck, failure["ended"] - self.struck
            lines.append(f"{began:+.2f} to {ended:+.2f}: {failure['identity']}: {failure['reason']}")
        names = "|".join(failure["identity"] for failure in self.failures[:20])
        errors = "journalctl --quiet --unit=nginx --lines=20"
        log = self.host.run(f"grep -hE '\"({names})\"' /var/log/nginx/access.log; {errors}")
        return "\n".join([*lines, log.stdout])


def longest_gap(answered: Iterable[float], began: float, ended: float) -> float:
    """Return the longest time between two right answers, or between one and the begin or the end, in seconds."""
    return max(after - before for before, after in pairwise(sorted([began, *answered, ended])))


Load = Callable[..., Traffic]
"""The fixture `load`, and those of conftest.py beside it."""
Strike = Callable[..., dict[str, Any]]
Record = Callable[..., None]


def wait_until_whole(host: Host, seconds: float = 60) -> None:
    """Wait until every unit of the site runs, and nginx takes every instance for good."""
    check = (
        "systemctl is-active --quiet nginx prometheus prometheus-nginx-exporter prometheus-node-exporter"
        " mtail prometheus-blackbox-exporter"
        " iris-api@1 iris-api@2 iris-api@3"
        " && for port in 8001 8002 8003; do"
        " curl --silent --fail --max-time 1 127.0.0.1:$port/health/ready || exit 1; done"
        # Longer than the fail_timeout of nginx, counted from the last line of its error log, which is in the journal.
        ' && test -z "$(journalctl --quiet --unit=nginx --since=-3s)"'
    )
    deadline = time.monotonic() + seconds
    while host.run(check).rc != 0:
        assert time.monotonic() < deadline, "the site is not whole: " + host.run("systemctl --failed; " + check).stdout
        time.sleep(0.5)

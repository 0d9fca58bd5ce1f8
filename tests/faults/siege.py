"""An attack from one address and a polite client at another: `besiege(kind)` gives what became of both."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests import ROOT
from tests.faults.traffic import longest_gap

LOCALVM = ROOT / "tools" / "localvm"

RATE = 5.0
"""Requests a second of the polite client, of all its kinds together."""
KINDS = 3
PATIENCE = 2.0
"""Seconds within which the right answer must be there."""
LINGER = 1.0
"""Seconds that the polite client goes on after the attack."""
WARM_UP = 1.0
RUNS = 3
"""At most, of an attack in which only times were wrong."""

# Of the processor, where it is scarce: from -20 (much) to 19. What is measured is the site, and not how two programs
# on one machine compete: the polite client is not to wait until the attacker has had its turn.
POLITE, ATTACKER = -10, 5


@dataclass(frozen=True)
class Polite:
    """What the polite client saw. Times are milliseconds, but for the gap."""

    sent: int
    ok: int
    p99_ms: float
    slowest_ms: float
    gap_s: float
    """Longest time without a good answer."""
    late_ms: float
    """How late it was, at worst, in sending a request: its own delay and not the site's."""
    failures: list[str]

    @property
    def failed(self) -> int:
        """How many requests had no right answer in time."""
        return self.sent - self.ok

    @classmethod
    def of(cls, seen: dict[str, Any], began: float, ended: float) -> Self:
        """Sum up what the load saw between two moments of its clock."""
        answered = sorted((answer[1], answer[1] - answer[0]) for each in seen.values() for answer in each["answered"])
        failures = sorted(
            (failure["began"] - began, failure["reason"]) for each in seen.values() for failure in each["failures"]
        )
        took = [1000 * seconds for _, seconds in answered]
        return cls(
            sent=sum(each["sent"] for each in seen.values()),
            ok=sum(each["ok"] for each in seen.values()),
            p99_ms=percentile(took, 99),
            slowest_ms=max(took, default=math.inf),
            gap_s=longest_gap((at for at, _ in answered), began, ended),
            late_ms=max(each["late_ms"] for each in seen.values()),
            failures=[f"{at:+.2f} s: {reason}" for at, reason in failures],
        )


@dataclass(frozen=True)
class Attack:
    """What the attacker sent, and what came back."""

    requests: int
    connections: int
    held: int
    bytes: int
    answers: dict[str, int]


def percentile(values: Iterable[float], percent: float) -> float:
    """Return the smallest of the values that is not below so many percent of them; infinity where there is none."""
    ordered = sorted(values)
    return ordered[math.ceil(len(ordered) * percent / 100) - 1] if ordered else math.inf


def besiege(kind: str | None, model: str, cases: Path, seconds: float) -> tuple[Attack, Polite]:
    """Attack for so many seconds, or wait for as long where there is no kind; ask politely meanwhile.

    Cases are a file of inputs and classes, as for load.py.
    """
    site = {
        "address": os.environ["FORTRESS_HOST"],
        "name": os.environ["FORTRESS_DOMAIN"],
        "login": [os.environ["FORTRESS_USER"], os.environ["FORTRESS_PASSWORD"]],
    }
    asked = {
        "trust": os.environ["FORTRESS_CA"],
        "run": f"p{time.time_ns() // 1_000_000:x}",
        "cases": str(cases),
        "rate": RATE / KINDS,
        "patience": PATIENCE,
    }
    with ExitStack() as both:
        polite = both.enter_context(Outsider("load", POLITE, site | asked))
        polite.hear("warm")
        attacker = None
        if kind is not None:
            attacker = both.enter_context(
                Outsider("attack", ATTACKER, site | {"kind": kind, "model": model, "seconds": seconds})
            )
            attacker.hear("ready")
        time.sleep(WARM_UP)
        polite.say("begin")
        began = time.monotonic()
        if attacker is None:
            time.sleep(seconds)
            attack = Attack(0, 0, 0, 0, {})
        else:
            attacker.say("go")
            attack = Attack(**attacker.end(seconds + 30))
        time.sleep(LINGER)
        ended = time.monotonic()
        return attack, Polite.of(polite.end(PATIENCE + 30), began, ended)


def repeat(
    kind: str | None, model: str, cases: Path, seconds: float, most_ms: float, late_ms: float
) -> tuple[Attack, Polite, int]:
    """Besiege until the polite client was as quick as it has to be, RUNS times at most; return the last and its number.

    What an attack does, it does each time; what another program does on the machine, it does not. A request that failed
    is never measured again. Both limits are in ms: of the p99, and of how late the client itself was.
    """
    for run in range(1, RUNS + 1):
        attack, polite = besiege(kind, model, cases, seconds)
        if polite.failed or (polite.p99_ms <= most_ms and polite.late_ms <= late_ms):
            break
        print(f"{kind}, run {run}: {polite}")
    return attack, polite, run


class Outsider:
    """A program of this folder that runs under an address of its own; tells what it found as JSON, at its end."""

    def __init__(self, program: str, niceness: int, given: dict[str, Any]) -> None:
        # Where the kernel shares the processor out by session (autogroup), niceness counts within one alone.
        share = f'echo {niceness} > /proc/self/autogroup 2>/dev/null; exec nice -n {niceness} "$@"'
        self.command = [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]
        self.command += [sys.executable, str(LOCALVM), "outsider", "--", "sh", "-c", share, "sh"]
        self.command += [sys.executable, "-m", f"tests.faults.{program}"]
        self.given = given

    def __enter__(self) -> Self:
        """Start it."""
        self.process = subprocess.Popen(
            self.command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.say(json.dumps(self.given))
        return self

    def __exit__(self, *_: object) -> None:
        """End it if it still runs; its address goes with it."""
        self.process.terminate()
        self.process.wait()

    def say(self, line: str) -> None:
        """Write a line to it."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def hear(self, line: str) -> None:
        """Wait until it says something."""
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        assert said == f"{line}\n", f"{self.command[-1]} said {said!r} and not {line!r}"

    def end(self, timeout: float) -> dict[str, Any]:
        """Return what it found."""
        found: dict[str, Any] = json.loads(self.process.communicate(timeout=timeout)[0])
        return found

"""The machine under a deployment: it runs commands, answers requests and keeps time. Tests put another in its place."""

from __future__ import annotations

import http.client
import json
import subprocess
import time
import urllib.error
import urllib.request
from typing import Any

from .commands import Command, Probe

PROBE_SECONDS = 2.0


def named(body: object) -> str:
    """Return the deployment that an answer of readiness names; nothing where it names none."""
    return str(body.get("deployment", "")) if isinstance(body, dict) else ""


class Machine:
    """This machine."""

    def run(self, command: Command) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, whatever that is; raise OSError or LookupError where it can't be started."""
        return subprocess.run(
            command.argv,
            capture_output=True,
            text=True,
            # A journal has whatever a program wrote.
            errors="replace",
            check=False,
            timeout=command.timeout,
            cwd="/",
            env=command.environment,
            user=command.user,
            group=command.user,
            extra_groups=[] if command.user else None,
        )

    def ask(self, probe: Probe) -> tuple[int, Any]:
        """Return status and body of an answer; 0 and a reason where there is none."""
        data = None if probe.body is None else json.dumps(probe.body).encode()
        request = urllib.request.Request(probe.url, data, {"Content-Type": "application/json"})
        try:
            # No proxy of the environment has anything to say here.
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            try:
                with opener.open(request, timeout=PROBE_SECONDS) as answer:
                    return answer.status, json.load(answer)
            except urllib.error.HTTPError as error:
                return error.code, error.read(2000).decode(errors="replace")
        except (OSError, ValueError, http.client.HTTPException) as error:
            return 0, str(error) or type(error).__name__

    def clock(self) -> float:
        """Return seconds that only ever grow."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

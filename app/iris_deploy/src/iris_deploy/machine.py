"""The machine under a deployment: it runs commands, answers requests and keeps time. Tests put another in its place."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request
from typing import Any

from .commands import Command, Probe

PROBE_SECONDS = 2.0


class Machine:
    """This machine."""

    def run(self, command: Command) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, whatever that is; raise OSError or LookupError where it can't be started."""
        return subprocess.run(
            command.argv,
            capture_output=True,
            text=True,
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
            with opener.open(request, timeout=PROBE_SECONDS) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, error.read(2000).decode(errors="replace")
        except (OSError, ValueError) as error:
            return 0, str(error)

    def clock(self) -> float:
        """Return seconds that only ever grow."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

"""A steady load from outside by three kinds of client, each answer checked; runs as a process of its own.

Load tools such as Locust wait for an answer before they send the next request, and so ask least where most is wrong;
and none tells a connection that was closed while idle from one that was closed under a request.

The first line of its input is what it needs to know, as JSON. It begins to count at the next line, ends with its input,
and prints what it saw as one line of JSON.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import random
import sys
import time
from dataclasses import asdict, dataclass, field

from tests.faults.clients import KINDS, Client, Closings, Failed, Site

RATE = 36.0
"""Requests a second of each kind, where nobody says another rate."""
IN_TIME = 2.0
"""Seconds from the time when a request is due within which it must have its right answer; else it has failed."""
LATE = "right but late"
"""How the reason of a failure begins whose answer was right and came too late."""
PATIENCE = 20.0
"""Seconds for which a client waits for an answer all the same, likewise: how late it comes tells what went wrong."""


@dataclass
class Failure:
    """A request without the right answer. Times are seconds of the machine's monotonic clock."""

    identity: str
    began: float
    ended: float
    reason: str


@dataclass
class Seen:
    """What the clients of one kind have seen."""

    sent: int = 0
    ok: int = 0
    slowest_ms: float = 0
    closings: Closings = field(default_factory=Closings)
    failures: list[Failure] = field(default_factory=list)
    answered: list[tuple[float, float, str]] = field(default_factory=list)
    """When each good answer was asked for, when it came, and from which instance."""
    late_ms: float = 0
    """How late the load itself was, at worst, in sending a request."""


class Load:
    """Sends requests at their times, however long the answers take."""

    def __init__(
        self,
        site: Site,
        run: str,
        inputs: list[list[float]],
        classes: dict[str, list[int]],
        rate: float = RATE,
        patience: float = PATIENCE,
    ) -> None:
        self.site, self.run, self.inputs, self.classes = site, run, inputs, classes
        self.rate, self.patience = rate, patience
        self.seen = {kind: Seen() for kind in KINDS}
        self.tasks: set[asyncio.Task[None]] = set()
        self.end = float("inf")

    def begin(self) -> None:
        """Forget the warm-up, but keep the connections."""
        for kind, before in self.seen.items():
            before.closings.idle = before.closings.hit = 0
            # A request in flight still writes to what is forgotten here.
            self.seen[kind] = Seen(closings=before.closings)

    async def go(self, kind: str, offset: float) -> None:
        """Run the clients of one kind until it ends; what is late then is still sent."""
        client = KINDS[kind](self.site, self.seen[kind].closings)
        due, number = time.monotonic() + offset, 0
        while due < self.end:
            # Not in step with the other kinds, or the round robin would give each kind an instance of its own.
            at = due + random.uniform(0, 1 / self.rate)
            await asyncio.sleep(at - time.monotonic())
            number += 1
            task = asyncio.create_task(self.ask(client, kind, f"{self.run}-{kind.split()[0]}-{number}", at))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
            due += 1 / self.rate

    async def ask(self, client: Client, kind: str, identity: str, due: float) -> None:
        """Send one request and keep what became of it."""
        seen = self.seen[kind]
        number = random.randrange(len(self.inputs))
        length, width = self.inputs[number]
        body = b'{"petal_length": %r, "petal_width": %r}' % (length, width)
        began = time.monotonic()
        seen.sent += 1
        seen.late_ms = max(seen.late_ms, (began - due) * 1000)
        try:
            async with asyncio.timeout(self.patience):
                answer = await client.ask(identity, body)
            if answer.status != 200:
                raise Failed(f"status {answer.status}: {answer.body.decode(errors='replace')}")
            said = json.loads(answer.body)
            if said["prediction"] != self.classes[f"{said['model']} {said['model_version']}"][number]:
                raise Failed(f"wrong class: {said} for {body.decode()}")
        except (Failed, TimeoutError, ValueError, LookupError) as error:
            reason = str(error) if isinstance(error, Failed) else f"{type(error).__name__}: {error}"
            seen.failures.append(Failure(identity, began, time.monotonic(), reason))
            return
        ended = time.monotonic()
        seen.slowest_ms = max(seen.slowest_ms, (ended - began) * 1000)
        if ended - due > IN_TIME:
            seen.failures.append(Failure(identity, began, ended, f"{LATE}, {ended - due:.2f} s after it was due"))
        else:
            seen.ok += 1
            seen.answered.append((began, ended, answer.headers.get("x-served-by", "")))

    async def until_told(self) -> None:
        """Send until the input ends, then wait for the last answers."""
        loop = asyncio.get_running_loop()
        commands = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
        kinds = [asyncio.create_task(self.go(kind, place / self.rate / len(KINDS))) for place, kind in enumerate(KINDS)]
        print("warm", flush=True)
        while await commands.readline():
            self.begin()
        self.end = time.monotonic()
        await asyncio.gather(*kinds)
        while self.tasks:
            await asyncio.wait(self.tasks)


def main() -> None:
    """Run as a program."""
    given = json.loads(sys.stdin.readline())
    login = base64.b64encode(":".join(given["login"]).encode()).decode()
    site = Site(given["address"], given["name"], given["trust"], f"Basic {login}", f"fortress-faults/{given['run']}")
    with open(given["cases"], encoding="utf-8") as file:
        cases = json.load(file)
    rate, patience = given.get("rate", RATE), given.get("patience", PATIENCE)
    load = Load(site, given["run"], cases["inputs"], cases["classes"], rate, patience)
    # A pause of the collector would look like one of the server.
    gc.collect()
    gc.freeze()
    asyncio.run(load.until_told())
    json.dump({kind: asdict(seen) for kind, seen in load.seen.items()}, sys.stdout)


if __name__ == "__main__":
    main()

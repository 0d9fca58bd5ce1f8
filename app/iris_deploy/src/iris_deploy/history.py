"""What happened on this host, and what follows from it: which deployments were good, and which are not to come back."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from .store import Deployment

PASSED = ("deployed", "rolled back")


def now() -> str:
    """Return the time as it is written down: UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class Event:
    """One line of the history."""

    event: str
    """begun, deployed, rolled back or aborted; held or unlocked."""
    who: str
    time: str = ""
    deployment: str = ""
    """The one it was about; of a rollback, the one gone back to."""
    release: str = ""
    app: str = ""
    model: str = ""
    previous: str = ""
    """The deployment that ran before."""
    blamed: str = ""
    """Of an abort, or of a rollback, what it was about: the deployment, or that part of it that was new."""
    seconds: float = 0
    why: str = ""
    left: str = ""
    """Of an abort, what could not be undone."""

    @classmethod
    def read(cls, text: str) -> Event:
        """Read one, perhaps of another release; raise ValueError, TypeError or AttributeError where it is none."""
        known = {field.name for field in fields(cls)}
        told = {key: value for key, value in json.loads(text).items() if key in known}
        for key, value in told.items():
            if not isinstance(value, int | float if key == "seconds" else str):
                raise TypeError(f"{key} is {value!r:.100}")
        return cls(**told)

    @property
    def told(self) -> dict[str, str | float]:
        """What is written of it, for any release to read."""
        return {key: value for key, value in asdict(self).items() if value}

    @classmethod
    def about(
        cls, event: str, who: str, deployment: Deployment, previous: Deployment | None, **more: str | float
    ) -> Event:
        """Make an event of a deployment."""
        known = {"release": deployment.release, "app": deployment.app, "model": deployment.model}
        return cls(event, who, deployment=deployment.id, previous=previous.id if previous else "", **known, **more)  # type: ignore[arg-type]


def what_differs(new: Deployment, old: Deployment | None) -> str:
    """Return the id of what is new in a deployment: its application, its model, or the whole where both are."""
    if old and new.model == old.model:
        return new.app
    if old and new.app == old.app:
        return new.model
    return new.id


class History:
    """A file with a line of JSON for each event, written to its end only."""

    def __init__(self, home: Path) -> None:
        self.path = home / "history.jsonl"

    def append(self, event: Event) -> None:
        """Write an event down. A full disk must not keep an instance from being put back, so it only complains."""
        entry = {"time": now()} | event.told
        try:
            # A line that a power cut left unfinished must not swallow this one.
            torn = self.path.exists() and self.path.stat().st_size > 0 and not self.path.read_bytes().endswith(b"\n")
            with self.path.open("a") as stream:
                stream.write(("\n" if torn else "") + json.dumps(entry) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            print(f"iris-deploy: {self.path} could not be written ({error.strerror}): {entry}", file=sys.stderr)

    @property
    def text(self) -> str:
        """All of it; a byte that a damaged disk made of another spoils its line and no more."""
        return self.path.read_text(errors="replace") if self.path.exists() else ""

    def read(self) -> list[Event]:
        """Return all events, the oldest first; a line that a power cut left unfinished is none."""
        events = []
        for line in self.text.splitlines():
            try:
                events.append(Event.read(line))
            except (ValueError, TypeError, AttributeError):
                continue
        return events

    def marks(self) -> dict[str, Event]:
        """Return what must not come back by itself, with the event that says why; going through once more clears it."""
        marks: dict[str, Event] = {}
        for event in self.read():
            if event.event in PASSED:
                for identity in (event.deployment, event.app, event.model):
                    marks.pop(identity, None)
            if event.blamed:
                marks[event.blamed] = event
        return marks

    def rolled_back_from(self, deployment: Deployment) -> Event | None:
        """Return when a deployment, or what it consists of, was last left; None where it may come by itself."""
        marks = self.marks()
        left = (marks[part] for part in sorted(deployment.parts & marks.keys()))
        return next((event for event in left if event.event == "rolled back"), None)

    @property
    def last(self) -> Event | None:
        """The last event that was about a deployment."""
        return next((event for event in reversed(self.read()) if event.deployment), None)

    def passed(self) -> list[str]:
        """Return the ids of deployments that went through, the latest first."""
        ids = [event.deployment for event in reversed(self.read()) if event.event in PASSED]
        return list(dict.fromkeys(ids))

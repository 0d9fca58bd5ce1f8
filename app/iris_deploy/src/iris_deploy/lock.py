"""Who may change deployments now: one at a time, and nobody while an operator holds them."""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path

from . import Problem, files
from .history import Event, History, now
from .machine import Machine

POLL_SECONDS = 0.2


class Hold:
    """A file by which an operator keeps deployments off until it is released; a reboot does not release it."""

    def __init__(self, path: Path, history: History) -> None:
        self._path = path
        self._history = history

    @property
    def owner(self) -> Event | None:
        """Who holds deployments, since when and why; of a file that can't be read only that somebody does."""
        try:
            return Event.read(self._path.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, AttributeError) as error:
            return Event("held", "somebody", "an unknown time", why=f"{self._path} can't be read ({error})")

    def require_none(self) -> None:
        """Raise Problem where somebody holds deployments."""
        if held := self.owner:
            raise Problem(
                f"Deployments are held since {held.time} by {held.who}: {held.why}. "
                "`make unlock` (here: `iris-deploy unlock`) lifts that."
            )

    def acquire(self, who: str, why: str) -> None:
        """Hold deployments; raise Problem where somebody does already."""
        self.require_none()
        event = Event("held", who, now(), why=why)
        files.write(self._path, json.dumps(event.told))
        self._history.append(event)

    def release(self, who: str) -> bool:
        """Release the hold; return whether there was one."""
        if not self._path.exists():
            return False
        self._path.unlink()
        self._history.append(Event("unlocked", who))
        return True


class Lock:
    """A file that is locked by who deploys; the kernel releases it with the process, whatever ends that."""

    def __init__(self, path: Path, hold: Hold, machine: Machine, patience: float) -> None:
        self._path = path
        self._hold = hold
        self._machine = machine
        self._patience = patience

    @property
    def owner(self) -> str:
        """What runs now, as a sentence; nothing where nothing does."""
        try:
            with self._path.open() as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return file.read().strip() or "Something"
        except FileNotFoundError:
            pass
        # What it says is of somebody who was killed.
        return ""

    @contextlib.contextmanager
    def acquired(self, what: str, *, despite_hold: bool = False) -> Iterator[None]:
        """Keep others off while this one works; wait for another for as long as it may take."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a+") as file:
            end = self._machine.clock() + self._patience
            while True:
                if not despite_hold:
                    self._hold.require_none()
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if self._machine.clock() > end:
                        raise Problem(
                            f"{self.owner} and does not end: `systemctl list-units 'iris-deploy*'`."
                        ) from None
                self._machine.sleep(POLL_SECONDS)
            file.truncate(0)
            file.write(f"{what} runs since {now()}\n")
            file.flush()
            try:
                yield
            finally:
                file.truncate(0)

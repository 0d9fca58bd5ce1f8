"""Steps that are all taken, or undone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from . import Failure
from .machine import Machine

POLL_SECONDS = 0.1


class Deadline:
    """A moment by which all must be done."""

    def __init__(self, machine: Machine, seconds: float) -> None:
        self.seconds = seconds
        self._machine = machine
        self._end = machine.clock() + seconds

    def wait(self, what: str) -> None:
        """Wait a moment for something, or fail if there is no time left."""
        if self._machine.clock() > self._end:
            raise Failure(f"{self.seconds:g} s have passed, the deadline for all of it, while waiting for {what}")
        self._machine.sleep(POLL_SECONDS)


def nothing() -> None:
    """Undo a step that needs no undoing."""


@dataclass(frozen=True)
class Step:
    """A part of a transaction."""

    name: str
    do: Callable[[], object]
    undo: Callable[[], object] = nothing
    """Also right where `do` failed half way."""


def carry_out(steps: Iterable[Step], say: Callable[[str], None]) -> None:
    """Take the steps in turn. Where one fails undo it and all before it, the last one first, and raise its error.

    A step is asked for when those before it are done: a generator may choose it by what has come of them. An undo that
    fails is told, also by a note of that error, and does not keep the one before from being undone.
    """
    taken: list[Step] = []
    try:
        for step in steps:
            taken.append(step)
            step.do()
    except Exception as failure:
        for step in reversed(taken):
            try:
                step.undo()
            except Exception as error:
                say(f"{step.name}: COULD NOT BE UNDONE: {error}")
                failure.add_note(f"{step.name}: {error}".splitlines()[0])
        raise

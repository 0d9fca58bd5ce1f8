"""Work that would hold up the event loop for too long, in steps: between two of them the loop answers others.

A generator yields wherever it can be left for a while. A thread would not do: to read JSON holds Python's lock.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Generator
from time import perf_counter
from typing import Any, TypeVar

T = TypeVar("T")
Steps = Generator[None, None, T]
"""Work that yields after each step, and returns its result."""

LARGE = 1 << 16
"""Bytes of a body from which it is read in steps; a smaller one takes a millisecond at most."""
# Seconds for which the loop may be held up at a time. What it does between two of them takes some tens of us.
_TURN = 0.001


def finished(steps: Steps[T]) -> T:
    """Do all steps at once, and return the result."""
    try:
        while True:
            next(steps)
    except StopIteration as end:
        result: T = end.value
        return result


class Turns:
    """Does the steps of several pieces of work, which take turns, in the event loop's thread."""

    def __init__(self) -> None:
        self._waiting: deque[_Work] = deque()

    def submit(self, steps: Steps[T], done: Callable[[T | Exception], None]) -> Callable[[], bool]:
        """Have `done` called once, in a later turn of the loop, with the result of some steps or what they raised.

        `done` must not raise. What is returned gives the work up, and says whether it was still to be done.
        """
        work = _Work(steps, done)
        self._waiting.append(work)
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._go_on)

        def give_up() -> bool:
            was_waiting = work.steps is not None
            work.steps = None
            return was_waiting

        return give_up

    def _go_on(self) -> None:
        """Do some steps of the work whose turn it is."""
        work = self._waiting.popleft()
        until = perf_counter() + _TURN
        result: Any = None
        steps = work.steps
        if steps is not None:
            try:
                while perf_counter() < until:
                    next(steps)
                self._waiting.append(work)
                steps = None
            except StopIteration as end:
                result = end.value
            except Exception as error:
                result = error
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._go_on)
        if steps is not None:
            work.steps = None
            work.done(result)


class _Work:
    """Some steps, None once they are done or nobody waits for their result, and who is told of it."""

    __slots__ = ("done", "steps")

    def __init__(self, steps: Steps[Any], done: Callable[[Any], None]) -> None:
        self.steps: Steps[Any] | None = steps
        self.done = done

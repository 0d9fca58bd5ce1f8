"""Steps are all taken, or undone from the last one back."""

from __future__ import annotations

from functools import partial

import pytest
from iris_deploy import Failure
from iris_deploy.commands import Paths
from iris_deploy.transaction import Deadline, Step, carry_out

from .conftest import Played


def fail(text: str) -> None:
    raise Failure(text)


def test_all_steps_are_taken_in_turn() -> None:
    done: list[str] = []
    steps = [Step(name, partial(done.append, name), partial(done.append, f"undo {name}")) for name in "abc"]
    carry_out(steps, done.append)
    assert done == ["a", "b", "c"]


def test_the_step_that_fails_and_those_before_it_are_undone_and_no_other() -> None:
    done: list[str] = []
    steps = [
        Step("a", partial(done.append, "a"), partial(done.append, "undo a")),
        Step("b", partial(done.append, "b")),
        Step("c", partial(fail, "c is broken"), partial(done.append, "undo c")),
        Step("d", partial(done.append, "d"), partial(done.append, "undo d")),
    ]
    with pytest.raises(Failure, match="c is broken"):
        carry_out(steps, done.append)
    assert done == ["a", "b", "undo c", "undo a"]


def test_an_undo_that_fails_is_told_and_keeps_no_other_from_being_undone() -> None:
    done: list[str] = []
    steps = [
        Step("a", partial(done.append, "a"), partial(done.append, "undo a")),
        Step("b", partial(fail, "b is broken"), partial(fail, "so is its undo")),
    ]
    with pytest.raises(Failure, match="b is broken") as raised:
        carry_out(steps, done.append)
    assert raised.value.__notes__ == ["b: so is its undo"]
    assert done == ["a", "b: COULD NOT BE UNDONE: so is its undo", "undo a"]


def test_past_the_deadline_nothing_is_waited_for() -> None:
    machine = Played(Paths())
    deadline = Deadline(machine, 5)
    for _ in range(50):
        deadline.wait("rain")
    with pytest.raises(Failure, match=r"^5 s have passed, the deadline for all of it, while waiting for rain$"):
        for _ in range(3):
            deadline.wait("rain")

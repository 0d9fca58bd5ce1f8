"""iris-deploy without a host: what lies on the disk, what the history says, where a rollback goes."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from iris_deploy import Problem
from iris_deploy.history import Event, History, what_differs
from iris_deploy.machine import Machine
from iris_deploy.rollback import Part, find_target
from iris_deploy.store import FRESH_SECONDS, Deployment, Store

UNIT = "[Service]\nExecStart=/opt/iris-api/instances/%i/app/venv/bin/gunicorn\n"


class Bench:
    """A folder as on a host, and what happens to it."""

    def __init__(self, home: Path) -> None:
        self.store = Store(home, Machine())
        self.history = History(home)

    def deployment(self, release: str = "r1", model: str = "m1", environment: str = "A=1\n") -> Deployment:
        for kind, name in (("releases", release), ("models", model)):
            (self.store.home / kind / name).mkdir(parents=True, exist_ok=True)
            (self.store.home / kind / name / ".complete").touch()
        return Deployment(release, model, environment, UNIT)

    def goes_through(self, new: Deployment, event: str = "deployed") -> Deployment:
        old = self.store.current
        self.store.write(new)
        for instance in (1, 2, 3):
            self.store.assign(instance, new)
        blamed = what_differs(old, new) if event == "rolled back" and old else ""
        self.history.append(Event.about(event, "me", new, old, blamed=blamed))
        self.store.make_current(new)
        return new

    def fails(self, new: Deployment) -> None:
        self.store.write(new)
        event = Event.about(
            "aborted", "me", new, self.store.current, blamed=what_differs(new, self.store.current), why="bad"
        )
        self.history.append(event)

    def target(self, part: Part = "all", to: str = "") -> Deployment:
        return find_target(self.store, self.history, part, to)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_an_id_tells_apart_whatever_a_deployment_consists_of(bench: Bench) -> None:
    one = bench.deployment()
    others = [
        bench.deployment(release="r2"),
        bench.deployment(model="m2"),
        bench.deployment(environment="A=2\n"),
        Deployment("r1", "m1", "A=1\n", f"{UNIT}MemoryMax=1G\n"),
    ]
    assert len({one.id, *(each.id for each in others)}) == 5
    assert bench.deployment().id == one.id


def test_what_was_written_is_read_again(bench: Bench) -> None:
    new = bench.goes_through(bench.deployment())
    assert bench.store.current == bench.store.of(2) == new
    path = bench.store.path(new)
    assert (path / "app").resolve() == bench.store.home / "releases" / "r1"
    assert (path / "iris-api.env").read_text() == f"A=1\nIRIS_API_DEPLOYMENT={new.id}\n"


def test_a_release_that_is_not_whole_is_refused(bench: Bench) -> None:
    new = bench.deployment()
    (bench.store.home / "releases" / "r1" / ".complete").unlink()
    with pytest.raises(Problem, match="releases/r1 is not on this host, or not whole"):
        bench.store.require(new)


def test_a_rollback_goes_to_the_one_before_and_not_back_again(bench: Bench) -> None:
    first = bench.goes_through(bench.deployment())
    second = bench.goes_through(bench.deployment(model="m2"))
    third = bench.goes_through(bench.deployment(model="m3"))
    assert bench.target() == second
    bench.goes_through(second, "rolled back")
    assert bench.history.marks().keys() == {"m3"}
    assert bench.target() == first
    bench.goes_through(first, "rolled back")
    with pytest.raises(Problem, match="no earlier good one"):
        bench.target()
    bench.goes_through(third)
    assert bench.history.marks().keys() == {"m2"}


def test_model_and_application_roll_back_apart(bench: Bench) -> None:
    bench.goes_through(bench.deployment())
    bench.goes_through(bench.deployment(release="r2", environment="A=2\n"))
    current = bench.goes_through(bench.deployment(release="r2", model="m2", environment="A=2\n"))
    assert bench.target("model") == bench.deployment(release="r2", model="m1", environment="A=2\n")
    assert bench.target("app") == bench.deployment(release="r1", model="m2", environment="A=1\n")
    assert what_differs(current, bench.target("app")) == current.app


def test_an_application_comes_back_with_the_bundle_of_the_model_that_it_served(bench: Bench) -> None:
    """The one that was packed since has a format that release 1.0.0 can't read."""
    before = bench.goes_through(bench.deployment(model="iris-1.0.0-aaaa"))
    bench.goes_through(bench.deployment(model="wine-1.0.0-bbbb"))
    bench.goes_through(bench.deployment(release="r2", model="iris-1.0.0-cccc"))
    assert bench.target("app") == bench.target("app", "r1") == before
    # One that it never served is all there is.
    bench.goes_through(bench.deployment(release="r2", model="iris-2.0.0-dddd"))
    assert bench.target("app").model == "iris-2.0.0-dddd"


def test_what_failed_is_never_rolled_back_to(bench: Bench) -> None:
    bench.goes_through(bench.deployment())
    bench.fails(bench.deployment(model="m-bad"))
    bench.goes_through(bench.deployment(model="m3"))
    assert bench.target().model == "m1"
    with pytest.raises(Problem, match=r"m-bad is nothing that went through .* It was aborted on .*: bad"):
        bench.target("model", "m-bad")


def test_what_was_good_once_and_failed_later_is_not_rolled_back_to(bench: Bench) -> None:
    first = bench.goes_through(bench.deployment())
    bench.goes_through(bench.deployment(model="m2"))
    bench.fails(first)
    with pytest.raises(Problem, match="no earlier good one"):
        bench.target()
    with pytest.raises(Problem, match=r"m1 was aborted on .*: bad"):
        bench.target("model", "m1")


def test_a_name_must_mean_one_thing(bench: Bench) -> None:
    bench.goes_through(bench.deployment(model="iris-1.0.0-a"))
    bench.goes_through(bench.deployment(model="iris-1.0.0-b"))
    bench.goes_through(bench.deployment(model="wine-1.0.0-c"))
    assert bench.target("model", "iris-1.0.0-a").model == "iris-1.0.0-a"
    with pytest.raises(Problem, match=r"means more than one: iris-1.0.0-a, iris-1.0.0-b"):
        bench.target("model", "iris")
    with pytest.raises(Problem, match=r"There are: iris-1.0.0-a, iris-1.0.0-b, wine-1.0.0-c"):
        bench.target("model", "rose")


def test_after_a_deployment_that_was_cut_short_back_means_what_went_through(bench: Bench) -> None:
    bench.goes_through(bench.deployment())
    current = bench.goes_through(bench.deployment(model="m2"))
    half = bench.deployment(model="m3")
    bench.store.write(half)
    bench.store.assign(1, half)
    assert bench.target() == current


def test_without_a_deployment_there_is_nothing_to_roll_back(bench: Bench) -> None:
    with pytest.raises(Problem, match="Nothing was deployed"):
        bench.target()


def test_pruning_leaves_what_is_kept_what_runs_and_what_just_came(bench: Bench) -> None:
    old, kept, runs = (bench.deployment(release=f"r{n}", model=f"m{n}") for n in (1, 2, 3))
    for each in (old, kept, runs):
        bench.goes_through(each)
    bench.deployment(release="r4", model="m4")
    assert bench.store.prune([kept.id]) == [f"deployments/{old.id}"]

    def much_later() -> float:
        return before() + FRESH_SECONDS + 60

    before, time.time = time.time, much_later
    try:
        removed = bench.store.prune([kept.id])
    finally:
        time.time = before
    assert removed == ["models/m1", "models/m4", "releases/r1", "releases/r4"]
    assert sorted(os.listdir(bench.store.home / "releases")) == ["r2", "r3"]
    assert bench.store.current == runs


def test_a_line_that_a_power_cut_left_unfinished_harms_no_other(bench: Bench) -> None:
    first = bench.goes_through(bench.deployment())
    with bench.history.path.open("a") as stream:
        stream.write('{"event": "depl')
    second = bench.goes_through(bench.deployment(model="m2"))
    assert bench.history.passed() == [second.id, first.id]
    assert len(bench.history.path.read_text().splitlines()) == 3


def test_a_full_disk_keeps_nobody_from_going_on(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.history.path.symlink_to("/dev/full")
    bench.history.append(Event("held", "me"))
    assert "could not be written (No space left on device)" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["release", "model"])
@pytest.mark.parametrize(
    "name", ["../../etc", "/etc", "a/b", "..", ".", "", ".draft", "a\nb", "a\0b", "-x", "a b", "x" * 201, "a\n"]
)
def test_a_name_that_would_lead_elsewhere_is_refused(bench: Bench, part: str, name: str) -> None:
    known = asdict(bench.deployment())
    with pytest.raises(Problem, match=f"The {part} .* is no name of a folder here"):
        Deployment(**known | {part: name})
    # Nor is what somebody wrote there taken.
    good = bench.goes_through(Deployment(**known))
    (bench.store.path(good) / "deployment.json").write_text(json.dumps(known | {part: name}))
    assert bench.store.current is None


def test_the_names_that_are_given_are_taken(bench: Bench) -> None:
    assert bench.deployment("1.0.0-acf76db7c1-cp313", "iris-forest-1.0.0_rc.1-1ae5a9508f")
    assert bench.deployment("1.0.0+local.3-acf76db7c1-cp311", "0-0-0")

"""A deployment that a power cut, a reboot or a kill cut short is noticed, and the host finishes or reverts it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from iris_deploy import Failure, cli, commands
from iris_deploy.store import Deployment

from .conftest import Site


@contextlib.contextmanager
def power_cut(site: Site, *words: str) -> Iterator[None]:
    """End everything where a command with these last words is run; what lies on the disk stays."""

    def cut() -> None:
        raise SystemExit

    site.machine.when[words] = cut
    with pytest.raises(SystemExit):
        yield
    site.machine.when.clear()


def boot(site: Site) -> None:
    """Start every instance with what its link leads to."""
    for number in sorted(site.host.systemd.enabled):
        site.machine.start(f"iris-api@{number}.service")
    site.machine.starts.clear()


def recover(site: Site) -> dict[str, Any]:
    return site.call("recover", "--who", "boot")


def whole(site: Site, deployment: Deployment) -> bool:
    """Whether all three instances run one deployment and verify is green."""
    runs = [site.host.store.of(number) for number in (1, 2, 3)] == [deployment] * 3
    return runs and site.host.store.current == deployment and not site.call("status", "--check").get("failed")


def test_where_nothing_was_cut_short_nothing_happens(site: Site) -> None:
    site.deployed()
    before = site.events()
    assert recover(site) == {"changed": False, "message": "No deployment was cut short."}
    # Nor where somebody keeps deployments off, or nothing was ever deployed.
    site.call("hold", "the fair is on")
    assert not recover(site)["changed"]
    assert (site.started, site.events()[:-1]) == ([], before)


def test_one_that_reached_an_instance_is_finished(site: Site) -> None:
    site.deployed()
    new = site.deployment(model="m2")
    with power_cut(site, "--no-block", "iris-api@2.service"):
        site.deploy(new)
    boot(site)
    said = site.call("status", "--check")
    assert said["failed"]
    assert f"The deploy of {new.id} by ana@laptop on" in said["message"] and "was cut short." in said["message"]
    assert f"iris-api@1 is to run {new.id} and serves {new.id}; current is" in said["message"]
    assert "`iris-deploy recover` finishes or reverts" in said["message"]

    assert recover(site)["message"].startswith(f"Deployed {new} in ")
    assert site.started == ["candidate", "3"]
    assert whole(site, new)
    # What was killed is in no list of failed units.
    assert commands.reset_failed("iris-deploy-job-*.service") in site.machine.commands
    assert site.events()[-1]["who"] == "boot for ana@laptop"
    assert not recover(site)["changed"]


def test_a_rollback_is_finished_as_one(site: Site) -> None:
    old = site.deployed()
    site.deployed(model="m2")
    with power_cut(site, "--no-block", "iris-api@3.service"):
        site.call("rollback")
    boot(site)
    assert recover(site)["message"].startswith("Rolled back")
    assert whole(site, old)
    assert (site.events()[-1]["event"], site.events()[-1]["blamed"]) == ("rolled back", "m2")


def test_one_that_can_not_be_finished_is_reverted(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    old = site.deployed()
    bad = site.deployment("r-third")
    with power_cut(site, "--no-block", "iris-api@2.service"):
        site.deploy(bad)
    boot(site)
    assert recover(site)["message"].startswith(f"Deployed {old} in ")
    assert "iris-api@3.service does not start" in capsys.readouterr().out
    assert whole(site, old)
    assert [event["event"] for event in site.events()[-4:]] == ["begun", "aborted", "begun", "deployed"]


def test_what_a_rollback_could_not_undo_is_gone_back_from_and_nothing_is_blamed(site: Site) -> None:
    site.deployed()
    new = site.deployed(model="m2")

    def fails() -> None:
        raise Failure("as the test wants it")

    words = ("--no-block", "iris-api@2.service")
    site.machine.when[words] = fails
    assert f"`sudo iris-deploy recover` brings back {new}" in site.call("rollback")["message"]
    del site.machine.when[words]
    site.machine.units["iris-api@2.service"].active = "failed"
    assert recover(site)["changed"]
    assert whole(site, new)
    assert (site.events()[-1]["event"], site.events()[-1]["blamed"]) == ("deployed", "")
    assert new.app not in site.host.history.marks()


def test_one_that_reached_no_instance_is_only_written_down(site: Site) -> None:
    old = site.deployed()
    new = site.deployment(model="m2")
    with power_cut(site, "--no-block", "iris-api@candidate.service"):
        site.deploy(new)
    boot(site)
    assert site.call("status", "--check")["failed"]
    assert "before any instance was touched" in recover(site)["message"]
    assert (site.started, site.events()[-1]["event"], site.events()[-1]["why"]) == ([], "aborted", "cut short")
    assert whole(site, old)
    assert not (site.paths.home / "instances" / "candidate").is_symlink()
    # It is not to blame.
    assert site.deploy(new)["changed"]


@pytest.mark.parametrize("removed", ["m2/.complete", None])
def test_what_is_gone_or_was_aborted_is_not_finished(site: Site, removed: str | None) -> None:
    old = site.deployed()
    new = site.deployment(model="m2")
    with power_cut(site, "--no-block", "iris-api@2.service"):
        site.deploy(new)
    if removed:
        (site.paths.home / "models" / removed).unlink()
    else:
        event = {"event": "aborted", "who": "ana@laptop", "deployment": new.id}
        with (site.paths.home / "history.jsonl").open("a") as history:
            history.write(json.dumps(event) + "\n")
    assert recover(site)["changed"]
    assert whole(site, old)


def test_one_that_was_only_not_yet_current_becomes_it(site: Site) -> None:
    """It was cut between the history and the link."""
    site.deployed()
    new = site.deployed(model="m2")
    first = site.events()[1]["deployment"]
    (site.paths.home / "current").unlink()
    (site.paths.home / "current").symlink_to(f"deployments/{first}")
    boot(site)
    assert site.call("status", "--check")["failed"]
    assert recover(site)["changed"]
    assert site.started == ["candidate"]
    assert whole(site, new)


def test_the_first_deployment_is_finished_too(site: Site) -> None:
    new = site.deployment()
    with power_cut(site, "--no-block", "iris-api@2.service"):
        site.deploy(new)
    assert "Nothing is deployed." in site.call("status", "--check")["message"]
    recover(site)
    assert whole(site, new)


def test_a_dead_instance_is_not_whole(site: Site) -> None:
    same = site.deployed()
    assert whole(site, same)
    site.machine.units["iris-api@2.service"].active = "failed"
    assert "iris-api@2 is to run" in site.call("status", "--check")["message"]
    # The next deployment starts it, and no recovery.
    assert not recover(site)["changed"]


def test_while_it_goes_on_it_is_not_cut_short(site: Site) -> None:
    site.deployed()
    seen: list[str] = []
    site.machine.when["--no-block", "iris-api@2.service"] = lambda: seen.extend(site.host.mixed)
    site.deploy(site.deployment(model="m2"))
    assert seen and not any("cut short" in each for each in seen)


def test_verify_and_the_unit_call_what_there_is() -> None:
    assert cli.parser().parse_args(["status", "--check"]).check
    assert cli.parser().parse_args(["recover"]).function is cli.recover

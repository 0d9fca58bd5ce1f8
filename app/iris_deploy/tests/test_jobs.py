"""Deployments and rollbacks on a host: what is good takes over one instance after the other, what is bad never does."""

from __future__ import annotations

import fcntl
import itertools
import re

import pytest
from iris_deploy import Failure, Problem, jobs
from iris_deploy.commands import Command
from iris_deploy.jobs import Job
from iris_deploy.store import Deployment

from .conftest import Site

ALL = (1, 2, 3)


def serves(site: Site, deployment: Deployment) -> bool:
    """Whether all three instances serve a deployment, and would after a reboot."""
    linked = {number: site.host.store.of(number) for number in ALL}
    return site.serving == dict.fromkeys(ALL, ("active", deployment.id)) and linked == dict.fromkeys(ALL, deployment)


def kinds(site: Site) -> list[str]:
    return [event["event"] for event in site.events()]


def test_the_first_deployment(site: Site) -> None:
    new = site.deployment()
    result = site.deploy(new)
    assert result["changed"] and result["message"].startswith(f"Deployed {new} in ")
    assert site.started == ["candidate", "1", "2", "3"]
    assert serves(site, new)
    host = site.host
    assert host.store.current == new
    assert host.systemd.enabled == {1, 2, 3}
    assert host.systemd.unit == new.unit
    assert kinds(site) == ["begun", "deployed"]
    assert site.events()[-1]["who"] == "ana@laptop"


def test_of_the_candidate_nothing_is_left(site: Site) -> None:
    site.deployed()
    assert not site.paths.candidate_unit.exists()
    assert not site.paths.candidate_environment.exists()
    assert not (site.paths.home / "instances" / "candidate").is_symlink()
    assert site.machine.units["iris-api@candidate.service"].active == "inactive"


def test_what_runs_already_is_left_alone(site: Site) -> None:
    new = site.deployed()
    before = site.events()
    assert site.deploy(new) == {"changed": False, "message": f"{new} runs already."}
    # No unit of systemd was started for nothing.
    assert [command for command in site.machine.commands if command.argv[0] == "systemd-run"] == []
    assert jobs.perform(site.host, Job("rollback", "me", to=new.id))["message"] == f"{new} runs already."
    assert site.started == []
    assert site.events() == before


def test_another_takes_over_by_its_own_unit(site: Site) -> None:
    site.deployed()
    new = site.deployed("r2", "m2", MemoryMax="1G")
    assert serves(site, new)
    assert {unit.text for unit in site.machine.units.values() if unit.deployment} == {new.unit}
    assert site.events()[-1]["seconds"] > 0


def test_between_two_instances_the_gateway_has_time_to_ask_the_first_again(site: Site) -> None:
    site.deployed()
    site.settings(settle=7)
    site.deploy(site.deployment(model="m2"))
    times = [when for instance, when in site.machine.starts if instance != "candidate"]
    assert [later - earlier >= 7 for earlier, later in itertools.pairwise(times)] == [True, True]
    # After the last one nobody waits.
    assert site.machine.time - times[-1] < 7


def test_those_that_are_put_back_give_the_gateway_the_same_time(site: Site) -> None:
    site.deployed()
    site.settings(settle=7)
    assert site.deploy(site.deployment("r-third"))["failed"]
    assert site.started == ["candidate", "1", "2", "3", "3", "2", "1"]
    third, second, first = [when for _, when in site.machine.starts][-3:]
    # The gateway may still leave out the third one, which was dead.
    assert second - third >= 7 and first - second >= 7
    assert site.machine.time - first < 7


def test_for_an_instance_that_served_nobody_no_other_waits(site: Site) -> None:
    same = site.deployed()
    site.settings(settle=7)
    for number in (1, 2):
        site.machine.units[f"iris-api@{number}.service"].active = "failed"
    began = site.machine.time
    assert site.deploy(same)["changed"]
    assert site.started == ["1", "2"]
    assert site.machine.time - began < 7


@pytest.mark.parametrize(
    ("task", "prediction", "model", "goes_through"),
    [
        ("classification", "setosa", "m-named", True),
        ("classification", 1, "m-rounds", False),
        ("regression", 2.5, "m-rounds", True),
    ],
)
def test_a_class_must_be_equal_and_a_number_near(
    site: Site, task: str, prediction: object, model: str, goes_through: bool
) -> None:
    new = site.deployment(model=model)
    site.manifest(model, task, [{"input": {"x": 1.0}, "prediction": prediction, "probabilities": None}])
    assert site.deploy(new)["changed"] == goes_through


@pytest.mark.parametrize(
    ("release", "model", "complaint"),
    [
        ("r1", "m-wrong", "golden sample 1, {'x': 1.0}, must be answered 0, but the answer was 200: {'prediction': 7"),
        ("r-refuses", "m1", "golden sample 1, {'x': 1.0}, must be answered 0, but the answer was 503: overloaded"),
        ("r1", "m-dead", "iris-api@candidate.service does not start: Model refused"),
        ("r-another", "m1", "iris-api@candidate.service answers as another and not as "),
        ("r-lists", "m1", "iris-api@candidate.service answers as [] and not as "),
        ("r-enumerates", "m1", "must be answered 0, but the answer was 200: []"),
        ("r-hangs", "m1", "the last probe of /health/ready: no answer: timed out"),
        ("r-breaks", "m1", "the last probe of /health/ready: 500: Internal Server Error"),
    ],
)
def test_a_bad_deployment_never_reaches_an_instance(site: Site, release: str, model: str, complaint: str) -> None:
    old = site.deployed()
    bad = site.deployment(release, model, MemoryMax="1G")
    result = site.deploy(bad)
    assert result["failed"] and not result["changed"]
    assert complaint in result["message"]
    # What an operator would look at first.
    assert "the status of iris-api@candidate.service" in result["message"]
    assert "the journal of --unit=iris-api@candidate.service" in result["message"]
    assert result["message"].endswith(f"The instances run what they ran before: {old}.")
    assert site.started == ["candidate"]
    assert serves(site, old)
    assert (site.host.store.current, site.host.systemd.unit) == (old, old.unit)
    assert kinds(site) == ["begun", "deployed", "begun", "aborted"]
    assert not site.paths.candidate_unit.exists()


def test_one_that_hangs_is_given_up_after_the_timeout(site: Site) -> None:
    site.deployed()
    site.settings(timeout=30)
    began = site.machine.time
    assert "30 s have passed" in site.deploy(site.deployment("r-hangs"))["message"]
    assert 30 <= site.machine.time - began < 31


@pytest.mark.parametrize("release", ["r-second", "r-dies"])
def test_what_fails_later_is_put_back_with_all_before_it(site: Site, release: str) -> None:
    """On its second instance, or while the first one settles."""
    old = site.deployed()
    bad = site.deployment(release, "m1", MemoryMax="1G")
    result = site.deploy(bad)
    assert result["failed"]
    touched = ["1", "2"] if release == "r-second" else ["1"]
    assert site.started == ["candidate", *touched, *reversed(touched)]
    assert serves(site, old)
    assert (site.host.store.current, site.host.systemd.unit) == (old, old.unit)
    # Those that were put back run by the unit that they ran by.
    assert {site.machine.units[f"iris-api@{number}.service"].text for number in ALL} == {old.unit}
    assert site.events()[-1]["event"] == "aborted"
    assert site.events()[-1]["why"] == result["message"].splitlines()[0].partition(": ")[2]


def test_one_that_can_not_be_put_back_keeps_no_other_from_it(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    old = site.deployed()
    bad = site.deployment("r-second")

    def breaks() -> None:
        # Whatever instance 2 is started with now, it fails.
        if site.started.count("2") == 1:
            path = site.paths.home / "deployments" / old.id / "deployment.json"
            text = path.read_text()
            path.write_text(text.replace('"r1"', '"r1-dead"'))
            site.machine.when[("--no-block", "iris-api@1.service")] = lambda: path.write_text(text)

    site.machine.when[("--no-block", "iris-api@2.service")] = breaks
    result = site.deploy(bad)
    said = capsys.readouterr().out
    assert "switch iris-api@2.service: COULD NOT BE UNDONE: iris-api@2.service does not start" in said
    assert site.serving[1] == site.serving[3] == ("active", old.id)
    # Whoever asked reads it, and how it is mended.
    assert result["failed"] and result["message"].endswith(
        "COULD NOT BE UNDONE: switch iris-api@2.service: iris-api@2.service does not start: Model refused.\n"
        f"`sudo iris-deploy status --check` says what runs; `sudo iris-deploy recover` brings back {old}."
    )
    assert "could not be undone (switch iris-api@2.service: " in site.call("status", "--check")["message"]
    assert site.call("recover")["changed"]
    assert serves(site, old) and not site.call("status", "--check").get("failed")
    assert not site.call("recover")["changed"]


def test_where_nothing_ran_before_a_failure_leaves_nothing(site: Site) -> None:
    result = site.deploy(site.deployment("r-second"))
    assert result["message"].endswith("There was nothing before it.")
    assert site.host.store.instances == set()
    assert site.host.store.current is None
    assert site.serving == {1: ("inactive", ""), 2: ("inactive", "")}


def test_what_failed_is_blamed_for_what_was_new_in_it(site: Site) -> None:
    old = site.deployed()
    for bad, blamed in (
        (site.deployment(model="m-dead"), "m-dead"),
        (dead := site.deployment("r-dead"), dead.app),
        (both := site.deployment("r-dead", "m-dead"), both.id),
    ):
        assert site.deploy(bad)["failed"]
        assert site.events()[-1]["blamed"] == blamed
        assert (site.events()[-1]["deployment"], site.events()[-1]["previous"]) == (bad.id, old.id)
    with pytest.raises(Problem, match=r"m-dead is nothing that went through .* It was aborted on"):
        site.call("rollback", "--to", "m-dead")


def test_a_rollback_marks_what_it_left_and_no_converge_brings_it_back(site: Site) -> None:
    old, new = site.deployed(), site.deployed(model="m2")
    result = site.call("rollback", "--who", "ana@laptop")
    assert result["message"].startswith(f"Rolled back {old} in ")
    assert serves(site, old)
    assert (site.events()[-1]["event"], site.events()[-1]["blamed"]) == ("rolled back", "m2")
    site.machine.starts.clear()

    left = site.deploy(new)
    assert (left["changed"], left["held"]) == (False, True)
    assert "ana@laptop rolled back from m2" in left["message"]
    assert site.started == []
    # Somebody means it.
    assert site.deploy(new, "--again")["changed"]
    assert serves(site, new)
    assert site.host.history.marks().keys() == set()


def test_what_is_no_more_kept_is_removed(site: Site) -> None:
    site.settings(keep=2)
    deployments = [site.deployed(model=f"m{number}") for number in range(4)]
    left = {path.name for path in (site.paths.home / "deployments").iterdir()}
    assert left == {each.id for each in deployments[-2:]}


@pytest.mark.parametrize("free", [1400, 3000])
def test_what_there_is_no_memory_for_is_refused_before_anything_is_touched(site: Site, free: int) -> None:
    site.memory(total=4000, free=free)
    old = site.deployed()
    site.machine.takes = {"sklearn": 500.0}
    before = site.events()
    result = site.deploy(site.deployment(model="m2", MemoryMax="512M" if free < 2000 else "400M"))
    complaint = "but this host has 1400 MB" if free < 2000 else "but its unit allows 419 MB"
    assert complaint in result["message"]
    assert "Nothing was touched" in result["message"]
    assert (site.started, site.events()) == ([], before)
    assert serves(site, old)
    site.settings(check_memory=False)
    assert site.deploy(site.deployment(model="m2"))["changed"]


def test_a_rollback_of_one_part_that_fails_leaves_the_other_ways_back(site: Site) -> None:
    """The application can't read the bundle that was packed since; with its own it can still come back."""
    before = site.deployed()
    site.deployed("r2", "m2")

    def fail() -> None:
        raise Failure("Model refused: format: Input should be 2")

    candidate = ("restart", "--no-block", "iris-api@candidate.service")
    site.machine.when[candidate] = fail
    assert "Input should be 2" in site.call("rollback", "--part", "app")["message"]
    with pytest.raises(Problem, match="no earlier good one"):
        site.call("rollback", "--part", "app")
    del site.machine.when[candidate]
    assert site.call("rollback")["changed"]
    assert site.host.store.current == before


def test_what_is_known_of_memory_is_no_reason_to_refuse_a_rollback(site: Site) -> None:
    site.deployed()
    site.deployed(model="m2")
    site.machine.takes = {"sklearn": 10_000.0}
    assert site.call("rollback")["changed"]


def test_that_memory_was_not_checked_is_said(site: Site) -> None:
    assert "memory enough was not checked: r1 could not be asked" in site.deploy(site.deployment())["warning"]
    site.machine.takes = {"sklearn": 100.0}
    assert site.deploy(site.deployment(model="m2"))["warning"] == ""


def test_two_deployments_do_not_happen_at_once(site: Site) -> None:
    old, new = site.deployed(), site.deployment(model="m2")
    with (site.paths.run / "lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        other.write("A deploy by bob@desk runs since noon\n")
        other.flush()
        began = site.machine.time
        result = site.deploy(new)
        assert result["failed"]
        said = "A deploy by bob@desk runs since noon and does not end: `systemctl list-units"
        assert result["message"].startswith(said)
        # As long as the other may take, and then put all back.
        assert site.machine.time - began >= 2 * 60
        assert serves(site, old)
    assert site.deploy(new)["changed"]


def test_a_deployment_waits_for_the_one_before(site: Site) -> None:
    site.deployed()
    other = (site.paths.run / "lock").open("w")
    fcntl.flock(other, fcntl.LOCK_EX)
    sleep = site.machine.sleep

    def later(seconds: float) -> None:
        sleep(seconds)
        other.close()

    site.machine.sleep = later  # type: ignore[method-assign]
    assert site.deploy(site.deployment(model="m2"))["changed"]


def test_while_it_works_the_lock_is_taken_and_says_by_whom(site: Site) -> None:
    seen: list[str] = []

    def look() -> None:
        seen.append(site.host.lock.owner)
        with (site.paths.run / "lock").open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    site.machine.when[("--no-block", "iris-api@1.service")] = look
    # Left by one that a power cut ended.
    site.paths.run.mkdir(parents=True)
    (site.paths.run / "lock").write_text("A rollback by bob@desk runs since noon\n")
    site.deploy(site.deployment())
    assert len(seen) == 1 and re.fullmatch(r"A deploy by ana@laptop runs since \S+Z", seen[0])
    assert site.host.lock.owner == ""


def test_nothing_is_deployed_while_somebody_holds_it(site: Site) -> None:
    old, new = site.deployed(), site.deployment(model="m2")
    site.call("hold", "--who", "bob@desk", "the fair is on")
    held = r"held since .* by bob@desk: the fair is on\. `make unlock`"
    with pytest.raises(Problem, match=held):
        site.deploy(new)
    for ask in (["rollback"], ["hold", "me too"]):
        with pytest.raises(Problem, match=held):
            site.call(*ask)
    with pytest.raises(Problem, match="the fair is on"):
        jobs.perform(site.host, Job("rollback", "me"))
    assert site.started == [] and serves(site, old)
    assert site.call("unlock", "--who", "bob@desk") == {
        "changed": True,
        "message": "Deployments may happen again.",
    }
    assert site.deploy(new)["changed"]
    assert kinds(site)[2:4] == ["held", "unlocked"]


def test_a_control_node_that_dies_cuts_nothing_off(site: Site) -> None:
    """What was asked for is systemd's job, and not that of the process that asked."""
    site.deployed()
    new = site.deployment(model="m2")
    run = site.machine.run

    def dies(command: Command) -> object:
        done = run(command)
        if command.argv[0] == "systemd-run":
            raise KeyboardInterrupt
        return done

    site.machine.run = dies  # type: ignore[method-assign, assignment]
    with pytest.raises(KeyboardInterrupt):
        site.deploy(new)
    assert serves(site, new)
    assert kinds(site)[-1] == "deployed"
    # Asked for again, there is nothing left to do.
    site.machine.run = run  # type: ignore[method-assign]
    assert site.deploy(new)["message"] == f"{new} runs already."


def test_a_deployment_that_was_cut_short_is_finished_by_the_next(site: Site) -> None:
    """A power cut, or whatever else leaves no time to put anything back."""
    old, new = site.deployed(), site.deployment(model="m2")

    def power_cut() -> None:
        raise SystemExit

    site.machine.when[("--no-block", "iris-api@2.service")] = power_cut
    with pytest.raises(SystemExit):
        site.deploy(new)
    assert site.serving[1] == ("active", new.id)
    assert site.serving[3] == ("active", old.id)
    assert kinds(site)[-1] == "begun"
    assert "begun, no end" in site.call("history")["message"].splitlines()[-1]
    site.machine.when.clear()
    site.machine.starts.clear()
    assert site.deploy(new)["changed"]
    # What serves it already is not restarted.
    assert site.started == ["candidate", "2", "3"]
    assert serves(site, new)
    # One that was begun anew has an end; the one before still has none.
    said = [re.split(r"  +", line)[1] for line in site.call("history")["message"].splitlines()]
    assert said == ["EVENT", "deployed", "begun, no end", "deployed"]


def test_what_serves_already_but_never_went_through_is_made_current(site: Site) -> None:
    """A power cut came between the last instance and the end."""
    new = site.deployed()
    (site.paths.home / "current").unlink()
    assert site.deploy(new)["changed"]
    assert site.started == ["candidate"]
    assert site.host.store.current == new


def test_an_answer_that_never_came_is_said(site: Site) -> None:
    site.machine.run = lambda command: site.machine.done(code=1)  # type: ignore[method-assign]
    result = site.deploy(site.deployment())
    said = r"It ended without an answer: as the test wants it\. See `journalctl --unit=iris-deploy-job-\w+\.service`\."
    assert re.fullmatch(said, result["message"])


def test_more_instances_join_in(site: Site) -> None:
    same = site.deployed()
    site.settings(instances=4)
    assert site.deploy(same)["changed"]
    assert site.started == ["4"]
    assert site.host.systemd.enabled == {1, 2, 3, 4}


def test_an_instance_that_would_not_come_up_at_boot_is_enabled(site: Site) -> None:
    same = site.deployed()
    site.machine.link("iris-api@2.service").unlink()
    assert site.deploy(same)["changed"]
    assert site.started == []
    assert [command.argv for command in site.machine.commands if "enable" in command.argv] == [
        ("systemctl", "enable", "iris-api@2.service")
    ]


def test_an_instance_that_does_not_serve_is_started_again_alone(site: Site) -> None:
    same = site.deployed()
    site.machine.units["iris-api@2.service"].active = "failed"
    assert site.deploy(same)["changed"]
    assert site.started == ["2"]


def test_a_unit_that_somebody_changed_is_put_right(site: Site) -> None:
    same = site.deployed()
    site.paths.unit.write_text("changed")
    assert site.deploy(same)["changed"]
    assert site.paths.unit.read_text() == same.unit
    assert site.paths.unit.stat().st_mode & 0o777 == 0o644
    assert site.started == []


def test_a_unit_that_systemd_does_not_take_is_put_back(site: Site) -> None:
    same = site.deployed()
    site.paths.unit.write_text("as it was")

    def fails_once() -> None:
        site.machine.when.clear()
        raise Failure("no memory for that")

    site.machine.when[("daemon-reload",)] = fails_once
    assert "no memory for that" in site.deploy(same)["message"]
    assert site.paths.unit.read_text() == "as it was"


def test_a_dry_run_only_says_what_would_happen(site: Site) -> None:
    old = site.deployed()
    new = Deployment("not-here-yet", "m1", "IRIS_API_BASE_PORT=8001\n", old.unit)
    before = site.events()
    assert site.deploy(new, "--dry-run") == {"changed": True, "message": f"{new} would be deployed."}
    with pytest.raises(Problem, match="releases/not-here-yet is not on this host, or not whole"):
        site.deploy(new)
    site.machine.takes = {"sklearn": 10_000.0}
    with pytest.raises(Problem, match="Nothing was touched"):
        site.deploy(site.deployment(model="m2"), "--dry-run")
    assert (site.started, site.events()) == ([], before)


def test_a_job_that_was_handed_over_is_answered_once(site: Site) -> None:
    site.deploy(site.deployment())
    assert [path.name for path in site.paths.run.iterdir()] == ["lock"]
    asked = next(command for command in site.machine.commands if command.argv[0] == "systemd-run")
    assert asked.argv[-2] == "perform"
    assert asked.argv[-1].startswith(str(site.paths.run))

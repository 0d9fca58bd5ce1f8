"""A converge changes back only what the inventory changed, and says in what host and inventory differ."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from iris_deploy.addresses import settings
from iris_deploy.store import Deployment

from .conftest import Site


def wanted(site: Site, release: str = "r1", model: str = "m1", level: str = "info", **unit: str) -> Deployment:
    """Return what an inventory wants."""
    environment = f"# Managed.\nIRIS_API_RELEASE={release}\nIRIS_API_LOG_LEVEL={level}\nIRIS_API_ENGINE=auto\n"
    return replace(site.deployment(release, model, **unit), environment=environment)


def converge(site: Site, deployment: Deployment, *arguments: str) -> dict[str, object]:
    site.machine.starts.clear()
    result = site.deploy(deployment, "--converge", *arguments)
    assert not result.get("failed"), result
    return result


def test_what_was_deployed_by_hand_stays_until_the_inventory_changes(site: Site) -> None:
    converge(site, wanted(site))
    by_hand = wanted(site, model="m2")
    assert site.deploy(by_hand, "--again")["changed"]

    result = converge(site, wanted(site))
    assert (result["changed"], site.started, site.host.store.current) == (False, [], by_hand)
    said = str(result["differs"])
    assert said.startswith("Host and inventory differ in model: the inventory says m1 by r1")
    assert f"this host runs {by_hand}, which ana@laptop deployed on " in said
    assert "`make deploy` brings what the inventory says" in said
    assert f"inventory: {wanted(site)}" in site.call("status")["message"].splitlines()

    result = converge(site, wanted(site, model="m3"))
    assert (result["changed"], site.host.store.current) == (True, wanted(site, model="m3"))
    assert "differs" not in result and "inventory:" not in site.call("status")["message"]


def test_what_make_deploy_brought_of_the_inventory_counts_as_applied(site: Site) -> None:
    """Without it the next converge would bring it once more, over what was deployed by hand meanwhile."""
    converge(site, wanted(site))
    site.deploy(wanted(site, model="m2"), "--again", "--inventory")
    site.deploy(wanted(site, model="m3"), "--again")
    assert not converge(site, wanted(site, model="m2"))["changed"]
    assert site.host.store.current == wanted(site, model="m3")
    # And deployed once more by the inventory, where nothing is to do.
    site.deploy(wanted(site, model="m3"), "--again", "--inventory")
    assert site.host.store.last_applied == wanted(site, model="m3")


def test_only_the_part_that_the_inventory_changed_is_changed(site: Site) -> None:
    converge(site, wanted(site))
    site.deploy(wanted(site, model="m2"), "--again")
    # A setting, then the unit, then the application; the model that was deployed by hand goes on.
    for change in (
        {"level": "debug"},
        {"level": "debug", "MemoryMax": "1G"},
        {"level": "debug", "MemoryMax": "1G", "release": "r2"},
    ):
        assert converge(site, wanted(site, **change))["changed"]
        assert site.host.store.current == wanted(site, model="m2", **change)
    assert "differ in model:" in str(converge(site, wanted(site, **change))["differs"])


def test_an_application_by_hand_gets_the_settings_that_it_knows(site: Site) -> None:
    converge(site, wanted(site))
    older = replace(wanted(site, release="r0"), environment="IRIS_API_RELEASE=r0\nIRIS_API_LOG_LEVEL=info\n")
    site.deploy(older, "--again")
    changed = wanted(site, level="debug")
    changed = replace(changed, environment=f"{changed.environment}IRIS_API_MAX_ROWS=7\n")
    assert converge(site, changed)["changed"]
    current = site.host.store.current
    assert current and current.release == "r0"
    assert settings(current.environment) == {"IRIS_API_RELEASE": "r0", "IRIS_API_LOG_LEVEL": "debug"}

    # Where a release says what it knows, it is told that.
    about = site.paths.home / "releases" / "r0" / ".complete"
    about.write_text(json.dumps({"settings": ["release", "log_level", "max_rows"]}))
    changed = replace(changed, environment=changed.environment.replace("MAX_ROWS=7", "MAX_ROWS=8"))
    assert converge(site, changed)["changed"]
    current = site.host.store.current
    assert current and settings(current.environment)["IRIS_API_MAX_ROWS"] == "8"
    assert "IRIS_API_ENGINE" not in settings(current.environment)


def test_a_setting_that_the_inventory_dropped_is_dropped(site: Site) -> None:
    first = wanted(site)
    converge(site, replace(first, environment=f"{first.environment}IRIS_API_MEMORY_MAX=1\n"))
    site.deploy(replace(wanted(site, model="m2"), environment=f"{first.environment}IRIS_API_MEMORY_MAX=1\n"), "--again")
    converge(site, first)
    assert site.host.store.current == wanted(site, model="m2")


def test_what_was_rolled_back_to_stays(site: Site) -> None:
    converge(site, wanted(site))
    converge(site, wanted(site, model="m2"))
    site.call("rollback", "--who", "bob@desk")
    result = converge(site, wanted(site, model="m2"))
    assert (result["changed"], site.host.store.current) == (False, wanted(site))
    assert "which bob@desk rolled back to on" in str(result["differs"])


def test_a_wish_for_what_was_rolled_back_from_is_held_and_what_runs_is_repaired(site: Site) -> None:
    converge(site, wanted(site))
    site.deploy(wanted(site, model="m2"), "--again")
    site.call("rollback")
    site.machine.units["iris-api@2.service"].active = "failed"
    for started in (["2"], []):
        result = converge(site, wanted(site, model="m2"))
        assert result["held"] and "was not deployed: on" in str(result["message"])
        assert site.started == started
        # Not applied: it is said each time.
        assert site.host.store.last_applied == wanted(site)


def test_one_that_failed_is_not_taken_as_applied(site: Site) -> None:
    converge(site, wanted(site))
    for _ in range(2):
        assert site.deploy(wanted(site, model="m-dead"), "--converge")["failed"]
    assert site.host.store.current == wanted(site)


def test_an_instance_that_died_is_started_with_what_was_deployed_by_hand(site: Site) -> None:
    converge(site, wanted(site))
    by_hand = wanted(site, model="m2")
    site.deploy(by_hand, "--again")
    site.machine.units["iris-api@3.service"].active = "failed"
    assert converge(site, wanted(site))["changed"]
    assert site.started == ["3"]
    assert site.serving[3] == ("active", by_hand.id)


def test_check_mode_changes_nothing_and_says_what_would_be(site: Site) -> None:
    converge(site, wanted(site))
    by_hand = wanted(site, model="m2")
    site.deploy(by_hand, "--again")
    assert converge(site, wanted(site), "--dry-run")["message"] == f"{by_hand} runs already."
    would = wanted(site, model="m2", level="debug")
    assert converge(site, wanted(site, level="debug"), "--dry-run")["message"] == f"{would} would be deployed."
    assert site.host.store.last_applied == wanted(site)


@pytest.mark.parametrize("damage", [None, "", "{}", "[]", '{"release": "../x"}'])
def test_where_nobody_knows_what_was_applied_the_inventory_is(site: Site, damage: str | None) -> None:
    """On a host of an earlier release, or after a power cut."""
    converge(site, wanted(site))
    site.deploy(wanted(site, model="m2"), "--again")
    file = site.paths.home / "last-applied.json"
    file.unlink()
    if damage is not None:
        file.write_text(damage)
    assert converge(site, wanted(site))["changed"]
    assert site.host.store.current == site.host.store.last_applied == wanted(site)


def test_what_the_inventory_wants_is_not_removed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or each converge would bring it anew."""
    monkeypatch.setattr("iris_deploy.store.FRESH_SECONDS", -1)
    site.settings(keep=1)
    converge(site, wanted(site))
    for number in range(3):
        site.deploy(wanted(site, model=f"m{number + 2}"), "--again")
    assert site.host.store.last_applied == wanted(site)
    assert {path.name for path in (site.paths.home / "models").iterdir()} == {"m1", "m4"}

"""A backup is put back on fresh hosts of its own site, and on no other."""

from __future__ import annotations

from typing import Any

import pytest

from plugins.filter.restore import files_named, restore_needs_mb, restore_plan

SITE = {"id": "site-1", "generation": 2, "change": "bb"}
MANIFEST = {
    "id": "backup-1",
    "site": {"id": "site-1"},
    "hosts": {name: {"host": {"distribution": "Debian 13"}} for name in ("web", "api1", "api2")},
}
CHANGED_KEY = """Failed to connect to the host via ssh: @@@@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @@@@
Offending ED25519 key in /x/known_hosts:1
  remove with: ssh-keygen -f "/x/known_hosts" -R "192.0.2.1"
Host key for 192.0.2.1 has changed."""


def host(**changes: Any) -> dict[str, Any]:
    fresh = {"reached": True, "error": "", "site": None, "restore": None, "distribution": "Debian 13"}
    return fresh | changes


def plan(*wanted: str, **hosts: dict[str, Any]) -> tuple[list[str], str]:
    found = restore_plan(hosts, MANIFEST, wanted)
    return found["hosts"], " ".join(found["errors"])


def test_all_hosts_that_are_fresh_are_restored_and_those_that_live_stay() -> None:
    lives = host(site=SITE)
    assert plan(web=host(), api1=host(), api2=host()) == (["web", "api1", "api2"], "")
    assert plan(web=lives, api1=host(), api2=lives) == (["api1"], "")
    assert plan("api1", web=lives, api1=host(), api2=host()) == (["api1"], "")
    # A host that came after the backup is converged like any other.
    assert plan(web=lives, api1=host(), api3=host()) == (["api1"], "")


def test_a_restore_that_was_cut_is_run_again_by_the_same_backup_alone() -> None:
    begun = host(site=SITE, restore={"backup": "backup-1"})
    assert plan(web=begun) == (["web"], "")
    assert plan(web=begun | {"restore": {"backup": "backup-2"}})[0] == []


@pytest.mark.parametrize("wanted", [(), ("api1",)])
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"site": SITE},
            "api1 lives and is of this site: a restore is for a fresh host, and nothing was changed. After a",
        ),
        ({"site": SITE | {"id": "site-2"}}, "api1 belongs to another site than the backup: nothing is restored to it."),
        ({"site": "error loading fact"}, "/etc/fortress/site.fact on api1 is damaged"),
        ({"distribution": "Debian 12"}, "api1 is Debian 12, and the backup is of Debian 13: restore to that release"),
        ({"reached": False, "error": "x over ssh: no route.\n"}, "api1 can't be reached: no route. If it has another"),
        (
            {"reached": False, "error": CHANGED_KEY},
            '`ssh-keygen -f "/x/known_hosts" -R "192.0.2.1"` forgets the old one',
        ),
    ],
)
def test_nothing_is_restored_where_one_host_is_not_as_it_must_be(
    wanted: tuple[str, ...], changes: dict[str, Any], sentence: str
) -> None:
    hosts, said = plan(*wanted, api1=host(**changes))
    assert hosts == [] and sentence in said
    # Which to name is said to whoever named none.
    assert ("HOST=" in said) == ("reached" in changes and not wanted)


def test_a_name_that_is_not_there_is_said() -> None:
    assert plan("api7", api1=host()) == ([], "The inventory has no host api7.")
    assert plan("api3", api3=host()) == ([], "The backup has nothing of api3; it is of web, api1, api2.")
    assert plan(api3=host()) == ([], "The inventory has none of the hosts that the backup is of.")


def test_the_files_of_the_control_node_that_an_inventory_names_are_known() -> None:
    hostvars = {
        "web": {"pki_certificate_file": "/x/chain.pem", "base_extra_ca_certificates": ["/x/ca.pem"]},
        "api1": {"base_extra_ca_certificates": ["/x/ca.pem", "/y/ca.pem"], "pki_certificate_file": ""},
    }
    assert files_named(hostvars, ["web", "api1"]) == {
        "/x/chain.pem": "pki_certificate_file",
        "/x/ca.pem": "base_extra_ca_certificates",
        "/y/ca.pem": "base_extra_ca_certificates",
    }


def test_what_each_folder_needs() -> None:
    parts = {"deployments": {"bytes": 100 * 10**6}, "prometheus": {"bytes": 10**9}, "grafana": {"bytes": 10**6}}
    kept = {"parts": parts, "deployments": {"releases": 2}}
    assert restore_needs_mb(kept) == {"/opt": 1300, "/var": 3203}
    assert restore_needs_mb({"parts": {}}) == {}

"""Whether settings can work, and whose credentials a host has: plugins/filter/site.py, and what asks it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.plugins.loader import filter_loader, lookup_loader

from tests import ROOT
from tests.controller import check_inventory, run_play

filter_loader.add_directory(str(ROOT / "plugins" / "filter"))
credentials_conflict, lost_credentials, not_hosts, odd_user_names, out_of_range, port_conflicts = (
    filter_loader.get(name).j2_function
    for name in (
        "credentials_conflict",
        "lost_credentials",
        "not_hosts",
        "odd_user_names",
        "out_of_range",
        "port_conflicts",
    )
)
lookup_loader.add_directory(str(ROOT / "plugins" / "lookup"))
store = sys.modules[lookup_loader.get("credentials", class_only=True).__module__].store
ID = "f" * 32
CHANGES = ["one", "two", "three"]
NONE = {"id": "", "generation": 0, "change": ""}
CA = {"subject_ordered": [["CN", "Fortress private CA"]], "subject_key_identifier": "aa:bb"}
LEAF = {"issuer_ordered": [["CN", "Fortress private CA"]], "authority_key_identifier": "aa:bb"}


def ours(generation: int = 3) -> dict[str, Any]:
    return {"id": ID, "generation": generation, "change": CHANGES[generation - 1]}


def conflict(record: Any, site: dict[str, Any], changes: list[str], **earlier: Any) -> str:
    is_fresh = earlier.pop("is_fresh", False)
    return str(credentials_conflict(record, "iris", "/secrets", site, changes, earlier or None, is_fresh))


def test_names_of_users_are_names_of_files_and_stand_before_a_colon() -> None:
    good = ["iris", "ana@example.com", "A-1_b+c", "x" * 64]
    odd = ["", " ", "a b", "a:b", "../a", ".a", "a/b", "a\n", "ä", "x" * 65, "a'b", "a$b"]
    assert odd_user_names([*good, *odd]) == odd
    assert odd_user_names(["iris", "rosa", "iris", "iris"]) == ["iris", "iris"]


def test_hosts_are_addresses_or_names_alone() -> None:
    good = ["192.0.2.7", "2001:db8::1", "iris", "iris_1", "iris-1.example.com"]
    odd = ["", "https://iris", "iris:443", "192.0.2.0/24", "[::1]", "-iris", "a b", "iris.", "a\n", "a" * 254]
    assert not_hosts([*good, *odd]) == odd


def test_a_number_out_of_its_range_is_named_with_both_ends() -> None:
    seconds = {"variable": "deadline", "least": 1, "most": 60, "unit": "of seconds "}
    port = {"variable": "port", "least": 1, "most": 65535, "remedy": "; 0 is none."}
    assert out_of_range([seconds, port], [1, 65535]) == []
    assert out_of_range([seconds, port], [61, 0]) == [
        "deadline is 61; give a whole number of seconds from 1 to 60.",
        "port is 0; give a whole number from 1 to 65535; 0 is none.",
    ]


def test_a_port_that_two_want_is_named_with_both() -> None:
    ports = {"SSH": [22], "HTTPS": [443], "instances": [8001, 8002], "grafana": [8002], "other": ["22"]}
    assert port_conflicts(ports) == ["22 by SSH and other", "8002 by instances and grafana"]
    assert port_conflicts({"SSH": [22], "HTTPS": [443]}) == []


@pytest.mark.parametrize("generation", [1, 2, 3])
def test_the_same_credentials_or_later_ones_of_the_same_site_are_no_conflict(generation: int) -> None:
    assert conflict(ours(generation), ours(), CHANGES) == ""


@pytest.mark.parametrize(
    ("record", "site", "changes", "reason"),
    [
        (ours(), ours() | {"id": "another"}, CHANGES, "holds those of another site"),
        (ours(), NONE, [], "is of an earlier release: since then the host has got generation 3"),
        (ours(3), ours(2), CHANGES[:2], "has generation 3 of this site's credentials, the folder generation 2"),
        (ours(3), ours(3), ["one", "two", "III"], "since generation 3 both copies were changed, each for itself"),
        (ours(2), ours(3), ["one", "II", "three"], "since generation 2 both copies were changed, each for itself"),
        ("error loading facts", ours(), CHANGES, "sudo rm /etc/fortress/site.fact"),
        ({"id": ID}, ours(), CHANGES, "sudo rm /etc/fortress/site.fact"),
    ],
)
def test_what_would_take_credentials_away_is_one_sentence_with_what_to_do(
    record: Any, site: dict[str, Any], changes: list[str], reason: str
) -> None:
    said = conflict(record, site, changes)
    assert reason in said
    assert "iris" in said
    if "damaged" not in said:
        assert "/secrets" in said
        assert "from the machine that" in said
        assert said.endswith("-e fortress_replace_credentials=true")


def test_a_folder_without_anything_in_it_is_named_as_that() -> None:
    assert "/secrets holds none" in conflict(ours(), NONE, [], is_fresh=True)


@pytest.mark.parametrize(
    ("earlier", "reason"),
    [
        ({"provisioned": False, "is_fresh": True}, ""),
        ({"provisioned": True, "is_fresh": True}, "/secrets holds none"),
        ({"provisioned": True, "certificate": LEAF, "ca": CA}, ""),
        ({"provisioned": True, "certificate": LEAF | {"authority_key_identifier": "cc:dd"}, "ca": CA}, "another CA"),
        ({"provisioned": True, "certificate": LEAF, "ca": {}}, ""),
        ({"provisioned": True, "certificate": {}, "ca": CA}, ""),
        (
            {
                "provisioned": True,
                "certificate": {"issuer_ordered": [["CN", "R3"]], "authority_key_identifier": "cc:dd"},
                "ca": CA,
            },
            "",
        ),
    ],
    ids=[
        "fresh host",
        "fresh folder",
        "its own",
        "another CA of that name",
        "no CA here",
        "no certificate there",
        "one that was given",
    ],
)
def test_a_host_that_an_earlier_release_provisioned_is_known_by_its_certificate(
    earlier: dict[str, Any], reason: str
) -> None:
    said = conflict(None, NONE, [], **earlier)
    assert (reason in said) if reason else (said == "")


def test_a_missing_file_is_named() -> None:
    assert "users/iris is missing in /secrets, though this site had it." in lost_credentials(["users/iris"], "/secrets")
    assert "a, b are missing in /secrets, though this site had them." in lost_credentials(["a", "b"], "/secrets")


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    """A site whose host is this machine."""
    folder = Path(shutil.copytree(ROOT / "inventory" / "example", tmp_path / "prod"))
    hosts = yaml.safe_load((folder / "hosts.yml").read_text())
    hosts["all"]["hosts"]["iris"] = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "ansible_become": False,
        "fortress_address": "192.0.2.10",
    }
    (folder / "hosts.yml").write_text(yaml.safe_dump(hosts))
    return folder


def credentials(folder: Path) -> Any:
    return store.Credentials(store.Store(folder), ["iris"])


def check_host(
    inventory: Path, record: dict[str, Any] | None, *options: str, **variables: Any
) -> subprocess.CompletedProcess[str]:
    """Run the check on a host that remembers this."""
    facts = {"ansible_local": {} if record is None else {"site": record}, "cacheable": True}
    tasks = [
        {"ansible.builtin.set_fact": facts},
        {"ansible.builtin.import_tasks": str(ROOT / "playbooks" / "tasks" / "identity.yml")},
    ]
    play = {"hosts": "gateway", "gather_facts": False, "tasks": tasks}
    return run_play(play, "-i", str(inventory), "-e", json.dumps(variables), *options)


def test_a_clone_without_the_secrets_stops_in_check_mode_too(inventory: Path) -> None:
    done = check_host(inventory, ours(), "--check")
    assert done.returncode != 0
    said = " ".join(done.stdout.split())
    assert f"credentials from another secrets folder, and {inventory}/secrets holds none" in said
    assert not (inventory / "secrets").exists()
    # As it is typed on the command line, a text.
    assert check_host(inventory, ours(), fortress_replace_credentials="true").returncode == 0


def test_two_clones_with_the_same_secrets_work_and_a_stale_one_stops(inventory: Path, tmp_path: Path) -> None:
    stale = tmp_path / "stale"
    credentials(inventory / "secrets").create()
    shutil.copytree(inventory / "secrets", stale)
    credentials(inventory / "secrets").rotate()
    new = store.Site.read(store.Store(inventory / "secrets")).record()
    assert check_host(inventory, new).returncode == 0
    done = check_host(inventory, new, fortress_secrets_dir=str(stale))
    assert done.returncode != 0
    said = " ".join(done.stdout.split())
    assert "the host has generation 2 of this site's credentials, the folder generation 1" in said


def test_a_credential_that_was_lost_stops_every_run_before_the_first_host(inventory: Path) -> None:
    credentials(inventory / "secrets").create()
    assert check_inventory(inventory).returncode == 0
    (inventory / "secrets" / "users" / "iris").unlink()
    done = check_inventory(inventory)
    assert done.returncode != 0
    said = " ".join(done.stdout.split())
    assert f"users/iris is missing in {inventory}/secrets, though this site had it" in said
    assert check_inventory(inventory, "-e", "fortress_replace_credentials=true").returncode == 0

"""The credentials of a site: every state of a password, every step, and what is left where a step was cut short."""

from __future__ import annotations

import calendar
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleLookupError
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultSecret
from ansible.plugins.loader import lookup_loader

from tests import ROOT
from tests.controller import ansible

spec = importlib.util.spec_from_file_location("credentials_module", ROOT / "plugins" / "modules" / "credentials.py")
assert spec is not None and spec.loader is not None
credentials = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = credentials
spec.loader.exec_module(credentials)
State = credentials.State

OLD = "kT9xWq2LmZ7vRb4NsY8cDpOldOldOld1"
NEW = "anotherNewPasswordOf32Characters"
NOW = "2026-06-01T12:00:00Z"
PASSED, TO_COME = "2026-05-31T12:00:00Z", "2026-06-02T12:00:00Z"

# What the files of a user hold in each state: the password, and what a rotation keeps of the previous one.
FILES: dict[Any, tuple[str | None, dict[str, str] | None]] = {
    State.ABSENT: (None, None),
    State.CURRENT: (OLD, None),
    State.SAVED: (OLD, {"password": OLD}),
    State.ROTATING: (NEW, {"password": OLD}),
    State.OVERLAPPING: (NEW, {"password": OLD, "until": TO_COME}),
    State.EXPIRED: (NEW, {"password": OLD, "until": PASSED}),
}


def put(folder: Path, state: Any, user: str = "iris") -> None:
    current, kept = FILES[state]
    for name, text in (("users", current), ("previous_passwords", json.dumps(kept) if kept else None)):
        (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        if text is not None:
            (folder / name / user).write_text(text)
            (folder / name / user).chmod(0o600)


def open_folder(folder: Path, dry_run: bool = False, users: tuple[str, ...] = ("iris",), **more: Any) -> Any:
    return credentials.Credentials(credentials.Store(folder, dry_run), list(users), now=NOW, **more)


def tree(folder: Path) -> dict[str, tuple[str, int]]:
    return {
        path.relative_to(folder).as_posix(): (path.read_text() if path.is_file() else "", path.stat().st_mode & 0o777)
        for path in sorted(folder.rglob("*"))
    }


def kept(folder: Path) -> dict[str, str]:
    return dict(json.loads((folder / "previous_passwords" / "iris").read_text()))


def current(folder: Path) -> str:
    return (folder / "users" / "iris").read_text().strip()


STEPS: dict[str, Callable[[Any], list[str]]] = {
    "create": lambda site: site.create(),
    "rotate": lambda site: site.rotate(),
    "set_expiry": lambda site: site.set_expiry(7),
    "retire": lambda site: site.retire(),
    "expire": lambda site: site.expire(),
}
# From each state by each step to the next; a text is what the step says where it can't be taken.
NEXT: dict[str, dict[Any, Any]] = {
    "create": {State.ABSENT: State.CURRENT} | {state: state for state in State if state is not State.ABSENT},
    "rotate": {
        State.ABSENT: "No password was made yet for iris",
        State.CURRENT: State.ROTATING,
        State.SAVED: State.ROTATING,
        State.ROTATING: State.ROTATING,
        State.OVERLAPPING: State.OVERLAPPING,
        State.EXPIRED: State.ROTATING,
    },
    "set_expiry": {state: state for state in State} | {State.ROTATING: State.OVERLAPPING},
    "retire": {
        State.ABSENT: State.ABSENT,
        State.CURRENT: State.CURRENT,
        State.SAVED: "The rotation of iris has not reached its end",
        State.ROTATING: "The rotation of iris has not reached its end",
        State.OVERLAPPING: State.CURRENT,
        State.EXPIRED: State.CURRENT,
    },
    "expire": {state: state for state in State} | {State.EXPIRED: State.CURRENT},
}
TRANSITIONS = [(step, state) for step in STEPS for state in State]
IDS = [f"{step} from {state.name}" for step, state in TRANSITIONS]


@pytest.mark.parametrize(("step", "state"), TRANSITIONS, ids=IDS)
def test_each_step_leads_from_each_state_to_the_next(tmp_path: Path, step: str, state: Any) -> None:
    put(tmp_path, state)
    site, after = open_folder(tmp_path), NEXT[step][state]
    assert site.state("iris") is state
    if isinstance(after, str):
        before = tree(tmp_path)
        with pytest.raises(credentials.CredentialError, match=after):
            STEPS[step](site)
        assert tree(tmp_path) == before
    else:
        STEPS[step](site)
        assert open_folder(tmp_path).state("iris") is after


@pytest.mark.parametrize(("step", "state"), TRANSITIONS, ids=IDS)
def test_check_mode_writes_nothing_and_says_what_would_be_written(tmp_path: Path, step: str, state: Any) -> None:
    if isinstance(NEXT[step][state], str):
        return
    put(tmp_path, state)
    before = tree(tmp_path)
    dry, real = open_folder(tmp_path, dry_run=True), open_folder(tmp_path)
    notes = STEPS[step](dry)
    assert tree(tmp_path) == before
    assert dry.state("iris") is NEXT[step][state], "what comes after it in check mode sees what would be"
    assert STEPS[step](real) == notes
    assert real.store.changed == dry.store.changed


@pytest.mark.parametrize("state", [State.CURRENT, State.SAVED, State.EXPIRED], ids=lambda state: state.name)
def test_a_rotation_keeps_the_password_that_works_and_makes_another(tmp_path: Path, state: Any) -> None:
    put(tmp_path, state)
    working = current(tmp_path)
    open_folder(tmp_path).rotate()
    assert kept(tmp_path) == {"password": working}
    assert current(tmp_path) not in (working, OLD, NEW)
    assert len(current(tmp_path)) == 32
    assert current(tmp_path).isalnum()


@pytest.mark.parametrize("state", [State.ROTATING, State.OVERLAPPING], ids=lambda state: state.name)
def test_no_second_new_password_is_made_as_long_as_the_previous_one_works(tmp_path: Path, state: Any) -> None:
    put(tmp_path, state)
    before = tree(tmp_path)
    open_folder(tmp_path).rotate()
    assert tree(tmp_path) == before


def test_the_expiry_is_so_many_days_away(tmp_path: Path) -> None:
    put(tmp_path, State.ROTATING)
    open_folder(tmp_path).set_expiry(3)
    assert set(kept(tmp_path)) == {"password", "until"}
    left = calendar.timegm(time.strptime(kept(tmp_path)["until"], credentials.TIME)) - time.time()
    assert left == pytest.approx(3 * 86400, abs=60)


@pytest.mark.parametrize(("now", "works"), [(PASSED, True), (TO_COME, False)], ids=["before", "at the second"])
def test_a_previous_password_works_until_its_expiry_and_not_at_it(now: str, works: bool) -> None:
    assert credentials.Previous(OLD, TO_COME).works(now) is works
    assert credentials.Previous(OLD, TO_COME).state(NEW, now) is (State.OVERLAPPING if works else State.EXPIRED)


@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
@pytest.mark.parametrize("survived", range(5))
def test_a_rotation_that_was_cut_short_loses_no_password_and_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, survived: int
) -> None:
    """The power goes before one of its system calls."""
    put(tmp_path, State.CURRENT)
    real, left = getattr(os, call), survived

    def cut(*args: Any, **options: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return real(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, cut)
        try:
            open_folder(tmp_path).rotate()
        except KeyboardInterrupt:
            assert current(tmp_path) == OLD or kept(tmp_path)["password"] == OLD
            assert all(mode in (0o600, 0o700) for _, mode in tree(tmp_path).values())
    open_folder(tmp_path).rotate()
    assert kept(tmp_path) == {"password": OLD}
    assert current(tmp_path) != OLD
    names = ["previous_passwords", "previous_passwords/iris", "site.json", "users", "users/iris"]
    assert sorted(tree(tmp_path)) == names


def test_what_is_created_can_be_read_by_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "site" / "secrets"
    site = open_folder(folder, users=("iris", "rosa"))
    mask = os.umask(0)
    try:
        with site.store.locked():
            site.create()
    finally:
        os.umask(mask)
    assert folder.stat().st_mode & 0o777 == 0o700
    names = {"users/iris", "users/rosa", "htpasswd_salt", "grafana/admin", "grafana/secret_key"}
    made = tree(folder)
    assert {name for name, (text, _) in made.items() if text} == names | {"site.json"}
    assert {made[name][1] for name in names | {"site.json"}} == {0o600}
    assert {made[name][1] for name in ("users", "grafana")} == {0o700}
    values = {made[name][0] for name in names}
    assert len(values) == 5
    assert all(len(value) == 33 and value.endswith("\n") for value in values)


def test_what_the_inventory_gives_is_not_created(tmp_path: Path) -> None:
    open_folder(tmp_path, users=("iris", "rosa"), given=["rosa"]).create(given_grafana=True)
    assert sorted(name for name, (text, _) in tree(tmp_path).items() if text) == [
        "grafana/secret_key",
        "htpasswd_salt",
        "site.json",
        "users/iris",
    ]


def test_a_folder_that_ansibles_own_lookup_made_is_taken_as_it_is(tmp_path: Path) -> None:
    """That is what made the credentials up to release 1.0.0."""
    lookup = lookup_loader.get("password", loader=DataLoader())
    names = ["users/iris", "htpasswd_salt", "grafana/admin", "grafana/secret_key"]
    made = {
        name: lookup.run([str(tmp_path / name)], {}, length=32, chars=["ascii_letters", "digits"])[0] for name in names
    }
    before = tree(tmp_path)
    site = open_folder(tmp_path)
    with site.store.locked():
        site.create()
    assert site.store.changed == ["site.json"], "the credentials stay, and the folder is of a site from now on"
    assert {name: value for name, value in tree(tmp_path).items() if name != "site.json"} == before
    assert site.password("iris") == made["users/iris"]
    assert {name: site.store.read(name) for name in names} == made


def test_an_empty_file_is_what_a_power_cut_left_and_is_created_anew(tmp_path: Path) -> None:
    (tmp_path / "users").mkdir()
    (tmp_path / "users" / "iris").touch()
    open_folder(tmp_path).create()
    assert len(current(tmp_path)) == 32


def test_two_runs_at_once_make_one_password(tmp_path: Path) -> None:
    sites = [open_folder(tmp_path) for _ in range(8)]

    def create(site: Any) -> None:
        with site.store.locked():
            site.create()

    threads = [threading.Thread(target=create, args=[site]) for site in sites]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum("users/iris" in site.store.changed for site in sites) == 1


def test_one_user_can_be_rotated_and_retired_alone(tmp_path: Path) -> None:
    for user in ("iris", "rosa"):
        put(tmp_path, State.CURRENT, user)
    site = open_folder(tmp_path, users=("iris", "rosa"))
    site.rotate("rosa")
    assert (site.state("iris"), site.state("rosa")) == (State.CURRENT, State.ROTATING)
    for user in ("iris", "rosa"):
        put(tmp_path, State.OVERLAPPING, user)
    site.retire("rosa")
    assert (site.state("iris"), site.state("rosa")) == (State.OVERLAPPING, State.CURRENT)


def test_a_rotation_that_another_run_left_before_its_new_password_gets_no_expiry(tmp_path: Path) -> None:
    """It would end without ever having begun."""
    put(tmp_path, State.SAVED, "iris")
    put(tmp_path, State.ROTATING, "rosa")
    site = open_folder(tmp_path, users=("iris", "rosa"))
    site.set_expiry(7)
    assert (site.state("iris"), site.state("rosa")) == (State.SAVED, State.OVERLAPPING)


@pytest.mark.parametrize(
    ("more", "step", "reason"),
    [
        ({}, lambda site: site.rotate("rosa"), "There is no user rosa in fortress_users, which has iris"),
        ({}, lambda site: site.retire("rosa"), "There is no user rosa in fortress_users, which has iris"),
        ({"given": ["iris"]}, lambda site: site.rotate(), "The password of iris stands in fortress_passwords"),
        ({"given": ["iris"]}, lambda site: site.rotate("iris"), "The password of iris stands in fortress_passwords"),
        ({"given_previous": ["iris"]}, lambda site: site.retire("iris"), "remove it there and run `make converge`"),
        ({"users": ("../iris",)}, lambda site: site, "fortress_users has '../iris'"),
        ({"users": ("..",)}, lambda site: site, "fortress_users has '..'"),
    ],
)
def test_what_can_not_be_done_is_an_error_with_its_remedy(
    tmp_path: Path, more: dict[str, Any], step: Callable[[Any], Any], reason: str
) -> None:
    put(tmp_path, State.CURRENT)
    before = tree(tmp_path)
    with pytest.raises(credentials.CredentialError) as error:
        step(open_folder(tmp_path, **more))
    assert reason in str(error.value)
    assert OLD not in str(error.value)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "{}", '"text"'])
def test_a_damaged_previous_password_is_named_and_not_guessed(tmp_path: Path, text: str) -> None:
    put(tmp_path, State.CURRENT)
    (tmp_path / "previous_passwords" / "iris").write_text(text)
    if not text:
        assert open_folder(tmp_path).state("iris") is State.CURRENT
        return
    with pytest.raises(credentials.CredentialError, match="previous_passwords/iris is not what a rotation writes"):
        open_folder(tmp_path).rotate()


@pytest.mark.parametrize(
    ("state", "more", "note"),
    [
        (
            State.ROTATING,
            {},
            "works on: its rotation has not reached the end, `make rotate-credentials` goes on with it",
        ),
        (State.OVERLAPPING, {}, f"works until {TO_COME}, or until `make retire-credentials`"),
        (State.CURRENT, {"given_previous": ["iris"]}, "works until it is taken out of fortress_previous_passwords"),
        (State.CURRENT, {}, None),
        (State.EXPIRED, {}, None),
    ],
)
def test_the_operator_is_told_which_previous_passwords_work(
    tmp_path: Path, state: Any, more: dict[str, Any], note: str | None
) -> None:
    put(tmp_path, state)
    notes = open_folder(tmp_path, **more).expire()
    assert notes == ([] if note is None else [f"The previous password of iris {note}."])


def test_the_operator_is_told_whose_password_stays(tmp_path: Path) -> None:
    put(tmp_path, State.OVERLAPPING)
    put(tmp_path, State.CURRENT, "kept")
    before = tree(tmp_path)
    site = open_folder(tmp_path, users=("iris", "own", "kept"), given=["own"], given_previous=["kept"])
    notes = " ".join(site.rotate())
    assert "own: it stands in fortress_passwords, so only you can replace it" in notes
    assert "iris: its previous one still works" in notes
    assert "kept: its previous password stands in fortress_previous_passwords" in notes
    assert tree(tmp_path) == before


# Which site the folder is of, and what has happened to it.


def site(folder: Path) -> Any:
    return credentials.Site.read(credentials.Store(folder))


def test_every_step_that_changes_a_credential_is_a_generation_and_no_other_is(tmp_path: Path) -> None:
    open_folder(tmp_path).create()
    first = site(tmp_path)
    assert len(first.id) == 32
    generations = [len(first.changes)]
    open_folder(tmp_path).create()
    generations.append(len(site(tmp_path).changes))
    for step in ("create", "rotate", "rotate", "set_expiry", "expire", "retire", "retire"):
        STEPS[step](open_folder(tmp_path, users=("iris", "rosa")))
        generations.append(len(site(tmp_path).changes))
    assert generations == [1, 1, 2, 3, 3, 3, 3, 4, 4]
    last = site(tmp_path)
    assert (last.id, last.marks[:1]) == (first.id, first.marks)
    assert len(set(last.marks)) == 4
    assert [change["what"] for change in last.changes] == ["created", "created", "rotated", "retired"]
    assert last.record() == {"id": last.id, "generation": 4, "change": last.marks[-1]}


def test_another_ca_is_a_generation(tmp_path: Path) -> None:
    (tmp_path / "pki").mkdir()
    for generation, text in enumerate(("first", "second"), 1):
        (tmp_path / "pki" / "ca.crt").write_text(text)
        for _ in range(2):
            open_folder(tmp_path).create()
        assert len(site(tmp_path).changes) == generation


def test_nothing_that_the_site_remembers_is_a_secret_or_made_of_one(tmp_path: Path) -> None:
    open_folder(tmp_path).create()
    remembered = (tmp_path / "site.json").read_text()
    for name in ("users/iris", "htpasswd_salt", "grafana/admin", "grafana/secret_key"):
        secret = (tmp_path / name).read_text().strip()
        assert secret not in remembered
        assert hashlib.sha256(secret.encode()).hexdigest() not in remembered


@pytest.mark.parametrize("survived", range(3))
def test_a_step_that_was_cut_short_is_a_generation_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    """Else a host with the new password could be given the old one by another copy of the folder."""
    open_folder(tmp_path).create()
    before, old = site(tmp_path), current(tmp_path)
    real, left = os.replace, survived

    def cut(*args: Any, **options: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return real(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", cut)
        with pytest.raises(KeyboardInterrupt):
            open_folder(tmp_path).rotate()
    changed = current(tmp_path) != old or (tmp_path / "previous_passwords" / "iris").exists()
    assert not changed or len(site(tmp_path).changes) > len(before.changes)


@pytest.mark.parametrize("name", ["users/iris", "htpasswd_salt", "grafana/admin", "grafana/secret_key"])
def test_what_the_site_had_is_made_anew_only_where_that_is_meant(tmp_path: Path, name: str) -> None:
    open_folder(tmp_path).create()
    (tmp_path / name).unlink()
    before = tree(tmp_path)
    with pytest.raises(credentials.CredentialError, match=f"this site had it: {name}"):
        open_folder(tmp_path).create()
    assert tree(tmp_path) == before
    open_folder(tmp_path).create(replace=True)
    assert (tmp_path / name).exists()
    assert len(site(tmp_path).changes) == 2


def test_a_password_that_is_given_from_now_on_is_not_missing(tmp_path: Path) -> None:
    open_folder(tmp_path).create()
    (tmp_path / "users" / "iris").unlink()
    (tmp_path / "grafana" / "admin").unlink()
    assert open_folder(tmp_path, given=["iris"]).create(given_grafana=True) == []


@pytest.mark.parametrize("text", ["no JSON", "[]", "{}", '{"id": ""}', '{"id": "x", "changes": [{}]}', '{"other": 1}'])
def test_a_damaged_site_is_named_and_not_replaced(tmp_path: Path, text: str) -> None:
    (tmp_path / "site.json").write_text(text)
    with pytest.raises(credentials.CredentialError, match=r"site.json is not what a step of the credentials writes"):
        open_folder(tmp_path).create()
    assert tree(tmp_path) == {"site.json": (text, tree(tmp_path)["site.json"][1])}


# Through Ansible itself.


def module(folder: Path, step: str, *options: str) -> subprocess.CompletedProcess[str]:
    arguments = json.dumps({"folder": str(folder), "step": step, "users": ["iris"]})
    command = ["localhost", "-i", "localhost,", "-c", "local", "-m", "credentials", "-a", arguments]
    return ansible("ansible", *command, *options)


def test_no_password_is_printed_even_where_everything_is(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    done = module(folder, "create", "--check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "users/iris" in done.stdout
    assert not folder.exists()
    said = [module(folder, step, "-vvv", "--diff") for step in ("create", "rotate", "set_expiry", "retire")]
    assert [done.returncode for done in said] == [0, 0, 0, 0], said
    assert all("CHANGED" in done.stdout for done in said)
    values = [text for name, (text, _) in tree(folder).items() if text and name != "site.json"]
    assert len(values) == 4
    for value in values:
        assert not any(value.strip() in done.stdout + done.stderr for done in said)
    refused = module(folder, "retire", "-e", "x=1")
    assert "SUCCESS" in refused.stdout


def test_a_folder_of_somebody_else_is_named(tmp_path: Path) -> None:
    (tmp_path / "users").write_text("a file where a folder should be")
    done = module(tmp_path, "create")
    assert done.returncode != 0
    assert f"{tmp_path}/users" in done.stdout
    assert "Traceback" not in done.stdout


# The lookup reads the same files.


def read(folder: Path, what: str, **options: Any) -> Any:
    lookup_loader.add_directory(str(ROOT / "plugins" / "lookup"))
    return lookup_loader.get("credentials", loader=DataLoader()).run([what], {}, folder=str(folder), **options)[0]


@pytest.mark.parametrize("state", State, ids=lambda state: state.name)
def test_the_gateway_is_told_of_a_previous_password_as_long_as_it_works(tmp_path: Path, state: Any) -> None:
    put(tmp_path, state)
    if state in (State.OVERLAPPING, State.EXPIRED):
        day = 86400 if state is State.OVERLAPPING else -86400
        until = time.strftime(credentials.TIME, time.gmtime(time.time() + day))
        (tmp_path / "previous_passwords" / "iris").write_text(json.dumps({"password": OLD, "until": until}))
    expected = {"iris": OLD} if state in (State.SAVED, State.ROTATING, State.OVERLAPPING) else {}
    assert read(tmp_path, "previous_passwords", users=["iris"]) == expected


@pytest.mark.parametrize("what", ["passwords", "htpasswd_salt", "grafana_password", "grafana_secret_key"])
def test_reading_never_creates(tmp_path: Path, what: str) -> None:
    with pytest.raises(AnsibleLookupError, match="Run `make converge` first"):
        read(tmp_path, what, users=["iris"])
    instead = read(tmp_path, what, users=["iris"], missing="random")
    again = read(tmp_path, what, users=["iris"], missing="random")
    assert instead != again, "a value that is always the same would be known to everybody"
    assert len(instead["iris"] if what == "passwords" else instead) == 32
    assert tree(tmp_path) == {}


def test_what_was_created_is_what_is_read(tmp_path: Path) -> None:
    site = open_folder(tmp_path)
    site.create()
    for missing in ("error", "random"):
        assert read(tmp_path, "passwords", users=["iris"], missing=missing) == {"iris": current(tmp_path)}
        assert read(tmp_path, "htpasswd_salt", missing=missing) == (tmp_path / "htpasswd_salt").read_text().strip()
        assert read(tmp_path, "grafana_password", missing=missing) == (tmp_path / "grafana/admin").read_text().strip()
        key = (tmp_path / "grafana" / "secret_key").read_text().strip()
        assert read(tmp_path, "grafana_secret_key", missing=missing) == key


def test_the_lookup_says_what_a_host_is_to_remember_and_what_is_missing(tmp_path: Path) -> None:
    assert read(tmp_path, "is_fresh")
    assert read(tmp_path, "site") == {"id": "", "generation": 0, "change": ""}
    open_folder(tmp_path).create()
    made = json.loads((tmp_path / "site.json").read_text())
    mark = made["changes"][0]["mark"]
    assert read(tmp_path, "site") == {"id": made["id"], "generation": 1, "change": mark}
    assert read(tmp_path, "site_changes") == [mark]
    assert not read(tmp_path, "is_fresh")
    assert read(tmp_path, "lost", users=["iris", "rosa"]) == []
    for name in ("users/iris", "grafana/admin"):
        (tmp_path / name).unlink()
    assert read(tmp_path, "lost", users=["iris"]) == ["users/iris", "grafana/admin"]
    assert read(tmp_path, "lost", users=[], given_grafana=True) == []
    assert not read(tmp_path, "is_fresh")


def test_a_ca_that_the_site_had_is_missing_where_one_is_needed(tmp_path: Path) -> None:
    (tmp_path / "pki").mkdir()
    (tmp_path / "pki" / "ca.crt").write_text("a certificate")
    open_folder(tmp_path).create()
    (tmp_path / "pki" / "ca.crt").unlink()
    assert read(tmp_path, "lost", users=["iris"]) == ["pki/ca.crt"]
    assert read(tmp_path, "lost", users=["iris"], given_certificate=True) == []


# Ansible Vault.


@pytest.fixture
def vault(tmp_path: Path) -> Any:
    """What Ansible is started with: the password of Vault in a file."""
    (tmp_path / "vault").write_text("a password of Vault\n")
    return ("--vault-password-file", str(tmp_path / "vault"))


def encrypt(vault: Any, *paths: Path) -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible-vault", "encrypt", *vault, *paths],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def encrypted(folder: Path) -> set[str]:
    return {name for name, (text, _) in tree(folder).items() if text.startswith("$ANSIBLE_VAULT;")}


def test_where_the_salt_is_encrypted_all_secrets_are_and_stay(tmp_path: Path, vault: Any) -> None:
    folder = tmp_path / "secrets"
    (folder / "pki" / "hosts").mkdir(parents=True)
    for name in ("pki/ca.key", "pki/ca.crt", "pki/hosts/iris.key", "pki/hosts/iris.crt", "fortress.env"):
        (folder / name).write_text(name)
    open_folder(folder).create()
    password = current(folder)
    encrypt(vault, folder / "htpasswd_salt")
    secrets = {"htpasswd_salt", "users/iris", "grafana/admin", "grafana/secret_key", "pki/ca.key", "pki/hosts/iris.key"}
    done = module(folder, "create", *vault)
    assert done.returncode == 0, done.stdout + done.stderr
    assert encrypted(folder) == secrets
    assert "SUCCESS" in module(folder, "create", *vault).stdout, "nothing changes by a second run"

    assert "CHANGED" in module(folder, "rotate", *vault).stdout
    assert encrypted(folder) == secrets | {"previous_passwords/iris"}
    assert {tree(folder)[name][1] for name in encrypted(folder) if "pki" not in name} == {0o600}
    loader = DataLoader()
    loader.set_vault_secrets([("default", VaultSecret(b"a password of Vault"))])
    lookup_loader.add_directory(str(ROOT / "plugins" / "lookup"))
    lookup = lookup_loader.get("credentials", loader=loader)
    options = {"folder": str(folder), "users": ["iris"]}
    assert lookup.run(["previous_passwords"], {}, **options) == [{"iris": password}]
    [new] = lookup.run(["passwords"], {}, **options)
    assert len(new["iris"]) == 32 and new["iris"] != password


def test_without_the_password_of_vault_the_run_says_what_to_type_and_changes_nothing(
    tmp_path: Path, vault: Any
) -> None:
    folder = tmp_path / "secrets"
    open_folder(folder).create()
    encrypt(vault, folder / "htpasswd_salt", folder / "users" / "iris")
    before = tree(folder)
    said = " ".join(module(folder, "rotate").stdout.split())
    assert f"{folder}/users/iris is encrypted by Ansible Vault: give its password" in said
    assert "ANSIBLE_VAULT_PASSWORD_FILE" in said
    assert tree(folder) == before
    with pytest.raises(AnsibleLookupError, match="htpasswd_salt is encrypted by Ansible Vault: give its password"):
        read(folder, "htpasswd_salt", missing="random")

"""The archive of a backup, and what of it comes back to a control node: whole, or nothing and one sentence."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.vault import VaultLib, VaultSecret

from tools import remote
from tools.backup import __main__ as cli
from tools.backup import archive, site
from tools.backup.archive import BackupError, describe

MARKS = ["aa", "bb"]
DEPLOYMENTS = random.Random(1).randbytes(20_000).hex()


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def site_json(marks: list[str], identity: str = "site-1") -> str:
    return json.dumps({"id": identity, "changes": [{"mark": mark} for mark in marks], "has": [], "ca": ""})


class Node:
    """A control node in a folder, with the inventory `prod`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.inventory = root / "inventory" / "prod"
        self.secrets = self.inventory / "secrets"

    def fill(self) -> None:
        write(self.inventory / "hosts.yml", "all:\n  hosts:\n    api1: {ansible_host: 192.0.2.1}\n")
        write(self.inventory / "group_vars" / "all.yml", "fortress_domain: iris.example.org\n")
        write(self.inventory / "inventory.sh", "#!/bin/sh\n").chmod(0o755)
        write(self.inventory / "secrets.old" / "users" / "iris", "an old one")
        write(self.secrets / site.SITE, site_json(MARKS))
        write(self.secrets / "users" / "iris", "$ANSIBLE_VAULT;1.1;AES256\n6162\n")
        write(self.secrets / "pki" / "ca.key", "the key of the CA")
        write(self.secrets / "ssh" / "known_hosts", "192.0.2.1 ssh-ed25519 old")
        write(self.secrets / "fortress.env", "export FORTRESS_PASSWORD=plain")
        write(self.root / "models" / "mine" / "1.0.0" / "manifest.json", "{}")
        # As wheels, it can't be compressed.
        write(self.root / "staging" / "api1" / "deployments.tar", DEPLOYMENTS)

    def said(self) -> dict[str, Any]:
        """What the host says of its parts."""
        part = self.root / "staging" / "api1" / "deployments.tar"
        about = {
            "file": part.name,
            "bytes": part.stat().st_size,
            "sha256": hashlib.sha256(part.read_bytes()).hexdigest(),
        }
        deployed = {"current": "m1 by r1 (0123)", "deployments": 2, "releases": 1, "hold": None}
        host = {"distribution": "Debian 13", "python": "3.13", "machine": "x86_64"}
        return {
            "hosts": {"api1": {"host": host, "parts": {"deployments": about}, "deployments": deployed, "notes": []}}
        }

    def backup(self, *more: str, said: dict[str, Any] | None = None) -> tuple[int, str, str]:
        """Write a backup; return the exit code, what was printed, and what was said of an error."""
        (self.root / "kept").mkdir(exist_ok=True)
        arguments = [
            "write",
            f"--inventory={self.inventory}",
            f"--secrets={self.secrets}",
            f"--to={self.root / 'kept'}",
        ]
        arguments += [
            f"--staging={self.root / 'staging'}",
            f"--bundle={self.root / 'models' / 'mine' / '1.0.0'}",
            *more,
        ]
        output, error, stdin = io.StringIO(), io.StringIO(), sys.stdin
        sys.stdin = io.StringIO(json.dumps(said or self.said()))
        try:
            with contextlib.redirect_stdout(output), contextlib.redirect_stderr(error):
                code = cli.main(arguments)
        finally:
            sys.stdin = stdin
        return code, output.getvalue(), error.getvalue()

    def kept(self) -> Path:
        [path] = (self.root / "kept").glob("[!.]*")
        return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Node, str]:
    """A control node with a backup, and what its operator was told."""
    node = Node(tmp_path_factory.mktemp("node"))
    node.fill()
    code, printed, said = node.backup()
    assert code == 0, said
    return node, printed


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    """Another control node: a clone of the project, and nothing else."""
    node = Node(tmp_path / "other")
    (node.root / "inventory").mkdir(parents=True)
    (node.root / "group_vars").symlink_to(cli.ROOT / "group_vars")
    monkeypatch.chdir(node.root)
    monkeypatch.setattr(cli, "ROOT", node.root)
    monkeypatch.setattr(cli, "UNPACKED", node.root / "build" / "restore")
    return node


@pytest.fixture
def unpack(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Unpack an archive; return the exit code, what was printed, and what was said beside it."""

    def unpack(*arguments: str | Path) -> tuple[int, str, str]:
        code = cli.main(["unpack", *map(str, arguments)])
        return code, *capsys.readouterr()

    return unpack


def tree(folder: Path) -> dict[str, tuple[int, str]]:
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mode & 0o777, path.read_text())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_another_control_node_gets_inventory_secrets_and_bundle_and_what_the_hosts_had(
    made: tuple[Node, str], other: Node, unpack: Callable[..., tuple[int, str, str]]
) -> None:
    node, said = made
    assert node.kept().stat().st_mode & 0o777 == 0o600
    assert "IT HOLDS PASSWORDS AND PRIVATE KEYS, and is not encrypted" in said
    assert "api1: m1 by r1 (0123) in force, 2 deployments to roll back to" in said
    assert [path.name for path in (node.root / "kept").iterdir()] == [node.kept().name]

    code, printed, _ = unpack(node.kept())
    assert (code, printed) == (0, "prod\n")
    assert tree(other.inventory) == {
        "group_vars/all.yml": (0o644, "fortress_domain: iris.example.org\n"),
        "hosts.yml": (0o644, "all:\n  hosts:\n    api1: {ansible_host: 192.0.2.1}\n"),
        "inventory.sh": (0o755, "#!/bin/sh\n"),
        "secrets/pki/ca.key": (0o600, "the key of the CA"),
        "secrets/site.json": (0o600, site_json(MARKS)),
        "secrets/ssh/known_hosts": (0o600, "192.0.2.1 ssh-ed25519 old"),
        # What Vault has encrypted stays encrypted, and what is made of secrets by each converge is not kept.
        "secrets/users/iris": (0o600, "$ANSIBLE_VAULT;1.1;AES256\n6162\n"),
    }
    assert other.secrets.stat().st_mode & 0o777 == 0o700
    assert (other.root / "models" / "mine" / "1.0.0" / "manifest.json").read_text() == "{}"
    unpacked = other.root / "build" / "restore" / "prod"
    assert sorted(path.name for path in unpacked.iterdir()) == ["hosts", "manifest.json"]
    assert (unpacked / "hosts" / "api1" / "deployments.tar").read_text() == DEPLOYMENTS
    assert list(unpacked.parent.iterdir()) == [unpacked]
    # Run again, as after a host that was not there yet.
    before = tree(other.inventory)
    assert unpack(node.kept())[0] == 0
    assert tree(other.inventory) == before


def test_others_who_share_the_checkout_can_read_what_came_back_but_for_secrets(
    made: tuple[Node, str], other: Node, unpack: Callable[..., tuple[int, str, str]]
) -> None:
    (other.root / "inventory").rmdir()
    assert unpack(made[0].kept())[0] == 0
    folders = [other.inventory, *other.inventory.rglob("*"), other.root / "models", *(other.root / "models").rglob("*")]
    modes = {
        path.relative_to(other.root).as_posix(): path.stat().st_mode & 0o777
        for path in [other.root / "inventory", *folders]
        if path.is_dir()
    }
    assert modes == {
        "inventory": 0o755,
        "inventory/prod": 0o755,
        "inventory/prod/group_vars": 0o755,
        "inventory/prod/secrets": 0o700,
        "inventory/prod/secrets/pki": 0o700,
        "inventory/prod/secrets/ssh": 0o700,
        "inventory/prod/secrets/users": 0o700,
        "models": 0o755,
        "models/mine": 0o755,
        "models/mine/1.0.0": 0o755,
    }


def test_the_inventory_gets_another_name_where_one_is_given(
    made: tuple[Node, str], other: Node, unpack: Callable[..., tuple[int, str, str]]
) -> None:
    assert unpack(made[0].kept(), "--inventory=new")[1] == "new\n"
    assert (other.root / "inventory" / "new" / "secrets" / "site.json").exists()
    assert "is no name of an inventory" in unpack(made[0].kept(), "--inventory=../new")[2]


def test_secrets_outside_of_the_checkout_come_back_to_where_the_inventory_says(
    other: Node, tmp_path: Path, unpack: Callable[..., tuple[int, str, str]]
) -> None:
    node = Node(tmp_path / "team")
    node.fill()
    outside = tmp_path / "a team's secrets"
    node.secrets.rename(outside)
    node.secrets = outside
    with (node.inventory / "group_vars" / "all.yml").open("a") as file:
        file.write(f"fortress_secrets_dir: {outside}\n")
    assert node.backup()[0] == 0
    shutil.rmtree(outside)
    assert unpack(node.kept())[0] == 0
    assert (outside / "users" / "iris").exists() and not (other.inventory / "secrets").exists()


def test_an_inventory_that_ansible_vault_has_encrypted_is_restored_with_its_password_alone(
    other: Node, tmp_path: Path, unpack: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(tmp_path / "vault")
    node.fill()
    file, password = node.inventory / "group_vars" / "all.yml", [("default", VaultSecret(b"correct horse"))]
    settings = f"{file.read_text()}\nfortress_secrets_dir: {tmp_path / 'elsewhere'}\n"
    file.write_bytes(VaultLib(password).encrypt(settings.encode()))
    assert node.backup()[0] == 0
    with pytest.raises(SystemExit, match="Set ANSIBLE_VAULT_PASSWORD_FILE"):
        unpack(node.kept())
    assert not other.inventory.exists() and not list((other.root / "build").rglob(".*"))
    monkeypatch.setattr(remote, "vault_secrets", lambda: password)
    assert unpack(node.kept())[0] == 0
    assert (tmp_path / "elsewhere" / "users" / "iris").exists()


def refusals() -> dict[str, tuple[Callable[[Node], object], str]]:
    """What is on a control node already, and the sentence that ends the restore."""

    def later(node: Node) -> None:
        node.fill()
        write(node.secrets / site.SITE, site_json(["aa", "cc"]))

    return {
        "secrets of another site": (
            lambda node: write(node.secrets / site.SITE, site_json([], "site-2")),
            "is of another site than the secrets in",
        ),
        "secrets of an earlier state": (
            lambda node: write(node.secrets / site.SITE, site_json(["aa"])),
            "not of a later state than the backup: of generation 1, and the backup of 2",
        ),
        "secrets that were changed apart": (later, "not of a later state than the backup"),
        "secrets of no site": (
            lambda node: write(node.secrets / "pki" / "ca.key", "another"),
            "has others than the backup: pki/ca.key. Nothing was changed. Move",
        ),
        "secrets that are damaged": (lambda node: write(node.secrets / site.SITE, "{"), "site.json is damaged"),
        "another inventory": (
            lambda node: write(node.inventory / "hosts.yml", "all: {}"),
            "in group_vars/all.yml, hosts.yml, inventory.sh. Say which is meant: USE=here",
        ),
    }


@pytest.mark.parametrize("there", refusals())
def test_what_is_there_already_is_never_overwritten(
    made: tuple[Node, str], other: Node, unpack: Callable[..., tuple[int, str, str]], there: str
) -> None:
    prepare, sentence = refusals()[there]
    prepare(other)
    before = tree(other.root)
    code, _, said = unpack(made[0].kept())
    assert code == 1 and sentence in said and said.startswith("backup: ") and said.count("\n") == 1
    assert tree(other.root) == before


def test_newer_secrets_stay_and_what_is_missing_beside_them_comes_back(
    made: tuple[Node, str], other: Node, unpack: Callable[..., tuple[int, str, str]]
) -> None:
    """One host of several was lost, and passwords were rotated since the backup."""
    other.fill()
    write(other.secrets / site.SITE, site_json([*MARKS, "cc"]))
    write(other.secrets / "users" / "iris", "a newer one")
    (other.secrets / "pki" / "ca.key").unlink()
    code, _, said = unpack(made[0].kept())
    assert code == 0 and "are of a later generation than those of the backup, and stay" in said
    assert (other.secrets / "users" / "iris").read_text() == "a newer one"
    assert (other.secrets / "pki" / "ca.key").exists()


@pytest.mark.parametrize(("use", "address"), [("here", "192.0.2.9"), ("backup", "192.0.2.1")])
def test_of_two_inventories_the_one_that_is_named_is_used(
    made: tuple[Node, str], other: Node, unpack: Callable[..., tuple[int, str, str]], use: str, address: str
) -> None:
    """The fresh host may have another address; and a clone has an inventory/local of its own."""
    other.fill()
    write(other.inventory / "hosts.yml", "all:\n  hosts:\n    api1: {ansible_host: 192.0.2.9}\n")
    write(other.secrets / "ssh" / "known_hosts", "192.0.2.9 ssh-ed25519 new")
    code, _, said = unpack(made[0].kept(), f"--use={use}")
    assert code == 0 and "hosts.yml differ" in said
    assert address in (other.inventory / "hosts.yml").read_text()
    # Of the control node: which host it knows.
    assert "new" in (other.secrets / "ssh" / "known_hosts").read_text()
    write(other.inventory / "more.yml", "all: {}")
    assert unpack(made[0].kept(), "--use=backup")[0] == 1


def test_another_bundle_of_that_name_stays_and_is_named(
    made: tuple[Node, str], other: Node, unpack: Callable[..., tuple[int, str, str]]
) -> None:
    manifest = write(other.root / "models" / "mine" / "1.0.0" / "manifest.json", "another")
    code, _, said = unpack(made[0].kept())
    assert code == 0 and "mine/1.0.0 is another than the backup's, and stays" in said
    assert manifest.read_text() == "another"


def forged(tmp_path: Path, **changes: Any) -> Path:
    """Write an archive that says other things of itself."""
    path = tmp_path / "forged.tar.gz"
    said = {"inventory": "prod", "project": {"revision": "0123abc"}, "created": ""} | changes
    content = b"content"
    archive.write(path, said, {describe(said.pop("path", "secrets/x"), content): content}, None)
    return path


@pytest.mark.parametrize("at", [10, 3000, -2000, -4])
@pytest.mark.parametrize("damage", ["cut off", "a bit"])
def test_a_damaged_archive_is_one_sentence_and_changes_nothing(
    made: tuple[Node, str],
    other: Node,
    tmp_path: Path,
    unpack: Callable[..., tuple[int, str, str]],
    at: int,
    damage: str,
) -> None:
    content = bytearray(made[0].kept().read_bytes())
    if damage == "cut off":
        del content[at:]
    else:
        content[at] ^= 16
    (tmp_path / "damaged").write_bytes(content)
    code, _, said = unpack(tmp_path / "damaged")
    if (at, damage) == (10, "a bit") and code == 0:
        pytest.skip("a bit that gzip does not mind")
    assert code == 1 and "damaged is damaged, or no backup" in said and said.count("\n") == 1
    assert not other.inventory.exists() and not list((other.root / "build" / "restore").glob("*"))


def test_what_is_no_backup_or_of_a_later_format_is_named(
    other: Node, tmp_path: Path, unpack: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "There is no " in unpack(tmp_path / "none")[2]
    assert "damaged, or no backup" in unpack(write(tmp_path / "text", "hello"))[2]
    assert "it is a photo album" in unpack(forged(tmp_path, kind="photo album"))[2]
    (tmp_path / "forged.tar.gz").unlink()
    said = unpack(forged(tmp_path, format=2))[2]
    assert "is of format 2, and this revision reads 1: `git checkout 0123abc`" in said
    (tmp_path / "forged.tar.gz").unlink()
    assert "lies elsewhere" in unpack(forged(tmp_path, path="../../x"))[2]
    (tmp_path / "forged.tar.gz").unlink()
    path = forged(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(free=5))
    assert "0 MB free: make space there" in unpack(path)[2]
    assert not list((other.root / "inventory").iterdir())


class Usage:
    def __init__(self, free: int) -> None:
        self.free = free


def test_what_was_changed_and_packed_again_is_found(
    other: Node, tmp_path: Path, unpack: Callable[..., tuple[int, str, str]]
) -> None:
    path = forged(tmp_path)
    for before, after, found in (
        (b'"created": ""', b'"creates": ""', "manifest.json is not as it was written"),
        (b"content", b"another", "the sha256 of secrets/x is "),
    ):
        changed = gzip.decompress(path.read_bytes()).replace(before, after)
        (tmp_path / "changed").write_bytes(gzip.compress(changed))
        code, _, said = unpack(tmp_path / "changed")
        assert code == 1 and found in said
    assert not list((other.root / "inventory").iterdir())


@pytest.mark.parametrize("links", [True, False], ids=["with links", "without"])
def test_a_backup_that_is_cut_leaves_no_archive_and_one_of_that_name_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:

        def refuse(source: Path, target: Path) -> None:
            raise PermissionError("no links here")

        monkeypatch.setattr(os, "link", refuse)
    content = b"content"
    sources = {describe("secrets/x", content): content}
    path = tmp_path / "kept.tar.gz"
    with pytest.raises(FileNotFoundError):
        archive.write(path, {}, sources | {describe("a", b""): tmp_path / "none"}, None)
    assert not list(tmp_path.iterdir())
    archive.write(path, {}, sources, None)
    before = path.read_bytes()
    with pytest.raises(BackupError, match="is there already"):
        archive.write(path, {}, {}, None)
    assert path.read_bytes() == before and [each.name for each in tmp_path.iterdir()] == ["kept.tar.gz"]


def test_a_part_that_came_otherwise_than_the_host_wrote_it_is_none(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.fill()
    said = node.said()
    write(node.root / "staging" / "api1" / "deployments.tar", "another")
    code, _, error = node.backup(said=said)
    assert code == 1 and "deployments.tar is not what api1 wrote" in error
    assert not list((node.root / "kept").iterdir())


def test_files_that_lie_elsewhere_and_hosts_that_were_not_reached_are_named(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.fill()
    named = {str(node.inventory / "files" / "chain.pem"): "pki_certificate_file", "/x/key.pem": "pki_private_key_file"}
    _, printed, _ = node.backup(said=node.said() | {"named": named, "missing": ["api2"]})
    assert [line for line in printed.splitlines() if line.startswith("NOT IN IT")] == [
        "NOT IN IT: api2, which could not be reached",
        "NOT IN IT: /x/key.pem, which pki_private_key_file names: keep it too",
    ]


def test_a_site_that_was_never_converged_has_no_backup(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.fill()
    said = node.said()
    (node.secrets / site.SITE).unlink()
    code, _, error = node.backup(said=said)
    assert code == 1 and "is of no site yet: `make converge`" in error


def test_too_little_space_on_the_control_node_is_said_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["space", f"--to={tmp_path}", "--bytes=1000"]) == 0
    assert cli.main(["space", f"--to={tmp_path}", f"--bytes={10**18}"]) == 1
    assert "make space there, or name another folder" in capsys.readouterr().err


def test_an_encrypted_archive_needs_its_key(
    other: Node, tmp_path: Path, unpack: Callable[..., tuple[int, str, str]]
) -> None:
    key, foreign, recipients = (tmp_path / name for name in ("key", "foreign", "recipients"))
    for path in (key, foreign):
        subprocess.run(["age-keygen", "--output", path], check=True, capture_output=True)
    public = subprocess.run(["age-keygen", "-y", key], check=True, capture_output=True).stdout
    recipients.write_bytes(public)
    node = Node(tmp_path / "node")
    node.fill()
    code, printed, error = node.backup(f"--recipients={recipients}")
    assert code == 0 and "It is encrypted" in printed, error
    path = node.kept()
    assert path.name.endswith(".tar.gz.age") and b"the key of the CA" not in path.read_bytes()
    assert "is encrypted by age: name the file of the key, KEY=..." in unpack(path)[2]
    assert "can't decrypt" in unpack(path, f"--key={foreign}")[2]
    assert not other.inventory.exists()
    assert unpack(path, f"--key={key}")[0] == 0
    cut = tmp_path / "cut"
    cut.write_bytes(path.read_bytes()[:-5])
    shutil.rmtree(other.inventory)
    assert unpack(cut, f"--key={key}")[0] == 1 and not other.inventory.exists()
    write(recipients, "nobody")
    code, _, error = node.backup(f"--recipients={recipients}")
    assert code == 1 and "age can't encrypt" in error
    assert node.kept() == path


def test_age_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BackupError, match="age is not installed here: `sudo apt-get install age`"):
        archive.write(tmp_path / "kept", {}, {}, tmp_path / "recipients")
    assert not (tmp_path / "kept").exists()

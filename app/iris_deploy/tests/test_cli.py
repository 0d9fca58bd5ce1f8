"""The command line: what an operator, make and Ansible see."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from iris_deploy import Problem, cli

from .conftest import Site


def run(monkeypatch: pytest.MonkeyPatch, site: Site, *arguments: str) -> int:
    monkeypatch.setattr(cli, "Host", lambda: site.host)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(sys, "argv", ["iris-deploy", *arguments])
    return cli.main()


def test_status_names_what_each_instance_serves(site: Site) -> None:
    assert site.call("status")["message"].splitlines()[0] == "current: nothing was deployed yet"
    new = site.deployed()
    site.machine.units["iris-api@2.service"].active = "failed"
    site.call("hold", "the fair is on")
    assert site.call("status")["message"].splitlines() == [
        f"current: {new}",
        f"iris-api@1: serves {new}",
        f"iris-api@2: failed, is to serve {new}",
        f"iris-api@3: serves {new}",
        "held: the fair is on",
    ]


def test_of_a_fresh_host_the_history_is_empty(site: Site) -> None:
    assert site.call("history")["message"].split()[0] == "TIME"
    assert len(site.call("history")["message"].splitlines()) == 1


def test_the_history_is_a_table_of_the_last_events(site: Site) -> None:
    site.deployed()
    site.deploy(site.deployment(model="m-dead"))
    site.call("hold", "--who", "bob@desk", "x" * 150)
    lines = site.call("history")["message"].splitlines()
    assert lines[0].split() == ["TIME", "EVENT", "MODEL", "RELEASE", "DEPLOYMENT", "SECONDS", "WHO", "WHY"]
    assert [line.split()[1] for line in lines[1:]] == ["deployed", "aborted", "held"]
    assert "Model refused" in lines[2] and lines[3].endswith("x...")
    assert len(site.call("history", "--lines", "1")["message"].splitlines()) == 2


def test_unlock_says_what_goes_on_where_nobody_holds_anything(site: Site) -> None:
    assert site.call("unlock") == {"changed": False, "message": "Nobody holds deployments off."}
    site.paths.run.mkdir(parents=True)
    (site.paths.run / "lock").write_text("A deploy by me runs since noon\n")
    # Of one that was killed.
    assert site.call("unlock")["message"] == "Nobody holds deployments off."
    other = (site.paths.run / "lock").open()
    fcntl.flock(other, fcntl.LOCK_EX)
    assert site.call("unlock")["message"].endswith("A deploy by me runs since noon: it ends by itself.")
    assert "A deploy by me runs since noon" in site.call("status")["message"]


def test_a_hold_on_a_full_disk_is_none_and_one_that_can_not_be_read_is_one(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = site.paths.home / "hold.json"

    def full(path: Path, text: str) -> None:
        path.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(Path, "write_text", full)
        site.call("hold", "the fair is on")
    assert list(site.paths.home.iterdir()) == [] and site.call("unlock")["changed"] is False
    # Of an earlier release, or an editor.
    for text in (b"", b"[]", b"{}", b'{"event": "held", "who": 1}', b"\xff"):
        path.write_bytes(text)
        assert "held: " in site.call("status")["message"]
        with pytest.raises(Problem, match=r"by somebody: .*hold\.json can't be read .* `iris-deploy unlock`\) lifts"):
            site.call("rollback")
        assert site.call("unlock")["changed"] and not path.exists()


def test_an_outcome_is_text_or_a_line_of_json(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, site, "hold", "why") == 0
    assert capsys.readouterr().out == "No deployment and no rollback starts until `make unlock`.\n"
    assert run(monkeypatch, site, "--json", "rollback") == 1
    said = json.loads(capsys.readouterr().out)
    assert said["failed"] and "Deployments are held" in said["message"]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"x": 1}', '{"release": "r1"}', "number"])
def test_what_describes_no_deployment_is_one_answer(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    if text == "number":
        text = json.dumps(asdict(site.deployment()) | {"unit": 1})
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    assert run(monkeypatch, site, "--json", "deploy") == 1
    said, told = capsys.readouterr()
    assert json.loads(said)["message"].startswith("Standard input describes no deployment (") and told == ""


@pytest.mark.parametrize(("error", "lines"), [(OSError(errno.ENOSPC, "No space"), 0), (KeyError("x"), 1)])
def test_whatever_breaks_is_one_answer(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, lines: int
) -> None:
    def breaks(*_: object) -> None:
        raise error

    monkeypatch.setattr("iris_deploy.files.write", breaks)
    assert run(monkeypatch, site, "--json", "hold", "why") == 1
    said, told = capsys.readouterr()
    assert json.loads(said) == {"changed": False, "failed": True, "message": f"{type(error).__name__}: {error}"}
    assert told.count("Traceback") == lines


def test_a_damaged_line_of_the_history_is_no_event_and_keeps_no_other_from_being_read(
    site: Site,
) -> None:
    new = site.deployed()
    with (site.paths.home / "history.jsonl").open("ab") as file:
        file.write(b'\xff\xfe\n{"event": "deployed", "who": "x", "deployment": 1}\n')
    site.call("hold", "why")
    assert [line.split()[1] for line in site.call("history")["message"].splitlines()[1:]] == ["deployed", "held"]
    assert site.host.history.passed() == [new.id]


def test_what_is_made_can_be_read_by_the_instances_whatever_the_umask_of_the_login_is(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.umask(0o077)
    try:
        run(monkeypatch, site, "status")
        (site.paths.home / "folder").mkdir()
        assert (site.paths.home / "folder").stat().st_mode & 0o777 == 0o755
    finally:
        os.umask(before)


def test_root_is_needed(site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["iris-deploy", "status"])
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert cli.main() == 1
    assert "root is needed: sudo iris-deploy" in capsys.readouterr().err


def test_a_host_that_was_never_provisioned_is_named(site: Site) -> None:
    site.paths.settings.unlink()
    with pytest.raises(Problem, match=r"deploy.json can't be read .*: run the playbook site.yml for this host"):
        site.call("status")

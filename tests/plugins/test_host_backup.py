"""What only a host has is copied while it is written to, and put on another host in one step."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from plugins.modules import host_backup
from plugins.modules.host_backup import BackupError, HostBackup, copy_sqlite, linked, require_space
from plugins.modules.host_restore import HostRestore, RestoreError

BLOCKS = ("01HZZZZZZZZZZZZZZZZZZZZZZ1", "01HZZZZZZZZZZZZZZZZZZZZZZ2")


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def lived(tmp_path: Path) -> Path:
    """The files of a host that runs everything."""
    root = tmp_path / "host"
    write(root / "etc/os-release", 'NAME="Debian GNU/Linux"\nVERSION_ID="13"\n')
    data = root / host_backup.PROMETHEUS
    for block in BLOCKS:
        write(data / block / "meta.json", "{}")
        write(data / block / "chunks" / "000001", f"samples of {block}")
    write(data / "wal" / "00000001", "the newest samples")
    write(data / "wal" / "checkpoint.00000000" / "00000000", "some before them")
    # Nothing of these is needed, and some is half made.
    write(data / "wal" / "checkpoint.00000001.tmp" / "00000000", "half")
    write(data / "01HZZZZZZZZZZZZZZZZZZZZZZ3.tmp-for-creation" / "meta.json", "half")
    write(data / "queries.active", "")
    write(data / "chunks_head" / "000001", "what the log has too")
    (root / host_backup.GRAFANA).parent.mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(root / host_backup.GRAFANA)) as database:
        database.execute("CREATE TABLE user (login TEXT)")
        database.execute("INSERT INTO user VALUES ('admin')")
        database.commit()
    return root


def program(lived: Path, said: dict[str, Any], error: str = "") -> None:
    """Put an iris-deploy on the host that answers so."""
    path = write(
        lived / host_backup.PROGRAM,
        f"#!/bin/sh\necho {error!r} >&2\ntest {len(error)} = 0 || exit 2\n"
        f'test "$3" = --dry-run || echo kept > "$3"\necho \'{json.dumps(said)}\'\n',
    )
    path.chmod(0o755)


DEPLOYED = {"bytes": 10**6, "current": "m1 by r1 (0123)", "deployments": 2, "releases": 1, "hold": None, "notes": []}


def take(lived: Path, *parts: str, folder: Path | None = None, dry_run: bool = False) -> dict[str, Any]:
    return HostBackup(lived).take(
        list(parts), folder or lived / "var/lib/fortress/backup", os.getuid(), dry_run=dry_run
    )


def test_all_of_a_host_is_in_a_folder_for_the_login_alone_and_nothing_else_is_left(lived: Path) -> None:
    program(lived, DEPLOYED)
    kept = take(lived, "deployments", "grafana", "prometheus")
    folder = lived / "var/lib/fortress/backup"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == dict.fromkeys(
        ["deployments.tar", "grafana.db", "prometheus.tar"], 0o600
    )
    for part in kept["parts"].values():
        content = (folder / part["file"]).read_bytes()
        assert (part["bytes"], part["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert kept["deployments"]["current"] == "m1 by r1 (0123)" and kept["notes"] == []
    assert kept["host"]["distribution"] == "Debian 13"
    assert not list((lived / "var/lib/prometheus").glob(".fortress*"))
    with tarfile.open(folder / "prometheus.tar") as tar:
        assert sorted(tar.getnames()) == sorted(
            [f"{block}/{name}" for block in BLOCKS for name in ("meta.json", "chunks/000001")]
            + ["wal/00000001", "wal/checkpoint.00000000/00000000"]
        )


def test_a_dry_run_copies_nothing_and_counts_everything(lived: Path) -> None:
    program(lived, DEPLOYED)
    kept = take(lived, "deployments", "grafana", "prometheus", dry_run=True)
    assert kept["parts"]["deployments"] == {"bytes": 10**6}
    assert kept["parts"]["prometheus"]["bytes"] > 50 and kept["parts"]["grafana"]["bytes"] > 1000
    assert not (lived / "var/lib/fortress").exists()


def test_what_a_host_has_not_got_is_noted(lived: Path) -> None:
    shutil.rmtree(lived / "var/lib/grafana")
    kept = take(lived, "deployments", "grafana", "prometheus")
    assert list(kept["parts"]) == ["prometheus"]
    assert [note.split(":")[0] for note in kept["notes"]] == [
        "iris-deploy is not installed",
        "Grafana has no database",
    ]


def test_what_iris_deploy_says_is_said_and_an_earlier_one_is_named(lived: Path) -> None:
    program(lived, {"failed": True, "message": "A deployment was cut short here."})
    with pytest.raises(BackupError, match="A deployment was cut short here"):
        take(lived, "deployments")
    program(lived, {}, "iris-deploy: error: argument COMMAND: invalid choice: backup")
    with pytest.raises(BackupError, match="of an earlier release: run `make converge` first"):
        take(lived, "deployments")
    program(lived, {}, "Segmentation fault")
    with pytest.raises(BackupError, match="Segmentation fault"):
        take(lived, "deployments")


def test_too_little_space_is_said_before_anything_is_copied(
    lived: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(free=1000))
    with pytest.raises(BackupError, match=r"up to 1 MB, and where /nowhere/a is to be 0 MB are free: make space there"):
        require_space(Path("/nowhere/a"), 10**6)
    require_space(Path("/nowhere/a"), 900)
    with pytest.raises(BackupError, match="make space there"):
        take(lived, "grafana", folder=tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


class Usage:
    def __init__(self, free: int) -> None:
        self.free = free


def test_a_database_is_copied_as_of_one_moment_while_somebody_writes(lived: Path, tmp_path: Path) -> None:
    source = lived / host_backup.GRAFANA
    with contextlib.closing(sqlite3.connect(source)) as writer:
        # What is committed may be in another file yet.
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("INSERT INTO user VALUES ('committed')")
        writer.commit()
        writer.execute("INSERT INTO user VALUES ('not committed')")
        copy_sqlite(source, tmp_path / "copy.db")
        writer.commit()
    with contextlib.closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        assert copy.execute("SELECT login FROM user").fetchall() == [("admin",), ("committed",)]


def test_what_a_grafana_that_was_killed_has_half_written_is_not_in_it(lived: Path, tmp_path: Path) -> None:
    source = lived / host_backup.GRAFANA
    with contextlib.closing(sqlite3.connect(source)) as writer:
        writer.execute("PRAGMA cache_size=2")
        writer.executemany("INSERT INTO user VALUES (?)", [("half" * 1000,)] * 100)
        # As a kill leaves it: part of it is on the disk already.
        for path in source.parent.iterdir():
            shutil.copy(path, tmp_path / path.name)
    assert (tmp_path / "grafana.db-journal").exists()
    copy_sqlite(tmp_path / "grafana.db", tmp_path / "copy.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        assert copy.execute("SELECT login FROM user").fetchall() == [("admin",)]


def test_a_damaged_database_is_not_kept(lived: Path, tmp_path: Path) -> None:
    source = lived / host_backup.GRAFANA
    content = bytearray(source.read_bytes())
    content[4096:] = b"\0" * len(content[4096:])
    source.write_bytes(content)
    with pytest.raises(BackupError, match=r"grafana\.db is damaged|grafana\.db can't be copied"):
        copy_sqlite(source, tmp_path / "copy.db")


def test_blocks_that_are_compacted_meanwhile_are_taken_anew(lived: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were linked before would be there twice; those that were gone, not at all."""
    data, link = lived / host_backup.PROMETHEUS, os.link
    done: list[bool] = []

    def compacts(source: Path, target: Path) -> None:
        if BLOCKS[1] in str(source) and not done:
            done.append(True)
            write(data / "01HZZZZZZZZZZZZZZZZZZZZZZ9" / "meta.json", "both")
            for block in BLOCKS:
                shutil.rmtree(data / block)
        link(source, target)

    monkeypatch.setattr(os, "link", compacts)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with linked(data, data.with_name("links")) as links:
        assert [path.name for path in links.iterdir() if path.name != "wal"] == ["01HZZZZZZZZZZZZZZZZZZZZZZ9"]
        # Whatever Prometheus removes from now on.
        shutil.rmtree(data)
        assert (links / "wal" / "00000001").read_text() == "the newest samples"
    assert not links.exists()


def test_a_database_that_never_stands_still_is_said(lived: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, segments, link = lived / host_backup.PROMETHEUS, iter(range(2, 100)), os.link

    def grows(source: Path, target: Path) -> None:
        if source.name == "00000001":
            write(data / "wal" / f"{next(segments):08}", "more")
        link(source, target)

    monkeypatch.setattr(os, "link", grows)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(BackupError, match="changed 20 times"), linked(data, data.with_name("links")):
        pass
    assert not data.with_name("links").exists()


class Systemd:
    """What the unit of a service does, and what it was told."""

    def __init__(self, active: bool = True, stops: bool = True, starts: bool = True) -> None:
        self.answers = {"is-active": active, "stop": stops, "start": starts}
        self.told: list[str] = []

    def __call__(self, *arguments: str) -> bool:
        self.told.append(arguments[0])
        return self.answers[arguments[0]]


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A host whose services have just begun databases of their own."""
    root = tmp_path / "fresh"
    write(root / host_backup.PROMETHEUS / "wal" / "00000000", "a minute")
    write(root / host_backup.GRAFANA, "new")
    write(root / "var/lib/grafana/grafana.db-journal", "of another database")
    return root


def test_databases_take_the_place_of_those_that_a_fresh_host_has_begun(lived: Path, fresh: Path) -> None:
    take(lived, "grafana", "prometheus")
    folder, systemd = lived / "var/lib/fortress/backup", Systemd()
    restore = HostRestore(fresh, systemd)
    for part, file in (("prometheus", "prometheus.tar"), ("grafana", "grafana.db")):
        shutil.copy(folder / file, folder / "again")
        assert restore.put(part, folder / file)
        assert systemd.told == ["is-active", "stop", "start"]
        assert not (folder / file).exists()
        # A restore that was cut short is run again.
        assert not restore.put(part, folder / "again")
        assert not (folder / "again").exists()
        systemd.told.clear()
    data = fresh / host_backup.PROMETHEUS
    assert (data / BLOCKS[0] / "chunks" / "000001").read_text() == f"samples of {BLOCKS[0]}"
    assert [path.name for path in (data / "wal").iterdir() if path.is_file()] == ["00000001"]
    assert data.stat().st_mode & 0o777 == 0o750
    with contextlib.closing(sqlite3.connect(fresh / host_backup.GRAFANA)) as database:
        assert database.execute("SELECT login FROM user").fetchall() == [("admin",)]
    assert sorted(path.name for path in data.parent.iterdir()) == ["metrics2"]
    assert [path.name for path in (fresh / "var/lib/grafana").iterdir()] == ["grafana.db"]


def test_a_service_that_did_not_run_is_not_started(lived: Path, fresh: Path) -> None:
    take(lived, "grafana")
    systemd = Systemd(active=False)
    assert HostRestore(fresh, systemd).put("grafana", lived / "var/lib/fortress/backup/grafana.db")
    assert systemd.told == ["is-active", "stop"]


def test_what_is_there_stays_where_the_archive_is_damaged_or_the_service_does_not_stop(
    lived: Path, fresh: Path
) -> None:
    take(lived, "prometheus")
    archive = lived / "var/lib/fortress/backup/prometheus.tar"
    with pytest.raises(RestoreError, match=r"prometheus\.service can't be stopped"):
        HostRestore(fresh, Systemd(stops=False)).put("prometheus", archive)
    archive.write_bytes(archive.read_bytes()[:700])
    with pytest.raises(RestoreError, match="could not be unpacked"):
        HostRestore(fresh, Systemd()).put("prometheus", archive)
    assert (fresh / host_backup.PROMETHEUS / "wal" / "00000000").read_text() == "a minute"
    with pytest.raises(RestoreError, match="can't be started with what was restored"):
        take(lived, "prometheus")
        HostRestore(fresh, Systemd(starts=False)).put("prometheus", archive)


@pytest.mark.parametrize("name", ["/etc/x", "../x"])
def test_an_archive_writes_nowhere_else(fresh: Path, tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "bad.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo(name))
    with pytest.raises(RestoreError, match="is no file of its own"):
        HostRestore(fresh, Systemd()).put("prometheus", tmp_path / "bad.tar")

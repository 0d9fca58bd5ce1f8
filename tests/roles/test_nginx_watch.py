"""The programs that watch nginx: its frozen workers, and its files of passwords."""

from __future__ import annotations

import importlib.util
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests import ROOT

PROGRAMS = ROOT / "roles/nginx/files/usr/local/lib/fortress"
GOOD = b"iris:{SSHA}abc=\nbob:{SSHA}def=\n"


def program(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, PROGRAMS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


watch, htpasswd = program("nginx_watch"), program("nginx_htpasswd")


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[list[int]]:
    """A master and its two workers, real ones; tmp_path/pid has the number of the first."""
    # The master outlives its workers.
    script = "sleep 60 & sleep 60 & echo $!; wait; read end"
    pipe = subprocess.PIPE
    with subprocess.Popen(["sh", "-c", script], stdin=pipe, stdout=pipe, text=True, start_new_session=True) as master:
        assert master.stdout is not None
        last = int(master.stdout.readline())
        found = Path(f"/proc/{master.pid}/task/{master.pid}/children").read_text().split()
        workers = [int(each) for each in found]
        assert last in workers
        (tmp_path / "pid").write_text(f"{master.pid}\n")
        yield [master.pid, *workers]
        for process in (*workers, master.pid):
            subprocess.run(["kill", "-KILL", str(process)], check=False, stderr=subprocess.DEVNULL)


def stop(*processes: int) -> None:
    for process in processes:
        subprocess.run(["kill", "-STOP", str(process)], check=True)
        assert becomes(process, stopped=True)


def look(tmp_path: Path, before: frozenset[int] = frozenset()) -> frozenset[int]:
    found: frozenset[int] = watch.look(watch.PROC, tmp_path / "pid", before)
    return found


def becomes(process: int, *, stopped: bool) -> bool:
    """Wait until a process is, or is no longer, stopped: a signal takes a moment."""
    end = time.monotonic() + 5
    while (watch.state(watch.PROC, process) == "T") is not stopped and time.monotonic() < end:
        time.sleep(0.01)
    return bool((watch.state(watch.PROC, process) == "T") is stopped)


def test_frozen_workers_are_killed_at_the_second_look(tmp_path: Path, processes: list[int]) -> None:
    master, *workers = processes
    stop(*workers)
    first = look(tmp_path)
    assert first == set(workers)
    assert all(becomes(worker, stopped=True) for worker in workers)
    assert look(tmp_path, first) == frozenset()
    assert all(becomes(worker, stopped=False) for worker in workers)
    assert watch.state(watch.PROC, master) not in ("", "Z")


def test_a_frozen_master_is_killed_with_its_workers(tmp_path: Path, processes: list[int]) -> None:
    stop(*processes)
    first = look(tmp_path)
    assert first == set(processes)
    look(tmp_path, first)
    assert all(becomes(process, stopped=False) for process in processes)


def test_as_long_as_one_worker_is_not_stopped_nobody_is_killed(tmp_path: Path, processes: list[int]) -> None:
    master, one, other = processes
    assert look(tmp_path) == frozenset()
    stop(master, one)
    assert look(tmp_path, look(tmp_path)) == frozenset()
    assert becomes(one, stopped=True)
    assert watch.state(watch.PROC, other) in ("S", "R")


@pytest.mark.parametrize("text", [None, "", "none", "999999999"])
def test_where_there_is_no_nginx_nothing_is_frozen(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "pid").write_text(text)
    assert look(tmp_path) == frozenset()


@pytest.mark.parametrize(
    ("live", "copy", "damaged"),
    [
        (GOOD, GOOD, False),
        (b"", GOOD, True),
        (b"\n", GOOD, True),
        (None, GOOD, True),
        (GOOD[:-4], GOOD, True),
        (GOOD + b"\0\0\0", GOOD, True),
        (b"<<<<<<< HEAD\n" + GOOD, GOOD, True),
        # Somebody took a user away, or added one, or a comment: on purpose.
        (GOOD.splitlines(keepends=True)[0], GOOD, False),
        (GOOD + b"eve:{SSHA}ghi=\n", GOOD, False),
        (b"# by hand\n" + GOOD, GOOD, False),
        # There may be no previous passwords.
        (b"", b"", False),
        (None, b"\n", False),
    ],
)
def test_what_counts_as_damage(live: bytes | None, copy: bytes, damaged: bool) -> None:
    assert htpasswd.damaged(live, copy) is damaged


def test_a_damaged_file_is_replaced_by_its_copy_with_its_mode(tmp_path: Path) -> None:
    live, copy = tmp_path / "live", tmp_path / "copy"
    live.write_bytes(b"")
    copy.write_bytes(GOOD)
    copy.chmod(0o640)
    assert htpasswd.put_back(live, copy) is True
    assert live.read_bytes() == GOOD
    assert live.stat().st_mode & 0o777 == 0o640
    assert htpasswd.put_back(live, copy) is False
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "live"]

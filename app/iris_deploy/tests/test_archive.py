"""What is deployed on a host comes to a fresh one, by an archive that is no larger than it must be."""

from __future__ import annotations

import errno
import io
import json
import os
import tarfile
from pathlib import Path

import pytest
from iris_deploy import Failure, Problem, archive
from iris_deploy.store import Deployment, python

from .conftest import SAMPLES, Site, unit_text

REQUIREMENTS = b"numpy==2 --hash=sha256:0\n"
WHEEL = b"the largest of all wheels" * 4000


def tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as new:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755 if name.startswith("bin/") else 0o644
            new.addfile(member, io.BytesIO(content))
    return path


def install(site: Site, release: str, model: str) -> Deployment:
    """Put a release and a model on the host, as Ansible does."""
    members = {
        "release.json": json.dumps({"id": release, "settings": []}).encode(),
        "requirements.txt": REQUIREMENTS,
        "bin/iris-api": f"#!/bin/sh\n# {release}\n".encode(),
        "wheels/numpy.whl": WHEEL,
    }
    manifest = json.dumps({"task": "classification", "golden_samples": SAMPLES, "name": model}).encode()
    for kind, name, content in (("releases", release, members), ("models", model, {"manifest.json": manifest})):
        site.call("install", kind, name, str(tar(site.paths.home / "uploads" / "x.tar", content)))
    return Deployment(release, model, "IRIS_API_LOG_LEVEL=info\n", unit_text())


@pytest.fixture
def lived(site: Site) -> Site:
    """A host with a history: two models, an application that was rolled back from, and a hold."""
    for release, model in (("r1", "m1"), ("r1", "m2"), ("r2", "m2")):
        assert site.deploy(install(site, release, model), "--inventory")["changed"]
    assert site.call("rollback")["changed"]
    site.call("hold", "--who", "ana@laptop", "the fair is on")
    return site


@pytest.fixture
def fresh(tmp_path: Path) -> Site:
    return Site(tmp_path / "fresh")


def test_a_fresh_host_serves_what_was_in_force_and_rolls_back_to_what_was_before(
    lived: Site, fresh: Site, tmp_path: Path
) -> None:
    """By the next converge, which wants what it wanted before, and without a start of anything else."""
    kept = lived.call("backup", str(tmp_path / "kept.tar"))
    assert (kept["deployments"], kept["hold"]["why"]) == (3, "the fair is on")
    assert fresh.call("restore", str(tmp_path / "kept.tar"))["changed"]
    assert fresh.events() == lived.events()
    assert fresh.host.store.current == lived.host.store.current
    assert fresh.host.store.last_applied == lived.host.store.last_applied
    assert fresh.call("present", "--release=r1", "--model=m1")["missing"] == []
    assert fresh.machine.starts == []

    wanted = lived.host.store.last_applied
    assert wanted and wanted.release == "r2"
    assert fresh.deploy(wanted, "--converge")["changed"]
    assert fresh.started == ["1", "2", "3"]
    assert {deployment for _, deployment in fresh.serving.values()} == {lived.host.store.current.id}  # type: ignore[union-attr]
    assert fresh.call("rollback", "--part=model")["changed"]
    assert fresh.host.store.current.model == "m1"  # type: ignore[union-attr]


def test_it_is_for_root_alone_and_has_what_releases_share_once(lived: Site, tmp_path: Path) -> None:
    path = tmp_path / "kept.tar"
    said = lived.call("backup", "--dry-run", str(path))
    assert said["bytes"] > 2 * len(WHEEL) and not path.exists()
    lived.call("backup", str(path))
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(WHEEL) < path.stat().st_size < 2 * len(WHEEL)


def test_a_second_restore_changes_nothing_and_one_to_a_host_that_lives_is_none(
    lived: Site, fresh: Site, tmp_path: Path
) -> None:
    path = str(tmp_path / "kept.tar")
    lived.call("backup", path)
    assert fresh.call("restore", path)["changed"]
    assert not fresh.call("restore", path)["changed"]
    # Also where the history has gone on since.
    fresh.host.history.path.open("a").write('{"event": "held", "who": "ana"}\n')
    assert not fresh.call("restore", path)["changed"]
    other = Site(tmp_path / "other")
    other.deploy(install(other, "r7", "m7"))
    with pytest.raises(Problem, match="has deployments of its own"):
        other.call("restore", path)
    assert other.host.store.current.release == "r7"  # type: ignore[union-attr]


def test_one_that_was_cut_is_done_again(lived: Site, fresh: Site, tmp_path: Path) -> None:
    path = str(tmp_path / "kept.tar")
    lived.call("backup", path)
    fresh.machine.pip_fails = True
    with pytest.raises(Failure, match="as the test wants it"):
        fresh.call("restore", path)
    assert not fresh.host.store.current and not fresh.events()
    fresh.machine.pip_fails = False
    assert fresh.call("restore", path)["changed"]
    (fresh.paths.home / "current").unlink()
    assert fresh.call("restore", path)["changed"]
    assert fresh.host.store.current == lived.host.store.current
    assert not (fresh.paths.home / ".restore").exists()


def test_there_is_none_of_a_host_without_a_deployment_or_with_half_of_one(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "kept.tar"
    with pytest.raises(Problem, match="Nothing is deployed here"):
        site.call("backup", str(path))
    site.deploy(install(site, "r1", "m1"))
    site.host.store.assign(2, None)
    with site.host.history.path.open("a") as file:
        file.write('{"event": "begun", "who": "ana", "deployment": "x"}\n')
    with pytest.raises(Problem, match="cut short here: `sudo iris-deploy recover`"):
        site.call("backup", str(path))
    assert not path.exists()


def test_one_that_can_not_be_written_leaves_the_earlier_one(
    lived: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    path = folder / "kept.tar"
    lived.call("backup", str(path))
    earlier = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tarfile.TarFile, "add", full)
    with pytest.raises(Failure, match=r"kept\.tar could not be written: .*No space left on device$"):
        lived.call("backup", str(path))
    assert path.read_bytes() == earlier and list(folder.iterdir()) == [path]
    with pytest.raises(Failure, match=r"none/kept\.tar could not be written: .*No such file or directory"):
        lived.call("backup", str(folder / "none" / "kept.tar"))


def test_a_release_without_its_wheels_is_left_out_and_named(site: Site, tmp_path: Path) -> None:
    site.deploy(site.deployment("r0", "m1"))
    with pytest.raises(Problem, match="r0 has no wheels here"):
        site.call("backup", str(tmp_path / "kept.tar"))
    site.deploy(install(site, "r1", "m1"))
    kept = site.call("backup", str(tmp_path / "kept.tar"))
    assert kept["deployments"] == 1 and "The release r0 is not in it" in kept["notes"][0]


def test_another_python_a_later_format_and_a_damaged_archive_are_one_sentence(
    lived: Site, fresh: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "kept.tar"
    lived.call("backup", str(path))
    monkeypatch.setattr(archive, "python", lambda: "3.99")
    with pytest.raises(Problem, match=r"are for Python 3\.1\d and this host has 3\.99: restore to the release"):
        fresh.call("restore", str(path))
    tar(tmp_path / "late.tar", {"index.json": b'{"format": 3}'})
    with pytest.raises(Problem, match="is of format 3, and this program reads 2"):
        fresh.call("restore", str(tmp_path / "late.tar"))
    monkeypatch.undo()
    for index in (b"[]", b"{}", b'{"format": "x"}', b'{"format": 1, "history": 1}', b'{"format": 1, "history": []}'):
        with pytest.raises(Failure, match=r"odd\.tar could not be restored: "):
            fresh.call("restore", str(tar(tmp_path / "odd.tar", {"index.json": index})))
    plain = {"format": 1, "history": "", "python": python(), "last_applied": None, "current": "x"}
    wrong: tuple[tuple[str, object], ...] = (
        ("models", []),
        ("models", {"m1": 1}),
        ("deployments", [1]),
        ("deployments", [{"release": 1}]),
    )
    for key, value in wrong:
        index = json.dumps(plain | {key: value}).encode()
        with pytest.raises(Failure, match=r"odd\.tar could not be restored: "):
            fresh.call("restore", str(tar(tmp_path / "odd.tar", {"index.json": index})))
    path.write_bytes(path.read_bytes()[:-90_000])
    with pytest.raises(Failure, match=r"kept\.tar could not be restored: "):
        fresh.call("restore", str(path))
    assert not fresh.host.store.current

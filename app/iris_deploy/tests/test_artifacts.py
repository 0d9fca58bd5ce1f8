"""Releases and models are put on a host in one step, and what was damaged there is found and mended."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
import threading
from pathlib import Path
from typing import Any, Literal

import pytest
from iris_deploy import Failure, Problem, artifacts

from .conftest import Site

MEMBERS = {"release.json": b'{"settings": []}', "bin/iris-api": b"#!/bin/sh\n", "wheels/a.whl": b"wheel" * 100}


def archive(site: Site, members: dict[str, bytes] | None = None, link: str = "") -> Path:
    """Write what Ansible uploads."""
    path = site.paths.home / "uploads" / "x.tar"
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        folder = tarfile.TarInfo("bin")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, content in (members or MEMBERS).items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755 if name.startswith("bin/") else 0o644
            tar.addfile(member, io.BytesIO(content))
        if link:
            member = tarfile.TarInfo(link)
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(member)
    return path


def install(site: Site, kind: str = "releases", name: str = "r9", path: Path | None = None) -> bool:
    return bool(site.call("install", kind, name, str(path or archive(site)))["changed"])


def missing(site: Site, release: str = "r9", model: str = "m1") -> list[str]:
    site.deployment()
    found: list[str] = site.call("present", "--release", release, "--model", model)["missing"]
    return found


def test_a_release_is_made_once(site: Site) -> None:
    assert missing(site) == ["releases"]
    assert install(site)
    folder = site.paths.home / "releases" / "r9"
    assert missing(site) == []
    assert (folder / ".complete").read_bytes() == MEMBERS["release.json"]
    # It runs where it lies now, and not where it was made.
    assert (folder / "venv" / "bin" / "iris-api").read_text() == f"#!{folder}/venv/bin/python3\n"
    assert not install(site)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["r1", "r9"]
    assert list((site.paths.home / "uploads").iterdir()) == []


def test_a_model_is_made_without_an_environment(site: Site) -> None:
    assert install(site, "models", "m9", archive(site, {"manifest.json": b"{}"}))
    assert missing(site, "r1", "m9") == []
    assert not (site.paths.home / "models" / "m9" / "venv").exists()


def test_the_instances_can_read_it_whatever_the_umask_is(site: Site) -> None:
    before = os.umask(0o077)
    try:
        install(site)
    finally:
        os.umask(before)
    folder = site.paths.home / "releases" / "r9"
    modes = {oct(path.stat().st_mode & 0o777) for path in (folder, *folder.rglob("*")) if not path.is_symlink()}
    assert modes == {"0o755", "0o644"}
    assert os.access(folder / "venv" / "bin" / "iris-api", os.X_OK)


@pytest.mark.parametrize("damage", ["cut", "other", "gone", "list"])
def test_what_was_damaged_is_found_and_mended(site: Site, damage: str) -> None:
    install(site)
    folder = site.paths.home / "releases" / "r9"
    wheel = folder / "wheels" / "a.whl"
    if damage == "cut":
        wheel.write_bytes(b"wheel")
    elif damage == "other":
        wheel.write_bytes(b"WHEEL" * 100)
    elif damage == "gone":
        wheel.unlink()
    else:
        (folder / "files.json").write_text("[")
    said = site.call("present", "--release", "r9", "--model", "m1")
    assert missing(site) == ["releases"] and str(folder) in said["message"]
    # Who runs from it goes on.
    inside = os.open(folder, os.O_RDONLY)
    assert install(site)
    assert missing(site) == [] and wheel.read_bytes() == b"wheel" * 100
    assert os.listdir(inside) == []
    os.close(inside)


def test_after_a_boot_all_is_hashed_once(site: Site) -> None:
    """What a power cut took has the size and the time that it should have."""
    install(site)
    wheel = site.paths.home / "releases" / "r9" / "wheels" / "a.whl"
    assert missing(site) == []
    state = wheel.stat()
    wheel.write_bytes(bytes(500))
    os.utime(wheel, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert missing(site) == []
    for path in (site.paths.run / "checked").iterdir():
        path.unlink()
    assert missing(site) == ["releases"]


@pytest.mark.parametrize("files", range(3))
def test_a_removal_that_is_cut_leaves_nothing_that_passes_as_whole(
    site: Site, monkeypatch: pytest.MonkeyPatch, files: int
) -> None:
    """After any number of its files; the next one removes what is left, and nobody takes that for a release."""
    install(site)
    site.deployed()
    left, home = iter(range(files)), site.paths.home
    monkeypatch.setattr("iris_deploy.store.FRESH_SECONDS", -1)
    unlink = os.unlink

    def cut(*arguments: Any, **options: Any) -> None:
        if next(left, None) is None:
            raise SystemExit
        unlink(*arguments, **options)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        # What the order on the disk may have first: without its list a release is taken as whole.
        unlink(home / "releases" / "r9" / "files.json")
        patch.setattr(os, "unlink", cut)
        site.host.store.prune(site.host.history.passed())
    assert missing(site) == ["releases"]
    monkeypatch.undo()
    assert [path.name for path in (home / "releases").iterdir() if path.name != "r1"] == [".r9.gone"]
    assert site.host.store.prune(site.host.history.passed()) == []
    assert [path.name for path in (home / "releases").iterdir()] == ["r1"]


def test_of_a_deployment_that_was_being_removed_nothing_is_left(site: Site) -> None:
    new, deployments = site.deployed(), site.paths.home / "deployments"
    shutil.copytree(deployments / new.id, deployments / ".0123456789.gone", symlinks=True)
    assert site.host.store.all() == [new]
    assert site.host.store.prune([new.id]) == []
    assert [path.name for path in deployments.iterdir()] == [new.id]


def test_a_file_that_was_only_touched_is_not_damaged(site: Site) -> None:
    install(site)
    os.utime(site.paths.home / "releases" / "r9" / "wheels" / "a.whl")
    assert missing(site) == []


def test_of_what_an_earlier_release_put_there_nothing_is_known(site: Site) -> None:
    site.deployment("r1")
    assert missing(site, "r1") == []


def test_verify_is_red_where_what_runs_was_damaged(site: Site) -> None:
    install(site, "models", "m9", archive(site, {"manifest.json": b"{}"}))
    site.deployment()
    new = site.deployment(model="m9")
    for path in (site.paths.home / "models" / "m9").iterdir():
        path.unlink()
    install(site, "models", "m9", archive(site, {"manifest.json": b'{"task": "regression", "golden_samples": []}'}))
    site.deploy(new)
    assert not site.call("status", "--check").get("failed")
    (site.paths.home / "models" / "m9" / "manifest.json").write_text("{}")
    said = site.call("status", "--check")
    assert said["failed"] and "m9/manifest.json was damaged: `make converge`." in said["message"]


def test_two_at_once_make_it_once(site: Site) -> None:
    path, made = archive(site), []
    copies = [path.with_name(f"{number}.tar") for number in range(4)]
    for copy in copies:
        copy.write_bytes(path.read_bytes())
    threads = [
        threading.Thread(target=lambda copy=copy: made.append(artifacts.install(site.host, "releases", "r9", copy)))
        for copy in copies
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [False, False, False, True]
    assert missing(site) == []


def test_what_can_not_be_made_leaves_what_was_there(site: Site) -> None:
    install(site)
    folder = site.paths.home / "releases" / "r9"
    (folder / "wheels" / "a.whl").unlink()
    site.machine.pip_fails = True
    with pytest.raises(Failure, match=r"/venv/bin/python3 .*/pip install .*: as the test wants it"):
        install(site)
    assert (folder / ".complete").exists()
    with pytest.raises(Failure, match=r"releases/r9 could not be made: .*No such file"):
        install(site, path=site.paths.home / "none.tar")
    site.machine.pip_fails = False
    assert install(site)


def release(application: str, python: str = "3.13", packages: str = "numpy==2 --hash=sha256:1") -> dict[str, bytes]:
    """Return the members of a release, of an application of this hash and of other packages."""
    about = json.dumps({"settings": [], "python": python}).encode()
    lines = f"{packages}\niris_api==1 --hash=sha256:{application}\n"
    return MEMBERS | {"release.json": about, "requirements.txt": lines.encode()}


def has(site: Site, name: str) -> dict[str, str]:
    """Return what is installed in a release, and which application its program starts."""
    (packages,) = (site.paths.home / "releases" / name / "venv").glob("lib/*/site-packages")
    return {path.stem: path.read_text().rpartition(":")[2] for path in packages.iterdir()}


def test_only_the_application_is_installed_where_a_release_has_all_else(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert install(site, path=archive(site, release("a")))
    hashed: list[str] = []
    hash_of = artifacts._sha256

    def seen(path: Path | str) -> str:
        hashed.append(Path(path).name)
        return hash_of(path)

    monkeypatch.setattr(artifacts, "_sha256", seen)
    site.machine.commands.clear()
    assert install(site, name="r10", path=archive(site, release("b")))
    python, pip = site.machine.commands[0].argv[:2]
    assert (Path(python).parts[-4:], pip[-4:]) == ((".r10.new", "venv", "bin", "python3"), "/pip")
    assert [has(site, name) for name in ("r9", "r10")] == [{"numpy": "1", "iris_api": each} for each in "ab"]
    folder = site.paths.home / "releases" / "r10"
    assert (folder / "venv" / "bin" / "iris-api").read_text() == f"#!{folder}/venv/bin/python3\n"
    assert (folder / "venv" / "pyvenv.cfg").read_text() == f"command = python3 -m venv {folder}/venv\n"
    assert not (folder / "own.txt").exists()
    # Of what was copied the hash is known; all the same it is a file of its own, whose damage is found.
    assert "iris_api.py" in hashed and "numpy.py" not in hashed
    assert missing(site, "r10") == missing(site, "r9") == []
    next(folder.rglob("numpy.py")).write_text("damaged")
    assert (missing(site, "r10"), missing(site, "r9")) == (["releases"], [])
    assert install(site, name="r10", path=archive(site, release("b")))
    assert has(site, "r10")["numpy"] == "1"


@pytest.mark.parametrize("why", ["other packages", "another Python", "damaged", "of an earlier program", "no list"])
def test_all_is_installed_where_no_whole_release_has_the_same(site: Site, why: str) -> None:
    install(site, path=archive(site, release("a")))
    folder = site.paths.home / "releases" / "r9"
    new = release("b", python="3.11" if "Python" in why else "3.13")
    match why:
        case "other packages":
            new = release("b", packages="numpy==2 --hash=sha256:2")
        case "damaged":
            next(folder.rglob("numpy.py")).write_text("numpy==2 --hash=sha256:666")
        case "of an earlier program":
            (folder / "files.json").unlink()
        case "no list":
            (folder / "requirements.txt").write_text("")
    site.machine.commands.clear()
    assert install(site, name="r10", path=archive(site, new))
    assert site.machine.commands[0].argv[:3] == ("python3", "-m", "venv")
    assert has(site, "r10") == {"numpy": "2" if "packages" in why else "1", "iris_api": "b"}


def test_where_there_is_no_pip_it_is_said_what_to_install(site: Site) -> None:
    (site.paths.wheels / "pip-25.1.whl").rmdir()
    with pytest.raises(Failure, match=r"There is no pip in .*: apt-get install python3-venv"):
        install(site)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_an_archive_that_was_cut_is_one_sentence_and_leaves_nothing(
    site: Site, mode: Literal["w", "w:gz", "w:bz2", "w:xz"]
) -> None:
    path = archive(site)
    with tarfile.open(path, mode) as tar:
        for name in "ab":
            member = tarfile.TarInfo(name)
            content = b"".join(hashlib.sha256(bytes([number])).hexdigest().encode() for number in range(256))
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    (site.paths.home / "models").mkdir()
    whole = path.read_bytes()
    third = len(whole) // 3
    # The first file, whole, and nothing else.
    between = [tarfile.BLOCKSIZE + member.size] if mode == "w" else []
    for length in (0, 10, third, 2 * third, *between):
        path.write_bytes(whole[:length])
        with pytest.raises(Failure, match="models/m9 could not be made: "):
            install(site, "models", "m9", path)
    assert list((site.paths.home / "models").iterdir()) == []


@pytest.mark.parametrize("member", ["/etc/x", "../x", "a/../../x"])
def test_an_archive_writes_nowhere_else(site: Site, member: str) -> None:
    with pytest.raises(Failure, match="is no file of its own"):
        install(site, path=archive(site, {member: b""}))
    with pytest.raises(Failure, match="is no file of its own"):
        install(site, path=archive(site, link="a"))
    assert not (site.paths.home / "releases" / "r9").exists()
    with pytest.raises(Problem, match="is no name of a folder"):
        install(site, name="../r9")

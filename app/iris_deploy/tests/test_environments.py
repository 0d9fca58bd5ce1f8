"""A model that needs more than its release has is served in an environment that goes on in the release's."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from iris_api.bundle.environments import environment_id
from iris_deploy import Failure, Problem, store
from iris_deploy.store import Deployment, python

from .conftest import SAMPLES, Site, unit_text
from .test_archive import install as install_both
from .test_archive import tar

LOCK = {"file": "environment.txt", "sha256": "a" * 64}
BRINGS = {"task": "classification", "golden_samples": SAMPLES, "environment": {"locks": {python(): LOCK}}}


def upload(site: Site, kind: str, name: str, members: dict[str, bytes]) -> bool:
    archive = tar(site.paths.home / "uploads" / "x.tar", members)
    return bool(site.call("install", kind, name, str(archive))["changed"])


def identity(release: str = "r1", manifest: dict[str, Any] = BRINGS) -> str:
    return environment_id(release, manifest, python())


def install_environment(site: Site, release: str = "r1") -> bool:
    about = json.dumps({"id": identity(release), "release": release}).encode()
    members = {"environment.json": about, "requirements.txt": b"", "wheels/xgboost.whl": b"wheel" * 100}
    return upload(site, "environments", identity(release), members)


@pytest.fixture
def brought(site: Site) -> Callable[..., Deployment]:
    """Put a release and a model that needs an environment on the host, but not that."""

    def bring(release: str = "r1", model: str = "m1", engine: str = "auto", **manifest: Any) -> Deployment:
        install_both(site, release, "plain")
        upload(site, "models", model, {"manifest.json": json.dumps(BRINGS | manifest).encode()})
        return Deployment(release, model, f"IRIS_API_ENGINE={engine}\n", unit_text())

    return bring


def test_an_instance_starts_by_the_interpreter_of_its_environment(
    site: Site, brought: Callable[..., Deployment]
) -> None:
    new = brought()
    assert site.call("present", "--release=r1", "--model=m1", f"--environment={identity()}")["missing"] == [
        "environments"
    ]
    assert install_environment(site)
    assert not install_environment(site)
    assert site.call("present", "--release=r1", "--model=m1", f"--environment={identity()}")["missing"] == []
    folder, release = site.paths.home / "environments" / identity(), site.paths.home / "releases" / "r1"
    (packages,) = folder.glob("venv/lib/*/site-packages")
    assert (packages / "release.pth").read_text() == f"{release}/venv/lib/{packages.parent.name}/site-packages\n"
    assert (folder / "bin" / "iris-api").read_text() == "#!/bin/sh\n# r1\n"
    assert (folder / "venv" / "bin" / "iris-api").read_text() == f"#!{folder}/venv/bin/python3\n"
    assert os.access(folder / "venv" / "bin" / "iris-api", os.X_OK)
    assert site.deploy(new)["changed"]
    assert (site.host.store.path(new) / "app").resolve() == folder.resolve()
    # One that needs none starts from the release.
    plain = Deployment("r1", "plain", "IRIS_API_ENGINE=auto\n", unit_text())
    assert site.deploy(plain)["changed"]
    assert (site.host.store.path(plain) / "app").resolve() == release.resolve()


def test_no_instance_is_touched_where_the_environment_is_not_there(
    site: Site, brought: Callable[..., Deployment]
) -> None:
    new = brought()
    with pytest.raises(Problem, match=r"environments/r1\+\w+ is not on this host.* m1 needs it to be served by r1"):
        site.deploy(new)
    assert site.started == []
    # By ONNX Runtime it needs none.
    assert site.deploy(brought(engine="onnx"))["changed"]


def test_a_bundle_for_another_python_is_refused(site: Site, brought: Callable[..., Deployment]) -> None:
    new = brought(environment={"locks": {"3.99": LOCK}})
    with pytest.raises(Problem, match=rf"m1 has no environment for Python {python()}, which this host has"):
        site.deploy(new)


def test_a_damaged_environment_is_found_and_made_anew(site: Site, brought: Callable[..., Deployment]) -> None:
    new = brought()
    install_environment(site)
    assert site.deploy(new)["changed"]
    folder = site.paths.home / "environments" / identity()
    next(folder.rglob("more.py")).write_text("import nothing")
    said = site.call("status", "--check")
    assert said["failed"] and "more.py was damaged: `make converge`." in said["message"]
    assert install_environment(site)
    assert not site.call("status", "--check").get("failed")
    # One that was cut short is none.
    (folder / ".complete").unlink()
    with pytest.raises(Problem, match="is not on this host"):
        site.host.store.require(new)


def test_an_environment_is_made_of_a_whole_release_alone(site: Site, brought: Callable[..., Deployment]) -> None:
    brought()
    with pytest.raises(Problem, match=r"releases/r2 is not there, or not whole, so there can be no .*environments"):
        install_environment(site, "r2")
    site.machine.pip_fails = True
    with pytest.raises(Failure, match="pip install "):
        install_environment(site)
    site.machine.pip_fails = False
    about = {"environment.json": json.dumps({"release": "../../etc"}).encode()}
    with pytest.raises(Problem, match="is no name of a folder"):
        upload(site, "environments", "x", about)
    with pytest.raises(Failure, match="could not be made"):
        upload(site, "environments", "x", {"environment.json": b"{}"})
    assert [path.name for path in (site.paths.home / "environments").glob("[!.]*")] == []


def test_a_rollback_finds_the_environment_of_what_it_goes_back_to(
    site: Site, brought: Callable[..., Deployment]
) -> None:
    first = brought()
    install_environment(site)
    assert site.deploy(first)["changed"]
    plain = Deployment("r1", "plain", first.environment, unit_text())
    assert site.deploy(plain)["changed"]
    assert site.call("rollback")["changed"]
    assert site.host.store.current == first
    # With another release it never ran, and has no environment: nothing is half rolled back.
    install_both(site, "r2", "plain")
    newer = Deployment("r2", "plain", first.environment, unit_text())
    assert site.deploy(newer, "--again")["changed"]
    site.machine.starts.clear()
    with pytest.raises(Problem, match=r"environments/r2\+\w+ is not on this host"):
        site.call("rollback", "--part", "model", "--to", "m1")
    assert site.started == []
    assert site.host.store.current == newer


def test_an_environment_that_no_deployment_uses_is_removed(
    site: Site, brought: Callable[..., Deployment], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = brought()
    install_environment(site)
    assert site.deploy(first)["changed"]
    folder = site.paths.home / "environments" / identity()
    site.host.store.prune([])
    assert folder.exists()
    plain = Deployment("r1", "plain", first.environment, unit_text())
    assert site.deploy(plain)["changed"]
    # Somebody may be about to deploy it: it is kept for an hour.
    assert f"environments/{identity()}" not in site.host.store.prune([plain.id])
    monkeypatch.setattr(store, "FRESH_SECONDS", -1)
    assert f"environments/{identity()}" in site.host.store.prune([plain.id])
    assert not folder.exists()


def test_a_backup_has_the_environments(site: Site, brought: Callable[..., Deployment], tmp_path: Path) -> None:
    new = brought()
    install_environment(site)
    assert site.deploy(new)["changed"]
    site.call("backup", str(tmp_path / "kept.tar"))
    fresh = Site(tmp_path / "fresh")
    assert fresh.call("restore", str(tmp_path / "kept.tar"))["changed"]
    assert fresh.host.store.current == new
    folder = fresh.paths.home / "environments" / identity()
    assert (folder / "wheels" / "xgboost.whl").read_bytes() == b"wheel" * 100
    (pth,) = folder.rglob("release.pth")
    assert str(fresh.paths.home / "releases" / "r1") in pth.read_text()

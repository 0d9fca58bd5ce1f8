"""tools/build-release packs what a bundle needs beside the release: by its hashes, and without running any of it."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests import ROOT

from .test_build_release import builder  # noqa: F401

HASH = f"--hash=sha256:{'0' * 64}"
LOCKED = f"numpy==2.4.6 {HASH}\nscikit-learn==1.9.1 {HASH}\nxgboost-cpu==3.2.0 \\\n    {HASH}\n"
OF_THE_HOST = "python_version == '3.13' and platform_machine == 'x86_64' and sys_platform == 'linux'"
RELEASE = f"numpy==2.4.6 {HASH}\nscikit-learn==1.9.1 {HASH}\nonnxruntime==1.32.0 {HASH}\n"


def wheel(name: str, version: str, *requires: str) -> bytes:
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    text += "".join(f"Requires-Dist: {each}\n" for each in requires)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.writestr(f"{name.replace('-', '_')}-{version}.dist-info/METADATA", text)
    return buffer.getvalue()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Builder:
    """What plans the environment of a bundle; an index is played by wheels in a dictionary."""

    def __init__(self, module: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.module, self.folder = module, folder
        self.bundle = Path(shutil.copytree(ROOT / "models" / "iris" / "1.0.0", folder / "bundle"))
        self.lock = folder / "app.txt"
        self.lock.write_text(RELEASE)
        self.index = {
            "numpy": wheel("numpy", "2.4.6"),
            "scikit-learn": wheel("scikit-learn", "1.9.1", "numpy>=1.24", "pandas>=9; extra == 'docs'"),
            "onnxruntime": wheel("onnxruntime", "1.32.0", "numpy>=1.21"),
            "xgboost-cpu": wheel("xgboost-cpu", "3.2.0", "numpy", "scipy"),
        }
        self.fetched: list[str] = []
        monkeypatch.setattr(module, "download", self.download)
        self.brings()

    def download(self, target: Path, lock: Path, python: str, machine: str) -> Path:
        target.mkdir(parents=True, exist_ok=True)
        for line in self.module.locked_for(lock, python, machine):
            name, version = line.split(" ")[0].split("==")
            self.fetched.append(name)
            (target / f"{name.replace('-', '_')}-{version}-py3-none-any.whl").write_bytes(self.index[name])
        return target

    def brings(self, text: str = LOCKED, code: bytes | None = None, **changes: Any) -> None:
        """Let the bundle bring an environment for Python 3.13."""
        (self.bundle / "environment-3.13.txt").write_text(text)
        own = {}
        if code is not None:
            (self.bundle / "features-1.0-py3-none-any.whl").write_bytes(code)
            own = {"features-1.0-py3-none-any.whl": sha256(code)}
        lock = {"file": "environment-3.13.txt", "sha256": sha256(text.encode())}
        about = {"packages": {}, "locks": {"3.13": lock}, "not_for": {"3.11": "no wheels"}, "code": own}
        path = self.bundle / "manifest.json"
        content = json.loads(path.read_text()) | {"format": 3, "environment": about, "onnx": None} | changes
        path.write_text(json.dumps({"no_onnx_reason": "because"} | content))

    def plan(self, python: str = "3.13", engine: str = "auto", requirements: tuple[str, ...] = ()) -> Any:
        package = self.module.Package(self.folder, "1.2.0", [], "", [], list(requirements))
        release = self.module.Artifact("r1", self.folder / "r1.tar", lambda _: None)
        self.download(self.module.kept_wheels(self.folder, self.lock, python, "x86_64"), self.lock, python, "x86_64")
        self.fetched.clear()
        content = (self.bundle / "manifest.json").read_bytes()
        return self.module.plan_environment(
            release, package, self.lock, self.bundle, engine, self.folder, (python, "x86_64"), 10**7, content
        )

    def build(self) -> dict[str, bytes]:
        environment = self.plan()
        environment.build()
        with tarfile.open(environment.archive) as tar:
            return {each.name: (tar.extractfile(each) or io.BytesIO()).read() for each in tar}


@pytest.fixture
def build(builder: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Builder:  # noqa: F811
    return Builder(builder, tmp_path, monkeypatch)


def test_only_what_the_release_has_not_got_is_fetched(build: Builder) -> None:
    code = wheel("features", "1.0")
    build.brings(code=code)
    members = build.build()
    assert build.fetched == ["xgboost-cpu"]
    assert members["requirements.txt"].decode().splitlines() == [
        f"xgboost-cpu==3.2.0 {HASH}",
        f"features==1.0 --hash=sha256:{sha256(code)}",
    ]
    assert {name for name in members if name.startswith("wheels/")} == {
        "wheels/xgboost_cpu-3.2.0-py3-none-any.whl",
        "wheels/features-1.0-py3-none-any.whl",
    }
    about = json.loads(members["environment.json"])
    assert (about["release"], about["python"]) == ("r1", "3.13")
    # As the host calls it.
    assert re.fullmatch(r"r1\+[0-9a-f]{10}", about["id"])


def test_another_version_takes_the_place_of_the_releases(build: Builder) -> None:
    build.index["scikit-learn"] = wheel("scikit-learn", "1.8.0", "numpy>=1.24")
    build.brings(LOCKED.replace("1.9.1", "1.8.0"))
    build.build()
    assert build.fetched == ["scikit-learn", "xgboost-cpu"]


def test_a_model_of_the_release_alone_has_no_environment(build: Builder) -> None:
    build.brings(environment=None)
    assert build.plan() is None
    build.brings()
    assert build.plan(engine="onnx") is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (f"numpy @ https://elsewhere.example/numpy.whl {HASH}\n", "it is no lock with hashes"),
        ("numpy==2.4.6\n", "it is no lock with hashes"),
        (f"numpy>=2 {HASH}\n", "it is no lock with hashes"),
        (f"numpy==2.4.6 {HASH} --index-url=https://elsewhere.example\n", "it is no lock with hashes"),
        (f"--index-url https://elsewhere.example {HASH}\n", "it is no lock with hashes"),
        (f"-r /etc/passwd {HASH}\n", "it is no lock with hashes"),
    ],
)
def test_a_lock_leads_nowhere_else(build: Builder, text: str, complaint: str) -> None:
    build.brings(text)
    with pytest.raises(build.module.BuildError, match=complaint):
        build.plan()


def test_what_the_manifest_does_not_vouch_for_is_not_fetched(build: Builder) -> None:
    with (build.bundle / "environment-3.13.txt").open("a") as file:
        file.write(f"evil==1.0 {HASH}\n")
    with pytest.raises(build.module.BuildError, match=r"environment-3\.13\.txt: its sha256 is not the one"):
        build.plan()
    build.brings(code=wheel("features", "1.0"))
    (build.bundle / "features-1.0-py3-none-any.whl").write_bytes(wheel("features", "1.1"))
    with pytest.raises(build.module.BuildError, match=r"features-1\.0.*its sha256 is"):
        build.build()
    assert not list(build.folder.glob("environments/*.tar"))


def test_a_host_of_another_python_is_told_why(build: Builder) -> None:
    with pytest.raises(
        build.module.BuildError, match=r"for Python 3\.11, which the host has, but for 3\.13: no wheels"
    ):
        build.plan("3.11")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            lambda build: build.plan(requirements=("scikit-learn>=2",)),
            r"The application requires scikit-learn>=2, but the bundle brings scikit-learn 1\.9\.1",
        ),
        (
            lambda build: (
                build.index.update({"onnxruntime": wheel("onnxruntime", "1.32.0", "numpy>=3")}) or build.build()
            ),
            r"onnxruntime 1\.32\.0 requires numpy>=3, but release and bundle together have numpy 2\.4\.6",
        ),
        (
            lambda build: (
                build.index.update({"xgboost-cpu": wheel("xgboost-cpu", "3.2.0", "numpy<2")}) or build.build()
            ),
            r"xgboost-cpu 3\.2\.0 requires numpy<2, but release and bundle together have numpy 2\.4\.6",
        ),
        (
            lambda build: (
                build.index.update({"xgboost-cpu": wheel("xgboost-cpu", "3.2.0", f"numpy<2; {OF_THE_HOST}")})
                or build.build()
            ),
            r"xgboost-cpu 3\.2\.0 requires numpy<2, but release and bundle together have numpy 2\.4\.6",
        ),
    ],
)
def test_a_conflict_names_both(build: Builder, change: Callable[[Builder], object], complaint: str) -> None:
    with pytest.raises(build.module.BuildError, match=complaint):
        change(build)


@pytest.mark.parametrize(
    "marker",
    [
        'python_version >= "3.14"',
        'python_full_version < "3.13"',
        'platform_machine == "aarch64"',
        'sys_platform == "win32"',
        'extra == "docs"',
        'python_version < "3.13" or extra == "docs"',
    ],
)
def test_what_is_not_required_on_the_host_is_no_conflict(build: Builder, marker: str) -> None:
    """As of pandas: numpy>=2.3.3; python_version >= "3.14"."""
    build.index["xgboost-cpu"] = wheel("xgboost-cpu", "3.2.0", "numpy>=1.26", f"numpy>=3; {marker}")
    assert "wheels/xgboost_cpu-3.2.0-py3-none-any.whl" in build.build()


def test_a_model_of_another_scikit_learn_without_an_environment_is_refused_before_anything_is_built(
    build: Builder,
) -> None:
    libraries = {"scikit-learn": "1.5.2"}
    build.brings(environment=None, libraries=libraries)
    with pytest.raises(
        build.module.BuildError, match=r"scikit-learn 1\.5\.2, and the release has 1\.9\.1.*--environment always"
    ):
        build.plan()

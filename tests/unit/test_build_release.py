"""tools/build-release can build what a Git revision holds."""

from __future__ import annotations

import subprocess
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT


@pytest.fixture(scope="module")
def builder() -> ModuleType:
    loader = SourceFileLoader("build_release", str(ROOT / "tools" / "build-release"))
    spec = spec_from_loader(loader.name, loader)
    assert spec
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_a_revision_is_checked_out_once(builder: ModuleType, tmp_path: Path) -> None:
    folder = builder.checkout(tmp_path, "HEAD")
    shown = subprocess.run(["git", "show", "HEAD:app/pyproject.toml"], cwd=ROOT, capture_output=True, check=True)
    assert (folder / "app" / "pyproject.toml").read_bytes() == shown.stdout
    assert (folder / "requirements" / "app.txt").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["sources"]
    assert builder.checkout(tmp_path, "HEAD") == folder


def test_what_is_no_revision_is_refused(builder: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(builder.BuildError, match=r"'v0.0.0', which is no revision"):
        builder.checkout(tmp_path, "v0.0.0")

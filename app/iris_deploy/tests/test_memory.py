"""iris-deploy refuses what there is no memory for, before anything is touched, and says what to set."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from iris_deploy import Problem
from iris_deploy.commands import Command
from iris_deploy.machine import Machine
from iris_deploy.memory import MB, Available, Need, UnknownError, ask_need, memory_max, require
from iris_deploy.store import Deployment, Store

ROOT = Path(__file__).parents[3]
GB = 1000 * MB
# The forest of 234 MB that was served by ONNX Runtime under MemoryMax=512M.
FOREST = {
    "onnx": {"call_us": 9, "row_us": 4, "memory_mb": 1300},
    "sklearn": {"call_us": 5e3, "row_us": 9, "memory_mb": 454},
}


def unit(memory: str = "512M") -> str:
    return f"[Service]\nMemoryMax=1\nExecStart=/bin/true MemoryMax=7\nMemoryMax={memory}\n"


def need(engine: str = "sklearn") -> Need:
    sizes = {"sklearn": 484.0 * MB, "onnx": 1330.0 * MB}
    return Need(engine, sizes[engine], sizes)


def deployment(memory: str = "512M") -> Deployment:
    return Deployment("r1", "forest-1", "", unit(memory))


def test_what_fits_is_not_refused() -> None:
    require(need(), deployment(), 3, Available(total=4 * GB, free=2 * GB, held=0))
    # The instances that run now give their memory back; the candidate alone needs some beside them.
    require(need(), deployment(), 3, Available(total=2 * GB, free=490 * MB, held=1450 * MB))


def test_an_instance_beyond_its_own_bound_is_refused_with_what_to_set() -> None:
    with pytest.raises(Problem) as refused:
        require(need("onnx"), deployment(), 3, Available(total=64 * GB, free=64 * GB, held=0))
    assert str(refused.value) == (
        "An instance of forest-1 takes 1330 MB by onnx, but its unit allows 537 MB: the kernel would end it. "
        "Nothing was touched. Set iris_api_memory_max: 1400M, or iris_api_engine: sklearn (484 MB)."
    )
    require(need("onnx"), deployment("1400M"), 3, Available(total=64 * GB, free=64 * GB, held=0))
    with pytest.raises(Problem, match=r"Set iris_api_memory_max: 1400M\.$"):
        require(need("onnx"), deployment("400M"), 3, Available(total=64 * GB, free=64 * GB, held=0))


@pytest.mark.parametrize(
    ("available", "advice"),
    [
        (Available(2 * GB, 1 * GB, 500 * MB), "Set fortress_api_instances: 2, or give"),
        (Available(2 * GB, 900 * MB, 0), "Set or give"),
        # All would fit, but not the candidate beside what runs.
        (Available(4 * GB, 400 * MB, 3 * GB), "Set or give"),
    ],
)
def test_instances_and_candidate_beyond_the_host_are_refused(available: Available, advice: str) -> None:
    with pytest.raises(Problem) as refused:
        require(need(), deployment(), 3, available)
    said = str(refused.value)
    assert "3 of them and the candidate that is tried beside them take 1936 MB, but this host has" in said
    assert advice.replace("Set or", "or") in said


def test_a_smaller_engine_is_advised_where_it_fits() -> None:
    with pytest.raises(Problem, match=r"iris_api_engine: sklearn \(484 MB each\)"):
        require(need("onnx"), deployment("infinity"), 3, Available(4 * GB, 3 * GB, 0))


@pytest.mark.parametrize(
    ("given", "bytes_"),
    [
        ("512M", 512 * 2**20),
        ("1.5G", 3 * 2**29),
        ("1000", 1000),
        ("50%", 500),
        ("infinity", None),
        ("", None),
    ],
)
def test_the_bound_is_read_as_systemd_reads_it(given: str, bytes_: int | None) -> None:
    assert memory_max(unit(given), 1000) == bytes_


def test_a_host_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text(
        "MemTotal:  2000 kB\nMemFree:  10 kB\nMemAvailable:  700 kB\nHugePages_Total:  0\n"
    )
    slices = "/system.slice/system-iris\\x2dapi.slice"
    for number, (path, pss) in enumerate(
        [
            (f"0::{slices}/iris-api@1.service", 100),
            (f"12:memory:/\n1:name=systemd:{slices}/iris-api@22.service\n0::/", 20),
            (f"0::{slices}/iris-api@candidate.service", 3),
            ("0::/system.slice/nginx.service", 4),
        ]
    ):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "cgroup").write_text(path + "\n")
        (tmp_path / str(number) / "smaps_rollup").write_text(
            f"0-1 ---p\nRss:  999 kB\nPss:  {pss} kB\nPss_Dirty:  7 kB\n"
        )
    (tmp_path / "99").mkdir()
    assert Available.here(tmp_path) == Available(2000 * 1024, 700 * 1024, 120 * 1024)
    here = Available.here()
    assert 0 < here.free < here.total


class AsMe(Machine):
    """There need be no user iris-api."""

    def run(self, command: Command) -> subprocess.CompletedProcess[str]:
        assert command.user == "iris-api"
        return super().run(dataclasses.replace(command, user=None))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A host with a release, whose program is that of this checkout, and a model."""
    program = tmp_path / "releases" / "r1" / "bin" / "iris-api"
    program.parent.mkdir(parents=True)
    source = ROOT / "app" / "iris_api" / "src"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={source} exec {sys.executable} -m iris_api.server.command "$@"\n')
    program.chmod(0o755)
    shutil.copytree(ROOT / "models" / "iris" / "1.0.0", tmp_path / "models" / "forest-1")
    return Store(tmp_path, AsMe())


def ask(store: Store, environment: str, costs: Any = FOREST) -> Need:
    path = store.home / "models" / "forest-1" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 3, "costs": costs}))
    return ask_need(AsMe(), store, Deployment("r1", "forest-1", f"# IRIS_API_ENGINE=x\n{environment}", unit()))


@pytest.mark.parametrize(
    ("environment", "engine"),
    [
        ("IRIS_API_ENGINE=auto\nIRIS_API_MEMORY_MAX=536870912\n", "sklearn"),
        ("IRIS_API_ENGINE=onnx\nIRIS_API_MEMORY_MAX=536870912\n", "onnx"),
        ("IRIS_API_ENGINE=sklearn\n", "sklearn"),
    ],
)
def test_the_application_says_by_which_engine_it_would_serve_and_what_that_takes(
    store: Store, environment: str, engine: str
) -> None:
    found = ask(store, environment)
    assert (found.engine, found.by_engine) == (engine, {"onnx": 1330 * MB, "sklearn": 484 * MB})
    assert found.bytes == found.by_engine[engine]


def test_what_is_not_known_is_said(store: Store) -> None:
    with pytest.raises(UnknownError, match="packed before costs were measured"):
        ask(store, "", None)
    with pytest.raises(UnknownError, match=r"does not tell what it takes, but: IRIS_API_MAX_ROWS='0'"):
        ask(store, "IRIS_API_MAX_ROWS=0\n")
    (store.home / "releases" / "r1" / "bin" / "iris-api").write_text("#!/bin/sh\necho No module named x >&2\nexit 1\n")
    with pytest.raises(UnknownError, match="does not tell what it takes, but: No module named x"):
        ask(store, "")
    shutil.rmtree(store.home / "releases")
    with pytest.raises(UnknownError, match="could not be asked"):
        ask(store, "")

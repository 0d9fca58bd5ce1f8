"""What holds under one of OpenBLAS' kernels holds under all of them: the tests marked `kernel` run under each.

OpenBLAS takes a kernel when numpy is loaded, by the processor or by OPENBLAS_CORETYPE. Another one rounds the last bits
of a product differently, and so does another processor.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT

TESTS = ROOT / "app" / "iris_api" / "tests"

# What a kernel needs of a processor, as /proc/cpuinfo calls it. One that lacks it would end in SIGILL.
NEEDS = {
    "Haswell": {"avx2", "fma"},
    "SkylakeX": {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
    "Zen": {"avx2", "fma"},
    "Nehalem": {"sse4_2"},
}
PRINT_KERNEL = """
import numpy, threadpoolctl
print(*{each["architecture"] for each in threadpoolctl.threadpool_info() if each["internal_api"] == "openblas"})
"""


def processor() -> set[str]:
    """Return the flags of this machine's processor; none if it is of another kind than the kernels are for."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())


def computing(kernel: str | None = None) -> str:
    """Return the name of the kernel that computes if this one is asked for: a build need not have each of them."""
    environment = os.environ | ({"OPENBLAS_CORETYPE": kernel} if kernel else {})
    done = subprocess.run([sys.executable, "-c", PRINT_KERNEL], env=environment, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.mark.parametrize("kernel", NEEDS)
def test_answers_hold_under_each_kernel(kernel: str) -> None:
    if lacking := NEEDS[kernel] - processor():
        pytest.skip(f"{kernel} did not run: this processor has no {', '.join(sorted(lacking))}")
    takes = computing(kernel)
    # Nothing runs twice: neither what this very run computes with, nor a kernel that this OpenBLAS lacks.
    if takes == computing():
        pytest.skip(f"OPENBLAS_CORETYPE={kernel} takes the kernel {takes}, which all the other tests of this run take")
    if takes != kernel:
        assert takes in NEEDS, f"OPENBLAS_CORETYPE={kernel} takes the kernel {takes!r}"
        pytest.skip(f"this OpenBLAS has no kernel {kernel} and takes {takes}, which has a run of its own")
    options = ["-q", "-m", "kernel", "-p", "no:cacheprovider", "--numprocesses=auto", "--dist=loadfile"]
    command = [sys.executable, "-m", "pytest", *options, str(TESTS)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OPENBLAS_CORETYPE": kernel})
    assert done.returncode == 0, f"OPENBLAS_CORETYPE={kernel}\n{done.stdout}{done.stderr}"

"""What `tests/matrix` packs by the control node's Python is served by the host's, which is another release's.

A pickle of joblib names its classes, and so goes from one Python to the other. Bundles of `make test-matrix` are taken
if they are not stale. The host's Python is that of the deployed release; what XGBoost and the like need lies beside it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from testinfra.host import Host

from tests import ROOT
from tests.controller import environment
from tests.matrix import bundles, libraries, served
from tests.matrix.cases import CASES

testinfra_hosts = ["ansible://api"]

INTERPRETER = "/opt/iris-api/instances/1/app/venv/bin/python"
# Each bundle is asked by one thread, as an instance does.
COMMAND = "env -C {0} PYTHONPATH={0}:{0}/libraries OMP_NUM_THREADS=1 {1} -W ignore -m tests.matrix.served {0}/matrix/*"


@pytest.fixture
def python(host: Host) -> str:
    """The version of the host's Python, where it is another than this machine's."""
    version = str(host.check_output(f"{INTERPRETER} -c 'import sys; print(*sys.version_info[:2], sep=chr(46))'"))
    if version == ".".join(map(str, sys.version_info[:2])):
        pytest.skip(f"by Python {version} `make test-matrix` asks them on the control node")
    return version


@pytest.fixture
def place(host: Host) -> Iterator[str]:
    """A folder on the host."""
    folder = str(host.check_output("mktemp -d /var/tmp/matrix.XXXXXX"))
    yield folder
    host.check_output(f"rm -r {folder}")


def test_bundles_are_served_by_the_python_of_another_release(
    host: Host, inventory: str, python: str, place: str, tmp_path: Path
) -> None:
    more = {"PYTHONPATH": f"{ROOT / 'app' / 'iris_api' / 'src'}:{ROOT}"}
    subprocess.run([sys.executable, "-m", "tests.matrix.bundles", bundles.FOLDER], env=os.environ | more, check=True)
    libraries.fetch(python, tmp_path / "libraries")
    with tarfile.open(tmp_path / "matrix.tar", "w") as archive:
        archive.add(tmp_path / "libraries", "libraries")
        archive.add(ROOT / "tests" / "__init__.py", "tests/__init__.py")
        for path in (ROOT / "tests" / "matrix").glob("*.py"):
            archive.add(path, f"tests/matrix/{path.name}")
        for number in range(len(CASES)):
            archive.add(bundles.folder_of(number), f"matrix/{number:02}")
    command = [str(ROOT / ".venv" / "bin" / "ansible"), "-i", str(Path(inventory).absolute()), "api", "--become"]
    command += ["-m", "ansible.builtin.unarchive", "-a", f"src={tmp_path / 'matrix.tar'} dest={place}"]
    subprocess.run(command, cwd=ROOT, env=environment(), check=True, capture_output=True)
    answers = list(map(json.loads, host.check_output(COMMAND.format(place, INTERPRETER)).splitlines()))
    asked = {
        (case.name, engine)
        for number, case in enumerate(CASES)
        for engine in served.engines_of(bundles.folder_of(number))
    }
    assert {(each["case"], each["engine"]) for each in answers} == asked
    assert [each for each in answers if each["error"]] == []

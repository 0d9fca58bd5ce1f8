"""The OpenAPI that the gateway publishes is true of the gateway: schemathesis finds nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx

from tests import ROOT

RULES = ROOT / "app" / "iris_api" / "tests" / "schemathesis.toml"
PHASES = ("examples", "coverage", "fuzzing", "stateful")
# Not in the arguments, where everybody on the machine could read the password.
ACCESS = """
[auth]
basic = { username = "${FORTRESS_USER}", password = "${FORTRESS_PASSWORD}" }
"""


def test_schemathesis_finds_nothing(client: httpx.Client, tmp_path: Path) -> None:
    """All its phases and checks."""
    published = client.get("/openapi.json").json()["paths"]
    (tmp_path / "schemathesis.toml").write_text(RULES.read_text() + ACCESS)
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        f"--config-file={tmp_path / 'schemathesis.toml'}",
        "run",
        "--checks=all",
        f"--phases={','.join(PHASES)}",
        f"--max-examples={os.environ.get('SCHEMATHESIS_EXAMPLES', '30')}",
        "--seed=1",
        f"--tls-verify={os.environ['FORTRESS_CA']}",
        "--no-color",
        str(client.base_url.join("/openapi.json")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout[:2000] + done.stdout[-4000:]
    print(done.stdout[-600:])
    assert re.search(rf"Tested: +{sum(map(len, published.values()))}\n", done.stdout), done.stdout
    for phase in PHASES:
        assert re.search(rf"✅ +{phase.title()}\n", done.stdout), f"{phase} did not run:\n{done.stdout}"

"""What is committed: no secret, no address of a package index, nothing a run made."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests import ROOT

TRACKED = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
    "\0"
)[:-1]
SECRETS = re.compile(
    r"-----BEGIN ([A-Z]+ )?PRIVATE KEY-----"  # a key
    r"|^[\w.-]+:(\{SSHA\}|\$apr1\$|\$2[aby]\$|\$[56y]\$)",  # a line of an htpasswd
    re.MULTILINE,
)


def test_there_is_something_to_look_at() -> None:
    assert "README.md" in TRACKED


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("-----BEGIN EC " + "PRIVATE KEY-----\n", True),
        ("admin:" + "$apr1$abc$def\n", True),
        ("iris:" + "{SSHA}abc=\n", True),
        ("a key and a password\n", False),
    ],
)
def test_a_secret_is_known_when_seen(text: str, secret: bool) -> None:
    assert bool(SECRETS.search(text)) == secret


def test_no_secret_is_committed() -> None:
    files = [ROOT / name for name in TRACKED if (ROOT / name).is_file()]
    guilty = [str(file) for file in files if SECRETS.search(file.read_text(errors="replace"))]
    assert guilty == []


def test_nothing_below_a_secrets_folder_is_committed() -> None:
    assert [name for name in TRACKED if "/secrets/" in name] == []


@pytest.mark.parametrize("name", [name for name in TRACKED if re.fullmatch(r"requirements/[\w-]+\.txt", name)])
def test_a_lock_file_pins_by_hash_and_names_no_index(name: str) -> None:
    text = (ROOT / name).read_text()
    assert not re.search(r"index-url|find-links|https?://", text)
    requirements = re.split(r"\n(?=[a-z])", text.replace("\\\n", ""))
    assert requirements
    for requirement in requirements:
        assert re.match(r"[\w.-]+==\S+ ", requirement), requirement[:80]
        assert "--hash=sha256:" in requirement, requirement[:80]

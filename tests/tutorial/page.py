"""What docs/tutorial.md tells its readers to type, taken from the page and run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from markdown_it import MarkdownIt

from tests import ROOT

PAGE = ROOT / "docs" / "tutorial.md"
# The commands that reach a site are those before this section.
AFTERWARDS = "5. "


def sections() -> dict[str, str]:
    """Return the text below each heading."""
    _, *parts = re.split(r"^## (.+)\n", PAGE.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def commands(text: str) -> list[str]:
    """Return the commands of a part of the page: the lines of its indented code."""
    blocks = (token.content for token in MarkdownIt().parse(text) if token.type == "code_block")
    return [line for block in blocks for line in block.splitlines() if line]


def program() -> str:
    """Return the program that stands for the reader's notebook."""
    (found,) = [token.content for token in MarkdownIt().parse(PAGE.read_text()) if token.type == "fence"]
    return found


def to_a_site() -> list[str]:
    """Return the commands from a DataFrame to a deployed site; what follows them in the last section is more to try."""
    texts = [text for title, text in sections().items() if title < AFTERWARDS]
    found = [command for text in texts for command in commands(text)]
    return found[: found.index("make predict") + 1]


def make_notebook(folder: Path) -> None:
    """Put the environment of these tests where the reader makes one of his own: `what_is_installed` compares both."""
    place = folder / "notebook" / "bin"
    place.mkdir(parents=True)
    source = shlex.quote(str(ROOT / "app" / "iris_api" / "src"))
    programs = {"python": "", "iris-model": "-P -m iris_api.packing.cli"}
    for name, module in programs.items():
        text = f'#!/bin/sh\nPYTHONPATH={source} exec {shlex.quote(sys.executable)} {module} "$@"\n'
        (place / name).write_text(text)
        (place / name).chmod(0o755)
    (folder / "train.py").write_text(program())


def run(command: str, folder: Path) -> str:
    """Run a command as the reader does; return what it printed, or fail with all that it said."""
    done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@contextmanager
def serving(command: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Have a command serve within the block; it is there once it has printed where its metrics are."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        ["bash", "-c", f"exec {command}"], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout
        try:
            assert any("/metrics" in line for line in server.stdout), "it ended"
            yield server
        finally:
            server.terminate()

"""Nothing in the documents is dead: links and headings, and in code the paths, make's targets and variables."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from itertools import pairwise
from pathlib import PurePosixPath

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests import ROOT

TRACKED = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
    "\0"
)[:-1]
FOLDERS = {str(folder) for name in TRACKED for folder in PurePosixPath(name).parents} - {"."}
TOP = {name.partition("/")[0] for name in TRACKED if "/" in name}
PAGES = [name for name in TRACKED if name.endswith(".md")]
# A changelog names what is no more, and a card what somebody else's bundle has.
OF_TODAY = [name for name in PAGES if name != "CHANGELOG.md" and not name.startswith("models/")]
# Of readers' own.
EXAMPLES = ("inventory/prod", "models/churn")

MARKDOWN = MarkdownIt("commonmark").enable("table")
IN_CODE = re.compile(r"(?<![\w./~$}-])((?:[\w.@*-]+/)+[\w.@*-]*)")
ANY_NAME = re.compile(r"\b(?:NAME|VERSION|USER|ID|N)\b")
TARGET = re.compile(r"\bmake (?:-s )?([a-z]+(?:-[a-z0-9]+)*)\b(?![./=])")
VARIABLE = re.compile(
    r"\b(?:fortress|base|pki|iris_api|nginx|nginx_exporter|node_exporter|blackbox_exporter|mtail|alertmanager|prometheus|grafana)"
    r"_[a-z0-9_]*[a-z0-9]\b"
)


def tokens(text: str) -> Iterator[Token]:
    for token in MARKDOWN.parse(text):
        yield token
        yield from token.children or ()


def code(text: str) -> Iterator[str]:
    """Yield each piece of code of a page; what Sphinx is told is none."""
    for token in tokens(text):
        if token.type in ("code_inline", "code_block") or (token.type == "fence" and not token.info.startswith("{")):
            yield token.content


@cache
def anchors(name: str) -> set[str]:
    """Return the names under which a forge, and Sphinx, know the headings of a page."""
    found: dict[str, int] = {}
    names = set()
    content = list(MARKDOWN.parse((ROOT / name).read_text(encoding="utf-8")))
    for token, inline in pairwise(content):
        if token.type == "heading_open":
            words = "".join(part.content for part in inline.children or () if part.type in ("text", "code_inline"))
            slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
            seen = found[slug] = found.get(slug, -1) + 1
            names.add(f"{slug}-{seen}" if seen else slug)
    return names


def dead_links(name: str, text: str) -> list[str]:
    """Return the links of a page, and its pictures, that lead nowhere in the repository."""
    dead = []
    for token in tokens(text):
        link = str(token.attrGet("href") or token.attrGet("src") or "")
        if not link or re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent.joinpath(path).resolve().relative_to(ROOT).as_posix() if path else name
        known = anchors(target) if target in TRACKED and target.endswith(".md") else set()
        if (target not in TRACKED and target not in FOLDERS) or (anchor and anchor not in known):
            dead.append(link)
    return dead


def missing_paths(text: str) -> list[str]:
    """Return the paths in the code of a page that are not in the repository; NAME and * stand for any name."""
    missing = []
    for path in (path.rstrip("/.") for piece in code(text) for path in IN_CODE.findall(piece)):
        parts = path.split("/")
        if parts[0] not in TOP or "secrets" in parts or path.startswith(EXAMPLES):
            continue
        pattern = ANY_NAME.sub("*", path)
        if not any(fnmatchcase(known, pattern) for known in (*TRACKED, *FOLDERS)):
            missing.append(path)
    return missing


def missing_targets(text: str) -> list[str]:
    """Return what the code of a page has make do and the Makefile can't."""
    rules = re.findall(r"^([a-z][a-z0-9%-]*(?: [a-z0-9%-]+)*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    known = [target.replace("%", "*") for rule in rules for target in rule.split()]
    asked = (name for piece in code(text) for name in TARGET.findall(piece))
    return [name for name in asked if not any(fnmatchcase(name, target) for target in known)]


@cache
def program_text() -> str:
    """Return all that is no document, and no test of one."""
    others = (name for name in TRACKED if not name.startswith("tests/docs/"))
    files = [ROOT / name for name in others if not name.endswith((".md", ".svg", ".joblib", ".onnx"))]
    return "\n".join(file.read_text(encoding="utf-8", errors="replace") for file in files if file.is_file())


def missing_variables(text: str) -> list[str]:
    """Return names of settings and metrics in the code of a page that nothing else knows."""
    names = {name for piece in code(text) for name in VARIABLE.findall(piece)}
    return sorted(name for name in names if not any(spelling in program_text() for spelling in spellings(name)))


def spellings(name: str) -> tuple[str, ...]:
    """Return how a program may write a name: a metric also without its beginning, or without its end."""
    return name, f'{name.removesuffix("_total")}"', f'"{name.removeprefix("iris_api_")}"'


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_to_a_file_and_a_heading(name: str) -> None:
    assert dead_links(name, (ROOT / name).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("name", OF_TODAY)
def test_what_a_page_names_in_code_is_there(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert {
        "paths": missing_paths(text),
        "targets of make": missing_targets(text),
        "variables": missing_variables(text),
    } == {"paths": [], "targets of make": [], "variables": []}


def links(name: str) -> set[str]:
    """Return the pages of the repository that a page links to."""
    folder = (ROOT / name).parent
    found = tokens((ROOT / name).read_text(encoding="utf-8"))
    paths = [str(token.attrs["href"]).partition("#")[0] for token in found if token.type == "link_open"]
    return {os.path.relpath(folder / path, ROOT) for path in paths if path and "://" not in path}


def test_every_document_is_in_the_list_of_the_readme() -> None:
    """Those of `docs/why` in a list of their own; the rest are parts of the site alone."""
    documents = {name for name in PAGES if name.startswith("docs/")}
    of_the_site = {"docs/index.md", "docs/contributing.md", "docs/changelog.md"}
    assert documents - of_the_site - links("README.md") - links("docs/why/index.md") == set()


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


@pytest.mark.parametrize(
    ("text", "dead"),
    [
        ("[a](docs/operations.md#logs) ![b](docs/pictures/parts.svg) [c](roles) [d](https://example.com/no)", []),
        ("[a](docs/no-such-page.md)", ["docs/no-such-page.md"]),
        ("[a](docs/operations.md#no-such-heading)", ["docs/operations.md#no-such-heading"]),
        ("![a](docs/pictures/none.svg)", ["docs/pictures/none.svg"]),
        ("[a](#no-such-heading)", ["#no-such-heading"]),
    ],
)
def test_a_dead_link_is_found(text: str, dead: list[str]) -> None:
    assert dead_links("README.md", text) == dead


def test_what_is_not_there_is_found() -> None:
    text = "`roles/none/tasks`, `roles/NAME/tasks/`, `make up`, `make nothing`, `nginx_rate_limit`, `nginx_rat_limit`"
    assert missing_paths(text) == ["roles/none/tasks"]
    assert missing_targets(text) == ["nothing"]
    assert missing_variables(text) == ["nginx_rat_limit"]


def test_the_table_of_what_is_served_how_is_of_the_estimators_that_are_tested(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # It imports scikit-learn, which takes longer than all other tests of this module.
    from tests.matrix import table

    assert table.main(["--check"]) == 0, capsys.readouterr().out

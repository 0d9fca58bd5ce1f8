"""A Prometheus of this machine with made-up figures of a site, which serves the console pages; and what these show."""

from __future__ import annotations

import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

from tests import ROOT

ROLE = ROOT / "roles/prometheus/files/etc/prometheus"
STEP = 15
MINUTES = 15
Values = Callable[[float], float]
"""Seconds since the first sample to a value."""


def steady(value: float) -> Values:
    return lambda _: value


def growing(a_second: float) -> Values:
    return lambda seconds: a_second * seconds


def open_metrics(series: dict[str, Values], end: float) -> str:
    """Return samples of the last minutes in the format that promtool makes a database of."""
    lines = []
    first = end - MINUTES * 60
    for name in dict.fromkeys(name.partition("{")[0] for name in series):
        lines.append(f"# TYPE {name} unknown")
        for labelled, value in series.items():
            if labelled.partition("{")[0] == name:
                times = [first + STEP * number for number in range(MINUTES * 60 // STEP + 1)]
                lines += [f"{labelled.replace(', ', ',')} {value(moment - first):.9g} {moment:.3f}" for moment in times]
    return "\n".join([*lines, "# EOF", ""])


@contextmanager
def prometheus(program: str, promtool: str, folder: Path, series: dict[str, Values]) -> Iterator[str]:
    """Run Prometheus over these series, with the project's rules and pages; yield its address."""
    (folder / "series.om").write_text(open_metrics(series, time.time()))
    subprocess.run(
        [promtool, "tsdb", "create-blocks-from", "openmetrics", folder / "series.om", folder / "data"],
        capture_output=True,
        check=True,
    )
    (folder / "prometheus.yml").write_text(
        "global: {evaluation_interval: 1s, external_labels: {site: iris.example.com}}\n"
        f"rule_files: ['{ROLE}/rules/*.yml']\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [
        program,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        f"--web.console.templates={ROLE / 'consoles'}",
        "--log.level=warn",
    ]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline and process.poll() is None:
                with suppress(OSError), urllib.request.urlopen(f"{address}/-/ready", timeout=1):
                    break
                time.sleep(0.05)
            yield address
        finally:
            process.terminate()


def fetch(url: str) -> tuple[int, str]:
    """Return status and text; of an error too."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


class Text(HTMLParser):
    """What a page shows: the rows of its tables, and its links."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.links: list[str] = []
        self.in_cell = False
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Begin a row or a cell, note a link."""
        given = dict(attributes)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.in_cell = True
        if tag == "a":
            self.links.append(given.get("href") or "")

    def handle_endtag(self, tag: str) -> None:
        """End a cell."""
        self.in_cell = self.in_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        """Add text to the cell that it is in."""
        if self.in_cell:
            self.rows[-1][-1] = f"{self.rows[-1][-1]} {data.strip()}".strip()


def figures(page: str) -> dict[str, tuple[str, str]]:
    """Return each card's text and colour by its title."""
    cards = re.findall(r'<a class="card"[^>]*><span>(.*?)</span> <(?:b|small)(?: class="(\w+)")?>(.*?)</', page)
    return {unescape(title): (unescape(text), colour) for title, colour, text in cards}

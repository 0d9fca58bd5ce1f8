"""Draws the pictures of the documentation: `python3 docs/pictures/draw.py` writes an SVG beside this file for each.

They bring their own background, so that they can be read on a light page and on a dark one. tests/docs compares what is
committed with what this file draws; that could not be done with Mermaid's, which need a browser to be drawn, and
Graphviz places boxes differently from version to version.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from pathlib import Path

FOLDER = Path(__file__).resolve().parent

Point = tuple[float, float]

INK, QUIET, PAPER, EDGE = "#1f2328", "#57606a", "#ffffff", "#8c959f"
# Fill and edge of a box by its kind.
KINDS = {
    "outside": ("#f6f8fa", "#57606a"),
    "gateway": ("#ddf4ff", "#0969da"),
    "api": ("#dafbe1", "#1a7f37"),
    "monitoring": ("#fff8c5", "#9a6700"),
    "failure": ("#ffebe9", "#cf222e"),
}


@dataclass(frozen=True)
class Box:
    """A rectangle that arrows can begin and end at."""

    x: float
    y: float
    width: float
    height: float

    def side(self, name: str, share: float = 0.5) -> Point:
        """Return the point at a share of a side's length; sides are left, right, top and bottom."""
        across, down = self.x + share * self.width, self.y + share * self.height
        return {
            "left": (self.x, down),
            "right": (self.x + self.width, down),
            "top": (across, self.y),
            "bottom": (across, self.y + self.height),
        }[name]


@dataclass
class Picture:
    """An SVG that grows by what is drawn on it; lengths are pixels."""

    title: str
    width: int
    height: int
    parts: list[str] = field(default_factory=list)

    def text(
        self, at: Point, text: str, *, size: int = 13, colour: str = QUIET, bold: bool = False, anchor: str = "start"
    ) -> None:
        """Write a line of text; anchor is start, middle or end."""
        x, y = at
        weight = ' font-weight="600"' if bold else ""
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{colour}" text-anchor="{anchor}"{weight}>'
            f"{escape(text)}</text>"
        )

    def box(self, kind: str, x: float, y: float, width: float, height: float, title: str, *lines: str) -> Box:
        """Draw a box with a title and lines below it, all centred."""
        fill, edge = KINDS[kind]
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" fill="{fill}" stroke="{edge}"'
            ' stroke-width="1.5"/>'
        )
        first = y + (height - 18 * len(lines)) / 2 + 5
        self.text((x + width / 2, first), title, size=14, colour=INK, bold=True, anchor="middle")
        for number, line in enumerate(lines, 1):
            self.text((x + width / 2, first + 18 * number), line, colour=INK, anchor="middle")
        return Box(x, y, width, height)

    def frame(self, x: float, y: float, width: float, height: float, title: str) -> None:
        """Draw a dashed frame around what is drawn within."""
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="8" fill="none" stroke="{EDGE}"'
            ' stroke-dasharray="5 4"/>'
        )
        self.text((x + 12, y + 20), title, colour=QUIET, bold=True)

    def arrow(self, *points: Point, colour: str = INK) -> None:
        """Draw a line through points that ends in an arrow's head."""
        path = "M" + " L".join(f"{x:g} {y:g}" for x, y in points)
        self.parts.append(
            f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.5" marker-end="url(#head-{colour[1:]})"/>'
        )

    def svg(self) -> str:
        """Return the picture."""
        heads = "".join(
            f'<marker id="head-{colour[1:]}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7"'
            ' orient="auto">'
            f'<path d="M0 0 L10 5 L0 10 z" fill="{colour}"/></marker>'
            for colour in (INK, KINDS["failure"][1])
        )
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" role="img"'
                ' font-family="system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif">',
                f"<title>{escape(self.title)}</title>",
                f"<defs>{heads}</defs>",
                f'<rect width="{self.width}" height="{self.height}" rx="8" fill="{PAPER}"/>',
                *self.parts,
                "</svg>",
                "",
            ]
        )


def parts() -> Picture:
    """What runs on a host, and who talks with whom."""
    picture = Picture("The parts of a site", 984, 602)
    picture.frame(240, 16, 728, 496, "a Debian host in the groups gateway, api and monitoring")
    clients = picture.box("outside", 16, 96, 152, 64, "Clients", "user and password")
    trusted = picture.box("outside", 16, 258, 152, 64, "Trusted networks", "172.16.0.0/12")
    control = picture.box("outside", 16, 436, 152, 82, "Control node", "Ansible, builds,", "secrets")
    people = picture.box("outside", 644, 534, 310, 52, "People", "by mail, Slack, webhook; a dead man's switch")

    nginx = picture.box(
        "gateway", 306, 70, 236, 116, "nginx", "443: TLS, password, limits", "80: redirect,", "/nginx_status"
    )
    instances = [
        picture.box(
            "api",
            644,
            58 + 66 * number,
            310,
            52,
            f"iris-api@{number + 1}",
            f"127.0.0.1:{8001 + number}, gunicorn, one worker",
        )
        for number in range(3)
    ]
    exporters = Box(306, 218, 236, 238)
    picture.frame(exporters.x, exporters.y, exporters.width, exporters.height, "exporters")
    for number, (title, about) in enumerate(
        (
            ("mtail", "3903, counts nginx' log"),
            ("nginx exporter", "9113, reads /nginx_status"),
            ("blackbox exporter", "9115, asks as a client does"),
            ("node exporter", "9100, host, units, release"),
        )
    ):
        picture.box("monitoring", 318, 248 + 50 * number, 212, 46, title, about)
    prometheus = picture.box("monitoring", 644, 290, 140, 64, "Prometheus", "9090")
    grafana = picture.box("monitoring", 814, 290, 140, 64, "Grafana", "3000, /grafana/")
    alertmanager = picture.box("monitoring", 644, 408, 140, 64, "Alertmanager", "9093")

    # What reaches the site passes it, and SSH does not.
    wall = picture.box("outside", 252, 60, 24, 396, "")
    x, y = wall.x + 16, wall.y + 198
    picture.parts.append(
        f'<text x="{x:g}" y="{y:g}" font-size="14" font-weight="600" fill="{INK}" text-anchor="middle"'
        f' transform="rotate(-90 {x:g} {y:g})">nftables</text>'
    )
    picture.arrow(clients.side("right"), nginx.side("left"))
    picture.text((180, 120), "HTTPS")
    for number, instance in enumerate(instances):
        picture.arrow(nginx.side("right", 0.3 + 0.2 * number), instance.side("left"))
    picture.text((556, 76), "round robin")
    picture.arrow(exporters.side("top"), nginx.side("bottom"))
    picture.arrow(prometheus.side("left"), (exporters.x + exporters.width, prometheus.y + 32))
    picture.text((564, 314), "every 3 s")
    picture.arrow(prometheus.side("top"), (714, 242))
    picture.text((724, 270), "/metrics")
    picture.arrow(grafana.side("left"), prometheus.side("right"))
    picture.arrow(prometheus.side("bottom"), alertmanager.side("top"))
    picture.text((724, 386), "alerts")
    picture.arrow(alertmanager.side("bottom"), (714, people.y))
    picture.arrow(trusted.side("right"), wall.side("left", (trusted.y + 32 - wall.y) / wall.height))
    picture.text((173, 281), "9090, 9093,", size=11)
    picture.text((173, 307), "3000, 9113,", size=11)
    picture.text((173, 321), "9100", size=11)
    picture.arrow(control.side("right"), (302, 477))
    picture.text((180, 470), "SSH")
    return picture


def request() -> Picture:
    """What a prediction passes on its way, and what it can be answered there."""
    picture = Picture("A request on its way", 940, 742)
    steps: list[tuple[str, str, str, Sequence[str]]] = [
        ("outside", "nftables", "open and new connections of one address", ["refused with a reset"]),
        (
            "gateway",
            "TLS and host name",
            "Mozilla's guideline, level intermediate",
            ["a foreign name: no certificate, no answer"],
        ),
        ("gateway", "announced length of the body", "fortress_max_body_bytes", ["413 body_too_large"]),
        ("gateway", "rate limit", "nginx_rate_limit, before the password", ["503 rate_limited, Retry-After"]),
        ("gateway", "password", "the current one, then the previous one", ["401 unauthorized"]),
        (
            "gateway",
            "choice of an instance",
            "round robin; two see a request at most",
            ["502 bad_gateway", "504 gateway_timeout"],
        ),
        (
            "api",
            "body to rows",
            "bytes, JSON, names, types, limits",
            ["415, 422 (by v2: 400)", "413 body_too_large, too_many_rows, too_many_values"],
        ),
        (
            "api",
            "lane",
            "short: on the event loop; long: beside it",
            ["413 too_much_work", "503 overloaded, deadline_exceeded"],
        ),
        (
            "api",
            "one call of the model",
            "for all rows that wait: ONNX Runtime or scikit-learn",
            ["422 no_answer (by v2: 400)"],
        ),
        ("api", "answer", "counted; X-Served-By, X-Model-Version, X-Request-ID", ["200"]),
    ]
    picture.frame(16, 92, 908, 352, "nginx")
    picture.frame(16, 452, 908, 274, "an instance")
    picture.text((560, 24), "what the client gets if it ends here", bold=True)
    before: Box | None = None
    tops = [32, 122, 186, 250, 314, 378, 482, 546, 610, 674]
    for top, (kind, title, about, answers) in zip(tops, steps, strict=True):
        box = picture.box(kind, 90, top, 400, 46, title, about)
        if before:
            picture.arrow(before.side("bottom"), box.side("top"))
        last = title == "answer"
        picture.arrow(box.side("right"), (552, top + 23), colour=INK if last else KINDS["failure"][1])
        for number, answer in enumerate(answers):
            picture.text((560, top + 28 + 18 * number - 9 * (len(answers) - 1)), answer, colour=INK)
        before = box
    return picture


def deployment() -> Picture:
    """The phases of a deployment, and where each of them can end."""
    picture = Picture("The phases of a deployment", 940, 462)
    picture.frame(16, 16, 250, 430, "tasks of Ansible")
    picture.frame(290, 16, 634, 430, "4. roll out: iris-deploy, in a systemd unit on the host")
    build = picture.box("gateway", 36, 50, 210, 70, "1. build", "on the control node:", "wheels, bundle, by hashes")
    upload = picture.box("gateway", 36, 148, 210, 70, "2. upload", "beside the old ones, in", "releases/ and models/")
    prepare = picture.box("gateway", 36, 246, 210, 70, "3. prepare", "a virtual environment", "of the uploaded wheels")
    finish = picture.box("gateway", 36, 372, 210, 54, "5. finish", "iris-api.target runs")

    memory = picture.box("api", 310, 50, 250, 56, "memory", "is there enough?")
    candidate = picture.box(
        "api", 310, 142, 250, 76, "candidate", "a unit without traffic", "answers the golden samples"
    )
    instances = [
        picture.box(
            "api", 650, 50 + 76 * number, 254, 56, f"iris-api@{number + 1}", "finish requests, restart, be ready"
        )
        for number in range(3)
    ]
    end = picture.box(
        "api", 650, 278, 254, 74, "the end", "enable at boot, stop surplus ones,", "history, remove the oldest"
    )
    aborted = picture.box(
        "failure",
        310,
        270,
        250,
        92,
        "aborted",
        "no instance was touched, or",
        "each that was runs again",
        "what it ran before",
    )
    picture.arrow(build.side("bottom"), upload.side("top"))
    picture.arrow(upload.side("bottom"), prepare.side("top"))
    picture.arrow(prepare.side("right"), (278, 281), (278, 78), memory.side("left"))
    picture.arrow(memory.side("bottom"), candidate.side("top"))
    picture.arrow(candidate.side("right"), (605, 180), (605, 78), instances[0].side("left"))
    for before, after in pairwise([*instances, end]):
        picture.arrow(before.side("bottom"), after.side("top"))
    picture.arrow(end.side("bottom"), (777, 399), finish.side("right"))
    picture.text((310, 420), "Each instance must keep answering before the next one.")
    red = KINDS["failure"][1]
    picture.arrow(candidate.side("bottom"), aborted.side("top"), colour=red)
    picture.arrow(instances[1].side("left"), (624, 154), (624, 300), aborted.side("right", 0.326), colour=red)
    picture.arrow(instances[2].side("left"), (636, 230), (636, 332), aborted.side("right", 0.674), colour=red)
    return picture


PICTURES: dict[str, Callable[[], Picture]] = {"parts": parts, "request": request, "deployment": deployment}


def main() -> None:
    """Write them all."""
    for name, draw in PICTURES.items():
        (FOLDER / f"{name}.svg").write_text(draw().svg(), encoding="utf-8")


if __name__ == "__main__":
    main()

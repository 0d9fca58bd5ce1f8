"""docs/runbooks.md as a page of Prometheus, so that whoever is told of an alert can read on where the alert is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from markdown_it import MarkdownIt

from tools.dashboards import console, gateway, host, iris_api, model, overview
from tools.dashboards.figures import ALERTS
from tools.rules.parts import RUNBOOKS, one_line

ROOT = Path(__file__).resolve().parents[2]
TITLE = "Runbooks"
STYLE = """\
section { padding: .1rem 1rem; margin: 0 -1rem; border-left: .4rem solid transparent; }
section:target, section:has(:target) { background: var(--card); border-color: var(--link); }
pre { overflow-x: auto; }
nav { columns: 14rem; font-size: .9rem; }
nav a { display: block; }
"""


def page() -> str:
    """Return the page, a template without anything to fill in."""
    introduction, *sections = re.split(r"^## ", (ROOT / RUNBOOKS).read_text(encoding="utf-8"), flags=re.MULTILINE)
    shown = dict(_panels())
    alerts = [_section(section, shown) for section in sections]
    names = [section.partition("\n")[0] for section in sections]
    index = "".join(f'<a href="#{name}">{name}</a>\n' for name in names)
    return f"""\
{console.HEADER}{console.head(TITLE, STYLE)}
</head>
<body>
<header>
<h1>{TITLE}</h1>
<a href="overview.html">Overview</a>
<a href="../classic/alerts">Alerts</a>
</header>
{_html(introduction.removeprefix(f"# {TITLE}"))}
<nav>
{index}</nav>
{"".join(alerts)}</body>
</html>
"""


def _section(section: str, panels: dict[str, list[str]]) -> str:
    name, _, text = section.partition("\n")
    alert = ALERTS[name]
    expr = one_line(alert.expr)
    hold = f" for {alert.hold}" if alert.hold else ""
    drawn = f" In Grafana: {'; '.join(panels[name])}." if name in panels else ""
    return f"""\
<section id="{name}">
<h2 id="{name.lower()}">{name}</h2>
<p class="about">{alert.severity}, where \
<a href="{console.graph(expr)}"><code>{console.literal(expr)}</code></a>{hold}.\
{console.literal(drawn)}</p>
{_html(text)}</section>
"""


def _html(markdown: str) -> str:
    """Return Markdown as HTML. Other pages of the documents are no pages of Prometheus: their links become names."""
    text = re.sub(r"\[([^\]]*)\]\((?!https?:)([^)]*)\)", r"\1 (docs/\2)", markdown)
    return str(MarkdownIt().render(text)).replace("{{", "{{`{{`}}")


def _panels() -> Iterator[tuple[str, list[str]]]:
    """Yield each alert and the panels that link its runbook, as `dashboard, panel`."""
    found: dict[str, list[str]] = {}
    for board in (overview, gateway, iris_api, model, host):
        built = board.dashboard().build()
        for panel in built.panels or []:
            for link in getattr(panel, "links", None) or []:
                found.setdefault(link.title.removeprefix("Runbook "), []).append(f"{built.title}, {panel.title}")
    yield from found.items()

"""The Overview as a console page of Prometheus: HTML and CSS alone, for a site without Grafana, and for a phone.

Prometheus fills it in at each request by Go's html/template, which escapes what it fills in:
https://prometheus.io/docs/visualization/consoles/. It has no arithmetic, so bars are HTML's own `meter`, and every
number is a query.
"""

from __future__ import annotations

import html
import re
from urllib.parse import quote

from tools.dashboards import overview
from tools.dashboards.figures import ALERTS, GREEN, Column, Figure, Steps, Table, Unit

HEADER = """\
<!-- Managed by Fortress (role prometheus): changes made here are overwritten.
     Made by tools/dashboards: change it there, then `make dashboards`. -->
"""
UNKNOWN = "not known yet"
FORMATS: dict[Unit, str] = {
    "none": '{{ printf "%.0f" $v }}',
    "reqps": '{{ if and (gt $v 0.0) (lt $v 1.0) }}{{ printf "%.3f" $v }}{{ else }}{{ printf "%.1f" $v }}{{ end }}/s',
    "percentunit": "{{ humanizePercentage $v }}",
    "s": "{{ humanizeDuration $v }}",
    "bytes": "{{ humanize1024 $v }}B",
}
"""How the number $v is written."""
STYLE = """\
:root { color-scheme: light dark; --page: #f4f5f6; --card: #fff; --text: #1d2125; --faint: #5c666f; --line: #d8dde1;
  --green: #1a7f37; --orange: #9a5b00; --red: #c01c28; --link: #0b5cad; }
@media (prefers-color-scheme: dark) { :root { --page: #14171a; --card: #1e2226; --text: #e6e9ec; --faint: #9aa4ad;
  --line: #353b41; --green: #57ab5a; --orange: #e0a030; --red: #ff6b66; --link: #6cb2ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 0 1rem 2rem; background: var(--page); color: var(--text);
  font: 16px/1.45 system-ui, sans-serif; }
header { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; align-items: baseline; padding: .8rem 0; }
header h1 { font-size: 1.25rem; margin: 0 auto 0 0; }
a { color: var(--link); text-decoration: none; }
a:hover { text-decoration: underline; }
h2 { font-size: 1.05rem; margin: 1.6rem 0 .2rem; }
.about { color: var(--faint); margin: .2rem 0 .5rem; font-size: .88rem; }
.verdict { border-left: .5rem solid; padding: .7rem 1rem; background: var(--card); font-size: 1.2rem;
  font-weight: 600; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); gap: .6rem; margin: .8rem 0; }
.card { display: block; background: var(--card); border: 1px solid var(--line); border-radius: .3rem;
  padding: .5rem .7rem; color: inherit; }
.card span { display: block; color: var(--faint); font-size: .85rem; }
.card b { font-size: 1.35rem; font-weight: 600; }
.card small { color: var(--faint); font-size: 1rem; }
.green { color: var(--green); } .orange { color: var(--orange); } .red { color: var(--red); }
.orange::before { content: "▲ "; font-size: .8em; } .red::before { content: "✖ "; font-size: .8em; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: .3rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem .7rem; border-bottom: 1px solid var(--line); vertical-align: top; }
tr:last-child > * { border-bottom: 0; }
thead th { font-size: .85rem; white-space: nowrap; }
tbody th { font-weight: 600; white-space: nowrap; }
td.number { white-space: nowrap; }
meter { width: 4.5rem; height: .8rem; vertical-align: middle; margin-right: .4rem; }
footer.about { margin-top: 1.2rem; }
.faint { color: var(--faint); }
code { font-family: ui-monospace, monospace; font-size: .9em; overflow-wrap: anywhere; }
"""


def page() -> str:
    """Return the page, a template that Prometheus fills in."""
    tables = [_table(number, shown) for number, shown in enumerate(overview.TABLES) if shown is not overview.FIRES]
    return f"""\
{HEADER}{_descriptions()}{head("Overview")}
<meta http-equiv="refresh" content="30">
</head>
<body>
<header>
<h1>Overview{{{{ with $externalLabels.site }}}} of {{{{ . }}}}{{{{ end }}}}</h1>
<a href="runbooks.html">Runbooks</a>
<a href="../classic/alerts">Alerts</a>
<a href="../classic/targets">Targets</a>
<a href="../classic/graph">Query</a>
</header>
{_verdict()}
<div class="cards">
{_cards(overview.USERS)}
</div>
<div class="cards">
{_cards(overview.PARTS)}
</div>
{_firing()}
{"".join(tables)}<footer class="about">As of \
{{{{ range query "time()" }}}}{{{{ . | value | humanizeTimestamp }}}}{{{{ end }}}};
the page reloads itself every 30 s. A number or the head of a column leads to its graph.</footer>
</body>
</html>
"""


def graph(expr: str) -> str:
    """Return the link to an expression's graph on Prometheus' own page, relative to a console page."""
    return f"../classic/graph?g0.expr={quote(expr, safe='')}&amp;g0.tab=0&amp;g0.range_input=6h"


def literal(text: str) -> str:
    """Return text as it stands in a page: escaped for HTML, and with no action of Go's templates."""
    return html.escape(text).replace("{{", "{{`{{`}}")


def head(title: str, more: str = "") -> str:
    """Return how each page begins, up to what only this one has in its head."""
    return f"""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{STYLE}{more}</style>"""


def _verdict() -> str:
    critical, warnings = (query(figure.expr) for figure in overview.PARTS[:2])
    return f"""\
{{{{ $critical := {critical} | first | value }}}}{{{{ $warnings := {warnings} | first | value }}}}\
{{{{ $unknown := not ({query('up{job="iris-api"}')}) }}}}\
<div class="verdict \
{{{{ if ge $critical 1.0 }}}}red{{{{ else if or $unknown (ge $warnings 1.0) }}}}orange{{{{ else }}}}green{{{{ end }}}}">
{{{{- if ge $critical 1.0 }}}}Users fail, or will soon; critical alerts: \
{{{{ printf "%.0f" $critical }}}}
{{{{- else if $unknown }}}}Whether users are well is not known: Prometheus has no figures of an instance
{{{{- else if ge $warnings 1.0 }}}}Users are well; warnings: {{{{ printf "%.0f" $warnings }}}}
{{{{- else }}}}Users are well, and no alert fires{{{{ end }}}}</div>"""


def query(expr: str) -> str:
    """Return the call that asks Prometheus, as it stands in an action."""
    return f"query `{expr}`"


def _cards(figures: tuple[Figure, ...]) -> str:
    return "\n".join(_card(figure) for figure in figures)


def _card(figure: Figure) -> str:
    shown = _value(figure.unit, figure.words)
    return (
        f'<a class="card" href="{graph(figure.expr)}" title="{literal(figure.description)}">'
        f"<span>{literal(figure.title)}</span> {{{{ range {query(figure.expr)} }}}}{{{{ $v := value . }}}}"
        f"<b{_coloured(figure.steps)}>{shown}</b>"
        f"{{{{ else }}}}<small>{literal(figure.none or UNKNOWN)}</small>{{{{ end }}}}</a>"
    )


def _firing() -> str:
    fires = overview.FIRES
    [column] = fires.columns
    hidden = " ".join(f'(eq $name "{name}")' for name in ("alertname", "severity", "job"))
    return f"""\
<h2>{fires.title}</h2>
<p class="about">{literal(fires.description)}</p>
<div class="scroll"><table>
{{{{ range {query(column.expr)} | sortByLabel "alertname" | sortByLabel "severity" }}}}
<tr><td><span class="{{{{ if eq .Labels.severity "critical" }}}}red{{{{ else }}}}orange{{{{ end }}}}">\
{{{{ .Labels.severity }}}}</span> \
<a href="runbooks.html#{{{{ .Labels.alertname }}}}"><b>{{{{ .Labels.alertname }}}}</b></a> \
<span class="faint">for</span>&nbsp;{{{{ . | value | humanizeDuration }}}} \
{{{{ range $name, $text := .Labels }}}}{{{{ if not (or {hidden}) }}}}\
<span class="faint">{{{{ $name }}}}</span>&nbsp;{{{{ $text }}}} {{{{ end }}}}{{{{ end }}}}\
<br>{{{{ template "description" . }}}}</td></tr>
{{{{ else }}}}<tr><td>{literal(fires.none)}</td></tr>
{{{{ end }}}}</table></div>
"""


def _descriptions() -> str:
    """Return a template of what each alert means, in the words of its rule."""
    branches = [
        f'if eq .Labels.alertname "{alert.name}" }}}}{_with_labels(alert.description)}'
        for alert in ALERTS.values()
        # What a rule's value was is not known here.
        if alert.severity != "info" and "$value" not in alert.description
    ]
    return '{{ define "description" }}\n{{ ' + "\n{{ else ".join(branches) + "\n{{ end }}{{ end }}\n"


def _with_labels(text: str) -> str:
    """Return a sentence of a rule, whose `$labels` are those of the sample at hand."""
    parts = re.split(r"({{.*?}})", text)
    shown = "".join(
        part.replace("$labels", ".Labels") if part.startswith("{{") else html.escape(part) for part in parts
    )
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", shown)


def _table(number: int, shown: Table) -> str:
    names = [f"$t{number}c{position}" for position in range(len(shown.columns))]
    queries = "".join(
        f"{{{{ {name} := {query(column.expr)} }}}}" for name, column in zip(names, shown.columns, strict=True)
    )
    heads = "".join(f"<th>{literal(title)}</th>" for title in shown.labels.values())
    heads += "".join(f'<th><a href="{graph(column.expr)}">{literal(column.title)}</a></th>' for column in shown.columns)
    order = " | ".join(f'sortByLabel "{label}"' for label in reversed(shown.labels))
    cells = "".join(f"<th>{{{{ .Labels.{label} }}}}</th>" for label in shown.labels)
    same = " ".join(f"(eq .Labels.{label} $row.Labels.{label})" for label in shown.labels)
    same = f"and {same}" if len(shown.labels) > 1 else same
    cells += f'<td class="number">{{{{ $v := value . }}}}{_cell(shown.columns[0])}</td>'
    for name, column in zip(names[1:], shown.columns[1:], strict=True):
        cells += (
            f'<td class="number">{{{{ range {name} }}}}{{{{ if {same} }}}}{{{{ $v := value . }}}}{_cell(column)}'
            "{{ end }}{{ end }}</td>"
        )
    return f"""\
<h2>{literal(shown.title)}</h2>
<p class="about">{literal(shown.description)}</p>
{queries}<div class="scroll"><table>
{{{{ if {names[0]} }}}}<thead><tr>{heads}</tr></thead>
{{{{ end }}}}<tbody>
{{{{ range {names[0]} | {order} }}}}{{{{ $row := . }}}}<tr>{cells}</tr>
{{{{ else }}}}<tr><td>{literal(shown.none)}</td></tr>
{{{{ end }}}}</tbody></table></div>
"""


def _cell(column: Column) -> str:
    meter = f'<meter {_ranges(column)} value="{{{{ printf "%.4f" $v }}}}"></meter>' if column.full else ""
    # A number with a bar is none of pieces.
    shown = '{{ printf "%.2f" $v }}' if column.full and column.unit == "none" else _value(column.unit, column.words)
    return f"{meter}<span{_coloured(column.steps)}>{shown}</span>"


def _ranges(column: Column) -> str:
    """Return the attributes of a meter by which its bar has the colour of its number."""
    (_, lowest), *above = column.steps
    limits = [limit or 0 for limit, _ in above]
    if len(limits) == 2:
        low, high, best = limits[0], limits[1], 0.0
    elif lowest == GREEN:
        low, high, best = 0.0, limits[0], limits[0]
    else:
        low, high, best = limits[0], column.full, column.full
    return f'min="0" max="{column.full:g}" low="{low:g}" high="{high:g}" optimum="{best:g}"'


def _value(unit: Unit, words: dict[str, str]) -> str:
    """Return what shows the number $v."""
    shown = FORMATS[unit]
    if not words:
        return shown
    branches = [f"if eq $v {float(value)} }}}}{literal(text)}" for value, text in words.items()]
    return "{{ " + "{{ else ".join(branches) + f"{{{{ else }}}}{shown}{{{{ end }}}}"


def _coloured(steps: Steps) -> str:
    """Return the attribute that colours the number $v; none where it has but one colour."""
    if len(steps) < 2:
        return ""
    *above, (_, lowest) = reversed(steps)
    branches = [f"if ge $v {float(limit or 0)} }}}}{colour}" for limit, colour in above]
    return ' class="{{ ' + "{{ else ".join(branches) + f'{{{{ else }}}}{lowest}{{{{ end }}}}"'

"""How Grafana shows it: one datasource, one look, links to runbooks, deployments as marks on every graph."""

from __future__ import annotations

from grafana_foundation_sdk.builders import common, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders import dashboard as builder
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as look
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLink,
    DashboardLinkType,
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMapping,
    ValueMappingResult,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from tools.dashboards.figures import ALERTS, GREEN, ORANGE, RED, Column, Figure, Steps, Table

DATASOURCE = DataSourceRef(type_val="prometheus", uid="fortress-prometheus")
"""The uid stands in the role's provisioning too; it never changes."""
RUNBOOKS = f"api/datasources/uid/{DATASOURCE.uid}/resources/consoles/runbooks.html"
"""Prometheus' own page of them, which Grafana fetches: it is found wherever Grafana is.

As a resource of the datasource: below `proxy/uid/`, Grafana 9.4 takes no uid with a dash. Relative to Grafana's own
base: of a path from the root, some versions forget below which path they are served."""
BOARDS = {
    "fortress-nginx": "Gateway|Nginx|Logins|Clients|Probe|Certificate|Ca|ErrorBudget",
    "fortress-iris-api": "IrisApi|LatencyBudget",
    "fortress-model": "Feature|Prediction|Values|Confidence",
}
"""The dashboard that shows an alert, by what the alert's name begins with; the others' is that of the hosts."""

HIDDEN = ("Time", "__name__", "job", "model", "of", "version", "window")
"""Labels that make no column of a table, unless it names them."""

Panel = stat.Panel | timeseries.Panel | table.Panel


def dashboard(uid: str, title: str, description: str, *panels: Panel) -> builder.Dashboard:
    """Lay out panels from left to right; the uid is part of the dashboard's address and never changes."""
    board = (
        builder.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["fortress"])
        .time("now-1h", "now")
        .refresh("10s")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .readonly()
        .annotation(_deployments())
        .link(
            builder.DashboardLink("Fortress")
            .type(DashboardLinkType.DASHBOARDS)
            .tags(["fortress"])
            .as_dropdown(False)
            .keep_time(True)
            .include_vars(True)
            # Above the panels; the SDK's own is a menu that nobody opens.
            .placement("")
        )
    )
    for position, panel in enumerate(panels, start=1):
        board.with_panel(panel.id(position))
    return board


def variable(name: str, label: str, query: str) -> builder.QueryVariable:
    """Add a drop-down list of the values of a label."""
    return (
        builder.QueryVariable(name)
        .label(label)
        .datasource(DATASOURCE)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
    )


def series(
    title: str,
    description: str,
    unit: str,
    *queries: tuple[str, str],
    alerts: tuple[str, ...] = (),
    none: str = "",
    limit: float | None = None,
) -> timeseries.Panel:
    """Draw queries, each with its legend, over time; half a row wide.

    Args:
        title: What is drawn.
        description: What it tells.
        unit: As Grafana calls it.
        queries: An expression and the legend of each of its series.
        alerts: Those that go by it, whose runbooks are linked.
        none: What it means where there is nothing to draw; without, there always is something.
        limit: Where an alert's threshold is; a dashed line.
    """
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit(unit)
        .min(0)
        .span(12)
        .height(8)
        .line_width(1)
        .fill_opacity(0)
        .show_points(look.VisibilityMode.NEVER)
        .legend(_legend(look.LegendPlacement.BOTTOM))
        .tooltip(common.VizTooltipOptions().mode(look.TooltipDisplayMode.MULTI).sort(look.SortOrder.DESCENDING))
    )
    if alerts:
        panel.links(_runbooks(alerts))
    if none:
        panel.no_value(none)
    if unit in ("none", "reqps") and limit is None:
        # No axis from 0 to 100 where there is none.
        panel.axis_soft_max(1)
    if limit is not None:
        # So that the line is seen however far below it all is.
        panel.axis_soft_max(1.1 * limit)
        panel.thresholds(_thresholds(((None, GREEN), (limit, RED)))).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(look.GraphThresholdsStyleMode.DASHED)
        )
    for position, (expression, legend) in enumerate(queries):
        panel.with_target(_query(position, expression).legend_format(legend).range())
    return panel


def stacked(panel: timeseries.Panel) -> timeseries.Panel:
    """Put the series on top of each other: parts of a whole."""
    return panel.stacking(common.StackingConfig().mode(look.StackingMode.NORMAL)).fill_opacity(40)


def limited(panel: timeseries.Panel) -> timeseries.Panel:
    """Draw the series whose legend begins with `limit` as the threshold of an alert that is no fixed number."""
    looks = [
        DynamicConfigValue("color", {"mode": FieldColorModeId.FIXED, "fixedColor": RED}),
        DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [10, 10]}),
    ]
    return panel.override_by_regexp("/^limit/", looks)


STATUS_COLOURS: dict[str, str] = {"/^2|^3/": GREEN, "/^4/": "yellow", "/^5/": RED, "/limiter/": "purple"}
"""By a status at the beginning of a legend; what the limiter answered is no error."""
SEVERITY_COLOURS: dict[str, str] = {"critical": RED, "warning": ORANGE}


def coloured(colours: dict[str, str], panel: timeseries.Panel) -> timeseries.Panel:
    """Stack series whose legends, by regular expressions, have colours of their own, whichever others there are."""
    for legend, colour in colours.items():
        look_of = {"mode": FieldColorModeId.FIXED, "fixedColor": colour}
        panel.override_by_regexp(legend, [DynamicConfigValue("color", look_of)])
    return stacked(panel)


def legend_beside(panel: timeseries.Panel) -> timeseries.Panel:
    """Put the legend of many series on the right, where all of it has room."""
    return panel.legend(_legend(look.LegendPlacement.RIGHT))


def figure(shown: Figure) -> stat.Panel:
    """Show one figure as it is now, coloured by its steps."""
    panel = (
        stat.Panel()
        .title(shown.title)
        .description(shown.description)
        .datasource(DATASOURCE)
        .unit(shown.unit)
        .span(6)
        .height(4)
        .graph_mode(look.BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(_thresholds(shown.steps))
        .with_target(_query(0, shown.expr).instant())
    )
    if shown.none:
        panel.no_value(shown.none)
    if shown.unit == "none":
        panel.decimals(shown.decimals)
    if shown.words:
        panel.mappings(_words(shown.words))
    if shown.alerts:
        panel.links(_runbooks(shown.alerts))
    return panel


def table_panel(shown: Table) -> table.Panel:
    """Show a row for each combination of labels; numbers are coloured by their steps, some drawn as bars."""
    panel = (
        table.Panel()
        .title(shown.title)
        .description(shown.description)
        .datasource(DATASOURCE)
        .span(24)
        .height(8)
        .no_value(shown.none)
        .min_width(70)
        .show_header(True)
        .sort_by([common.TableSortByFieldState().display_name(next(iter(shown.labels.values()))).desc(False)])
        # Of a table with rows, an empty cell means nothing.
        .override_by_regexp("/.*/", [DynamicConfigValue("noValue", "-")])
    )
    if shown.alerts:
        panel.links(_runbooks(shown.alerts))
    names = {}
    for position, column in enumerate(shown.columns):
        panel.with_target(_query(position, column.expr).instant().format(PromQueryFormat.TABLE))
        names["Value" if len(shown.columns) == 1 else f"Value #{_letter(position)}"] = column.title
        panel.override_by_name(column.title, _looks(column))
    if len(shown.columns) > 1:
        panel.with_transformation(DataTransformerConfig("merge", options={}))
    titles = [*shown.labels, *names]
    panel.with_transformation(
        DataTransformerConfig(
            "organize",
            options={
                "excludeByName": {name: True for name in HIDDEN if name not in shown.labels},
                "indexByName": {name: position for position, name in enumerate(titles)},
                "renameByName": shown.labels | names,
            },
        )
    )
    return panel


def alerts(shown: Table) -> table.Panel:
    """Show the alerts that fire; each leads to its runbook and to the dashboard that shows it."""
    panel = table_panel(shown)
    expr = shown.columns[0].expr
    board = f'label_replace({expr}, "board", "fortress-host", "", "")'
    for uid, begins in BOARDS.items():
        board = f'label_replace({board}, "board", "{uid}", "alertname", "({begins}).*")'
    panel.targets([_query(0, board).instant().format(PromQueryFormat.TABLE)])
    links = [
        {"title": "Runbook", "url": f"{RUNBOOKS}#${{__value.text}}", "targetBlank": True},
        {
            "title": "Dashboard",
            "url": "d/${__data.fields.board}?${__url_time_range}",
            "targetBlank": False,
        },
    ]
    panel.override_by_name(shown.labels["alertname"], [DynamicConfigValue("links", links)])
    panel.override_by_name("board", [DynamicConfigValue("custom.hidden", True)])
    mapping = {name: {"color": colour, "index": index} for index, (name, colour) in enumerate(SEVERITY_COLOURS.items())}
    panel.override_by_name(
        shown.labels["severity"],
        [
            DynamicConfigValue("mappings", [{"type": "value", "options": mapping}]),
            DynamicConfigValue("custom.cellOptions", {"type": "color-text"}),
            DynamicConfigValue("custom.displayMode", "color-text"),
        ],
    )
    return panel


def _legend(place: look.LegendPlacement) -> common.VizLegendOptions:
    return common.VizLegendOptions().display_mode(look.LegendDisplayMode.LIST).placement(place).show_legend(True)


def _deployments() -> builder.AnnotationQuery:
    """Mark the times at which something was deployed or taken back, by the hosts' own word."""
    return (
        builder.AnnotationQuery()
        .name("Deployments")
        .datasource(DATASOURCE)
        .enable(True)
        .icon_color("blue")
        .expr('fortress_last_deployment_seconds{event=~"deployed|rolled back|aborted"} * 1000 > 0')
        .use_value_for_time(True)
        .title_format("{{event}}")
        .text_format("{{instance}}")
        .step("60s")
    )


def _runbooks(names: tuple[str, ...]) -> list[Builder[DashboardLink]]:
    """Link the runbook of each alert, where the alert is one that there is."""
    return [
        builder.DashboardLink(f"Runbook {name}")
        .type(DashboardLinkType.LINK)
        .url(f"{RUNBOOKS}#{ALERTS[name].name.lower()}")
        .target_blank(True)
        for name in names
    ]


def _looks(column: Column) -> list[DynamicConfigValue]:
    """Return how the cells of a column look. A kind of cell has two names: one for Grafana 9, one for later ones."""
    steps = [{"value": value, "color": colour} for value, colour in column.steps]
    looks = [
        DynamicConfigValue("unit", column.unit),
        DynamicConfigValue("min", 0),
        DynamicConfigValue("thresholds", {"mode": "absolute", "steps": steps}),
    ]
    if column.unit == "none":
        looks.append(DynamicConfigValue("decimals", 2 if column.full else 0))
    if column.unit == "reqps":
        looks.append(DynamicConfigValue("decimals", 3))
    if column.full:
        looks += [
            DynamicConfigValue("max", column.full),
            DynamicConfigValue("custom.cellOptions", {"type": "gauge", "mode": "basic"}),
            DynamicConfigValue("custom.displayMode", "basic"),
        ]
    elif len(column.steps) > 1:
        looks += [
            DynamicConfigValue("color", {"mode": FieldColorModeId.THRESHOLDS}),
            DynamicConfigValue("custom.cellOptions", {"type": "color-text"}),
            DynamicConfigValue("custom.displayMode", "color-text"),
        ]
    if column.words:
        looks.append(DynamicConfigValue("mappings", _words(column.words)))
    return looks


def _words(words: dict[str, str]) -> list[ValueMapping]:
    return [ValueMap({value: ValueMappingResult(text=text) for value, text in words.items()})]


def _letter(position: int) -> str:
    return chr(ord("A") + position)


def _query(position: int, expression: str) -> prometheus.Dataquery:
    return prometheus.Dataquery().datasource(DATASOURCE).ref_id(_letter(position)).expr(expression)


def _thresholds(steps: Steps) -> builder.ThresholdsConfig:
    thresholds = [Threshold(value=value, color=colour) for value, colour in steps]
    return builder.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(thresholds)

"""What the dashboards share: one datasource, one look."""

from grafana_foundation_sdk.builders import common, prometheus, stat, timeseries
from grafana_foundation_sdk.builders import dashboard as builder
from grafana_foundation_sdk.models import common as look
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
    VariableSort,
)

DATASOURCE = DataSourceRef(type_val="prometheus", uid="fortress-prometheus")
"""The uid stands in the role's provisioning too; it never changes."""

GREEN, ORANGE, RED = "green", "orange", "red"


Panel = stat.Panel | timeseries.Panel


def dashboard(uid: str, title: str, description: str, *panels: Panel) -> builder.Dashboard:
    """Lay out panels from left to right; the uid is part of the dashboard's address and never changes."""
    board = (
        builder.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["fortress"])
        .time("now-15m", "now")
        .refresh("10s")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .readonly()
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


def series(title: str, description: str, unit: str, *queries: tuple[str, str]) -> timeseries.Panel:
    """Draw queries, each with its legend, over time; half a row wide."""
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
        .fill_opacity(10)
        .show_points(look.VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(look.LegendDisplayMode.LIST)
            .placement(look.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(common.VizTooltipOptions().mode(look.TooltipDisplayMode.MULTI).sort(look.SortOrder.DESCENDING))
    )
    for position, (expression, legend) in enumerate(queries):
        panel.with_target(_query(position, expression).legend_format(legend).range())
    return panel


def stacked(panel: timeseries.Panel) -> timeseries.Panel:
    """Put the series on top of each other: parts of a whole."""
    return panel.stacking(common.StackingConfig().mode(look.StackingMode.NORMAL)).fill_opacity(40)


def figure(title: str, description: str, unit: str, expression: str, *steps: tuple[float | None, str]) -> stat.Panel:
    """Show one figure as it is now, coloured by thresholds (from, colour)."""
    return (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit(unit)
        .span(6)
        .height(4)
        .no_value("none yet")
        .graph_mode(look.BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(_thresholds(steps))
        .with_target(_query(0, expression).instant())
    )


def _query(position: int, expression: str) -> prometheus.Dataquery:
    return prometheus.Dataquery().datasource(DATASOURCE).ref_id(chr(ord("A") + position)).expr(expression)


def _thresholds(steps: tuple[tuple[float | None, str], ...]) -> builder.ThresholdsConfig:
    thresholds = [Threshold(value=value, color=colour) for value, colour in steps]
    return builder.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(thresholds)

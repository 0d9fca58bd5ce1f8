"""Each host: what it has left, its units, its clock."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from tools.dashboards import panels
from tools.dashboards.figures import GREEN, ORANGE, RED, Column, Figure, Table
from tools.dashboards.overview import DOWN_IS_RED
from tools.rules import host, monitoring

HOST = 'instance=~"$host"'
RATE = "[$__rate_interval]"
LEFT = ((None, RED), (0.1, GREEN))
OF_UNIT = "{{name}} {{instance}}"
BY = "name, instance, state"
BY_STATE = f"max by ({BY}) (node_systemd_unit_state{{{HOST}}} == 1)"
ACTIVE = f'max by ({BY}) (node_systemd_unit_state{{state="active", {HOST}}} == 1)'


def _of_unit(metric: str) -> str:
    return f"max by (name, instance) ({metric}{{{HOST}}}) * on (name, instance) group_left (state) {BY_STATE}"


UNITS = Table(
    "Units",
    "The site's units: state, memory, descriptors, and how often systemd has started each again by itself.",
    {"name": "Unit", "instance": "Host", "state": "State"},
    (
        Column("Active", "none", f"{ACTIVE} or {BY_STATE} * 0", words={"0": "no", "1": "yes"}),
        Column("Memory", "bytes", _of_unit("fortress_unit_memory_bytes")),
        Column("Descriptors", "none", _of_unit("fortress_unit_open_descriptors")),
        Column("Started again", "none", _of_unit("fortress_unit_restarts"), ((None, GREEN), (1, ORANGE))),
    ),
    ("UnitFailed", "UnitRestarts"),
)


def dashboard() -> Dashboard:
    """Build the dashboard Host."""
    figures = (
        Figure(
            "Reports",
            "Whether every host's exporter answers.",
            "none",
            f'min(up{{job="node", {HOST}}})',
            DOWN_IS_RED,
            ("HostDown", "NodeExporterDown", "NodeExporterBlind"),
            words={"0": "not all", "1": "all"},
        ),
        Figure(
            "CPU busy",
            "Of the busiest host, over 5 minutes.",
            "percentunit",
            f"max({host.busy(HOST)})",
            ((None, GREEN), (0.9, ORANGE)),
            ("ProcessorBusy",),
        ),
        Figure(
            "Memory left",
            "Of the host that has least; what the kernel can free counts as left.",
            "percentunit",
            f"min({host.memory_left(HOST)})",
            ((None, ORANGE), (0.1, GREEN)),
            ("MemoryAlmostGone",),
        ),
        Figure(
            "Disk left",
            "Of the fullest file system.",
            "percentunit",
            f"min({host.disk_left(HOST)})",
            ((None, ORANGE), (0.1, GREEN)),
            ("DiskAlmostFull",),
            none="no disk is seen",
        ),
        Figure(
            "Age of the host's own file",
            "Units and deployments are known from it; it is written every 15 s.",
            "s",
            f"max({host.host_metrics_age(HOST)})",
            ((None, GREEN), (120, ORANGE)),
            ("HostMetricsOld", "TextfileUnreadable"),
        ),
        Figure(
            "Clock off",
            "By how much a host's clock differs from that of the monitoring.",
            "s",
            f"max({host.clock_offset(HOST)})",
            ((None, GREEN), (2, ORANGE)),
            ("ClockOff",),
        ),
    )
    return panels.dashboard(
        "fortress-host",
        "Host",
        "Each host: processor, memory, disk, descriptors, units, the age of its own metrics, its clock.",
        *(panels.figure(each).span(4) for each in figures),
        panels.series(
            "CPU busy",
            "Of all its processors together.",
            "percentunit",
            (host.busy(HOST, "$__rate_interval"), "{{instance}}"),
            alerts=("ProcessorBusy",),
            limit=0.9,
        ).max(1),
        panels.series(
            "Memory",
            "In use, without what the kernel can free, and in all.",
            "bytes",
            (
                f"node_memory_MemTotal_bytes{{{HOST}}} - node_memory_MemAvailable_bytes{{{HOST}}}",
                "{{instance}} in use",
            ),
            (f"node_memory_MemTotal_bytes{{{HOST}}}", "{{instance}} in all"),
            alerts=("MemoryAlmostGone",),
        ),
        panels.legend_beside(
            panels.series(
                "Memory by unit",
                "With all its processes, where the kernel counts it by unit.",
                "bytes",
                (f"fortress_unit_memory_bytes{{{HOST}}}", OF_UNIT),
                alerts=("UnitMemoryAlmostGone",),
                none="the kernel does not count memory by unit",
            )
        ),
        panels.legend_beside(
            panels.series(
                "Memory by unit, of its limit",
                "Beyond 100 % the kernel ends a process of the unit; units without a limit are not here.",
                "percentunit",
                (host.unit_memory(HOST), OF_UNIT),
                alerts=("UnitMemoryAlmostGone",),
                none="no unit has a limit, or the kernel does not count memory by unit",
                limit=0.9,
            )
        ),
        panels.series(
            "Disk left",
            "By file system. At 0 Prometheus stops recording and deployments fail.",
            "percentunit",
            (host.disk_left(HOST), "{{mountpoint}} {{instance}}"),
            (host.inodes_left(HOST), "{{mountpoint}} {{instance}} inodes"),
            alerts=("DiskAlmostFull", "InodesAlmostGone"),
            none="no disk is seen, as in a container",
        ).max(1),
        panels.series(
            "Disk traffic",
            "Read and written.",
            "Bps",
            (f"sum by (instance) (rate(node_disk_read_bytes_total{{{HOST}}}{RATE}))", "{{instance}} read"),
            (f"sum by (instance) (rate(node_disk_written_bytes_total{{{HOST}}}{RATE}))", "{{instance}} written"),
            none="no disk is seen",
        ),
        panels.series(
            "Network",
            "Without loopback.",
            "Bps",
            (
                f'sum by (instance) (rate(node_network_receive_bytes_total{{device!="lo", {HOST}}}{RATE}))',
                "{{instance}} received",
            ),
            (
                f'sum by (instance) (rate(node_network_transmit_bytes_total{{device!="lo", {HOST}}}{RATE}))',
                "{{instance}} sent",
            ),
        ),
        panels.series(
            "Descriptors and connections, of what there may be",
            "Open files and sockets of the host, and how full the kernel's table of connections is.",
            "percentunit",
            (host.descriptors_open(HOST), "{{instance}} descriptors"),
            (host.connections_tracked(HOST), "{{instance}} connections"),
            alerts=("DescriptorsAlmostGone", "ConnectionTableAlmostFull"),
            limit=0.8,
        ),
        panels.legend_beside(
            panels.series(
                "Descriptors by unit, of its limit",
                "Of that process of a unit which is nearest to its limit.",
                "percentunit",
                (host.unit_descriptors(HOST), OF_UNIT),
                alerts=("UnitDescriptorsAlmostGone",),
                limit=0.8,
            )
        ),
        panels.legend_beside(
            panels.series(
                "Units started again",
                "How often systemd has started a unit again by itself in 15 minutes.",
                "none",
                (host.restarts(HOST), OF_UNIT),
                alerts=("UnitRestarts",),
            )
        ),
        panels.series(
            "Age of the host's own file",
            "Written every 15 s; alerts on units and deployments go by it.",
            "s",
            (host.host_metrics_age(HOST), "{{instance}}"),
            alerts=("HostMetricsOld",),
            limit=120,
        ),
        panels.series(
            "Clock off",
            "From the clock of the monitoring. Up to a second is the time of a scrape.",
            "s",
            (host.clock_offset(HOST), "{{instance}}"),
            alerts=("ClockOff",),
            limit=2,
        ),
        panels.table_panel(UNITS),
        panels.series(
            "Targets that do not answer",
            "Of each job of Prometheus, on all hosts; alerts on their figures are silent meanwhile.",
            "none",
            ("count by (job) (up) - sum by (job) (up)", "{{job}}"),
            alerts=("TargetDown", "TargetsMissing", "AlertmanagerDown"),
        ),
        panels.series(
            "Notifications that failed",
            "In 5 minutes: those that a receiver did not take, and alerts that Alertmanager did not get.",
            "none",
            (f"{monitoring.FAILED_NOTIFICATIONS} > 0", "{{integration}}"),
            (f"{monitoring.UNSENT_ALERTS} > 0", "to {{alertmanager}}"),
            alerts=(
                "NotificationsFail",
                "AlertsNotSent",
                "AlertmanagerReloadFailed",
                "PrometheusReloadFailed",
                "PrometheusRuleFailed",
            ),
            none="every notification arrived",
        ),
        panels.series(
            "Age of the last backup",
            "`make backup` makes one.",
            "s",
            (host.backup_age(HOST), "{{instance}}"),
            alerts=("BackupOld",),
            none="no backup was made yet",
        ).span(24),
    ).with_variable(panels.variable("host", "Host", 'label_values(up{job="node"}, instance)'))

"""Each host: whether it is there, what it runs out of, and its clock."""

from tools.rules.parts import HOST, Alert, Group, where

NODE = 'job="node"'
NO_INSTANCE = 'name!~"iris-api@.*"'
DISK = 'fstype!~"tmpfs|ramfs|squashfs|fuse.*"'
COLLECTORS = "cpu|filesystem|meminfo|systemd|textfile"


def disk_left(matcher: str = "") -> str:
    """Return the share of each file system that is free."""
    labels = where(NODE, DISK, matcher)
    return f"node_filesystem_avail_bytes{labels} / node_filesystem_size_bytes{labels}"


def inodes_left(matcher: str = "") -> str:
    """Return the share of the inodes of each file system that is free."""
    labels = where(NODE, DISK, matcher)
    return f"node_filesystem_files_free{labels} / node_filesystem_files{labels}"


def memory_left(matcher: str = "") -> str:
    """Return the share of each host's memory that is free, or can be freed."""
    labels = where(NODE, matcher)
    return f"node_memory_MemAvailable_bytes{labels} / node_memory_MemTotal_bytes{labels}"


def busy(matcher: str = "", window: str = "5m") -> str:
    """Return the share of each host's processors that is busy."""
    labels = where('mode="idle"', matcher)
    return f"1 - avg by (instance) (rate(node_cpu_seconds_total{labels}[{window}]))"


def descriptors_open(matcher: str = "") -> str:
    """Return the share of each host's file descriptors that is open."""
    return f"node_filefd_allocated{where(matcher)} / node_filefd_maximum{where(matcher)}"


def connections_tracked(matcher: str = "") -> str:
    """Return how full each host's table of connections is."""
    return f"node_nf_conntrack_entries{where(matcher)} / node_nf_conntrack_entries_limit{where(matcher)}"


def clock_offset(matcher: str = "") -> str:
    """Return by how many seconds each host's clock differs from that of the monitoring."""
    return f"abs(node_time_seconds{where(matcher)} - timestamp(node_time_seconds{where(matcher)}))"


def host_metrics_age(matcher: str = "") -> str:
    """Return the age of each host's own file of metrics in seconds."""
    return f"time() - fortress_host_metrics_written_seconds{where(matcher)}"


def backup_age(matcher: str = "") -> str:
    """Return the age of the last backup of each host in seconds; nothing where none was made."""
    return f"time() - (fortress_last_backup_seconds{where(matcher)} != 0)"


def unit_memory(matcher: str = "") -> str:
    """Return the share of the memory that each unit may have which it has."""
    return f"fortress_unit_memory_bytes{where(matcher)} / fortress_unit_memory_limit_bytes{where(matcher)}"


def restarts(matcher: str = "") -> str:
    """Return how often systemd has started each unit again by itself in fifteen minutes."""
    return f"changes(fortress_unit_restarts{where(matcher)}[15m])"


def unit_descriptors(matcher: str = "") -> str:
    """Return the share of the descriptors that each unit may have which it has."""
    return f"fortress_unit_open_descriptors{where(matcher)} / fortress_unit_descriptor_limit{where(matcher)}"


GROUPS = [
    Group(
        "host",
        [
            Alert(
                "HostDown",
                "critical",
                # An exporter that is down is not a host that is.
                'max by (host) (up{job="iris-api"} or label_replace(up{job=~"nginx|node"}, "host", "$1", '
                '"instance", "(.+)")) == 0',
                "Nothing on the host {{ $labels.host }} answers.",
                "It is off, or cut off from the monitoring. Its other alerts wait for this one.",
                hold="30s",
            ),
            Alert(
                "NodeExporterDown",
                "warning",
                'up{job="node"} == 0',
                "The host {{ $labels.instance }} does not report.",
                "It is down or cut off, or its exporter is; `systemctl status prometheus-node-exporter` there says.",
                hold="30s",
                labels=HOST,
            ),
            Alert(
                "NodeExporterBlind",
                "warning",
                f'node_scrape_collector_success{{collector=~"{COLLECTORS}"}} == 0',
                "The exporter on {{ $labels.instance }} can't read {{ $labels.collector }}.",
                "Alerts on it are silent. There, `journalctl -u prometheus-node-exporter` says why.",
                hold="2m",
                labels=HOST,
            ),
            Alert(
                "TextfileUnreadable",
                "warning",
                "node_textfile_scrape_error == 1",
                "A file of metrics on {{ $labels.instance }} can't be read.",
                "What it has is missing in Prometheus: dates of certificates, say. The exporter's journal names the "
                "file.",
                hold="2m",
                labels=HOST,
            ),
            Alert(
                "UnitFailed",
                "warning",
                'node_systemd_unit_state{state="failed"} == 1',
                "{{ $labels.name }} on {{ $labels.instance }} has failed.",
                "systemd has given it up. There, `systemctl status {{ $labels.name }}` and its journal say why.",
                hold="1m",
                labels=HOST,
            ),
            Alert(
                "DiskAlmostFull",
                "warning",
                f"{disk_left()} < 0.1",
                "{{ $labels.mountpoint }} on {{ $labels.instance }} has {{ $value | humanizePercentage }} left.",
                "At 0 Prometheus stops recording and deployments fail. "
                "`du -xh --max-depth=2 {{ $labels.mountpoint }} | sort -h` shows what fills it.",
                hold="5m",
                labels=HOST,
            ),
            Alert(
                "InodesAlmostGone",
                "warning",
                f"{inodes_left()} < 0.1",
                "{{ $labels.mountpoint }} on {{ $labels.instance }} has {{ $value | humanizePercentage }} of its "
                "inodes left.",
                "At 0 no file can be made, whatever `df` says of the bytes. "
                "`du -x --inodes --max-depth=2 {{ $labels.mountpoint }} | sort -h` shows where they are.",
                hold="5m",
                labels=HOST,
            ),
            Alert(
                "MemoryAlmostGone",
                "warning",
                f"{memory_left()} < 0.1",
                "{{ $labels.instance }} has {{ $value | humanizePercentage }} of its memory left.",
                "The kernel will soon kill something. `systemd-cgtop --order=memory` on the host shows what takes it.",
                hold="5m",
                labels=HOST,
            ),
            Alert(
                "ProcessorBusy",
                "warning",
                f"{busy()} > 0.9",
                "{{ $value | humanizePercentage }} of the processors of {{ $labels.instance }} are busy.",
                "Requests wait for their turn. `systemd-cgtop` on the host shows what takes them.",
                hold="15m",
                labels=HOST,
            ),
            Alert(
                "DescriptorsAlmostGone",
                "warning",
                f"{descriptors_open()} > 0.8",
                "{{ $value | humanizePercentage }} of the file descriptors of {{ $labels.instance }} are open.",
                "At 100 % nothing there opens a file or a connection. `ls /proc/PID/fd | wc -l` finds who has them.",
                hold="5m",
                labels=HOST,
            ),
            Alert(
                "ConnectionTableAlmostFull",
                "warning",
                f"{connections_tracked()} > 0.8",
                "The table of connections of {{ $labels.instance }} is {{ $value | humanizePercentage }} full.",
                "Once it is full the kernel drops new connections, of all clients. Somebody opens very many: `make "
                "top` names clients.",
                hold="1m",
                labels=HOST,
            ),
            Alert(
                "ClockOff",
                "warning",
                # Of two hosts that nobody synchronizes, both say that they are not synchronized and may yet agree.
                f"{clock_offset()} > 2",
                "The clock of {{ $labels.instance }} is {{ $value | humanizeDuration }} off that of the monitoring.",
                "Certificates and logs go by it. `timedatectl` on both hosts says which one is wrong.",
                hold="5m",
                labels=HOST,
            ),
            Alert(
                "HostMetricsOld",
                "warning",
                f"{host_metrics_age()} > 120",
                "What {{ $labels.instance }} tells of its units and deployments is {{ $value | humanizeDuration }} "
                "old.",
                "Alerts on it go by old values. There, `systemctl status fortress-host-metrics` says why.",
                hold="1m",
                labels=HOST,
            ),
            Alert(
                "UnitMemoryAlmostGone",
                "warning",
                f"{unit_memory()} > 0.9",
                "{{ $labels.name }} on {{ $labels.instance }} has {{ $value | humanizePercentage }} of the memory "
                "it may have.",
                "Beyond that the kernel kills it. It grew, or a model is larger than the limit was made for.",
                hold="15m",
                labels=HOST,
            ),
            Alert(
                "UnitDescriptorsAlmostGone",
                "warning",
                f"{unit_descriptors()} > 0.8",
                "{{ $labels.name }} on {{ $labels.instance }} has {{ $value | humanizePercentage }} of its "
                "descriptors open.",
                "At 100 % it accepts no connection. `ss -tnp` on the host shows whose connections they are.",
                hold="5m",
                labels=HOST,
            ),
            Alert(
                "UnitRestarts",
                "warning",
                # Of instances IrisApiRestarts tells.
                f"{restarts(NO_INSTANCE)} > 2",
                "{{ $labels.name }} on {{ $labels.instance }} was started again {{ $value }} times in 15 minutes.",
                "It ends again and again. There, `journalctl --unit {{ $labels.name }}` says why.",
                labels=HOST,
            ),
            Alert(
                "BackupOld",
                "warning",
                # A site of which none was ever made is not told: it may have been made to be thrown away.
                f"{backup_age()} > 8 * 86400",
                "The last backup of {{ $labels.instance }} is {{ $value | humanizeDuration }} old.",
                "What was made since is only there. `make backup` makes one; docs/operations.md has a timer.",
                labels=HOST,
            ),
        ],
    ),
    # Nobody is notified of these. Alertmanager keeps back what they explain, and each ends soon by itself.
    Group(
        "changes",
        [
            Alert(
                "DeploymentRuns",
                "info",
                # Until 5 minutes after its end, when the instances have been scraped for a while.
                "max_over_time(fortress_deployment_running[5m]) == 1",
                "A deployment or a rollback runs on {{ $labels.instance }}, or has just ended.",
                "Instances stop and start, and differ from each other.",
                labels=HOST,
            ),
            Alert(
                "HoldStands",
                "info",
                "fortress_deployments_held == 1 unless min_over_time(fortress_deployments_held[1h]) == 1",
                "Deployments on {{ $labels.instance }} are held since less than an hour.",
                "Hosts may differ until `make unlock`. After an hour that is told all the same.",
                labels=HOST,
            ),
            Alert(
                "HostReboots",
                "info",
                # Written as the last thing before it goes, and for 5 minutes: a host that reboots is not scraped.
                "last_over_time(fortress_reboot_lease_end_seconds[10m]) > time()",
                "{{ $labels.instance }} was told to reboot, or to power off.",
                "Its parts are away, and come back within 5 minutes.",
                labels=HOST,
            ),
        ],
    ),
]

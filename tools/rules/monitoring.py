"""The monitoring itself: what it can't see, and whether it can still tell somebody."""

from tools.rules.parts import HOST, Alert, Group

FAILED_NOTIFICATIONS = "sum by (integration) (increase(alertmanager_notifications_failed_total[5m]))"
UNSENT_ALERTS = "increase(prometheus_notifications_errors_total[5m])"

GROUPS = [
    Group(
        "prometheus",
        [
            Alert(
                "Watchdog",
                "info",
                "vector(1)",
                "Prometheus evaluates and Alertmanager notifies.",
                "It always fires. Who is notified by it (fortress_alert_heartbeat_url) raises the alarm where it "
                "stops.",
            ),
            Alert(
                "PrometheusReloadFailed",
                "warning",
                "prometheus_config_last_reload_successful == 0",
                "Prometheus runs with an old configuration.",
                "The one on disk was refused. On the host, `promtool check config /etc/prometheus/prometheus.yml` "
                "says why.",
                hold="1m",
            ),
            Alert(
                "PrometheusRuleFailed",
                "warning",
                "increase(prometheus_rule_evaluation_failures_total[5m]) > 0",
                "A rule of the group {{ $labels.rule_group }} can't be evaluated.",
                "Its alerts are silent. Prometheus' page /rules shows the error.",
            ),
            Alert(
                "TargetsMissing",
                "warning",
                'absent(up{job="nginx"}) or absent(up{job="node"})',
                "Prometheus has no target of the job {{ $labels.job }}.",
                "Alerts on it are silent. `make converge` writes the targets of the inventory.",
                hold="1m",
            ),
            Alert(
                "TargetDown",
                "warning",
                'up{job!~"alertmanager|iris-api|nginx|node"} == 0',
                "{{ $labels.instance }} of the job {{ $labels.job }} does not answer Prometheus.",
                "Alerts on its figures are silent. Prometheus' page /targets shows the error.",
                hold="1m",
                labels=HOST,
            ),
            Alert(
                "AlertmanagerDown",
                "warning",
                'up{job="alertmanager"} == 0',
                "Alertmanager does not answer: nobody is notified.",
                "This one is on Prometheus' page /alerts alone. `systemctl status prometheus-alertmanager` says why.",
                hold="1m",
            ),
            Alert(
                "AlertmanagerReloadFailed",
                "warning",
                "alertmanager_config_last_reload_successful == 0",
                "Alertmanager runs with an old configuration.",
                "The one on disk was refused. On the host, `amtool check-config /etc/prometheus/alertmanager.yml` "
                "says why.",
                hold="1m",
            ),
            Alert(
                "NotificationsFail",
                "critical",
                f"{FAILED_NOTIFICATIONS} > 0",
                "{{ $value | humanize }} notifications by {{ $labels.integration }} failed in 5 minutes.",
                "Whoever it is for is not told of other alerts. `journalctl -u prometheus-alertmanager` says what "
                "the receiver answers.",
                hold="2m",
            ),
            Alert(
                "AlertsNotSent",
                "warning",
                f"{UNSENT_ALERTS} > 0",
                "{{ $value | humanize }} alerts could not be handed to Alertmanager in 5 minutes.",
                "Prometheus does not reach {{ $labels.alertmanager }}. `systemctl status prometheus-alertmanager` "
                "says whether it runs.",
                hold="2m",
            ),
        ],
    ),
]

"""The gateway: nginx, its log, and its certificates."""

from tools.rules.parts import HOST, Alert, Group, Record, where

LIFE_LEFT = "fortress_certificate:life_left:ratio"


def unanswered(matcher: str = "") -> str:
    """Return the requests in five minutes for which each gateway got no answer of an instance."""
    labels = where('status=~"502|504"', matcher)
    return f"sum by (instance) (increase(fortress_gateway_requests_total{labels}[5m]))"


def retried(matcher: str = "", window: str = "15m") -> str:
    """Return the requests that each gateway asked a second instance for."""
    return f"sum by (instance) (increase(fortress_gateway_retried_requests_total{where(matcher)}[{window}]))"


def dropped(matcher: str = "") -> str:
    """Return the connections a second that nginx accepted and dropped."""
    labels = where(matcher)
    return f"rate(nginx_connections_accepted{labels}[1m]) - rate(nginx_connections_handled{labels}[1m])"


GROUPS = [
    Group(
        "nginx",
        [
            Alert(
                "NginxDown",
                "critical",
                "nginx_up == 0",
                "nginx on {{ $labels.instance }} does not answer.",
                "Nobody reaches the API through this gateway. On the host, `systemctl status nginx` and `nginx -t` "
                "say why.",
                hold="15s",
                labels=HOST,
            ),
            Alert(
                "NginxExporterDown",
                "warning",
                'up{job="nginx"} == 0',
                "The nginx exporter on {{ $labels.instance }} does not answer.",
                "Whether nginx is up is not known. On the host, `systemctl status prometheus-nginx-exporter` says why.",
                hold="30s",
                labels=HOST,
            ),
            Alert(
                "NginxDropsConnections",
                "warning",
                f"{dropped()} > 0",
                "nginx on {{ $labels.instance }} drops {{ $value | humanize }} connections a second.",
                "It is out of connections; raise worker_connections, or find out who opens so many.",
                hold="1m",
                labels=HOST,
            ),
            Alert(
                "GatewayLogUnread",
                "warning",
                # The exporter's own questions, one in 3 s, are not in the log.
                "rate(nginx_http_requests_total[5m]) > 1 unless on (instance) "
                "rate(fortress_gateway_log_lines_total[5m]) > 0",
                "nginx on {{ $labels.instance }} answers {{ $value | humanize }} requests a second, and none is "
                "read from its log.",
                "Rates, errors and service levels of the gateway are blind. On the host, `systemctl status mtail` "
                "says why.",
                hold="2m",
                labels=HOST,
            ),
            Alert(
                "GatewayLogUnreadable",
                "warning",
                "increase(fortress_gateway_unread_log_lines_total[5m]) > 0",
                "{{ $value | humanize }} lines of the log of {{ $labels.instance }} were not understood in 5 minutes.",
                "Rates and errors of the gateway leave them out. `journalctl -u mtail` there; a log format of your "
                "own?",
                labels=HOST,
            ),
            Alert(
                "ProbeFails",
                "critical",
                "probe_success == 0",
                "The monitoring gets no prediction through {{ $labels.instance }}.",
                "Neither do clients, probably. `make predict` asks as they do, and says at which step it fails.",
                hold="45s",
                labels=HOST,
            ),
            Alert(
                "GatewayUpstreamErrors",
                "warning",
                f"{unanswered()} > 10",
                "{{ $value | humanize }} requests got no answer of an instance through {{ $labels.instance }} in 5 "
                "minutes.",
                "Two instances were asked for each and failed. `make logs` shows both sides of a request.",
                labels=HOST,
            ),
            Alert(
                "GatewayRetries",
                "warning",
                # Instances that a deployment or a reboot stops are asked in vain. Both alerts stand for 5 minutes after
                # the last of it, which makes the 15.
                f"{retried()} > 50 unless on () "
                'count(count_over_time(ALERTS{alertname=~"DeploymentRuns|HostReboots"}[11m]))',
                "{{ $value | humanize }} requests through {{ $labels.instance }} were answered by the second "
                "instance that was asked.",
                "Users saw a delay and no error. An instance drops connections: `upstream_addr` in the access log "
                "names it.",
                labels=HOST,
            ),
        ],
    ),
    # Renewal is the task of a converge, which comes when somebody runs it: the role pki renews in the last third of a
    # certificate's life.
    Group(
        "certificates",
        [
            Record(
                LIFE_LEFT,
                """
                (fortress_certificate_not_after_seconds - time())
                / (fortress_certificate_not_after_seconds - fortress_certificate_not_before_seconds)
                """,
            ),
            Alert(
                "CertificateExpires",
                "warning",
                f'{LIFE_LEFT}{{certificate="gateway"}} < 0.25',
                "The certificate of {{ $labels.instance }} has {{ $value | humanizePercentage }} of its life left.",
                "`make converge` renews it, `make renew-certificates` at once; one that you gave yourself is yours "
                "to replace.",
                labels=HOST,
            ),
            Alert(
                "CertificateExpiresSoon",
                "critical",
                f'{LIFE_LEFT}{{certificate="gateway"}} < 0.1',
                "The certificate of {{ $labels.instance }} has {{ $value | humanizePercentage }} of its life left.",
                "At 0 no client accepts the gateway. `make renew-certificates`, or give a new one of your own and "
                "run `make converge`.",
                labels=HOST,
            ),
            Alert(
                "CaExpires",
                "warning",
                f'{LIFE_LEFT}{{certificate="ca"}} < 0.1',
                "The private CA that issues the certificate of {{ $labels.instance }} has "
                "{{ $value | humanizePercentage }} of its "
                "life left.",
                "No certificate outlives it. Plan a day on which clients get a new ca.crt; docs/operations.md, "
                "Certificates, says how.",
                labels=HOST,
            ),
        ],
    ),
]

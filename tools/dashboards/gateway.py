"""The gateway: what it answered whom, how fast, what it refused, and its connections (by the queries of 12708)."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from tools.dashboards import panels
from tools.dashboards.figures import GREEN, ORANGE, Figure
from tools.dashboards.overview import BUCKETS, DOWN_IS_RED, SECONDS, SHARE_OF_ERRORS, UP, burns
from tools.rules import gateway, security
from tools.rules.objectives import OBJECTIVES, PREDICTIONS, SERVED

INSTANCE = 'instance=~"$instance"'
RATE = "[$__rate_interval]"
REQUESTS = "fortress_gateway_requests_total"


def dashboard() -> Dashboard:
    """Build the dashboard Gateway."""
    figures = (
        Figure(
            "NGINX",
            "Whether nginx answers its exporter.",
            "none",
            f"nginx_up{{{INSTANCE}}}",
            DOWN_IS_RED,
            ("NginxDown", "NginxExporterDown"),
            words=UP,
        ),
        Figure(
            "Requests",
            "A second, over 5 minutes, on all routes; the requests that were refused too.",
            "reqps",
            f"sum(rate({REQUESTS}{{{INSTANCE}}}[5m]))",
        ),
        Figure(
            "Errors",
            "Share of what instances were asked for that ended in 5xx, over 5 minutes.",
            "percentunit",
            f'sum(rate({REQUESTS}{{{SERVED}, status=~"5..", {INSTANCE}}}[5m])) '
            f"/ (sum(rate({REQUESTS}{{{SERVED}, {INSTANCE}}}[5m])) > 0) or vector(0)",
            SHARE_OF_ERRORS,
            (*burns(OBJECTIVES[0]), "GatewayUpstreamErrors"),
        ),
        Figure(
            "Latency p99",
            "Of predictions, over 5 minutes, from the first byte of the request to the last of the answer.",
            "s",
            f"{_quantile(0.99, window='[5m]')} >= 0",
            SECONDS,
            none="no requests",
        ),
        Figure(
            "Refused logins",
            "In 5 minutes. Above 30 somebody tries passwords, or a client has an old one.",
            "none",
            f"sum({security.refused_logins(INSTANCE)})",
            ((None, GREEN), (30, ORANGE)),
            ("LoginsRefused",),
        ),
        Figure(
            "Limited requests",
            "In 5 minutes; a client asked for more than its share and was told so.",
            "none",
            f"sum({security.limited_requests(INSTANCE)})",
            ((None, GREEN), (300, ORANGE)),
            ("ClientsLimited",),
        ),
    )
    return panels.dashboard(
        "fortress-nginx",
        "Gateway",
        "What the gateway answered, refused and passed on, and its connections.",
        *(panels.figure(each).span(4) for each in figures),
        panels.coloured(
            panels.STATUS_COLOURS,
            panels.series(
                "Requests by status",
                "Every request, those that nginx or the limit refused included, and who answered.",
                "reqps",
                (
                    f"sum by (status, answered_by) (rate({REQUESTS}{{{INSTANCE}}}{RATE})) > 0",
                    "{{status}} {{answered_by}}",
                ),
                none="nobody asks",
            ),
        ),
        panels.stacked(
            panels.series(
                "Requests by route",
                "nginx names the route of a request, and no client does.",
                "reqps",
                (f"sum by (route) (rate({REQUESTS}{{{INSTANCE}}}{RATE})) > 0", "{{route}}"),
                none="nobody asks",
            )
        ),
        panels.series(
            "Errors by route",
            "Answers of 5xx of an instance, and requests that got none (502, 504).",
            "reqps",
            (
                f'sum by (route, status) (rate({REQUESTS}{{answered_by="upstream", status=~"5..", {INSTANCE}}}{RATE}))'
                " > 0",
                "{{route}} {{status}}",
            ),
            alerts=("GatewayUpstreamErrors", *burns(OBJECTIVES[0])),
            none="no errors",
        ),
        panels.stacked(
            panels.series(
                "Who answered",
                "An instance or Grafana (upstream), the limiter, or nginx itself (gateway).",
                "reqps",
                (f"sum by (answered_by) (rate({REQUESTS}{{{INSTANCE}}}{RATE})) > 0", "{{answered_by}}"),
                none="nobody asks",
            )
        ),
        panels.series(
            "Latency of predictions",
            "From the first byte of the request to the last of the answer; so a client's slow upload counts.",
            "s",
            *((f"{_quantile(share)} >= 0", f"p{share * 100:g}") for share in (0.99, 0.9, 0.5)),
            none="no requests",
        ),
        panels.series(
            "Latency p99 by route",
            "Of everything that is passed on.",
            "s",
            (f"{_quantile(0.99, by='route', of='')} >= 0", "{{route}}"),
            none="no requests",
        ),
        panels.series(
            "Refused logins in 5 minutes",
            "Wrong or missing passwords (401), counted.",
            "none",
            (security.refused_logins(INSTANCE), "{{instance}}"),
            alerts=("LoginsRefused",),
            limit=30,
        ),
        panels.series(
            "Limited requests in 5 minutes",
            "Requests over the limit of a client, counted.",
            "none",
            (security.limited_requests(INSTANCE), "{{instance}}"),
            alerts=("ClientsLimited",),
            limit=300,
        ),
        panels.series(
            "Retried in 15 minutes, without an answer in 5",
            "Requests that a second instance was asked for, and those for which none answered (502, 504).",
            "none",
            (gateway.retried(INSTANCE), "{{instance}} retried"),
            (gateway.unanswered(INSTANCE), "{{instance}} without an answer"),
            alerts=("GatewayRetries", "GatewayUpstreamErrors"),
        ),
        panels.series(
            "Bytes sent",
            "Of responses, by route.",
            "Bps",
            (f"sum by (route) (rate(fortress_gateway_response_bytes_total{{{INSTANCE}}}{RATE})) > 0", "{{route}}"),
            none="nobody asks",
        ),
        panels.series(
            "Requests by a previous password",
            "Clients that have not changed over since `make rotate-credentials`.",
            "reqps",
            (f"rate(fortress_gateway_previous_password_requests_total{{{INSTANCE}}}{RATE})", "{{instance}}"),
        ),
        panels.series(
            "Prediction by probe",
            "How long the monitoring waits for a prediction through the gateway; asked every 15 s.",
            "s",
            (f"probe_duration_seconds{{{INSTANCE}}}", "{{instance}}"),
            alerts=("ProbeFails",),
        ),
        panels.series(
            "Processed connections",
            "Accepted and handled fall apart when nginx runs out of connections (worker_connections).",
            "cps",
            (f"irate(nginx_connections_accepted{{{INSTANCE}}}[5m])", "{{instance}} accepted"),
            (f"irate(nginx_connections_handled{{{INSTANCE}}}[5m])", "{{instance}} handled"),
            alerts=("NginxDropsConnections",),
        ),
        panels.series(
            "Active connections",
            "Waiting ones are kept alive and idle; writing ones get an answer, or wait for the API.",
            "none",
            (f"nginx_connections_active{{{INSTANCE}}}", "{{instance}} active"),
            (f"nginx_connections_reading{{{INSTANCE}}}", "{{instance}} reading"),
            (f"nginx_connections_waiting{{{INSTANCE}}}", "{{instance}} waiting"),
            (f"nginx_connections_writing{{{INSTANCE}}}", "{{instance}} writing"),
        ),
        panels.series(
            "Requests as nginx counts them",
            "Those of its exporter too. Beside them the lines that mtail has read, of which figures by route are made.",
            "reqps",
            (f"irate(nginx_http_requests_total{{{INSTANCE}}}[5m])", "{{instance}} requests"),
            (f"rate(fortress_gateway_log_lines_total{{{INSTANCE}}}{RATE})", "{{instance}} log lines"),
            (f"rate(fortress_gateway_unread_log_lines_total{{{INSTANCE}}}{RATE})", "{{instance}} not understood"),
            alerts=("GatewayLogUnread", "GatewayLogUnreadable"),
        ),
        panels.series(
            "Certificate's life left",
            "`make converge` renews it in its last third.",
            "percentunit",
            (f"{gateway.LIFE_LEFT}{{{INSTANCE}}}", "{{instance}} {{certificate}}"),
            alerts=("CertificateExpires", "CertificateExpiresSoon", "CaExpires"),
            none="no certificate of ours",
        ).max(1),
    ).with_variable(panels.variable("instance", "Gateway", "label_values(nginx_up, instance)"))


def _quantile(share: float, by: str = "", of: str = PREDICTIONS, window: str = RATE) -> str:
    labels = ", ".join(filter(None, (of, INSTANCE)))
    groups = ", ".join(filter(None, ("le", by)))
    return f"histogram_quantile({share}, sum by ({groups}) (rate({BUCKETS}{{{labels}}}{window})))"

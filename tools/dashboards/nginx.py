"""The gateway's connections, by the queries of dashboard 12708 on today's panel types."""

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.models.dashboard import ValueMap, ValueMappingResult

from tools.dashboards import panels
from tools.dashboards.panels import GREEN, RED, figure, series

INSTANCE = 'instance=~"$instance"'


def dashboard() -> Dashboard:
    """Build the dashboard NGINX."""
    up = figure(
        "NGINX",
        "Whether nginx answers its exporter.",
        "none",
        f"nginx_up{{{INSTANCE}}}",
        (None, RED),
        (1, GREEN),
    ).mappings([ValueMap({"0": ValueMappingResult(text="down"), "1": ValueMappingResult(text="up")})])
    return panels.dashboard(
        "fortress-nginx",
        "NGINX",
        "Connections and requests of the gateway, as nginx counts them.",
        up.span(24),
        series(
            "Processed connections",
            "Accepted and handled fall apart when nginx runs out of connections (worker_connections).",
            "cps",
            (f"irate(nginx_connections_accepted{{{INSTANCE}}}[5m])", "{{instance}} accepted"),
            (f"irate(nginx_connections_handled{{{INSTANCE}}}[5m])", "{{instance}} handled"),
        ),
        series(
            "Active connections",
            "Waiting ones are kept alive and idle; writing ones get an answer, or wait for the API.",
            "none",
            (f"nginx_connections_active{{{INSTANCE}}}", "{{instance}} active"),
            (f"nginx_connections_reading{{{INSTANCE}}}", "{{instance}} reading"),
            (f"nginx_connections_waiting{{{INSTANCE}}}", "{{instance}} waiting"),
            (f"nginx_connections_writing{{{INSTANCE}}}", "{{instance}} writing"),
        ),
        series(
            "Requests",
            "Every request that reached nginx, refused ones included.",
            "reqps",
            (f"irate(nginx_http_requests_total{{{INSTANCE}}}[5m])", "{{instance}} requests"),
        ).span(24),
    ).with_variable(panels.variable("instance", "Gateway", "label_values(nginx_up, instance)"))

"""Are users well, and if not, which part is it? Also the page of Prometheus itself, for a site without Grafana."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from tools.dashboards import panels
from tools.dashboards.figures import GREEN, ORANGE, RED, Column, Figure, Steps, Table
from tools.drift import ROWS_PER_BIN, THRESHOLD
from tools.rules import gateway, host, instances, model, objectives
from tools.rules.objectives import OBJECTIVES, PREDICTIONS
from tools.rules.parts import one_line, where

ERRORS, LATENCY = OBJECTIVES
FIRING = 'ALERTS{alertstate="firing", severity!="info"}'
DOWN_IS_RED: Steps = ((None, RED), (1, GREEN))
BUDGET: Steps = ((None, RED), (0, ORANGE), (0.25, GREEN))
SHARE_OF_ERRORS: Steps = ((None, GREEN), (0.001, ORANGE), (0.01, RED))
"""From what the objective allows on, and from that on which somebody is woken."""
SECONDS: Steps = ((None, GREEN), (0.1, ORANGE), (0.25, RED))
UP = {"0": "down", "1": "up"}
API = "host, instance"
BUCKETS = "fortress_gateway_request_duration_seconds_bucket"


def burns(objective: objectives.Objective) -> tuple[str, ...]:
    """Return the alerts of a budget."""
    return tuple(f"{objective.name}Burns{burn.speed}" for burn in objectives.BURNS)


def quantile(share: float, matcher: str = PREDICTIONS, by: str = "", window: str = "5m") -> str:
    """Return a quantile of the time that what instances answer takes at the gateway; nothing where nobody asks."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({BUCKETS}{where(matcher)}[{window}]))) >= 0"


def versions(matcher: str = "") -> Table:
    """Return what instances run, all or those that are chosen."""
    labels = {
        "name": "Model",
        "version": "Version",
        "engine": "Engine",
        "release": "Release",
        "deployment": "Deployment",
    }
    running = (
        f"iris_api_model_info{where(matcher)} * on ({API}) group_left (release, deployment) "
        f"iris_api_release_info{where(matcher)}"
    )
    return Table(
        "Releases and models in force",
        "What instances run. During a deployment there are two rows, otherwise one.",
        labels,
        (Column("Instances", "none", f"count by ({', '.join(labels)}) ({running})"),),
        ("IrisApiMixed", "IrisApiReleasesDiffer", "IrisApiHostsDiffer"),
        none="no instance answers",
    )


USERS = (
    Figure(
        "Requests",
        "Requests a second that instances were asked for, over 5 minutes. What the limit or a password refused is on "
        "the dashboard Gateway.",
        "reqps",
        f"{ERRORS.total}:rate5m",
    ),
    Figure(
        "Errors",
        "Share of these requests of the last 5 minutes that ended in an error of ours (5xx); 0.1 % is what the "
        "objective allows.",
        "percentunit",
        f"{ERRORS.bad}:rate5m / ({ERRORS.total}:rate5m > 0) or 0 * {ERRORS.bad}:rate5m",
        SHARE_OF_ERRORS,
        (*burns(ERRORS), "IrisApiErrors", "GatewayUpstreamErrors"),
    ),
    Figure(
        "Latency p50",
        "Half of the requests of the last 5 minutes took less than this, from the first byte of the request to the "
        "last of the answer, at the gateway.",
        "s",
        quantile(0.5),
        SECONDS,
        none="no requests",
    ),
    Figure(
        "Latency p99",
        "99 of 100 requests of the last 5 minutes took less than this, at the gateway.",
        "s",
        quantile(0.99),
        SECONDS,
        (*burns(LATENCY), "IrisApiSlow"),
        none="no requests",
    ),
    Figure(
        "Error budget left",
        f"Of the {1 - ERRORS.good:.1%} of requests that may fail in {objectives.DAYS} days; below 0 the objective is "
        "missed.",
        "percentunit",
        ERRORS.left,
        BUDGET,
        burns(ERRORS),
    ),
    Figure(
        "Latency budget left",
        f"Of the {1 - LATENCY.good:.0%} of predictions that may take more than 250 ms in {objectives.DAYS} days.",
        "percentunit",
        LATENCY.left,
        BUDGET,
        burns(LATENCY),
    ),
)
PARTS = (
    Figure(
        "Critical alerts",
        "Users fail, or will soon.",
        "none",
        'count(ALERTS{alertstate="firing", severity="critical"}) or vector(0)',
        ((None, GREEN), (1, RED)),
    ),
    Figure(
        "Warnings",
        "Alerts that can wait for working hours.",
        "none",
        'count(ALERTS{alertstate="firing", severity="warning"}) or vector(0)',
        ((None, GREEN), (1, ORANGE)),
    ),
    Figure(
        "Instances up",
        "Instances that answer Prometheus.",
        "none",
        'sum(up{job="iris-api"})',
        DOWN_IS_RED,
        ("IrisApiDown",),
    ),
    Figure(
        "Instances down",
        "Instances that don't; the others carry their load.",
        "none",
        'count(up{job="iris-api"}) - sum(up{job="iris-api"})',
        ((None, GREEN), (1, ORANGE)),
        ("IrisApiInstanceDown",),
    ),
    Figure(
        "Prediction by probe",
        "Whether the monitoring gets a prediction through every gateway, as a client does.",
        "none",
        "min(probe_success)",
        DOWN_IS_RED,
        ("ProbeFails",),
        words={"0": "fails", "1": "works"},
    ),
    Figure(
        "Certificate's life left",
        "Of the gateway's certificate that ends first; `make converge` renews it in its last third.",
        "percentunit",
        f'min({gateway.LIFE_LEFT}{{certificate="gateway"}})',
        ((None, RED), (0.1, ORANGE), (0.25, GREEN)),
        ("CertificateExpires", "CertificateExpiresSoon"),
    ),
    Figure(
        "Last deployment",
        "Time since the last deployment or rollback on any host.",
        "s",
        'time() - max(fortress_last_deployment_seconds{event=~"deployed|rolled back"} > 0)',
    ),
    Figure(
        "Hosts down",
        "Hosts whose exporter does not answer.",
        "none",
        'count(up{job="node"}) - sum(up{job="node"})',
        ((None, GREEN), (1, RED)),
        ("HostDown", "NodeExporterDown"),
    ),
)
FIRES = Table(
    "Firing alerts",
    "Each with its runbook: confirm, act, check. Alerts that are only there for other alerts are left out.",
    {
        "severity": "Severity",
        "alertname": "Alert",
        "host": "Host",
        "instance": "Instance",
        "name": "Unit",
        "feature": "Feature",
    },
    (
        Column(
            "For",
            "s",
            f"time() - (ALERTS_FOR_STATE and ignoring (alertstate) {FIRING})",
        ),
    ),
    none="no alert fires",
)
VERSIONS = versions()
INSTANCES = Table(
    "Instances",
    "Each by what it did in the last 5 minutes. Errors are answers of 5xx, latency is without the gateway.",
    {"instance": "Instance", "host": "Host"},
    (
        Column("State", "none", f'min by ({API}) (up{{job="iris-api"}})', DOWN_IS_RED, words=UP),
        Column("Requests", "reqps", f"sum by ({API}) (rate(iris_api_requests_total{{{instances.PREDICT}}}[5m]))"),
        Column(
            "Errors",
            "reqps",
            f'sum by ({API}) (rate(iris_api_requests_total{{{instances.PREDICT}, status=~"5.."}}[5m]))',
            ((None, GREEN), (0.001, ORANGE), (0.1, RED)),
        ),
        Column(
            "p99",
            "s",
            f"histogram_quantile(0.99, sum by (le, {API}) "
            f"(rate(iris_api_request_duration_seconds_bucket{{{instances.PREDICT}}}[5m]))) >= 0",
            SECONDS,
        ),
        Column("Queue (rows)", "none", f"max by ({API}) ({instances.queue()})", ((None, GREEN), (500, ORANGE))),
        Column(
            "CPU (% of a core)",
            "percentunit",
            f'sum by ({API}) (rate(process_cpu_seconds_total{{job="iris-api"}}[5m]))',
            ((None, GREEN), (0.9, ORANGE)),
            full=1,
        ),
        Column("Memory", "bytes", f'sum by ({API}) (process_resident_memory_bytes{{job="iris-api"}})'),
        Column(
            "Starts in 15 min",
            "none",
            f"max by ({API}) ({instances.starts()})",
            ((None, GREEN), (3, ORANGE)),
        ),
    ),
    ("IrisApiInstanceDown", "IrisApiRestarts", "IrisApiQueueLong"),
    none="no instance is known",
)
ASKED = "sum by (route) (rate(fortress_gateway_requests_total[5m])) > 0"
# Of routes that nobody asked for there is a series all the same.
OF_THESE = f"and on (route) {ASKED}"
ROUTES = Table(
    "Routes",
    "What the gateway answered in the last 5 minutes, by route. Errors are answers of 5xx of an instance, or of none; "
    "what was limited is 503 too, and no error. Refused are logins (401).",
    {"route": "Route"},
    (
        Column("Requests", "reqps", ASKED),
        Column(
            "Errors",
            "reqps",
            'sum by (route) (rate(fortress_gateway_requests_total{answered_by="upstream", status=~"5.."}[5m])) '
            f"{OF_THESE}",
            ((None, GREEN), (0.001, ORANGE), (0.1, RED)),
        ),
        Column("Limited", "reqps", f"sum by (route) (rate(fortress_gateway_limited_requests_total[5m])) {OF_THESE}"),
        Column("Refused", "reqps", f"sum by (route) (rate(fortress_gateway_refused_logins_total[5m])) {OF_THESE}"),
        Column("p50", "s", f"{quantile(0.5, '', 'route')} {OF_THESE}", SECONDS),
        Column("p99", "s", f"{quantile(0.99, '', 'route')} {OF_THESE}", SECONDS),
    ),
    ("LoginsRefused", "ClientsLimited", "GatewayRetries"),
    none="nobody asked in the last 5 minutes",
)
OF_LIMIT_STEPS: Steps = ((None, GREEN), (0.5, ORANGE), (1, RED))
# Rows of the hour may be of a model that was replaced since; of those that serve the shares in training are known.
IN_FORCE = "and on (feature, model, version) iris_api:drift_training:ratio"
DRIFT = Table(
    "Model: inputs of the last hour",
    f"The stability index compares them with the training data. Its limit, above which it is drift, is {THRESHOLD:g}, "
    f"and more for a model of few training rows. It is computed from {ROWS_PER_BIN} rows a bin on.",
    {"feature": "Feature", "model": "Model", "version": "Version"},
    (
        Column(
            "Rows",
            "none",
            f'sum by (feature, model, version) (iris_api:drift_rows:increase1h{{of="feature"}}) {IN_FORCE}',
        ),
        Column(
            "Stability index",
            "none",
            f"max by (feature, model, version) ({model.psi('feature', '1h')})",
            ((None, GREEN), (THRESHOLD, ORANGE)),
            full=2 * THRESHOLD,
        ),
        Column(
            "Of its limit",
            "percentunit",
            f"max by (feature, model, version) ({model.of_limit('feature', '1h')})",
            OF_LIMIT_STEPS,
        ),
        Column(
            "Out of range",
            "percentunit",
            f"max by (feature, model, version) ({one_line(model.OUT_OF_RANGE)}) {IN_FORCE}",
            ((None, GREEN), (0.05, ORANGE)),
        ),
    ),
    ("FeatureDrift", "PredictionDrift", "ValuesOutOfRange", "ValuesMissing", "ConfidenceLow"),
    none="no row is counted yet",
)
HOSTS = Table(
    "Hosts",
    "What each has left.",
    {"instance": "Host"},
    (
        Column("State", "none", 'min by (instance) (up{job="node"})', DOWN_IS_RED, words=UP),
        Column("CPU busy", "percentunit", host.busy(), ((None, GREEN), (0.9, ORANGE)), full=1),
        Column(
            "Memory left",
            "percentunit",
            f"min by (instance) ({host.memory_left()})",
            ((None, ORANGE), (0.1, GREEN)),
            full=1,
        ),
        Column(
            "Disk left",
            "percentunit",
            f"min by (instance) ({host.disk_left()})",
            ((None, ORANGE), (0.1, GREEN)),
            full=1,
        ),
        Column(
            "Units failed",
            "none",
            'sum by (instance) (node_systemd_unit_state{state="failed"})',
            ((None, GREEN), (1, ORANGE)),
        ),
        Column(
            "Clock off",
            "s",
            f"max by (instance) ({host.clock_offset()})",
            ((None, GREEN), (2, ORANGE)),
        ),
    ),
    ("HostDown", "MemoryAlmostGone", "DiskAlmostFull", "UnitFailed", "ClockOff"),
    none="no host is known",
)
TABLES = (FIRES, VERSIONS, INSTANCES, ROUTES, DRIFT, HOSTS)


def dashboard() -> Dashboard:
    """Build the dashboard Overview."""
    rate = "[$__rate_interval]"
    return panels.dashboard(
        "fortress-overview",
        "Overview",
        "Are users well, and if not, which part is it?",
        *(panels.figure(each).span(4) for each in USERS),
        *(panels.figure(each).span(3) for each in PARTS),
        panels.alerts(FIRES).span(24).height(8),
        panels.coloured(
            panels.STATUS_COLOURS,
            panels.series(
                "Requests by status",
                "What the gateway answered, by status and who did: an instance (upstream), the limiter, or nginx.",
                "reqps",
                (
                    f"sum by (status, answered_by) (rate(fortress_gateway_requests_total{rate})) > 0",
                    "{{status}} {{answered_by}}",
                ),
                none="nobody asks",
            ),
        ),
        panels.series(
            "Latency",
            "At the gateway, of what instances answer.",
            "s",
            *((quantile(share, window="$__rate_interval"), f"p{share * 100:g}") for share in (0.99, 0.9, 0.5)),
            alerts=(*burns(LATENCY), "IrisApiSlow"),
            none="no requests",
        ),
        panels.series(
            "Budgets left",
            f"Over {objectives.DAYS} days; the steeper the fall, the faster what may fail is used up.",
            "percentunit",
            (ERRORS.left, "errors"),
            (LATENCY.left, "latency"),
            alerts=(*burns(ERRORS), *burns(LATENCY)),
        ),
        panels.coloured(
            panels.SEVERITY_COLOURS,
            panels.series(
                "Alerts",
                "How many fired.",
                "none",
                (f"count by (severity) ({FIRING})", "{{severity}}"),
                none="no alert fired",
            ),
        ),
        panels.table_panel(VERSIONS).span(24).height(4),
        panels.table_panel(INSTANCES).span(24).height(7),
        panels.table_panel(ROUTES).span(12).height(8),
        panels.table_panel(HOSTS).span(12).height(8),
        panels.table_panel(DRIFT).span(24).height(7),
    )

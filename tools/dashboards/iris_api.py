"""What people who run a model ask first: is it up, does it fail, how long does it take, what does it answer."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from tools.dashboards import panels
from tools.dashboards.panels import GREEN, ORANGE, RED, figure, series, stacked

API = 'job="iris-api", host=~"$host"'
PREDICT = f'{API}, path="/predict"'
FAILED = f'{PREDICT}, status=~"5.."'
RATE = "[$__rate_interval]"
# Numbers of instances are the same on every host.
INSTANCE = "{{instance}} {{host}}"


def dashboard() -> Dashboard:
    """Build the dashboard Iris API."""
    return panels.dashboard(
        "fortress-iris-api",
        "Iris API",
        "The model's instances: traffic, errors, latency, answers, and what they cost.",
        figure(
            "Instances down",
            "Instances that Prometheus can't reach.",
            "none",
            f"count(up{{{API}}}) - sum(up{{{API}}})",
            (None, GREEN),
            (1, RED),
        ),
        figure(
            "Failed requests",
            "Share of predictions that ended in an error of ours (5xx).",
            "percentunit",
            f"{_rate(FAILED)} / ({_rate(PREDICT)} > 0) or vector(0)",
            (None, GREEN),
            (0.01, RED),
        ),
        figure(
            "Slowest 1 %",
            "99 of 100 predictions took less than this, in the API itself; the gateway's part is not in it.",
            "s",
            # Not a number as long as there is no request, which the comparison leaves out.
            f"{_quantile(0.99, '[5m]')} >= 0",
            (None, GREEN),
            (0.1, ORANGE),
            (0.5, RED),
        ),
        figure(
            "Alerts",
            "Alerts that fire now; Prometheus shows which at /alerts.",
            "none",
            'count(ALERTS{alertstate="firing"}) or vector(0)',
            (None, GREEN),
            (1, RED),
        ),
        stacked(
            series(
                "Requests by status",
                "Predictions asked for. What the gateway refuses (401, 503) never gets here.",
                "reqps",
                (f"sum by (status) (rate(iris_api_requests_total{{{PREDICT}}}{RATE}))", "{{status}}"),
            )
        ),
        series(
            "Latency",
            "Time in the API from a request's head to the end of its answer, predictions only.",
            "s",
            *((_quantile(quantile), f"p{quantile * 100:g}") for quantile in (0.99, 0.9, 0.5)),
        ),
        stacked(
            series(
                "Answers by class",
                "What the model predicts. When the mix shifts, look at the inputs.",
                "ops",
                (f"sum by (class) (rate(iris_api_predictions_total{{{API}}}{RATE}))", "{{class}}"),
            )
        ),
        stacked(
            series(
                "Requests by instance",
                "Round robin gives each the same share; a gap is an instance the gateway avoids.",
                "reqps",
                (f"sum by (host, instance) (rate(iris_api_requests_total{{{PREDICT}}}{RATE}))", INSTANCE),
            )
        ),
        series(
            "Processor",
            "Cores in use; an instance can't use more than one.",
            "none",
            (f"rate(process_cpu_seconds_total{{{API}}}{RATE})", INSTANCE),
        ),
        series(
            "Memory",
            "Resident memory of the process that answers.",
            "bytes",
            (f"process_resident_memory_bytes{{{API}}}", INSTANCE),
        ),
    ).with_variable(panels.variable("host", "Host", 'label_values(up{job="iris-api"}, host)'))


def _rate(labels: str) -> str:
    return f"sum(rate(iris_api_requests_total{{{labels}}}[5m]))"


def _quantile(quantile: float, window: str = RATE) -> str:
    buckets = f"rate(iris_api_request_duration_seconds_bucket{{{PREDICT}}}{window})"
    return f"histogram_quantile({quantile}, sum by (le) ({buckets}))"

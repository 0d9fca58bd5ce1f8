"""The instances, each by itself: is it up, does it fail, how long does it take, and what does it cost."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from tools.dashboards import panels
from tools.dashboards.figures import GREEN, ORANGE, RED, Figure
from tools.dashboards.overview import LATENCY, SECONDS, burns, versions
from tools.rules import host, instances

WHICH = 'host=~"$host", instance=~"$instance"'
API = f'job="iris-api", {WHICH}'
PREDICT = f'{API}, path="/predict"'
FAILED = f'{PREDICT}, status=~"5.."'
RATE = "[$__rate_interval]"
# Numbers of instances are the same on every host.
INSTANCE = "{{instance}} {{host}}"
BY = "host, instance"


def dashboard() -> Dashboard:
    """Build the dashboard Iris API."""
    figures = (
        Figure(
            "Instances down",
            "Instances that Prometheus can't reach.",
            "none",
            f"count(up{{{API}}}) - sum(up{{{API}}})",
            ((None, GREEN), (1, RED)),
            ("IrisApiInstanceDown", "IrisApiDown"),
        ),
        Figure(
            "Failed requests",
            "Share of predictions of the last 5 minutes that ended in an error of ours (5xx).",
            "percentunit",
            f"{_rate(FAILED)} / ({_rate(PREDICT)} > 0) or vector(0)",
            ((None, GREEN), (0.01, RED)),
            ("IrisApiErrors",),
        ),
        Figure(
            "Latency p99",
            "99 of 100 predictions took less than this, in the API itself; the gateway's part is not in it.",
            "s",
            # Not a number as long as there is no request, which the comparison leaves out.
            f"{_quantile(0.99, window='[5m]')} >= 0",
            SECONDS,
            ("IrisApiSlow",),
            none="no requests",
        ),
        Figure(
            "Rows that wait",
            "In the longest queue, as the mean of a minute.",
            "none",
            f"max({instances.queue(API)})",
            ((None, GREEN), (500, ORANGE)),
            ("IrisApiQueueLong",),
        ),
        Figure(
            "Refused for want of capacity",
            "Predictions of 5 minutes that were refused (overloaded), or not in time.",
            "none",
            instances.overloaded(API),
            ((None, GREEN), (20, ORANGE)),
            ("IrisApiOverloaded",),
        ),
        Figure(
            "Starts in 15 minutes",
            "Of the instance that started most often. A deployment is one, a rollback another.",
            "none",
            f"max({instances.starts(WHICH)})",
            ((None, GREEN), (3, ORANGE)),
            ("IrisApiRestarts",),
        ),
    )
    return (
        panels.dashboard(
            "fortress-iris-api",
            "Iris API",
            "The model's instances, each by itself: traffic, errors, latency, queue, and what they cost.",
            *(panels.figure(each).span(4) for each in figures),
            panels.table_panel(versions(WHICH)).span(24).height(4),
            panels.coloured(
                panels.STATUS_COLOURS,
                panels.series(
                    "Requests by status",
                    "Predictions asked for. What the gateway refuses (401, and 503 of the limit) never gets here.",
                    "reqps",
                    (f"sum by (status) (rate(iris_api_requests_total{{{PREDICT}}}{RATE}))", "{{status}}"),
                ),
            ),
            panels.series(
                "Latency",
                "Time in the API from a request's head to the end of its answer, predictions only.",
                "s",
                *((f"{_quantile(share)} >= 0", f"p{share * 100:g}") for share in (0.99, 0.9, 0.5)),
                alerts=("IrisApiSlow", *burns(LATENCY)),
                none="no requests",
            ),
            panels.stacked(
                panels.series(
                    "Requests by instance",
                    "Round robin gives each the same share; a gap is an instance the gateway avoids.",
                    "reqps",
                    (f"sum by ({BY}) (rate(iris_api_requests_total{{{PREDICT}}}{RATE}))", INSTANCE),
                )
            ),
            panels.series(
                "Latency p99 by instance",
                "One that is slower than the rest has less processor, or other requests.",
                "s",
                (f"{_quantile(0.99, BY)} >= 0", INSTANCE),
                none="no requests",
            ),
            panels.series(
                "Errors by instance",
                "Answers of 5xx; its journal has the reasons, with request ids.",
                "reqps",
                (f"sum by ({BY}) (rate(iris_api_requests_total{{{FAILED}}}{RATE}))", INSTANCE),
                alerts=("IrisApiErrors",),
            ),
            panels.series(
                "Requests without a prediction",
                "By the code of the error that they were answered with.",
                "reqps",
                (f"sum by (reason) (rate(iris_api_rejected_requests_total{{{API}}}{RATE})) > 0", "{{reason}}"),
                alerts=("IrisApiOverloaded",),
                none="every request got a prediction",
            ),
            panels.series(
                "Rows that wait for the model",
                "By lane: short for what is answered at once, long for what a thread computes beside it.",
                "none",
                (f"sum by ({BY}, lane) (iris_api_lane_queue_rows{{{API}}})", f"{INSTANCE} {{{{lane}}}}"),
                alerts=("IrisApiQueueLong",),
            ),
            panels.series(
                "Where the time goes, p99",
                "Waiting for others to share a call of the model, and the call itself.",
                "s",
                (f"{_quantile(0.99, of='iris_api_queue_wait_seconds', labels=API)} >= 0", "queue"),
                (f"{_quantile(0.99, of='iris_api_inference_duration_seconds', labels=API)} >= 0", "inference"),
                none="no requests",
            ),
            panels.series(
                "Rows in a call of the model",
                "The mean; above 1 requests share calls.",
                "none",
                (
                    f"sum by ({BY}) (rate(iris_api_batch_rows_sum{{{API}}}{RATE})) "
                    f"/ (sum by ({BY}) (rate(iris_api_batch_rows_count{{{API}}}{RATE})) > 0)",
                    INSTANCE,
                ),
                none="no requests",
            ),
            panels.series(
                "CPU (% of a core)",
                "An instance can't use more than one core, but for long predictions.",
                "percentunit",
                (f"rate(process_cpu_seconds_total{{{API}}}{RATE})", INSTANCE),
            ),
            panels.series(
                "Memory",
                "Resident memory of the process that answers.",
                "bytes",
                (f"process_resident_memory_bytes{{{API}}}", INSTANCE),
            ),
            panels.series(
                "Memory of its limit",
                "Of the unit with all its processes, where the kernel counts it; beyond 100 % it ends one.",
                "percentunit",
                (host.unit_memory('name=~"iris-api@.*", instance=~"$host"'), "{{name}} {{instance}}"),
                alerts=("UnitMemoryAlmostGone",),
                none="the kernel does not count memory by unit",
                limit=0.9,
            ),
            panels.series(
                "Starts in 15 minutes",
                "How often each instance has started.",
                "none",
                (instances.starts(WHICH), INSTANCE),
                alerts=("IrisApiRestarts",),
            ),
            panels.series(
                "Workers replaced in an hour",
                "An instance replaces its worker when a call of the model does not end.",
                "none",
                (instances.replaced(API), INSTANCE),
                alerts=("IrisApiStuck",),
            ),
        )
        .with_variable(panels.variable("host", "Host", 'label_values(up{job="iris-api"}, host)'))
        .with_variable(panels.variable("instance", "Instance", 'label_values(up{job="iris-api"}, instance)'))
    )


def _rate(labels: str) -> str:
    return f"sum(rate(iris_api_requests_total{{{labels}}}[5m]))"


def _quantile(
    share: float,
    by: str = "",
    window: str = RATE,
    of: str = "iris_api_request_duration_seconds",
    labels: str = PREDICT,
) -> str:
    groups = ", ".join(filter(None, ("le", by)))
    return f"histogram_quantile({share}, sum by ({groups}) (rate({of}_bucket{{{labels}}}{window})))"

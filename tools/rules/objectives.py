"""Service levels: what users may expect, and how fast the allowed rest is used up.

What counts is what instances were asked for on the routes of predictions (`SERVED`). An answer of 5xx is bad,
`overloaded` included, and so is none (502, 504). What the gateway decides by itself does not count, in either number:
the limit's 503, for who asks for too much was promised nothing, and a wrong password. Input that was refused (4xx) is
an answer. A slow prediction is one of more than 250 ms in the instance.

The windows and factors are those of the SRE workbook, chapter 5: a budget of 14 days, since Prometheus keeps 15, and an
alert once 2 % of it are gone within an hour, 5 % within six hours, or 10 % within a day. The short window of each ends
the alert soon after the fault.
"""

from dataclasses import dataclass

from tools.rules.parts import Alert, Group, Record, Severity

PREDICTIONS = 'route=~"predict|v1|v2|invocations"'
SERVED = f'{PREDICTIONS}, answered_by="upstream"'
SLOW = 'path="/predict", le="0.25"'
ALL = 'path="/predict", le="+Inf"'
DAYS = 14
"""Days of the budget: at most what Prometheus keeps (prometheus_retention_time)."""


@dataclass(frozen=True)
class Objective:
    """What share of requests is to be good, and the records that count the others."""

    name: str
    good: float
    bad: str
    total: str
    what: str

    @property
    def left(self) -> str:
        """Return the record of the share of the budget that is left: 1 untouched, below 0 overspent."""
        return f"fortress:{self.name.removesuffix('Budget').lower()}_budget:left_ratio"


@dataclass(frozen=True)
class Burn:
    """How much of the budget may be gone in which time before somebody is told."""

    speed: str
    severity: Severity
    share: float
    long: str
    short: str
    hours: float


OBJECTIVES = (
    Objective("ErrorBudget", 0.999, "fortress:gateway_errors", "fortress:gateway_requests", "fail"),
    Objective("LatencyBudget", 0.99, "fortress:slow_predictions", "fortress:predictions", "take more than 250 ms"),
)
BURNS = (
    Burn("Fast", "critical", 0.02, "1h", "5m", 1),
    Burn("Steadily", "critical", 0.05, "6h", "30m", 6),
    Burn("Slowly", "warning", 0.1, "1d", "2h", 24),
)
LEAST_BAD = 5
"""Fewer bad requests than this in the long window say nothing of a share."""


def threshold(objective: Objective, burn: Burn) -> float:
    """Return the share of bad requests at which this part of the budget is gone in this time."""
    return round(burn.share * DAYS * 24 / burn.hours * (1 - objective.good), 6)


def _records() -> list[Record]:
    requests, bucket = "fortress_gateway_requests_total", "iris_api_request_duration_seconds_bucket"
    records = [
        Record("fortress:gateway_requests:rate5m", f"sum(rate({requests}{{{SERVED}}}[5m]))"),
        Record("fortress:gateway_errors:rate5m", f'sum(rate({requests}{{{SERVED}, status=~"5.."}}[5m]))'),
        Record("fortress:predictions:rate5m", f"sum(rate({bucket}{{{ALL}}}[5m]))"),
        Record(
            "fortress:slow_predictions:rate5m",
            f"sum(rate({bucket}{{{ALL}}}[5m])) - sum(rate({bucket}{{{SLOW}}}[5m]))",
        ),
    ]
    # Of the rates above, since those of a day would be asked of millions of samples at each evaluation.
    for objective in OBJECTIVES:
        for window in ("30m", "1h", "2h", "6h", "1d"):
            records += [
                Record(f"{name}:rate{window}", f"avg_over_time({name}:rate5m[{window}])")
                for name in (objective.total, objective.bad)
            ]
        bad, total = (f"avg_over_time({name}:rate5m[{DAYS}d])" for name in (objective.bad, objective.total))
        # Where nothing was asked for, nothing is used up.
        used = f"({bad} / ({total} > 0) or 0 * {bad})"
        records.append(Record(objective.left, f"1 - {used} / {round(1 - objective.good, 6)}"))
    return records


def _alert(objective: Objective, burn: Burn) -> Alert:
    def share(window: str) -> str:
        return f"({objective.bad}:rate{window} / ({objective.total}:rate{window} > 0))"

    limit = threshold(objective, burn)
    return Alert(
        f"{objective.name}Burns{burn.speed}",
        burn.severity,
        f"""
        {share(burn.long)} > {limit} and {share(burn.short)} > {limit}
        and {objective.bad}:rate{burn.long} * {burn.hours * 3600:g} > {LEAST_BAD}
        """,
        f"{{{{ $value | humanizePercentage }}}} of the requests of the last {burn.long} {objective.what}.",
        f"At this pace {burn.share:.0%} of what {DAYS} days allow (an objective of {objective.good * 100:g} %) are "
        f"gone in {burn.long}.",
    )


GROUPS = [
    Group(
        "objectives",
        [*_records(), *(_alert(objective, burn) for objective in OBJECTIVES for burn in BURNS)],
        interval="30s",
    )
]

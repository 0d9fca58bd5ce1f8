"""The instances of the API: whether they are there, fail, are slow, or have too much to do."""

from tools.rules.parts import Alert, Group, Record, where

PREDICT = 'path="/predict"'
WHERE = "{{ $labels.instance }}{{ with $labels.host }} on {{ . }}{{ end }}"
OVERLOADED = 'reason=~"overloaded|deadline_exceeded"'


def starts(matcher: str = "") -> str:
    """Return how often each instance started in fifteen minutes."""
    labels = where('job="iris-api"', matcher)
    return f"changes(process_start_time_seconds{labels}[15m])"


def queue(matcher: str = "") -> str:
    """Return the rows that wait in each instance, as the mean of a minute."""
    return f"avg_over_time(iris_api_queue_rows{where(matcher)}[1m])"


def replaced(matcher: str = "") -> str:
    """Return how many workers of each instance have replaced themselves in an hour."""
    return f"sum by (host, instance) (increase(iris_api_replacements_total{where(matcher)}[1h]))"


def overloaded(matcher: str = "") -> str:
    """Return the predictions of five minutes that were refused or late for want of capacity."""
    return f"sum(increase(iris_api_rejected_requests_total{where(OVERLOADED, matcher)}[5m]))"


GROUPS = [
    Group(
        "iris-api",
        [
            Record("iris_api:requests:rate5m", f"sum(rate(iris_api_requests_total{{{PREDICT}}}[5m]))"),
            Record(
                "iris_api:errors:ratio_rate5m",
                f'sum(rate(iris_api_requests_total{{{PREDICT}, status=~"5.."}}[5m])) / (iris_api:requests:rate5m > 0)',
            ),
            Record(
                "iris_api:latency_seconds:p99_5m",
                f"histogram_quantile(0.99, sum by (le) "
                f"(rate(iris_api_request_duration_seconds_bucket{{{PREDICT}}}[5m])))",
            ),
            Alert(
                "IrisApiInstanceDown",
                "warning",
                'up{job="iris-api"} == 0',
                f"{WHERE} does not answer.",
                "The others carry its load. There, `systemctl status {{ $labels.instance }}` and its journal say why.",
                hold="15s",
            ),
            Alert(
                "IrisApiDown",
                "critical",
                'sum(up{job="iris-api"}) == 0 or absent(up{job="iris-api"})',
                "No instance of the API answers.",
                "Every prediction fails. On the hosts, `systemctl status iris-api.target` shows the instances.",
                hold="15s",
            ),
            Alert(
                "IrisApiMixed",
                "warning",
                "count by (host) (count by (host, deployment) (iris_api_release_info)) > 1",
                "The instances on {{ $labels.host }} run {{ $value }} different deployments.",
                "A deployment was cut short. On the host, `iris-deploy status --check` shows it and `iris-deploy "
                "recover` ends it.",
                # Longer than a deployment may take on a host (iris_api_deploy_timeout), and as long to put all back.
                hold="5m",
            ),
            Alert(
                "IrisApiRestarts",
                "warning",
                # An instance that ran two deployments was deployed, and perhaps rolled back: nothing kills it.
                f"""
                {starts()} > 2 unless on (host, instance)
                count by (host, instance) (
                    count by (host, instance, deployment) (last_over_time(iris_api_release_info[15m]))
                ) > 1
                """,
                f"{WHERE} started {{{{ $value }}}} times in 15 minutes.",
                "Something kills it again and again. There, `journalctl --unit {{ $labels.instance }}` says what.",
            ),
            Alert(
                "IrisApiHostsDiffer",
                "warning",
                "count(count by (name, version, sha256) (iris_api_model_info)) > 1",
                "The instances of the API serve {{ $value }} different models.",
                "A host was away during a deployment or a rollback, say. `make history` shows what each got, and "
                "`make deploy` "
                "brings all to one.",
                # Longer than a deployment takes over several hosts, one after the other.
                hold="15m",
            ),
            Alert(
                "IrisApiReleasesDiffer",
                "warning",
                # Of hosts with different Pythons each has the release that was built for its own.
                'count(count by (release) (label_replace(iris_api_release_info, "release", "$1", "release", '
                '"(.+)-cp[0-9]+"))) > 1',
                "The instances of the API run {{ $value }} different releases.",
                "A host was away during a deployment or a rollback, say. `make history` shows what each got, and "
                "`make deploy` brings all to one.",
                hold="15m",
            ),
            Alert(
                "IrisApiErrors",
                "critical",
                # One of the ten requests of a quiet night is no reason to wake somebody.
                f"""
                iris_api:errors:ratio_rate5m > 0.01 and
                sum(increase(iris_api_requests_total{{{PREDICT}, status=~"5.."}}[5m])) > 5
                """,
                "{{ $value | humanizePercentage }} of the predictions fail.",
                "These are errors of ours (5xx), not refused input. The instances' journals carry them, with "
                "request ids.",
                hold="2m",
            ),
            Alert(
                "IrisApiSlow",
                "warning",
                f"""
                iris_api:latency_seconds:p99_5m > 0.25 and
                sum(increase(iris_api_request_duration_seconds_bucket{{{PREDICT}, le="+Inf"}}[5m])) > 10
                """,
                "One prediction in a hundred takes longer than {{ $value | humanizeDuration }}.",
                "Check the processor and the instances on the dashboard Iris API; another instance may help, or a "
                "lower limit at "
                "the gateway.",
                hold="5m",
            ),
            Alert(
                "IrisApiOverloaded",
                "warning",
                f"{overloaded()} > 20",
                "{{ $value | humanize }} predictions in 5 minutes were refused or not in time, for want of capacity.",
                "More is asked than the instances can compute. More of them (fortress_api_instances), or a lower "
                "limit for each client.",
                hold="1m",
            ),
            Alert(
                "IrisApiQueueLong",
                "warning",
                f"{queue()} > 500",
                f"{{{{ $value | humanize }}}} rows wait in {WHERE}.",
                "Requests wait for the model; the next step is `overloaded`. Large batches come, or the model has "
                "become slow.",
                hold="1m",
            ),
            Alert(
                "IrisApiStuck",
                "warning",
                f"{replaced()} > 2",
                f"{WHERE} has replaced its worker {{{{ $value | humanize }}}} times in an hour.",
                "Calls of the model do not end. Its journal names the requests; the model may not like some input.",
            ),
        ],
    ),
]

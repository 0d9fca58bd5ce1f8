"""What Prometheus reads from /metrics; every label has few values, none of them chosen by a client.

The numbers are plain integers and floats of the event loop's thread, put into Prometheus' form only when they are
read: a row of thirteen features would cost more in locks than in inference.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from iris_api.bundle.manifest import NUMERIC, Feature, Manifest, Reference, printable
from iris_api.engines.columns import Coded, Columns, Mixed, Table
from iris_api.engines.model import Prediction, Row
from iris_api.settings import Settings

# A prediction takes some 0.4 ms, one in a queue some 10; a second is the time after which a client has long given up.
LATENCY_BUCKETS = (
    0.0002,
    0.0004,
    0.0006,
    0.001,
    0.002,
    0.004,
    0.008,
    0.016,
    0.032,
    0.064,
    0.128,
    0.25,
    0.5,
    1.0,
    2.0,
    4.0,
)
INFERENCE_BUCKETS = (0.00001, 0.00002, 0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 1.0)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
CONFIDENCE_BUCKETS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
# Bins of a feature beside its categories: those that are not frequent, missing values, and those of a text or a date.
OTHER, MISSING, PRESENT = "other", "missing", "present"
# Of a feature, those three included. Drift is judged from 40 rows a bin on, as by fewer rows chance looks like drift:
# with a bin for each of many categories a model with little traffic would never be judged.
MOST_BINS = 10
# What data looks like belongs to the model that saw it: across a deployment the counts of two models are not added up.
_MODEL = ("model", "version")
_LONGEST_LABEL = 64
# Why a request got no prediction, by the `code` of its error. Whatever is not among them counts as other.
REASONS = (
    "unsupported_media_type",
    "body_too_large",
    "too_many_rows",
    "too_many_values",
    "too_much_work",
    "invalid_json",
    "invalid_input",
    "no_answer",
    "overloaded",
    "deadline_exceeded",
    "other",
)


# What an endpoint may answer with. These series are there from the start: to `rate` one that begins at 1 has not grown.
STATUSES = (200, 400, 413, 415, 422, 499, 500, 503)


class Histogram:
    """Counts numbers by buckets, whose upper edges ascend."""

    def __init__(self, buckets: Sequence[float]) -> None:
        self._buckets = buckets
        self._counts = [0] * (len(buckets) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one number."""
        self._counts[bisect_left(self._buckets, value)] += 1
        self._sum += value

    def observe_all(self, values: NDArray[Any]) -> None:
        """Count many numbers."""
        _count_bins(self._counts, self._buckets, values)
        self._sum += float(values.sum())

    def add_to(self, family: HistogramMetricFamily, labels: Sequence[str] = ()) -> HistogramMetricFamily:
        """Add the counts to a metric and return it."""
        edges = [*map(str, map(float, self._buckets)), "+Inf"]
        cumulated = map(float, accumulate(self._counts))
        family.add_metric(labels, list(zip(edges, cumulated, strict=True)), self._sum)
        return family


class Spread:
    """How the values of a feature spread over bins: of a number by its reference, else by category.

    The most frequent categories have a bin of their own, the others are merged into one: at most MOST_BINS in all. A
    text or a date has no bins by its value: what people sent stays private.
    """

    def __init__(self, feature: Feature) -> None:
        self.edges = feature.reference.edges if feature.reference else []
        known = dict(enumerate(feature.reference.shares, 1)) if feature.reference else {}
        frequent = sorted(feature.shares or [], key=lambda each: -each.share)[: MOST_BINS - 1 - feature.nullable]
        categories = {each.value: each.share for each in frequent}
        # A reference is of the rows that have a value, these shares are of all rows.
        bins = {str(number): share * (1 - feature.missing) for number, share in known.items()}
        # Two categories may have the same label, and one may be called as a bin is: then they are counted together.
        self._labels = {value: printable(str(value))[:_LONGEST_LABEL] for value in categories}
        for value, share in categories.items():
            bins[self._labels[value]] = bins.get(self._labels[value], 0.0) + share
        if categories and feature.kind != "boolean":
            bins[OTHER] = bins.get(OTHER, 0.0) + max(0.0, 1 - sum(categories.values()) - feature.missing)
        if not bins:
            bins[PRESENT] = 1 - feature.missing
        if feature.nullable:
            bins[MISSING] = bins.get(MISSING, 0.0) + feature.missing
        self.labels, self.shares = list(bins), list(bins.values())
        self.counts = [0] * len(bins)
        place = {label: number for number, label in enumerate(self.labels)}
        self._missing = place.get(MISSING, 0)
        self._places = {value: place[label] for value, label in self._labels.items()}
        self._other = place.get(OTHER, 0)
        self._numeric = feature.kind in NUMERIC
        self._span = feature.limits[1:3] if self._numeric else (0.0, 0.0)
        self._nullable = feature.nullable

    def count(self, value: Any) -> None:
        """Count a value, which may be missing."""
        if value is None:
            self.counts[self._missing] += 1
        elif self._numeric:
            self.counts[bisect_left(self.edges, value)] += 1
        else:
            self.counts[self._places.get(value, self._other)] += 1

    def count_all(self, values: NDArray[np.float64]) -> int:
        """Count many numbers, NaN as a missing one; return how many of them no training row had."""
        if self._nullable:
            known = values[values == values]
            self.counts[self._missing] += len(values) - len(known)
            values = known
        _count_bins(self.counts, self.edges, values)
        least, greatest = self._span
        return len(values) - int(np.count_nonzero((values >= least) & (values <= greatest)))

    def count_coded(self, column: Coded) -> None:
        """Count many values that are no numbers."""
        missing, *counts = np.bincount(column.numbers + 1, minlength=len(column.values) + 1).tolist()
        for value, count in zip(column.values, counts, strict=True):
            self.counts[self._places.get(value, self._other)] += count
        if missing:
            self.counts[self._missing] += missing


class Metrics(Collector):
    """The metrics of one instance, in a registry of their own."""

    def __init__(self, settings: Settings, manifest: Manifest, engine: str) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._manifest = manifest
        self._model = (manifest.name, manifest.version)
        self._infos = {
            "iris_api_model": (
                "The model that answers.",
                {"name": manifest.name, "version": manifest.version, "sha256": manifest.sha256, "engine": engine},
            ),
            "iris_api_release": (
                "The release that runs.",
                {
                    "release": settings.release,
                    "deployment": settings.deployment,
                    "instance_name": settings.name,
                },
            ),
        }
        self.queues: Callable[[], dict[str, int]] = lambda: {"short": 0, "long": 0}
        """Tells how many rows wait in each lane, `short` and `long`."""
        self.replacements: Callable[[], int] = lambda: 0
        """Tells how many workers of this instance have replaced themselves."""
        self.paths: Sequence[str] = ("/predict",)
        """Paths of the endpoints, whose series are there from the next `reset` on."""
        self.reset()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.registry.register(self)

    def reset(self) -> None:
        """Start from zero, with every series that an alert or a ratio may ask for already there."""
        features, classes = self._manifest.features, self._manifest.classes or []
        self._requests = Counter({(path, status): 0 for path in self.paths for status in STATUSES})
        self._rejected = Counter(dict.fromkeys(REASONS, 0))
        self._latency = {"/predict": Histogram(LATENCY_BUCKETS)}
        self.queue_wait = Histogram(INFERENCE_BUCKETS)
        self.inference = Histogram(INFERENCE_BUCKETS)
        self.batch_rows = Histogram(BATCH_BUCKETS)
        self._confidence = Histogram(CONFIDENCE_BUCKETS)
        self._classes = [0] * len(classes)
        target = self._manifest.target.reference
        self._target_edges = target.edges if target else []
        self._target_bins = [0] * len(target.shares) if target else []
        self._out_of_range = [0] * len(features)
        self._spreads = [Spread(feature) for feature in features]
        self._per_feature = [
            (number, *feature.limits[1:3], spread.edges, spread.counts)
            for number, (feature, spread) in enumerate(zip(features, self._spreads, strict=True))
            if feature.is_plain
        ]
        self._others = [
            (number, spread.count, feature.limits[1:3] if feature.kind in NUMERIC else None)
            for number, (feature, spread) in enumerate(zip(features, self._spreads, strict=True))
            if not feature.is_plain
        ]

    def count_request(self, path: str, status: int, seconds: float) -> None:
        """Count an answer: the path of its route, its status, and the seconds that it took."""
        self._requests[path, status] += 1
        if (latency := self._latency.get(path)) is None:
            latency = self._latency[path] = Histogram(LATENCY_BUCKETS)
        latency.observe(seconds)

    def count_rejection(self, reason: str) -> None:
        """Count a request that got no prediction, by the `code` of its error."""
        self._rejected[reason if reason in self._rejected else "other"] += 1

    def count_row(self, row: Row, prediction: Prediction) -> None:
        """Count a row's values and its prediction."""
        for number, least, greatest, edges, bins in self._per_feature:
            value = row[number]
            bins[bisect_left(edges, value)] += 1
            if not least <= value <= greatest:
                self._out_of_range[number] += 1
        for number, count, span in self._others:
            value = row[number]
            count(value)
            if span and value is not None and not span[0] <= value <= span[1]:
                self._out_of_range[number] += 1
        if prediction.number is None and self._target_bins:
            self._target_bins[bisect_left(self._target_edges, float(prediction.value))] += 1  # type: ignore[arg-type]
        if prediction.number is None:
            return
        self._classes[prediction.number] += 1
        if prediction.probabilities is not None:
            self._confidence.observe(prediction.probabilities[prediction.number])

    def count_table(self, table: Table, answers: Columns) -> None:
        """Count the values and predictions of many rows, as `count_row` does for one."""
        columns = table.columns if isinstance(table, Mixed) else np.ascontiguousarray(table.T)
        for number, (values, spread) in enumerate(zip(columns, self._spreads, strict=True)):
            if isinstance(values, Coded):
                spread.count_coded(values)
            else:
                self._out_of_range[number] += spread.count_all(values)
        if answers.numbers is None:
            if self._target_bins:
                _count_bins(self._target_bins, self._target_edges, answers.values)
            return
        counts = np.bincount(answers.numbers, minlength=len(self._classes)).tolist()
        self._classes = [before + count for before, count in zip(self._classes, counts, strict=True)]
        if answers.probabilities is not None:
            self._confidence.observe_all(answers.probabilities[np.arange(len(table)), answers.numbers])

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics in Prometheus' form."""
        for name, (text, labels) in self._infos.items():
            yield InfoMetricFamily(name, text, labels)
        requests = CounterMetricFamily("iris_api_requests", "Requests answered.", labels=["path", "status"])
        for (path, status), count in self._requests.items():
            requests.add_metric([path, str(status)], count)
        yield requests
        latency = HistogramMetricFamily(
            "iris_api_request_duration_seconds",
            "Time from the request's head to the end of its answer.",
            labels=["path"],
        )
        for path, histogram in self._latency.items():
            histogram.add_to(latency, [path])
        yield latency
        yield _counter("iris_api_rejected_requests", "Requests without a prediction.", "reason", self._rejected.items())
        queues = self.queues()
        text = "Rows that wait for the model at this moment"
        yield GaugeMetricFamily("iris_api_queue_rows", f"{text}.", value=sum(queues.values()))
        lanes = GaugeMetricFamily("iris_api_lane_queue_rows", f"{text}, by lane.", labels=["lane"])
        for lane, rows in queues.items():
            lanes.add_metric([lane], rows)
        yield lanes
        yield CounterMetricFamily(
            "iris_api_replacements",
            "Workers that ended themselves because a call did not end.",
            value=self.replacements(),
        )
        for name, text, histogram in (
            ("queue_wait_seconds", "Time a request waited for others to share a call of the model.", self.queue_wait),
            ("inference_duration_seconds", "Time of one call of the model.", self.inference),
            ("batch_rows", "Rows in one call of the model.", self.batch_rows),
        ):
            yield histogram.add_to(HistogramMetricFamily(f"iris_api_{name}", text))
        if self._manifest.training_rows:
            text = "Rows that the shares of the training data are of."
            known = GaugeMetricFamily("iris_api_training_rows", text, labels=_MODEL)
            known.add_metric(self._model, self._manifest.training_rows)
            yield known
        yield from self._collect_predictions()
        yield from self._collect_features()

    def _collect_predictions(self) -> Iterator[Metric]:
        classes, target = self._manifest.classes, self._manifest.target.reference
        if target:
            text = "Rows answered, by bin of the training target."
            counts = ((str(number), count) for number, count in enumerate(self._target_bins, 1))
            yield self._of_model("iris_api_predicted_values", text, "bin", counts)
            yield self._target_shares(target)
        if classes:
            names = [printable(each.name) for each in classes]
            text = "Rows answered, by predicted class."
            yield self._of_model("iris_api_predictions", text, "class", zip(names, self._classes, strict=True))
            text = "Share of a class in the training data."
            shares = GaugeMetricFamily("iris_api_class_training_ratio", text, labels=["class", *_MODEL])
            for name, each in zip(names, classes, strict=True):
                shares.add_metric([name, *self._model], each.share)
            yield shares
        if self._manifest.probabilities:
            text = "Probability of the predicted class."
            confidence = HistogramMetricFamily("iris_api_prediction_confidence", text, labels=_MODEL)
            yield self._confidence.add_to(confidence, self._model)

    def _of_model(self, name: str, text: str, label: str, counts: Iterable[tuple[str, int]]) -> Metric:
        family = CounterMetricFamily(name, text, labels=[label, *_MODEL])
        for value, count in counts:
            family.add_metric([value, *self._model], count)
        return family

    def _target_shares(self, target: Reference) -> Metric:
        text = "Share of the training targets in a bin."
        family = GaugeMetricFamily("iris_api_predicted_value_training_ratio", text, labels=["bin", *_MODEL])
        for number, share in enumerate(target.shares, 1):
            family.add_metric([str(number), *self._model], share)
        return family

    def _collect_features(self) -> Iterator[Metric]:
        values = CounterMetricFamily(
            "iris_api_feature_values",
            "Values asked about, by bin of the training data, or by frequent category.",
            labels=["feature", "bin", *_MODEL],
        )
        text = "Share of the training data in a bin."
        shares = GaugeMetricFamily("iris_api_feature_training_ratio", text, labels=["feature", "bin", *_MODEL])
        names = [printable(name) for name in self._manifest.feature_names]
        for name, spread in zip(names, self._spreads, strict=True):
            for label, share, count in zip(spread.labels, spread.shares, spread.counts, strict=True):
                values.add_metric([name, label, *self._model], count)
                shares.add_metric([name, label, *self._model], share)
        yield values
        yield shares
        features = zip(names, self._out_of_range, self._manifest.features, strict=True)
        out_of_range = ((name, count) for name, count, feature in features if feature.kind in NUMERIC)
        text = "Values beyond the range of the training data."
        yield self._of_model("iris_api_out_of_range_values", text, "feature", out_of_range)


def _count_bins(counts: list[int], edges: Sequence[float], values: NDArray[Any]) -> None:
    """Count numbers by bins, whose upper edges ascend: by comparisons, which cost less than a search for each."""
    left = len(values)
    for number, edge in enumerate(edges):
        above = int(np.count_nonzero(values > edge))
        counts[number] += left - above
        left = above
    counts[len(edges)] += left


def _counter(name: str, text: str, label: str, counts: Iterable[tuple[str, int]]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in counts:
        family.add_metric([value], count)
    return family

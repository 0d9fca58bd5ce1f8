"""What Prometheus reads from /metrics; every label has few values, none of them chosen by a client."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from iris_api.manifest import Manifest
from iris_api.settings import Settings

# A prediction takes some 0.4 ms, one in a queue some 10; a second is the time after which a client has long given up.
LATENCY_BUCKETS = (0.0002, 0.0004, 0.0006, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.25, 0.5, 1.0)

# They double the series, and nobody asks for them.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """The metrics of one instance, in a registry of their own."""

    def __init__(self, settings: Settings, manifest: Manifest) -> None:
        """Create all of them, at zero."""
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.requests = Counter("iris_api_requests", "Requests answered.", ["path", "status"], registry=self.registry)
        self.latency = Histogram(
            "iris_api_request_duration_seconds",
            "Time from the request's head to the end of its answer.",
            ["path"],
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.predictions = Counter(
            "iris_api_predictions", "Rows answered, by predicted class.", ["class"], registry=self.registry
        )
        Info("iris_api_model", "The model that answers.", registry=self.registry).info(
            {"name": manifest.name, "version": manifest.version, "sha256": manifest.sha256}
        )
        Info("iris_api_release", "The release that runs.", registry=self.registry).info(
            {"release": settings.release, "instance_name": settings.name}
        )
        self._classes = [each.name for each in manifest.classes or []]
        self.reset()

    def reset(self) -> None:
        """Start from zero, with every series that an alert or a ratio may ask for already there."""
        self.requests.clear()
        self.latency.clear()
        self.predictions.clear()
        for status in ("200", "422", "500"):
            self.requests.labels("/predict", status)
        self.latency.labels("/predict")
        for name in self._classes:
            self.predictions.labels(name)

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)

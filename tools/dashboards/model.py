"""What the model is asked about and what it answers, beside what it was trained on."""

from grafana_foundation_sdk.builders import timeseries
from grafana_foundation_sdk.builders.dashboard import Dashboard

from tools.dashboards import panels
from tools.dashboards.figures import GREEN, ORANGE, Column, Figure, Table
from tools.dashboards.overview import DRIFT, OF_LIMIT_STEPS, VERSIONS
from tools.drift import ROWS_PER_BIN, THRESHOLD
from tools.rules import model
from tools.rules.parts import one_line

RATE = "[$__rate_interval]"
WHICH = "{{feature}} {{version}}"
FEW = f"fewer than {model.ROWS} rows in the last hour"
FEWER = f"fewer than {ROWS_PER_BIN} rows a bin in the last hour"
ROWS = 'iris_api:drift_rows:increase1h{of="prediction"}'
PREDICTED = Table(
    "What is predicted, beside the training data",
    "Share of each class, or of each bin of a predicted number, in the last hour and in training.",
    {"bin": "Class or bin", "model": "Model", "version": "Version"},
    (
        Column(
            "Training",
            "percentunit",
            'max by (bin, model, version) (iris_api:drift_training:ratio{of="prediction"})',
            full=1,
        ),
        Column(
            "Last hour",
            "percentunit",
            f"max by (bin, model, version) ({ROWS} / on ({model.BY}) group_left () (sum by ({model.BY}) ({ROWS}) > 0)) "
            "and on (bin, model, version) iris_api:drift_training:ratio",
            full=1,
        ),
    ),
    ("PredictionDrift",),
    none="no row is counted yet",
)


def _drift(words: str, window: str) -> timeseries.Panel:
    return panels.limited(
        panels.series(
            f"Drift by feature, last {words}",
            "The population stability index: how far the rows are from the training data. Dashed is the least limit of "
            f"any feature: {THRESHOLD:g}, and more the fewer rows the model was trained on. The day is for models with "
            "little traffic.",
            "none",
            (model.psi("feature", window), WHICH),
            (model.psi("prediction", window), "predictions {{version}}"),
            (f"min by (version) ({model.LIMIT})", "limit {{version}}"),
            alerts=("FeatureDrift", "PredictionDrift"),
            none=FEWER.replace("hour", words),
        )
    )


def dashboard() -> Dashboard:
    """Build the dashboard Model."""
    figures = (
        Figure(
            "Rows in the last hour",
            "By which drift of the hour is judged.",
            "none",
            f"sum({ROWS})",
        ),
        Figure(
            "Greatest drift of a feature",
            "Its stability index over the last hour, as a share of its limit: from 100 % on it is drift.",
            "percentunit",
            f"max({model.of_limit('feature', '1h')})",
            OF_LIMIT_STEPS,
            ("FeatureDrift",),
            none=FEWER,
        ),
        Figure(
            "Drift of what is predicted",
            "The stability index of classes or predicted numbers over the last hour, as a share of its limit.",
            "percentunit",
            f"max({model.of_limit('prediction', '1h')})",
            OF_LIMIT_STEPS,
            ("PredictionDrift",),
            none=FEWER,
        ),
        Figure(
            "Out of range",
            "Greatest share of the values of a feature in the last hour that are beyond all training rows.",
            "percentunit",
            f"max({one_line(model.OUT_OF_RANGE)})",
            ((None, GREEN), (0.05, ORANGE)),
            ("ValuesOutOfRange",),
            none=FEW,
        ),
        Figure(
            "Confidence",
            "Mean probability of the predicted class in the last hour.",
            "percentunit",
            f"min({model.CONFIDENCE})",
            ((None, GREEN),),
            ("ConfidenceLow",),
            none=FEW,
        ),
        Figure(
            "Models in force",
            "Versions that serve; two for as long as a deployment runs.",
            "none",
            "count(count by (name, version, sha256) (iris_api_model_info))",
            ((None, GREEN), (2, ORANGE)),
            ("IrisApiHostsDiffer",),
            none="no instance answers",
        ),
    )
    return panels.dashboard(
        "fortress-model",
        "Model",
        "What the model is asked about and what it answers, beside what it was trained on.",
        *(panels.figure(each).span(4) for each in figures),
        panels.table_panel(VERSIONS).span(24).height(4),
        panels.stacked(
            panels.series(
                "Predictions by class",
                "Rows a second. When the mix shifts, look at the inputs.",
                "ops",
                (
                    f"sum by (class, version) (rate(iris_api_predictions_total{RATE}))",
                    "{{class}} {{version}}",
                ),
                (
                    f"sum by (bin, version) (rate(iris_api_predicted_values_total{RATE}))",
                    "bin {{bin}} {{version}}",
                ),
                none="this model has no classes",
            )
        ),
        panels.table_panel(PREDICTED).span(12).height(8),
        *map(_drift, ("hour", "day"), ("1h", "1d")),
        panels.table_panel(DRIFT).span(24).height(7),
        panels.series(
            "Values out of range",
            "Share of the values of the last hour beyond all training data; a changed unit (cm for mm) looks so.",
            "percentunit",
            (one_line(model.OUT_OF_RANGE), WHICH),
            alerts=("ValuesOutOfRange",),
            none=FEW,
            limit=0.05,
        ),
        panels.series(
            "Missing values, more than in training",
            "Of features that may be missing: the share of the rows of the last hour, less that of the training data.",
            "percentunit",
            (one_line(model.MISSING), WHICH),
            alerts=("ValuesMissing",),
            none=f"no feature may be missing, or {FEW}",
            limit=0.1,
        ),
        panels.series(
            "Confidence",
            "Mean probability of the predicted class, over an hour.",
            "percentunit",
            (model.CONFIDENCE, "{{model}} {{version}}"),
            alerts=("ConfidenceLow",),
            none=FEW,
        ).max(1),
        panels.series(
            "Refused input",
            "Requests whose rows the model can't be asked about, by the code of their error.",
            "reqps",
            (
                f'sum by (reason) (rate(iris_api_rejected_requests_total{{reason=~"invalid_input|no_answer"}}{RATE}))',
                "{{reason}}",
            ),
        ),
    )

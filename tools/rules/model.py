"""Whether the model still sees the world that it was trained on.

The index and its limits are those of tools/drift.py, which has the same arithmetic in numpy. All is counted in rows.
"""

from tools.drift import NOISE, ROWS_PER_BIN, SMOOTHING, THRESHOLD
from tools.rules.parts import Alert, Group, Record, where

BY = "model, version, of, feature"
# Below so many rows a share or a mean says nothing.
ROWS = 200
OF_FEATURE = '"of", "feature", "", ""'
OF_PREDICTION = '"of", "prediction", "", ""'
CLASS_AS_BIN = '"bin", "$1", "class", "(.+)"'
HOLD = "2m"
LIMIT = "iris_api:drift_limit"
CONFIDENCE = "iris_api:confidence:mean1h"
OUT_OF_RANGE = f"""
sum by (model, version, feature) (increase(iris_api_out_of_range_values_total[1h]))
/ on (model, version, feature)
(sum by (model, version, feature) (iris_api:drift_rows:increase1h) >= {ROWS})
"""
"""Of each feature, the share of the values of an hour that no training row had."""
MISSING = f"""
iris_api:drift_rows:increase1h{{of="feature", bin="missing"}} / on ({BY}) group_left ()
(sum by ({BY}) (iris_api:drift_rows:increase1h) >= {ROWS})
- iris_api:drift_training:ratio
"""
"""Of each feature that may be missing, by how much more often it was in the last hour than in training."""


def psi(of: str, window: str = "") -> str:
    """Return the index of the features (`feature`) or of what is predicted (`prediction`), over an hour and a day."""
    return "iris_api:drift_psi" + where(f'of="{of}"', f'window="{window}"' if window else "")


def of_limit(of: str, window: str) -> str:
    """Return the same as a share of its limit, from 1 on an alert."""
    return f"{psi(of, window)} / on ({BY}) group_left () {LIMIT}"


def _drifts(of: str) -> str:
    return f"{psi(of)} > on ({BY}) group_left () {LIMIT}"


def _psi(window: str) -> list[Record]:
    """Return the records of the index over a window, of which `iris_api:drift_rows:increaseWINDOW` has the rows."""
    rows, expected = f"iris_api:drift_rows:increase{window}", f"iris_api:drift_expected:increase{window}"
    return [
        Record(
            expected,
            f"iris_api:drift_training:ratio * on ({BY}) group_left () sum by ({BY}) ({rows})",
        ),
        Record(
            "iris_api:drift_psi",
            f"""
            sum by ({BY}) (({rows} - {expected}) * ln(({rows} + {SMOOTHING}) / ({expected} + {SMOOTHING})))
            / (sum by ({BY}) ({rows}) + {SMOOTHING} * count by ({BY}) ({expected}))
            and sum by ({BY}) ({rows}) >= {ROWS_PER_BIN} * count by ({BY}) ({expected})
            """,
            labels={"window": window},
        ),
    ]


GROUPS = [
    Group(
        "model",
        [
            # Of each bin, the share of the training data; only of the versions that serve now: no other is judged.
            Record(
                "iris_api:drift_training:ratio",
                f"""
                label_replace(max by (model, version, feature, bin) (iris_api_feature_training_ratio), {OF_FEATURE})
                or label_replace(
                max by (model, version, bin) (label_replace(iris_api_class_training_ratio, {CLASS_AS_BIN})),
                {OF_PREDICTION})
                or label_replace(
                max by (model, version, bin) (iris_api_predicted_value_training_ratio), {OF_PREDICTION})
                """,
            ),
            # Of each bin, the rows of the last hour, and of the last 24 full hours: the hour finds a change soon, and
            # the day one where an hour has too few rows.
            Record(
                "iris_api:drift_rows:increase1h",
                f"""
                label_replace(
                sum by (model, version, feature, bin) (increase(iris_api_feature_values_total[1h])), {OF_FEATURE})
                or label_replace(
                sum by (model, version, bin) (label_replace(increase(iris_api_predictions_total[1h]), {CLASS_AS_BIN})),
                {OF_PREDICTION})
                or label_replace(
                sum by (model, version, bin) (increase(iris_api_predicted_values_total[1h])), {OF_PREDICTION})
                """,
            ),
            Record("iris_api:drift_rows:increase1d", "sum_over_time(iris_api:drift_rows:increase1h[1d:1h])"),
            *_psi("1h"),
            *_psi("1d"),
            # Bundles that were packed earlier do not say how many training rows there were.
            Record(
                LIMIT,
                f"""
                {THRESHOLD} + {NOISE} * (count by ({BY}) (iris_api:drift_training:ratio) - 1)
                / on (model, version) group_left () max by (model, version) (iris_api_training_rows)
                or {THRESHOLD} + 0 * count by ({BY}) (iris_api:drift_training:ratio)
                """,
            ),
            Alert(
                "FeatureDrift",
                "warning",
                _drifts("feature"),
                "{{ $labels.feature }} of {{ $labels.model }} {{ $labels.version }} is not what the model was trained "
                'on: a stability index of {{ $value | printf "%.2f" }} over {{ $labels.window }}.',
                "Predictions may be wrong without an error. docs/models.md, Drift, says how to see which values have "
                "become more frequent. If they are what is to be expected from now on, train the model again.",
                hold=HOLD,
            ),
            Alert(
                "PredictionDrift",
                "warning",
                _drifts("prediction"),
                "{{ $labels.model }} {{ $labels.version }} predicts other classes or values than it was trained on: "
                'a stability index of {{ $value | printf "%.2f" }} over {{ $labels.window }}.',
                "What is asked about has changed. FeatureDrift names the features, unless only their combination has "
                "changed. docs/models.md, Drift, says how to see which classes have become more frequent.",
                hold=HOLD,
            ),
            # No training row was outside of its own range.
            Alert(
                "ValuesOutOfRange",
                "warning",
                f"{OUT_OF_RANGE} > 0.05",
                "{{ $value | humanizePercentage }} of the values of {{ $labels.feature }} in the last hour are beyond "
                "all that {{ $labels.model }} {{ $labels.version }} was trained on.",
                "A client that has changed a unit (cm for mm, say) looks like this. The model answers all the same; "
                "`minimum` and `maximum` of a feature, given when it is packed, refuse what is impossible.",
                hold=HOLD,
            ),
            Alert(
                "ValuesMissing",
                "warning",
                f"{MISSING} > 0.1",
                "{{ $labels.feature }} of {{ $labels.model }} {{ $labels.version }} is missing more often than in "
                "training, by {{ $value | humanizePercentage }} of the rows of the last hour.",
                "Whoever fills it in, a form or another service, may have stopped. The model answers as for any "
                "missing value.",
                hold=HOLD,
            ),
            Record(
                CONFIDENCE,
                f"""
                sum by (model, version) (increase(iris_api_prediction_confidence_sum[1h]))
                / (sum by (model, version) (increase(iris_api_prediction_confidence_count[1h])) >= {ROWS})
                """,
            ),
            # Of training data no confidence is known: a day or more of the model's own stands for it.
            Alert(
                "ConfidenceLow",
                "warning",
                f"""
                (avg_over_time({CONFIDENCE}[1w:1h] offset 1h)
                and count_over_time({CONFIDENCE}[1w:1h] offset 1h) >= 24)
                - {CONFIDENCE} > 0.1
                """,
                "{{ $labels.model }} {{ $labels.version }} is less sure of its predictions than in the week before: "
                'the mean probability of the predicted class fell by {{ $value | printf "%.1f" }}.',
                "It is asked about rows that it can't tell apart as well. FeatureDrift and ValuesOutOfRange say "
                "whether such rows are new to it; compare what it predicted with what happened.",
                hold=HOLD,
            ),
        ],
        interval="1m",
    ),
]

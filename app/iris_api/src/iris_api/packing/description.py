"""Describes a model as its manifest does, by what it answers to its sample."""

import contextlib
import hashlib
import importlib.metadata
import math
import platform
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection._search import BaseSearchCV
from sklearn.pipeline import Pipeline

from iris_api.bundle.manifest import Label, Task, Value
from iris_api.engines.sklearn import is_transformer
from iris_api.packing.asking import asker_of, check_task, has_probabilities, plain, predict, scores, scores_method
from iris_api.packing.features import reference
from iris_api.packing.given import About, PackError, Sample
from iris_api.packing.golden_rows import choose_golden
from iris_api.packing.preparation import Prepared, prepare
from iris_api.packing.tables import categories_text

# Another processor may round the last bits differently; a wrong model is further off than this.
GOLDEN_TOLERANCE = 1e-9


def describe(
    estimator: Any,
    about: About,
    sample: Sample,
    metrics: Mapping[str, float] | None = None,
    *,
    prepared: Prepared | None = None,
) -> dict[str, Any]:
    """Return the content of a manifest but for the artifact, as if there were no ONNX model.

    The sample has exactly the features of the estimator. Raise PackError if there can be no bundle of it.
    """
    task = check_task(estimator, about)
    prepared = prepared or prepare(estimator, about, sample)
    predicted = predict(estimator, prepared.own)
    outputs = _outputs(estimator, about, predicted)
    if outputs and task != "transformation":
        task = "several_targets"
    classes = _classes_of(estimator, task, predicted)
    names_of_classes = about.class_names or (("outlier", "inlier") if task == "outlier_detection" else None)
    if classes is not None and len(classes) < 2:
        raise PackError(
            f"The model knows the class {', '.join(map(repr, classes))} alone and answers nothing else. Train it "
            "with rows of at least two classes."
        )
    if strange := [value for value in map(plain, predicted) if classes is not None and value not in classes]:
        raise PackError(f"The model answers {strange[0]!r}, which is none of its own classes {classes}.")
    probabilities = has_probabilities(estimator)
    rows: list[list[Any]]
    if prepared.golden is None:
        chosen = choose_golden(estimator, prepared.own, predicted, probabilities)
        inputs, rows = np.array(chosen, dtype=np.float64), [*chosen]
    else:
        inputs, rows = prepared.golden
    answers = predict(estimator, inputs)
    method = scores_method(estimator, about)
    found = asker_of(estimator, about)(inputs).shares
    shares = np.empty((len(inputs), 0)) if found is None else found
    names = [feature["name"] for feature in prepared.features]
    target: dict[str, Any] = {"name": about.target, "description": about.target_description, "unit": about.target_unit}
    known = [] if outputs else [plain(value) for value in predicted]
    if sample.targets is not None and not outputs:
        known = _understood(sample.targets, about.target, classes)
    judged = sample.targets is not None and task in {"classification", "regression"}
    sample = Sample(sample.names, prepared.own, known if judged else None)
    if task == "regression":
        target["reference"] = reference(np.array(known, dtype=np.float64))
    frames = ["pandas"] if prepared.table and prepared.table.form == "frame" else []
    return {
        "format": 3
        if prepared.table is None
        and all(map(_is_plain, prepared.features))
        and task in {"classification", "regression"}
        and not method
        else 4,
        "name": about.name,
        "version": about.version,
        "description": about.description,
        "task": task,
        "libraries": {
            "python": ".".join(platform.python_version_tuple()[:2]),
            **{name: importlib.metadata.version(name) for name in ("scikit-learn", "numpy", "joblib", *frames)},
        },
        "features": prepared.features,
        **({"table": _about_table(prepared)} if prepared.table else {}),
        "target": target,
        "classes": _classes(classes, names_of_classes, known),
        "probabilities": probabilities,
        **({"outputs": outputs} if outputs else {}),
        **({"scores": {"method": method, "width": shares.shape[1]}} if method else {}),
        "no_onnx_reason": "it was packed without",
        "training": dict(about.training),
        "training_rows": len(predicted),
        "metrics": dict(metrics if metrics is not None else _sample_metrics(estimator, sample, probabilities)),
        "golden_samples": [
            {
                "input": dict(zip(names, map(_as_json, values), strict=True)),
                "prediction": answer.tolist() if outputs else plain(answer),
                "probabilities": row.tolist() if probabilities else None,
                **({"scores": row.tolist()} if method else {}),
            }
            for values, answer, row in zip(rows, answers, shares, strict=True)
        ],
        "golden_tolerance": GOLDEN_TOLERANCE,
    }


def _is_plain(feature: Mapping[str, Any]) -> bool:
    """Return whether formats before 4 know a feature."""
    return "kind" not in feature and "nullable" not in feature


def _as_json(value: Any) -> Value:
    """Return a value of a golden sample as JSON has it."""
    plain: Value = None if isinstance(value, float) and math.isnan(value) else value
    return plain


def _about_table(prepared: Prepared) -> dict[str, Any]:
    assert prepared.table
    table = prepared.table.model_dump(exclude_defaults=True)
    if prepared.categories:
        table["categories_sha256"] = hashlib.sha256(categories_text(prepared.categories)).hexdigest()
    return table


def _outputs(estimator: Any, about: About, predicted: NDArray[Any]) -> list[dict[str, Any]] | None:
    """Return what the values of a row's answer are, or None if it is a single one."""
    if predicted.ndim == 1:
        return None
    width = predicted.shape[1]
    names = [f"{about.target}_{number}" for number in range(1, width + 1)]
    if is_transformer(estimator):
        with contextlib.suppress(Exception):
            names = [str(name) for name in estimator.get_feature_names_out()]
    if about.outputs is not None and len(about.outputs) != width:
        raise PackError(
            f"The model answers {width} values a row, but {len(about.outputs)} names of outputs were given."
        )
    return [{"name": name} for name in about.outputs or names]


def _classes_of(estimator: Any, task: Task, predicted: NDArray[Any]) -> list[Label] | None:
    """Return the classes that a model answers: its own, -1 and 1 of a detector of outliers, or the clusters."""
    if task == "classification":
        return [plain(value) for value in estimator.classes_]
    if task == "outlier_detection":
        return [-1, 1]
    if task == "clustering":
        return list(range(_clusters(estimator, predicted)))
    return None


def _clusters(estimator: Any, predicted: NDArray[Any]) -> int:
    """Return how many clusters an estimator knows: a sample need not have rows of each."""
    while isinstance(estimator, BaseSearchCV | Pipeline):
        estimator = estimator.best_estimator_ if isinstance(estimator, BaseSearchCV) else estimator.steps[-1][1]
    known = [getattr(estimator, name, None) for name in ("labels_", "subcluster_labels_")]
    largest = max(int(np.max(labels)) for labels in (predicted, *known) if labels is not None)
    count = getattr(estimator, "n_clusters", 0)
    return max(largest + 1, int(count) if isinstance(count, Integral) else 0)


def _classes(
    values: list[Label] | None, names: Sequence[str] | None, known: Sequence[Label]
) -> list[dict[str, Any]] | None:
    if values is None:
        return None
    if names is not None and len(names) != len(values):
        raise PackError(f"The model has the {len(values)} classes {values}, but {len(names)} names were given.")
    if len(set(names or ())) != len(names or ()):
        raise PackError(
            f"The names of the classes, {', '.join(names or ())}, must differ: each is one key of a metric."
        )
    counts = [sum(each == value for each in known) for value in values]
    return [
        {"value": value, "name": name, "share": count / len(known)}
        for value, name, count in zip(values, names or map(str, values), counts, strict=True)
    ]


def _understood(targets: Sequence[Label], name: str, classes: Sequence[Label] | None) -> list[Label]:
    """Return what targets mean to the model: one of its classes each, or numbers if it has none.

    In a CSV all are texts: True, 1 and 1.0 may each mean the class True, or 1, or "1", whichever the model has.
    """
    understood: dict[Label, Label | None] = {}
    found: list[Label] = []
    for row, target in enumerate(targets, 1):
        # 1 and True are the same key, and have the same meaning.
        if target not in understood:
            understood[target] = _number(target) if classes is None else _class_of(target, classes)
        meant = understood[target]
        if meant is None:
            expected = "numbers" if classes is None else f"one of the classes {', '.join(map(repr, classes))}"
            raise PackError(
                f"Row {row} of the sample has {target!r} for the target {name}, but the model answers {expected}. "
                "Correct the value, leave the row out, or name another column with --target."
            )
        found.append(meant)
    return found


def _class_of(target: Label, classes: Sequence[Label]) -> Label | None:
    """Return the one class that a target may be read as, by the strictest way to read both that finds one."""
    for read in (str, lambda each: str(each).strip(), lambda each: str(each).strip().casefold(), _number):
        if (wanted := read(target)) is not None:
            matching = [value for value in classes if read(value) == wanted]
            if len(matching) == 1:
                return matching[0]
    return None


def _number(value: Label) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _sample_metrics(estimator: Any, sample: Sample, probabilities: bool) -> dict[str, float]:
    """Score the model on the sample; the name says that it may have been trained on it."""
    if sample.targets is None:
        return {}
    return {
        f"sample_{name}": value for name, value in scores(estimator, sample.rows, sample.targets, probabilities).items()
    }

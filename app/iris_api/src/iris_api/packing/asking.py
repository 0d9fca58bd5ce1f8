"""How an estimator is asked for all that answers carry, and what it says on a table whose targets are known."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import log_loss, mean_absolute_error, r2_score

from iris_api.bundle.manifest import RESERVED, Label, Task
from iris_api.engines.model import REFUSALS
from iris_api.engines.reviewed import flat
from iris_api.engines.sklearn import is_transformer, task_of
from iris_api.packing.given import About, PackError
from iris_api.packing.tables import Ask, asker

Table = NDArray[np.float64]


def check_task(estimator: Any, about: About) -> Task:
    """Return what an estimator does; raise PackError if that, or the name of what it predicts, cannot be served."""
    task = task_of(estimator)
    if task is None:
        raise PackError(
            f"A {type(estimator).__name__} is neither a classifier nor a regressor, nor anything else that answers "
            "rows by predict or transform."
        )
    if about.target in RESERVED:
        raise PackError(f"The target cannot be called {about.target}: an answer has a key of that name.")
    return task


def has_probabilities(estimator: Any) -> bool:
    """Return whether answers carry probabilities; of several targets, they would be of each by itself."""
    return hasattr(estimator, "predict_proba") and _answers_one_class(estimator)


def _answers_one_class(estimator: Any) -> bool:
    if task_of(estimator) != "classification" or isinstance(estimator.classes_, list):
        return False
    while hasattr(estimator, "steps"):
        estimator = estimator.steps[-1][1]
    # Some have one list of classes all the same, and each of it is a label.
    estimator = getattr(estimator, "best_estimator_", estimator)
    binarizer = getattr(estimator, "label_binarizer_", getattr(estimator, "_label_binarizer", None))
    return not getattr(binarizer, "y_type_", "").startswith("multilabel")


def scores_method(estimator: Any, about: About) -> str | None:
    """Return the name of the method that scores rows where answers carry scores."""
    wanted = about.scores and _answers_one_class(estimator) and not has_probabilities(estimator)
    if wanted or task_of(estimator) == "outlier_detection":
        return next((name for name in ("decision_function", "score_samples") if hasattr(estimator, name)), None)
    return None


def predict_method(estimator: Any) -> Callable[[Any], Any]:
    """Return the method that answers rows."""
    method: Callable[[Any], Any] = estimator.transform if is_transformer(estimator) else estimator.predict
    return method


def asker_of(estimator: Any, about: About) -> Ask:
    """Return what asks an estimator for all that answers carry."""
    name = "predict_proba" if has_probabilities(estimator) else scores_method(estimator, about)
    return asker(predict_method(estimator), getattr(estimator, name) if name else None, is_transformer(estimator))


def predict(estimator: Any, rows: Any) -> NDArray[Any]:
    """Return an array, a value or a list of them for each row; raise PackError if there is none for the sample."""
    try:
        predicted = predict_method(estimator)(rows)
    except Exception as error:
        raise plain_table_error(error) from error
    answers = np.asarray(predicted) if is_transformer(estimator) else flat(predicted)
    if answers.ndim not in (1, 2):
        raise PackError(
            f"The model answers an array of {answers.ndim} dimensions, and a row has a value or a list of them."
        )
    return answers


def is_answered(estimator: Any, rows: Table) -> bool:
    """Return whether an estimator has an answer to rows; it may refuse one that lies between rows of its sample."""
    try:
        answer = flat(predict_method(estimator)(rows))
    except REFUSALS:
        return False
    return answer.dtype.kind != "f" or bool(np.isfinite(answer).all())


def scores(estimator: Any, rows: Any, targets: Sequence[Label], probabilities: bool) -> dict[str, float]:
    """Return a model's metrics on a table, rows x features, whose targets are known, each rounded to four digits."""
    answers = predict(estimator, rows)
    if task_of(estimator) == "classification":
        found = {"accuracy": np.mean([target == answer for target, answer in zip(targets, answers, strict=True)])}
        if probabilities:
            found["log_loss"] = log_loss(targets, estimator.predict_proba(rows), labels=estimator.classes_)
    else:
        found = {"r2": r2_score(targets, answers), "mean_absolute_error": mean_absolute_error(targets, answers)}
    return {name: round(float(value), 4) for name, value in found.items()}


def plain_table_error(error: BaseException) -> PackError:
    """Return what to say where an estimator fails on a plain table."""
    return PackError(
        f"The model cannot answer a plain table of numbers ({type(error).__name__}: {error}). One that picks columns "
        "by name or takes texts needs the table that it was trained with: give that as Parquet, or to pack() as a "
        "DataFrame."
    )


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def plain(value: Any) -> Label:
    """Return a number or text of numpy as Python's own."""
    plain: Label = value.item() if isinstance(value, np.generic) else value
    return plain

"""Makes model bundles: from an estimator, the data it was trained on and what people know about both."""

import contextlib
import hashlib
import importlib.metadata
import io
import json
import math
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from sklearn.metrics import log_loss, mean_absolute_error, r2_score

from iris_api.bundle.files import BundleError
from iris_api.bundle.manifest import (
    MANIFEST,
    MOST_CATEGORIES,
    NUMERIC,
    RESERVED,
    EngineName,
    Label,
    Manifest,
    Reference,
    Task,
    Value,
)
from iris_api.bundle.manifest import Table as ServingTable
from iris_api.engines.model import REFUSALS, Model
from iris_api.engines.reviewed import flat
from iris_api.engines.sklearn import features_of, is_transformer, open_artifact, task_of
from iris_api.engines.table import Categories
from iris_api.packing.card import CARD, model_card
from iris_api.packing.conversion import ARTIFACT, ConversionError, convert
from iris_api.packing.costs import MeasurementError, measure
from iris_api.packing.environment import Environment, EnvironmentFailedError, complete
from iris_api.packing.imported import Globals, watched
from iris_api.packing.progress import Progress, TooLongError
from iris_api.packing.replay import check
from iris_api.packing.samples import FeatureText, SampleError, split_target
from iris_api.packing.tables import (
    CATEGORIES_FILE,
    COMPARED,
    INVENTED_TEXT,
    TOLERANCE,
    Answers,
    Ask,
    Points,
    TypedColumn,
    answered,
    asker,
    categories_text,
    changed_points,
    read_columns,
    serving_table,
    unknown,
    with_trained_categories,
)

Table = NDArray[np.float64]

BINS = 5
# How far beyond the sample a value may lie, in widths of the sample's range, where nobody says what is possible.
HEADROOM = 10
# Of what a number can be.
LARGEST = sys.float_info.max
# Another processor may round the last bits differently; a wrong model is further off than this.
GOLDEN_TOLERANCE = 1e-9
# Golden samples in which a value is missing, unknown or at a limit.
_CHANGED_GOLDEN = 8


class PackError(Exception):
    """What was given makes no bundle; the message says what to change."""


@dataclass(frozen=True)
class About:
    """What people know about a model, and its numbers do not tell."""

    name: str
    version: str
    description: str
    target: str = "label"
    target_description: str = "What the model predicts"
    target_unit: str = ""
    features: Mapping[str, FeatureText] = field(default_factory=dict)
    class_names: Sequence[str] | None = None
    outputs: Sequence[str] | None = None
    """Names of several targets, or of what a transformer makes."""
    scores: bool = False
    """Whether answers of a classifier without probabilities carry what its `decision_function` says."""
    training: Mapping[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """Rows that the model was trained on, or alike, and their true targets if they are known."""

    names: Sequence[str]
    rows: Any
    """An array of floats, rows x features, with NaN for missing values; or a DataFrame with the dtypes of training."""
    targets: Sequence[Label] | None = None
    where: Callable[[int], str] = "row {} of the sample".format
    """What a message calls a row."""


@dataclass(frozen=True)
class Prepared:
    """What packing knows of the table: the user's own, and how requests carry its rows."""

    own: Any
    """The table by which the estimator is asked: an array, or the user's DataFrame."""
    rows: Any
    """The same as requests carry it: an array of floats, or a list of rows."""
    features: list[dict[str, Any]]
    """For the manifest."""
    compared: Any
    """Rows, as requests carry them, to compare what is served with the estimator's own answers."""
    expected: Answers
    golden: tuple[Any, list[list[Value]]] | None = None
    """Golden samples, as the user's own table has them and as requests carry them."""
    table: ServingTable | None = None
    categories: Categories = field(default_factory=dict)


def dump(estimator: Any, compress: int = 0) -> bytes:
    """Return an estimator as joblib writes it; `compress` is zlib's level, 0 for none."""
    buffer = io.BytesIO()
    joblib.dump(estimator, buffer, compress=("zlib", compress) if compress else 0)
    return buffer.getvalue()


def pack(
    directory: Path,
    about: About,
    artifact_name: str,
    artifact: bytes,
    sample: Any,
    *,
    source: Path | None = None,
    metrics: Mapping[str, float] | None = None,
    golden: Sequence[Sequence[float]] | None = None,
    skops_trusted: Sequence[str] = (),
    onnx: bool = True,
    proof_seconds: float | None = None,
    environment: Environment | None = None,
) -> Manifest:
    """Write the bundle of an artifact, checked by loading it as an instance does, and return its manifest.

    Args:
        directory: where the bundle is to be.
        about: what people know about the model.
        artifact_name: `model.joblib` or `model.skops`.
        artifact: its bytes. They are opened, which runs the code in a pickle.
        sample: rows that the model was trained on: a `Sample`, or a DataFrame of pandas with the dtypes of training, in
            which the column that `about.target` names, if it is there, has the targets.
        source: the file that the artifact was read from, which messages name.
        metrics: what to tell of the model's quality; None scores it by the sample.
        golden: rows to ask as golden samples; None chooses some of the sample.
        skops_trusted: types that a skops artifact may hold beside those that skops itself trusts.
        onnx: whether to convert the model to ONNX.
        proof_seconds: within which the conversion must be proven; None sets no limit.
        environment: what is known of the environment that the bundle is to bring; None: it brings none.

    Raise PackError if there can be no bundle, and OSError if it cannot be written; nothing was written then.
    """
    try:
        with watched() as named:
            estimator = open_artifact(source or Path(artifact_name), artifact, skops_trusted)
    except BundleError as error:
        raise PackError(f"{error}{_hint(error.__cause__)}") from error
    try:
        if not isinstance(sample, Sample):
            given = about.target if about.target in map(str, sample.columns) else None
            frame, targets = split_target(sample, given, "The sample")
            sample = Sample([str(name) for name in frame.columns], frame, targets)
        sample = fit_features(estimator, sample)
        sample = replace(sample, rows=with_trained_categories(sample.rows, estimator))
        _check_task(estimator, about)
        prepared = prepare(estimator, about, sample, golden)
        content = describe(estimator, about, sample, metrics, prepared=prepared)
    except PackError:
        raise
    except SampleError as error:
        raise PackError(str(error)) from error
    except Exception as error:
        raise PackError(
            f"The model fails on the sample ({type(error).__name__}: {error}). It must answer each of its rows by "
            "predict and, where it has that, by predict_proba."
        ) from error
    content.update(artifact=artifact_name, sha256=hashlib.sha256(artifact).hexdigest())
    files = {artifact_name: artifact}
    if prepared.categories:
        files[CATEGORIES_FILE] = categories_text(prepared.categories)
    manifest = _validate(content)
    if onnx:
        try:
            if manifest.scores or manifest.task not in {"classification", "regression"}:
                raise ConversionError(
                    f"{'scores' if manifest.scores else manifest.task.replace('_', ' ')}: not yet converted"
                )
            with Progress(proof_seconds) as progress:
                converted = convert(estimator, manifest, prepared.rows, progress, prepared.categories)
            content["onnx"] = converted.about
            del content["no_onnx_reason"]
            files[ARTIFACT] = converted.content
        except ConversionError as error:
            content["no_onnx_reason"] = str(error)
        except TooLongError as error:
            raise PackError(
                f"The proof that ONNX Runtime answers as the model does takes too long: {error}. Give it more time, "
                f"say --proof-seconds {error.enough}, or leave ONNX out: --no-onnx."
            ) from None
    return write(directory, files, content, skops_trusted, prepared, (environment, named) if environment else None)


def _hint(cause: BaseException | None) -> str:
    """Return what to do where an artifact can't be opened because a module or a class of it is not found."""
    if isinstance(cause, ModuleNotFoundError):
        return f" If {cause.name} is code of your own, give it: --code {str(cause.name).split('.')[0]}.py"
    if isinstance(cause, AttributeError) and "__main__" in str(cause):
        return (
            " It was defined in the script or notebook that saved the model. Move it into a module of its own, import "
            "it from there, save the model again, and give the module: --code features.py"
        )
    return ""


def _validate(content: Mapping[str, Any]) -> Manifest:
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where, found = [str(each) for each in problem["loc"]], problem["input"]
        if where[:1] == ["features"] and len(where) > 1:
            # By its name, and not by its number.
            where[:2] = [f"feature {content['features'][int(where[1])]['name']!r}"]
        value = "" if isinstance(found, dict | list) else f", but is {found!r:.80}"
        raise PackError(f"{': '.join(where)}: {problem['msg']}{value}.") from None


def write(
    directory: Path,
    files: Mapping[str, bytes],
    content: Mapping[str, Any],
    skops_trusted: Sequence[str],
    prepared: Prepared,
    environment: tuple[Environment, Globals] | None = None,
) -> Manifest:
    """Write a bundle beside its place, check and measure it, move it there whole, and return its manifest.

    Whatever an engine answers is compared with the estimator's own answers, before and after it became a file.
    `environment` is what is known of the one that the bundle is to bring, and what its artifact names.
    """
    manifest = _validate(content)
    engines: list[EngineName] = ["sklearn", "onnx"] if manifest.onnx else ["sklearn"]
    with _made(directory.parent), tempfile.TemporaryDirectory(prefix=".new-", dir=directory.parent) as staging:
        new, old = Path(staging, "new"), Path(staging, "old")
        new.mkdir()
        for name, data in files.items():
            (new / name).write_bytes(data)
        _write_manifest(new, content)
        for engine in engines:
            _compare(check(new, engine, skops_trusted), prepared)
        try:
            costs = {engine: measure(new, engine, skops_trusted).model_dump() for engine in engines}
        except MeasurementError as error:
            raise PackError(str(error)) from error
        content = {**content, "costs": costs}
        manifest = _write_manifest(new, content)
        if environment:
            wanted, named = environment

            def add(about: Mapping[str, Any]) -> Manifest:
                return _write_manifest(new, {**content, "environment": about})

            try:
                manifest = complete(wanted, named, new, manifest, skops_trusted, add)
            except EnvironmentFailedError as error:
                if wanted.wanted or not manifest.onnx:
                    raise PackError(f"{error} (--environment never packs without.)") from error
                wanted.failed = str(error)
                for path in new.iterdir():
                    if path.name not in (*files, CARD):
                        path.unlink()
                manifest = _write_manifest(new, content)
        try:
            if directory.exists():
                directory.rename(old)
            new.rename(directory)
        except BaseException:
            if old.exists() and not directory.exists():
                old.rename(directory)
            raise
    return manifest


def _compare(model: Model, prepared: Prepared) -> None:
    """Raise PackError if a model does not answer as its estimator did; of numbers by ONNX, its proof says so."""
    if model.engine.name == "onnx" and model.manifest.is_numeric:
        return
    answers = model.engine(prepared.compared)
    numbers = answers.probabilities if answers.scores is None else answers.scores
    shares = None if numbers is None else np.array(numbers)
    found = Answers(np.array(answers.values, dtype=prepared.expected.values.dtype), shares)
    if difference := prepared.expected.difference(found, max(TOLERANCE, model.engine.tolerance)):
        raise PackError(
            f"By {model.engine.name} the bundle answers otherwise than the model did before it was packed: "
            f"{difference}."
        )


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make a folder and those above it; remove those that were made if what follows fails."""
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for each in made:
            with contextlib.suppress(OSError):
                each.rmdir()
        raise


def _write_manifest(directory: Path, content: Mapping[str, Any]) -> Manifest:
    """Write the manifest, and the model card made of it."""
    manifest = _validate(content)
    (directory / MANIFEST).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (directory / CARD).write_text(model_card(manifest), encoding="utf-8")
    return manifest


def fit_features(estimator: Any, sample: Sample) -> Sample:
    """Return the sample with exactly the estimator's features, in its order; raise PackError if one is missing."""
    known = features_of(estimator)
    if isinstance(known, list):
        # A CSV may have lost, or gained, blanks around a name.
        stripped = [name.strip() for name in sample.names]
        places = {
            name: list(names).index(each)
            for name in known
            for names, each in ((stripped, name.strip()), (sample.names, name))
            if each in names
        }
        if missing := [name for name in known if name not in places]:
            raise PackError(
                f"The sample lacks the features {', '.join(missing)} that the model was trained with; "
                f"it has {', '.join(sample.names)}."
            )
        columns = [places[name] for name in known]
        rows = sample.rows[:, columns] if isinstance(sample.rows, np.ndarray) else sample.rows.iloc[:, columns]
        return replace(sample, names=known, rows=rows)
    if known is not None and known != len(sample.names):
        raise PackError(
            f"The model takes {known} features, but the sample has {len(sample.names)}: {', '.join(sample.names)}. "
            "Give exactly the model's features, in its order; name the column of the target with --target."
        )
    return sample


def _check_task(estimator: Any, about: About) -> Task:
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


def prepare(estimator: Any, about: About, sample: Sample, golden: Sequence[Sequence[float]] | None = None) -> Prepared:
    """Return what the table of a sample is; raise PackError or SampleError if the estimator does not answer it.

    The sample has exactly the features of the estimator.
    """
    texts = {name.strip(): text for name, text in about.features.items()}
    known = [about.features.get(name) or texts.get(name.strip(), FeatureText()) for name in sample.names]
    ask = _asker(estimator, about)
    if not isinstance(sample.rows, np.ndarray):
        return _prepare_frame(estimator, dict(zip(sample.names, known, strict=True)), sample, ask)
    rows = sample.rows
    try:
        ask(rows)
    except REFUSALS as error:
        if not (gaps := np.argwhere(np.isnan(rows))).size:
            raise _plain_table_error(error) from error
        row, column = gaps[0].tolist()
        raise PackError(
            f"{sample.where(row)} has no value for {sample.names[column]}, and the model refuses the sample "
            f"({_first_line(error)}). Fill it or leave the row out, or put a step in front of the model that does."
        ) from error
    features = [_feature(name, rows[:, column], known[column]) for column, name in enumerate(sample.names)]
    compared = _changed_rows(rows, features)
    kept = compared if _is_answered(estimator, compared) else rows[: len(compared)]
    given = None
    if golden is not None:
        inputs = np.array(golden, dtype=np.float64)
        given = (inputs, inputs.tolist())
    return Prepared(rows, rows, features, kept, ask(kept), given)


def _changed_rows(rows: Table, features: Sequence[Mapping[str, Any]]) -> Table:
    """Return some rows, and as many in which a value is missing, where that is accepted, or at a limit."""
    count = min(COMPARED, len(rows))
    changed = np.vstack([rows[:count], rows[:count]])
    changes = [
        (column, value)
        for column, about in enumerate(features)
        for value in (about["minimum"], about["maximum"], *([np.nan] if about.get("nullable") else []))
    ]
    for number in range(count):
        column, value = changes[number % len(changes)]
        changed[count + number, column] = value
    return changed


def _prepare_frame(estimator: Any, texts: Mapping[str, FeatureText], sample: Sample, ask: Ask) -> Prepared:
    frame, columns = read_columns(sample.rows, texts, estimator)
    own = _own_table(frame, columns, ask)
    columns = [_with_open(frame, column, number, texts[column.name], ask, own) for number, column in enumerate(columns)]
    features = [_typed_feature(column, texts[column.name]) for column in columns]
    points, expected = answered(changed_points(frame, columns, features), ask, own)
    table, categories = serving_table(columns, points, expected, ask)
    rows: Any = [list(row) for row in zip(*(column.values for column in columns), strict=True)]
    if table is None:
        rows = np.array(rows, dtype=np.float64)
    chosen = points.take(_choose_points(estimator, expected, min(COMPARED, len(points.rows) // 2)))
    for number, column in enumerate(columns):
        for row, value in enumerate(chosen.rows):
            instead = _instead(column, value[number], row, texts[column.name])
            if instead is not value[number]:
                chosen.set(number, column, row, instead)
    chosen, _ = answered(chosen, ask, own)
    golden = (own(chosen.frame), chosen.rows)
    return Prepared(own(frame), rows, features, points.rows, expected, golden, table, categories)


def _as_frame(frame: Any) -> Any:
    return frame


def _as_objects(frame: Any) -> NDArray[Any]:
    objects: NDArray[Any] = frame.to_numpy(dtype=object)
    return objects


def _own_table(frame: Any, columns: Sequence[TypedColumn], ask: Ask) -> Callable[[Any], Any]:
    """Return what makes of a DataFrame the table that the estimator answers: itself, or an array of objects."""
    errors = []
    own: Callable[[Any], Any]
    for own in (_as_frame, _as_objects):
        try:
            ask(own(frame))
        except Exception as error:
            errors.append(error)
            continue
        return own
    missing = [column.name for column in columns if None in column.values]
    hint = f" Missing values are in {', '.join(missing)}: fill them, or leave these rows out." if missing else ""
    raise PackError(
        f"The model cannot answer the sample's own table ({type(errors[0]).__name__}: {_first_line(errors[0])}). Give "
        f"the table that it was trained with, with the same names and dtypes.{hint}"
    ) from errors[0]


def _with_open(
    frame: Any, column: TypedColumn, number: int, text: FeatureText, ask: Ask, own: Callable[[Any], Any]
) -> TypedColumn:
    """Return a column with what the estimator says to a category that it does not know, or to a missing value."""

    def takes(value: Value) -> bool:
        one = Points(frame.iloc[[0]].reset_index(drop=True), [[None] * len(frame.columns)])
        one.set(number, column, 0, value)
        try:
            ask(own(one.frame))
        except REFUSALS:
            return False
        return True

    if column.nullable and None not in column.values and not takes(None):
        raise PackError(f"{column.name} is nullable, as --features says, but the model refuses a missing value.")
    if column.kind != "category" or text.open is not None:
        return column
    if text.values is None and len(column.known) > MOST_CATEGORIES:
        # A list of all of them would tell of people, and is long: the estimator refuses what it does not know.
        return replace(column, open=True)
    # A column of this dtype makes missing what it does not know: a typing error would be answered.
    return replace(column, open=column.column.dtype != "category" and takes(unknown(column)))


def _typed_feature(column: TypedColumn, text: FeatureText) -> dict[str, Any]:
    """Return what the manifest says about a feature."""
    count = len(column.values)
    given = [value for value in column.values if value is not None]
    missing = (count - len(given)) / count
    if column.kind in NUMERIC:
        return _feature(column.name, np.array(given), text, column)
    about: dict[str, Any] = {
        "name": column.name,
        "description": text.description or _words(column.name),
        "unit": text.unit,
        "kind": column.kind,
    }
    if column.nullable:
        about |= {"nullable": True, "missing": missing}
    if column.kind == "category":
        about["values"] = column.known[:MOST_CATEGORIES] if column.open and not text.values else column.known
        about["open"] = column.open
    if column.kind in {"category", "boolean"}:
        frequent = list(column.counts.items())[:MOST_CATEGORIES]
        about["shares"] = [{"value": value, "share": times / count} for value, times in frequent]
    return about


def _instead(column: TypedColumn, value: Value, number: int, text: FeatureText) -> Value:
    """Return what stands in a golden sample for a value: texts of people, and rare categories, stay where they are."""
    if value is None:
        return value
    if column.kind == "text":
        return text.examples[number % len(text.examples)] if text.examples else INVENTED_TEXT
    if column.kind == "category" and value in column.counts and not text.values:
        frequent = list(column.counts)[:MOST_CATEGORIES]
        return value if value in frequent else frequent[0]
    return value


def _choose_points(estimator: Any, expected: Answers, unchanged: int) -> list[int]:
    """Choose a row of each class, or of low, middle and high value; the least certain; and some that were changed."""
    chosen = _choose_rows(estimator, expected.values[:unchanged], expected.shares)
    return list(dict.fromkeys([*chosen, *range(unchanged, min(unchanged + _CHANGED_GOLDEN, len(expected.values)))]))


def _has_probabilities(estimator: Any) -> bool:
    """Return whether answers carry probabilities; of several targets, they would be of each by itself."""
    return (
        hasattr(estimator, "predict_proba")
        and task_of(estimator) == "classification"
        and not isinstance(estimator.classes_, list)
    )


def _scores_method(estimator: Any, about: About) -> str | None:
    """Return the name of the method that scores rows where answers carry scores."""
    task = task_of(estimator)
    if task == "outlier_detection" or (task == "classification" and about.scores and not _has_probabilities(estimator)):
        return next((name for name in ("decision_function", "score_samples") if hasattr(estimator, name)), None)
    return None


def _predict_method(estimator: Any) -> Callable[[Any], Any]:
    method: Callable[[Any], Any] = estimator.transform if is_transformer(estimator) else estimator.predict
    return method


def _asker(estimator: Any, about: About) -> Ask:
    """Return what asks an estimator for all that answers carry."""
    name = "predict_proba" if _has_probabilities(estimator) else _scores_method(estimator, about)
    return asker(_predict_method(estimator), getattr(estimator, name) if name else None)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


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
    task = _check_task(estimator, about)
    prepared = prepared or prepare(estimator, about, sample)
    predicted = _predict(estimator, prepared.own)
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
    if strange := [value for value in map(_plain, predicted) if classes is not None and value not in classes]:
        raise PackError(f"The model answers {strange[0]!r}, which is none of its own classes {classes}.")
    probabilities = _has_probabilities(estimator)
    rows: list[list[Any]]
    if prepared.golden is None:
        chosen = _choose_golden(estimator, prepared.own, predicted, probabilities)
        inputs, rows = np.array(chosen, dtype=np.float64), [*chosen]
    else:
        inputs, rows = prepared.golden
    answers = _predict(estimator, inputs)
    method = _scores_method(estimator, about)
    found = _asker(estimator, about)(inputs).shares
    shares = np.empty((len(inputs), 0)) if found is None else found
    names = [feature["name"] for feature in prepared.features]
    target: dict[str, Any] = {"name": about.target, "description": about.target_description, "unit": about.target_unit}
    known = [] if outputs else [_plain(value) for value in predicted]
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
        "metrics": dict(metrics if metrics is not None else _sample_metrics(estimator, sample, probabilities)),
        "golden_samples": [
            {
                "input": dict(zip(names, map(_as_json, values), strict=True)),
                "prediction": answer.tolist() if outputs else _plain(answer),
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


def _plain_table_error(error: BaseException) -> PackError:
    return PackError(
        f"The model cannot answer a plain table of numbers ({type(error).__name__}: {error}). One that picks columns "
        "by name or takes texts needs the table that it was trained with: give that as Parquet, or to pack() as a "
        "DataFrame."
    )


def _predict(estimator: Any, rows: Any) -> NDArray[Any]:
    try:
        predicted = _predict_method(estimator)(rows)
    except Exception as error:
        raise _plain_table_error(error) from error
    if hasattr(predicted, "toarray"):
        raise PackError(
            "The model answers a sparse matrix, which is no list of values. Have it make a dense one, say "
            "sparse_output=False."
        )
    answers = np.asarray(predicted) if is_transformer(estimator) else flat(predicted)
    if answers.ndim not in (1, 2):
        raise PackError(
            f"The model answers an array of {answers.ndim} dimensions, and a row has a value or a list of them."
        )
    return answers


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
        return [_plain(value) for value in estimator.classes_]
    if task == "outlier_detection":
        return [-1, 1]
    if task == "clustering":
        return list(range(max(int(predicted.max()) + 1, int(getattr(estimator, "n_clusters", 0) or 0))))
    return None


def _feature(name: str, values: Table, text: FeatureText, column: TypedColumn | None = None) -> dict[str, Any]:
    """Return what the manifest says about a number or an integer; what is missing among the values is NaN."""
    gaps = np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(values), dtype=bool)
    values = values[~gaps]
    if not len(values):
        raise PackError(f"The sample has no value at all for {name}. Leave it out of the model, or fill it.")
    if gaps.any() and text.nullable is False:
        raise PackError(f"{name} is not nullable, as --features says, but the sample has rows without it.")
    least, greatest = values.min().item(), values.max().item()
    headroom = HEADROOM * ((greatest - least) or max(1, abs(greatest)))
    lowest, highest = _limits(column)
    about = {
        "name": name,
        "description": text.description or _words(name),
        "unit": text.unit,
        "minimum": max(least - headroom, lowest) if text.minimum is None else text.minimum,
        "maximum": min(greatest + headroom, highest) if text.maximum is None else text.maximum,
        "training_minimum": least,
        "training_maximum": greatest,
        "reference": reference(values.astype(np.float64)),
    }
    count = len(gaps) if column is None else len(column.values)
    nullable = bool(gaps.any()) if text.nullable is None else text.nullable
    if column is not None:
        nullable = column.nullable
        if column.kind != "number":
            about["kind"] = column.kind
    if nullable:
        about |= {"nullable": True, "missing": (count - len(values)) / count}
    return about


def _limits(column: TypedColumn | None) -> tuple[float, float]:
    """Return the least and the greatest number that a column holds."""
    dtype = column.column.dtype.lower() if column else ""
    if dtype.startswith(("int", "uint")) and dtype[-1].isdigit():
        about = np.iinfo(dtype)
        return int(about.min), int(about.max)
    if dtype in {"float32", "float16"}:
        return float(np.finfo(dtype).min), float(np.finfo(dtype).max)
    return -LARGEST, LARGEST


def reference(values: Table) -> dict[str, list[float]]:
    """Return the `Reference` of values: at most BINS bins of about equal share, fewer where values repeat often."""
    edges = np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1])).tolist()
    empty = Reference(edges=edges, shares=[1.0] + [0.0] * len(edges))
    counts = np.bincount([empty.bin_of(value) for value in values], minlength=len(edges) + 1)
    return {"edges": edges, "shares": (counts / len(values)).tolist()}


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


def _words(name: str) -> str:
    words = name.replace("_", " ").strip()
    return words[:1].upper() + words[1:]


def _choose_golden(estimator: Any, rows: Table, predicted: NDArray[Any], probabilities: bool) -> list[list[float]]:
    """Choose a row of each class, or of low, middle and high value; the least certain; and the range's corners."""
    shares = estimator.predict_proba(rows) if probabilities else None
    picked = [rows[number].tolist() for number in _choose_rows(estimator, predicted, shares)]
    corners = [np.nanmin(rows, axis=0), np.nanmax(rows, axis=0)]
    return [*picked, *(corner.tolist() for corner in corners if _is_answered(estimator, corner[None]))]


def _choose_rows(estimator: Any, predicted: NDArray[Any], shares: NDArray[Any] | None) -> list[int]:
    if predicted.ndim == 2:
        # By what it answers first.
        predicted = predicted[:, 0]
    elif task_of(estimator) not in {"regression", "transformation"}:
        return _choose_classes(predicted, shares)
    order = np.argsort(predicted, kind="stable")
    return list(dict.fromkeys([int(order[len(order) // 2]), int(order[0]), int(order[-1])]))


def _choose_classes(predicted: NDArray[Any], shares: NDArray[Any] | None) -> list[int]:
    chosen = [int(np.flatnonzero(predicted == value)[0]) for value in np.unique(predicted)[:10]]
    if shares is not None and shares.shape[1] > 1:
        highest_two = np.sort(shares[: len(predicted)], axis=1)[:, -2:]
        chosen.append(int((highest_two[:, 1] - highest_two[:, 0]).argmin()))
    return list(dict.fromkeys(chosen))


def _is_answered(estimator: Any, rows: Table) -> bool:
    """Return whether an estimator has an answer to rows; it may refuse one that lies between rows of its sample."""
    try:
        answer = flat(_predict_method(estimator)(rows))
    except REFUSALS:
        return False
    return answer.dtype.kind != "f" or bool(np.isfinite(answer).all())


def _sample_metrics(estimator: Any, sample: Sample, probabilities: bool) -> dict[str, float]:
    """Score the model on the sample; the name says that it may have been trained on it."""
    if sample.targets is None:
        return {}
    return {
        f"sample_{name}": value for name, value in scores(estimator, sample.rows, sample.targets, probabilities).items()
    }


def scores(estimator: Any, rows: Any, targets: Sequence[Label], probabilities: bool) -> dict[str, float]:
    """Return a model's metrics on a table, rows x features, whose targets are known, each rounded to four digits."""
    answers = _predict(estimator, rows)
    if task_of(estimator) == "classification":
        found = {"accuracy": np.mean([target == answer for target, answer in zip(targets, answers, strict=True)])}
        if probabilities:
            found["log_loss"] = log_loss(targets, estimator.predict_proba(rows), labels=estimator.classes_)
    else:
        found = {"r2": r2_score(targets, answers), "mean_absolute_error": mean_absolute_error(targets, answers)}
    return {name: round(float(value), 4) for name, value in found.items()}


def _plain(value: Any) -> Label:
    """Return a number or text of numpy as Python's own."""
    plain: Label = value.item() if isinstance(value, np.generic) else value
    return plain

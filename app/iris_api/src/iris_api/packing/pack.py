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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from sklearn.metrics import log_loss, mean_absolute_error, r2_score

from iris_api.bundle.files import BundleError
from iris_api.bundle.manifest import MANIFEST, RESERVED, EngineName, Label, Manifest, Reference
from iris_api.engines.model import REFUSALS
from iris_api.engines.reviewed import flat
from iris_api.engines.sklearn import features_of, open_artifact, task_of
from iris_api.packing.card import CARD, model_card
from iris_api.packing.conversion import ARTIFACT, ConversionError, convert
from iris_api.packing.costs import MeasurementError, measure
from iris_api.packing.environment import Environment, EnvironmentFailedError, complete
from iris_api.packing.imported import Globals, watched
from iris_api.packing.progress import Progress, TooLongError
from iris_api.packing.replay import check
from iris_api.packing.samples import FeatureText

Table = NDArray[np.float64]

BINS = 5
# How far beyond the sample a value may lie, in widths of the sample's range, where nobody says what is possible.
HEADROOM = 10
# Of what a number can be.
LARGEST = sys.float_info.max
# Another processor may round the last bits differently; a wrong model is further off than this.
GOLDEN_TOLERANCE = 1e-9


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
    training: Mapping[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """Rows that the model was trained on, or alike, and their true targets if they are known."""

    names: Sequence[str]
    rows: Table
    targets: Sequence[Label] | None = None


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
    sample: Sample,
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
        sample: rows that the model was trained on, and their targets.
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
    sample = fit_features(estimator, sample)
    try:
        content = describe(estimator, about, sample, metrics, golden)
    except PackError:
        raise
    except Exception as error:
        raise PackError(
            f"The model fails on the sample ({type(error).__name__}: {error}). It must answer each of its rows by "
            "predict and, where it has that, by predict_proba."
        ) from error
    content.update(artifact=artifact_name, sha256=hashlib.sha256(artifact).hexdigest())
    files = {artifact_name: artifact}
    manifest = _validate(content)
    if onnx:
        try:
            with Progress(proof_seconds) as progress:
                converted = convert(estimator, manifest, sample.rows, progress)
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
    return write(directory, files, content, skops_trusted, (environment, named) if environment else None)


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
    environment: tuple[Environment, Globals] | None = None,
) -> Manifest:
    """Write a bundle beside its place, check and measure it, move it there whole, and return its manifest.

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
            check(new, engine, skops_trusted)
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
        return Sample(known, sample.rows[:, columns], sample.targets)
    if known is not None and known != len(sample.names):
        raise PackError(
            f"The model takes {known} features, but the sample has {len(sample.names)}: {', '.join(sample.names)}. "
            "Give exactly the model's features, in its order; name the column of the target with --target."
        )
    return sample


def describe(
    estimator: Any,
    about: About,
    sample: Sample,
    metrics: Mapping[str, float] | None = None,
    golden: Sequence[Sequence[float]] | None = None,
) -> dict[str, Any]:
    """Return the content of a manifest but for the artifact, as if there were no ONNX model.

    The sample has exactly the features of the estimator. Raise PackError if there can be no bundle of it.
    """
    task = task_of(estimator)
    if task is None:
        raise PackError(f"A {type(estimator).__name__} is neither a classifier nor a regressor.")
    if about.target in RESERVED:
        raise PackError(f"The target cannot be called {about.target}: an answer has a key of that name.")
    predicted = _predict(estimator, sample.rows)
    classes = [_plain(value) for value in estimator.classes_] if task == "classification" else None
    if classes is not None and len(classes) < 2:
        raise PackError(
            f"The model knows the class {', '.join(map(repr, classes))} alone and answers nothing else. Train it "
            "with rows of at least two classes."
        )
    if strange := [value for value in map(_plain, predicted) if classes is not None and value not in classes]:
        raise PackError(f"The model answers {strange[0]!r}, which is none of its own classes {classes}.")
    probabilities = hasattr(estimator, "predict_proba") and task == "classification"
    if golden is None:
        golden = _choose_golden(estimator, sample.rows, predicted, probabilities)
    inputs = np.array(golden, dtype=np.float64)
    answers = _predict(estimator, inputs)
    shares: NDArray[Any] = estimator.predict_proba(inputs) if probabilities else np.empty((len(inputs), 0))
    texts = {name.strip(): text for name, text in about.features.items()}
    target: dict[str, Any] = {"name": about.target, "description": about.target_description, "unit": about.target_unit}
    known = [_plain(value) for value in predicted]
    if sample.targets is not None:
        known = _understood(sample.targets, about.target, classes)
    sample = Sample(sample.names, sample.rows, None if sample.targets is None else known)
    if classes is None:
        target["reference"] = reference(np.array(known, dtype=np.float64))
    return {
        "format": 3,
        "name": about.name,
        "version": about.version,
        "description": about.description,
        "task": task,
        "libraries": {
            "python": ".".join(platform.python_version_tuple()[:2]),
            **{name: importlib.metadata.version(name) for name in ("scikit-learn", "numpy", "joblib")},
        },
        "features": [
            _feature(name, sample.rows[:, column], about.features.get(name) or texts.get(name.strip(), FeatureText()))
            for column, name in enumerate(sample.names)
        ],
        "target": target,
        "classes": _classes(classes, about.class_names, known),
        "probabilities": probabilities,
        "no_onnx_reason": "it was packed without",
        "training": dict(about.training),
        "metrics": dict(metrics if metrics is not None else _sample_metrics(estimator, sample, probabilities)),
        "golden_samples": [
            {
                "input": dict(zip(sample.names, map(float, values), strict=True)),
                "prediction": _plain(answer),
                "probabilities": row.tolist() if probabilities else None,
            }
            for values, answer, row in zip(inputs, answers, shares, strict=True)
        ],
        "golden_tolerance": GOLDEN_TOLERANCE,
    }


def _predict(estimator: Any, rows: Table) -> NDArray[Any]:
    try:
        predicted = flat(estimator.predict(rows))
    except Exception as error:
        raise PackError(
            f"The model cannot answer a plain table of numbers ({type(error).__name__}: {error}). One that picks "
            "columns by name or takes texts needs a step of its own in front."
        ) from error
    if predicted.ndim != 1:
        raise PackError(f"The model answers {predicted.shape[1]} numbers a row; only one target can be served.")
    return predicted


def _feature(name: str, values: Table, text: FeatureText) -> dict[str, Any]:
    least, greatest = float(values.min()), float(values.max())
    headroom = HEADROOM * ((greatest - least) or max(1.0, abs(greatest)))
    return {
        "name": name,
        "description": text.description or _words(name),
        "unit": text.unit,
        "minimum": max(least - headroom, -LARGEST) if text.minimum is None else text.minimum,
        "maximum": min(greatest + headroom, LARGEST) if text.maximum is None else text.maximum,
        "training_minimum": least,
        "training_maximum": greatest,
        "reference": reference(values),
    }


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
    if task_of(estimator) == "classification":
        chosen = [int(np.flatnonzero(predicted == value)[0]) for value in np.unique(predicted)[:10]]
        if probabilities:
            highest_two = np.sort(estimator.predict_proba(rows), axis=1)[:, -2:]
            chosen.append(int((highest_two[:, 1] - highest_two[:, 0]).argmin()))
    else:
        order = np.argsort(predicted, kind="stable")
        chosen = [int(order[len(order) // 2]), int(order[0]), int(order[-1])]
    picked = [rows[number].tolist() for number in dict.fromkeys(chosen)]
    corners = [rows.min(axis=0).tolist(), rows.max(axis=0).tolist()]
    return [*picked, *(corner for corner in corners if _is_answered(estimator, corner))]


def _is_answered(estimator: Any, row: list[float]) -> bool:
    """Return whether an estimator has an answer to a row; it may refuse one that lies between rows of its sample."""
    try:
        answer = flat(estimator.predict(np.array([row])))
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


def scores(estimator: Any, rows: Table, targets: Sequence[Label], probabilities: bool) -> dict[str, float]:
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

"""Makes model bundles: from an estimator, the data it was trained on and what people know about both."""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib

from iris_api.bundle.files import BundleError
from iris_api.bundle.manifest import Manifest
from iris_api.engines.sklearn import open_artifact
from iris_api.packing.asking import check_task
from iris_api.packing.description import describe
from iris_api.packing.environment import Environment
from iris_api.packing.given import About, PackError, Sample
from iris_api.packing.imported import outputs_of, watched
from iris_api.packing.preparation import Prepared, fit_features, prepare
from iris_api.packing.progress import Progress, TooLongError
from iris_api.packing.samples import SampleError, split_target
from iris_api.packing.tables import CATEGORIES_FILE, categories_text, with_trained_categories
from iris_api.packing.writing import validate, write

if TYPE_CHECKING:
    from iris_api.packing.conversion import Converted

# What a notebook needs of packing is imported from here.
__all__ = ["About", "PackError", "Sample", "dump", "pack"]


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
        check_task(estimator, about)
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
    manifest = validate(content)
    if onnx:
        reason, converted = _converted(estimator, manifest, prepared, proof_seconds)
        content["no_onnx_reason"] = reason
        if converted:
            content["onnx"] = converted.about
            del content["no_onnx_reason"]
            files[converted.about["artifact"]] = converted.content
    if environment:
        environment.further |= outputs_of(estimator)
    return write(directory, files, content, skops_trusted, prepared, (environment, named) if environment else None)


def _converted(
    estimator: Any, manifest: Manifest, prepared: Prepared, proof_seconds: float | None
) -> tuple[str, "Converted | None"]:
    """Return the conversion, or why there is none; raise PackError if there is no time, or no library, for it."""
    try:
        # Who packs without ONNX need not have it.
        from iris_api.packing.conversion import ConversionError, convert
    except ModuleNotFoundError as error:
        raise PackError(
            f"{error.name}, by which it is converted to ONNX, is not installed: pip install 'iris-api[pack]', or leave "
            "ONNX out: --no-onnx, or onnx=False."
        ) from error
    try:
        with Progress(proof_seconds) as progress:
            return "", convert(estimator, manifest, prepared.rows, progress, prepared.categories)
    except ConversionError as error:
        return str(error), None
    except TooLongError as error:
        raise PackError(
            f"The proof that ONNX Runtime answers as the model does takes too long: {error}. Give it more time, "
            f"say --proof-seconds {error.enough}, or leave ONNX out: --no-onnx."
        ) from None


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

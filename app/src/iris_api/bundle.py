"""A model bundle: a directory with an artifact and the manifest.json that describes it and vouches for it."""

import hashlib
import importlib.metadata
import io
import json
import warnings
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import joblib
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from sklearn.exceptions import InconsistentVersionWarning

MANIFEST = "manifest.json"


class BundleError(Exception):
    """The bundle must not be served; the message names the file, what was expected and found, and what to do."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Feature(_Part):
    """One number of a request, in the order in which the model takes them."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    description: str
    unit: str
    minimum: float
    """Least value that is physically possible; anything below is refused."""
    maximum: float
    """Greatest value that is physically possible; anything above is refused."""
    training_minimum: float
    training_maximum: float

    @model_validator(mode="after")
    def _ranges_nest(self) -> Self:
        if not self.minimum <= self.training_minimum <= self.training_maximum <= self.maximum:
            raise ValueError("minimum <= training_minimum <= training_maximum <= maximum does not hold")
        return self


class GoldenSample(_Part):
    """An input whose answer is known; an instance gives these answers before it says it is ready."""

    input: dict[str, float]
    prediction: int
    probabilities: list[float]


class Manifest(_Part):
    """What manifest.json says about the artifact beside it."""

    format: Literal[1]
    name: str
    version: str
    description: str
    artifact: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    libraries: dict[str, str]
    """Versions the model was trained with. scikit-learn's must be the one installed."""
    features: Annotated[list[Feature], Field(min_length=1)]
    classes: Annotated[list[str], Field(min_length=2)]
    training: dict[str, Any]
    metrics: dict[str, float]
    golden_samples: Annotated[list[GoldenSample], Field(min_length=1)]
    golden_tolerance: Annotated[float, Field(gt=0, le=1e-3)]

    @model_validator(mode="after")
    def _golden_samples_fit(self) -> Self:
        names = {feature.name for feature in self.features}
        if len(names) != len(self.features):
            raise ValueError("two features have the same name")
        for sample in self.golden_samples:
            if sample.input.keys() != names or len(sample.probabilities) != len(self.classes):
                raise ValueError("a golden sample does not have exactly the features and classes of the manifest")
        return self


def read_manifest(directory: Path) -> Manifest:
    """Read and check the manifest of a bundle."""
    path = directory / MANIFEST
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BundleError(
            f"{path}: cannot be read ({error.strerror}). IRIS_API_MODEL_DIR must name the directory of a model bundle."
        ) from None
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"])) or "the file"
        raise BundleError(f"{path}: {where}: {problem['msg']}. Make the bundle anew: make model.") from None


def load(directory: Path) -> tuple[Manifest, Any]:
    """Return the manifest and the estimator of a bundle, or refuse it.

    A pickle runs code when it is opened, so that its hash is checked first, on the very bytes that are then unpickled.
    """
    manifest = read_manifest(directory)
    path = directory / manifest.artifact
    try:
        artifact = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror}). Install the whole bundle again.") from None
    if (found := hashlib.sha256(artifact).hexdigest()) != manifest.sha256:
        raise BundleError(
            f"{path}: its sha256 is {found}, but {MANIFEST} says {manifest.sha256}: it was damaged or exchanged "
            "and has not been opened. Install the whole bundle again."
        )
    _check_library(directory, manifest)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", InconsistentVersionWarning)
            estimator = joblib.load(io.BytesIO(artifact))
    except Exception as error:
        # Unpickling may raise anything at all; none of it is more than a bundle that cannot be served.
        raise BundleError(
            f"{path}: cannot be loaded ({type(error).__name__}: {' '.join(str(error).split())}). "
            "Train it again with the libraries installed here: make model."
        ) from error
    _check_shape(path, manifest, estimator)
    return manifest, estimator


def _check_library(directory: Path, manifest: Manifest) -> None:
    trained, installed = manifest.libraries.get("scikit-learn"), importlib.metadata.version("scikit-learn")
    if trained != installed:
        raise BundleError(
            f"{directory / MANIFEST}: the model was trained with scikit-learn {trained}, but {installed} is installed. "
            "Train it again (make model) or install that version."
        )


def _check_shape(path: Path, manifest: Manifest, estimator: Any) -> None:
    expected = {"features": len(manifest.features), "classes": list(range(len(manifest.classes)))}
    found = {
        "features": getattr(estimator, "n_features_in_", None),
        "classes": [int(label) for label in getattr(estimator, "classes_", [])],
    }
    if found != expected or not hasattr(estimator, "predict_proba"):
        raise BundleError(
            f"{path}: {MANIFEST} promises a classifier with {json.dumps(expected)}, but the artifact has "
            f"{json.dumps(found)}. Manifest and artifact do not belong together: make the bundle anew."
        )

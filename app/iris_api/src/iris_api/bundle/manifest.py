"""What manifest.json says about the artifact beside it; models/manifest.schema.json is made from here."""

import json
import math
from bisect import bisect_left
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MANIFEST = "manifest.json"
# Of the hosts: Debian 12 and 13.
PYTHONS = ("3.11", "3.13")
# Names of an answer that a target must not take.
RESERVED = frozenset({"prediction", "prediction_proba", "model", "model_version"})

Label = bool | int | float | str
EngineName = Literal["sklearn", "onnx"]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")]
# Of a feature or a target: a key of requests and answers, so whatever text JSON can hold.
Key = Annotated[str, Field(min_length=1, max_length=256)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
PythonVersion = Annotated[str, Field(pattern=r"^3\.[0-9]{1,3}$")]
WheelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]+-[0-9][A-Za-z0-9_.]*(-[A-Za-z0-9_.]+){3}\.whl$")]
Share = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class Reference(_Part):
    """How the training data spread over bins of about equal share: what later data is compared with."""

    edges: list[float]
    """Inner edges, ascending. A value on an edge belongs to the bin below it."""
    shares: list[Share]
    """Share of the training data in each bin; one more than there are edges."""

    @model_validator(mode="after")
    def _bins_fit(self) -> Self:
        if len(self.shares) != len(self.edges) + 1 or sorted(set(self.edges)) != self.edges:
            raise ValueError("there must be ascending edges and one more share than edges")
        _check_sum(self.shares)
        return self

    def bin_of(self, value: float) -> int:
        """Return the number of the bin of a value, from 0."""
        return bisect_left(self.edges, value)


class Feature(_Part):
    """One number of a request, in the order in which the model takes them."""

    name: Key
    description: str
    unit: str
    minimum: float
    """Least value that is possible; anything below is refused."""
    maximum: float
    """Greatest value that is possible; anything above is refused."""
    training_minimum: float
    training_maximum: float
    reference: Reference

    @model_validator(mode="after")
    def _ranges_nest(self) -> Self:
        if not self.minimum <= self.training_minimum <= self.training_maximum <= self.maximum:
            raise ValueError(
                f"the sample has values from {self.training_minimum:g} to {self.training_maximum:g}, which are not all "
                f"between minimum {self.minimum:g} and maximum {self.maximum:g}"
            )
        return self


class Class(_Part):
    """One answer of a classifier."""

    value: Label
    """What the estimator itself answers."""
    name: str
    share: Share
    """Share of this class in the training data."""


class Target(_Part):
    """What is predicted."""

    name: Key
    """A classifier's answer has the name of the class under this key."""
    description: str
    unit: str
    reference: Reference | None = None
    """Of a regressor's target; a classifier has the shares of its classes."""


class GoldenSample(_Part):
    """An input whose answer is known; an instance gives these answers before it says it is ready."""

    input: dict[str, float]
    prediction: Label
    probabilities: list[float] | None = None


class Proof(_Part):
    """Where the converted model was compared with the artifact, and how well they agreed."""

    artifact_sha256: Sha256
    """Of the artifact it was compared with."""
    onnxruntime: str
    """Version of ONNX Runtime that computed the answers; the proof holds for no other."""
    points: dict[str, int]
    """How many rows of which kind. On all of them the classes were those that the artifact's `predict` answers, and it
    refused none."""
    tolerance: Annotated[float, Field(gt=0, le=1e-3)]
    largest_difference: Annotated[float, Field(ge=0)]
    """Of any probability, or of any value relative to its size."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if self.largest_difference > self.tolerance or not sum(self.points.values()):
            raise ValueError("the proof proves nothing: no points, or a difference above its own tolerance")
        return self


class Onnx(_Part):
    """The same model converted to ONNX."""

    artifact: FileName
    sha256: Sha256
    precision: Literal["double", "float"]
    """Type of its input."""
    output: str
    """Name of the output that has what the estimator's `predict` answers (in format 2, its probabilities if any)."""
    probabilities: str | None = None
    """Name of the output that has the probabilities."""
    proof: Proof

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs that answer: what `predict` answers, then the probabilities if there are any."""
        return [self.output, *([self.probabilities] if self.probabilities else [])]


class Cost(_Part):
    """What serving by one engine takes, measured where the bundle was packed; another processor differs somewhat."""

    call_us: Annotated[float, Field(gt=0)]
    """Microseconds of a call with one row."""
    row_us: Annotated[float, Field(ge=0)]
    """Microseconds of each further row of the same call."""
    memory_mb: Annotated[float, Field(gt=0)]
    """Megabytes (10^6 bytes) of a process at its largest that loads the model and answers the largest batch."""


class Lock(_Part):
    """A file of requirements, each with its version and its hashes, as pip reads them."""

    file: FileName
    sha256: Sha256


class Environment(_Part):
    """What the model's own library is: the packages that an instance imports beside those of its release."""

    packages: dict[str, str]
    """Version of each package that the model imports, and of what these require, as installed where it was packed."""
    locks: Annotated[dict[PythonVersion, Lock], Field(min_length=1)]
    """For each Python of a host the packages to install."""
    not_for: dict[PythonVersion, str] = {}
    """Why there is no lock for a Python."""
    code: dict[WheelName, Sha256] = {}
    """Wheels in the bundle that hold the model's own code."""


class Manifest(_Part):
    """A model bundle: what its artifact is, what it takes, what it answers, and what vouches for it."""

    format: Literal[2, 3]
    """Release 1.0.0 wrote 2, which has no costs; its proof of an onnx model does not count."""
    name: Name
    version: Name
    description: str
    task: Literal["classification", "regression"]
    artifact: FileName
    """File of the estimator: model.joblib or model.skops."""
    sha256: Sha256
    """Of the artifact; it is checked before the file is opened."""
    libraries: dict[str, str]
    """Versions the model was trained with. scikit-learn's must be the one installed."""
    features: Annotated[list[Feature], Field(min_length=1)]
    target: Target
    classes: Annotated[list[Class], Field(min_length=2)] | None = None
    """In the order of the probabilities; null for a regressor."""
    probabilities: bool
    """Whether answers carry the probability of each class. What is predicted need not be the most probable one."""
    onnx: Onnx | None = None
    no_onnx_reason: str | None = None
    """Why there is no converted model."""
    costs: dict[EngineName, Cost] | None = None
    """Of each engine that can serve this model."""
    environment: Environment | None = None
    """None: the packages of a release are all that the model needs."""
    training: dict[str, str | int]
    metrics: dict[str, float]
    golden_samples: Annotated[list[GoldenSample], Field(min_length=1)]
    golden_tolerance: Annotated[float, Field(gt=0, le=1e-3)]
    """How far an answer may be off, relative to values above 1."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        names = {feature.name for feature in self.features}
        if len({printable(name) for name in names}) != len(self.features):
            raise ValueError("two features have the same name")
        if self.target.name in RESERVED:
            raise ValueError(f"target: the name {self.target.name} is taken by the answer itself")
        classifies = self.task == "classification"
        if classifies != (self.classes is not None) or classifies == (self.target.reference is not None):
            raise ValueError("a classifier has classes, a regressor has a reference of its target")
        if self.probabilities and not classifies:
            raise ValueError("a regressor has no probabilities")
        if (self.onnx is None) == (self.no_onnx_reason is None):
            raise ValueError("there must be either an onnx model or the reason why there is none")
        if self.onnx and self.format > 2 and (self.onnx.probabilities is not None) != self.probabilities:
            raise ValueError("an onnx model has an output with probabilities if and only if answers carry them")
        values = [each.value for each in self.classes or []]
        if len(set(values)) != len(values):
            raise ValueError("two classes have the same value")
        if self.classes:
            _check_sum([each.share for each in self.classes])
        for number, sample in enumerate(self.golden_samples, 1):
            if sample.input.keys() != names or len(sample.probabilities or []) != len(values) * self.probabilities:
                raise ValueError(
                    f"golden sample {number} does not have exactly the features and classes of the manifest"
                )
            if classifies and sample.prediction not in values:
                raise ValueError(f"golden sample {number}: {sample.prediction!r} is no class of the manifest")
        return self

    @model_validator(mode="after")
    def _files_differ(self) -> Self:
        own = self.environment
        locks = [lock.file for lock in own.locks.values()] if own else []
        names = [self.artifact, *([self.onnx.artifact] if self.onnx else []), *locks, *(own.code if own else {})]
        if len({*names, MANIFEST}) != len(names) + 1:
            raise ValueError(f"two files of the bundle have one name: {', '.join(names)}")
        return self

    @property
    def feature_names(self) -> list[str]:
        """Names of the features in the model's order."""
        return [feature.name for feature in self.features]

    @property
    def files(self) -> dict[str, str]:
        """Names of the files it vouches for, with the sha256 of each."""
        converted = {self.onnx.artifact: self.onnx.sha256} if self.onnx else {}
        own = self.environment
        locks = {lock.file: lock.sha256 for lock in own.locks.values()} if own else {}
        return {self.artifact: self.sha256, **converted, **locks, **(own.code if own else {})}

    def class_name(self, value: Label) -> str:
        """Return the name of a class of this manifest."""
        return next(each.name for each in self.classes or [] if each.value == value)


def printable(text: str) -> str:
    """Return a text with its control characters as escapes: what the label of a metric or a line of text can hold."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def json_schema() -> str:
    """Return the text of the manifest's JSON Schema."""
    schema: dict[str, Any] = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Manifest.model_json_schema()}
    return json.dumps(schema, indent=2) + "\n"


def _check_sum(shares: list[float]) -> None:
    if not math.isclose(sum(shares), 1, abs_tol=1e-6):
        raise ValueError(f"the shares add up to {sum(shares)} and not to 1")

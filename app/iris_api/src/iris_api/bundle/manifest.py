"""What manifest.json says about the artifact beside it; models/manifest.schema.json is made from here."""

import json
import math
from bisect import bisect_left
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

MANIFEST = "manifest.json"
# Of the hosts: Debian 12 and 13.
PYTHONS = ("3.11", "3.13")
# Names of an answer that a target must not take.
RESERVED = frozenset({"prediction", "prediction_proba", "model", "model_version"})

Label = bool | int | float | str
Category = bool | int | str
Value = bool | int | float | str | None
"""Of a feature, as JSON has it: a date or a time is a text (ISO 8601), and a missing value null."""
Task = Literal["classification", "regression", "outlier_detection", "clustering", "several_targets", "transformation"]
"""Detectors of outliers and clusters answer a class; several targets and transformations a list, by `outputs`."""
Kind = Literal["number", "integer", "boolean", "category", "text", "date", "datetime"]
NUMERIC: frozenset[Kind] = frozenset({"number", "integer"})
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


# As many categories become labels of metrics and lines of the card: what is rare may tell of a person.
MOST_CATEGORIES = 20


class CategoryShare(_Part):
    """How often a category, or one of true and false, was in the training data."""

    value: Category
    share: Share


class Feature(_Part):
    """One value of a request, in the order in which the model takes them."""

    name: Key
    description: str
    unit: str
    kind: Kind = "number"
    """What its values are; a category is a text, an integer or a boolean."""
    nullable: bool = False
    """Whether a value may be missing, which is null in JSON."""
    minimum: float | int | None = None
    """Least value of a number or an integer that is possible; anything below is refused."""
    maximum: float | int | None = None
    """Greatest value that is possible; anything above is refused."""
    training_minimum: float | int | None = None
    training_maximum: float | int | None = None
    reference: Reference | None = None
    """Of a number or an integer."""
    values: Annotated[list[Category], Field(min_length=1)] | None = None
    """The categories: all that are possible, or of an open list the most frequent ones."""
    open: bool = False
    """Whether a category that is not listed is accepted."""
    shares: Annotated[list[CategoryShare], Field(max_length=MOST_CATEGORIES)] | None = None
    """Of the most frequent categories, or of false and true; what is left is of other categories, or missing."""
    missing: Share = 0.0
    """Share of missing values in the training data."""

    @field_validator("minimum", "maximum", "training_minimum", "training_maximum")
    @classmethod
    def _of_its_kind(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and not _is_double(value):
            raise ValueError("is beyond what a float of 64 bits holds")
        # An integer of a column of integers keeps all its digits.
        return float(value) if value is not None and info.data.get("kind") == "number" else value

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        numeric = [self.minimum, self.maximum, self.training_minimum, self.training_maximum, self.reference]
        if self.kind in NUMERIC:
            if None in numeric:
                raise ValueError(f"a feature of kind {self.kind} has limits, those of training too, and a reference")
            self._check_ranges()
        elif any(each is not None for each in numeric):
            raise ValueError(f"a feature of kind {self.kind} has no minimum, maximum or reference")
        if (self.kind == "category") != (self.values is not None) or (self.open and self.kind != "category"):
            raise ValueError("a category has values, and it alone has them and may be open")
        if (self.kind in {"category", "boolean"}) != (self.shares is not None):
            raise ValueError("a category and a boolean have shares, and they alone")
        if self.missing and not self.nullable:
            raise ValueError("values were missing in the training data: it must be nullable")
        for values in (self.values or [], [each.value for each in self.shares or []]):
            if len({type(value) for value in values}) > 1 or len(set(values)) != len(values):
                raise ValueError("categories are all texts, all integers or all booleans, and each is there once")
        if sum(each.share for each in self.shares or []) + self.missing > 1 + 1e-6:
            raise ValueError("the shares add up to more than 1")
        return self

    def _check_ranges(self) -> None:
        minimum, least, greatest, maximum = self.limits
        if not minimum <= least <= greatest <= maximum:
            raise ValueError(
                f"the sample has values from {least:g} to {greatest:g}, which are not all between minimum {minimum:g} "
                f"and maximum {maximum:g}"
            )

    @property
    def limits(self) -> tuple[float, float, float, float]:
        """Minimum, least and greatest value in training, and maximum of a number or an integer."""
        limits = self.minimum, self.training_minimum, self.training_maximum, self.maximum
        assert None not in limits
        return limits  # type: ignore[return-value]

    @property
    def is_plain(self) -> bool:
        """Whether formats before 4 know it: a number that is never missing."""
        return self.kind == "number" and not self.nullable

    def accepts(self, value: Value) -> bool:
        """Return whether a value is of this kind; of limits and of the form of a date nothing is said."""
        if value is None:
            return self.nullable
        if self.kind == "category":
            values = self.values or []
            return type(value) is type(values[0]) and (self.open or value in values)
        return type(value) in _TYPES[self.kind] and (isinstance(value, str) or _is_double(value))


def _is_double(value: float) -> bool:
    """Return whether a float of 64 bits holds about this number, so that a model can compute with it."""
    try:
        float(value)
    except OverflowError:
        return False
    return True


_TYPES: dict[Kind, tuple[type, ...]] = {
    "number": (float, int),
    "integer": (int,),
    "boolean": (bool,),
    "text": (str,),
    "date": (str,),
    "datetime": (str,),
}


class Column(_Part):
    """A column of the table that the estimator takes."""

    dtype: str
    """As pandas calls it: float64, Int64, str, object, category, datetime64[us, UTC] and so on."""
    ordered: bool = False
    """Of a category's dtype."""
    missing: Literal["nan", "none", "NA"] = "nan"
    """What stands for a missing value in a column of objects; any other dtype has a way of its own."""


class Table(_Part):
    """How the estimator gets its rows where it does not take an array of 64-bit floats with NaN for missing values."""

    form: Literal["objects", "frame"]
    """An array of Python's objects, or a DataFrame of pandas with the features' names."""
    columns: list[Column]
    """In the order of the features."""
    categories: FileName | None = None
    """File with the categories of the columns of this dtype, in their order: a JSON object by the feature's name."""
    categories_sha256: Sha256 | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if (self.categories is None) != (self.categories_sha256 is None):
            raise ValueError("a file of categories has a sha256")
        if self.categories is None and any(each.dtype == "category" for each in self.columns):
            raise ValueError("columns of dtype category need the file of their categories")
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


class Output(_Part):
    """One of several values that a model answers for a row."""

    name: Key
    description: str = ""
    unit: str = ""


class Scores(_Part):
    """What a model has where it has no probabilities: how far a row is on one side of a border."""

    method: Literal["decision_function", "score_samples"]
    """Of the estimator."""
    width: Annotated[int, Field(ge=1)]
    """How many there are for a row: one, or one a class or pair of classes."""


class GoldenSample(_Part):
    """An input whose answer is known; an instance gives these answers before it says it is ready."""

    input: dict[str, Value]
    prediction: Label | list[Label]
    probabilities: list[float] | None = None
    scores: list[float] | None = None


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
    """Of any probability, or of any value or score relative to its size."""

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
    scores: str | None = None
    """Name of the output that has the scores, where answers carry them."""
    proof: Proof

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs that answer: what `predict` answers, then probabilities or scores if there are any."""
        return [self.output, *(each for each in (self.probabilities, self.scores) if each)]


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

    format: Literal[2, 3, 4]
    """Release 1.0.0 wrote 2, which has no costs; its proof of an onnx model does not count. Before 4 every feature is a
    number that is never missing; what needs no more is still written as 3."""
    name: Name
    version: Name
    description: str
    task: Task
    artifact: FileName
    """File of the estimator: model.joblib or model.skops."""
    sha256: Sha256
    """Of the artifact; it is checked before the file is opened."""
    libraries: dict[str, str]
    """Versions the model was trained with. scikit-learn's must be the one installed."""
    features: Annotated[list[Feature], Field(min_length=1)]
    table: Table | None = None
    """Null for an array of 64-bit floats."""
    target: Target
    classes: Annotated[list[Class], Field(min_length=2)] | None = None
    """In the order of the probabilities; null for a regressor."""
    probabilities: bool
    """Whether answers carry the probability of each class. What is predicted need not be the most probable one."""
    outputs: Annotated[list[Output], Field(min_length=1)] | None = None
    """Where the answer to a row is a list: what its values are, in their order."""
    scores: Scores | None = None
    """Where answers carry scores."""
    onnx: Onnx | None = None
    no_onnx_reason: str | None = None
    """Why there is no converted model."""
    costs: dict[EngineName, Cost] | None = None
    """Of each engine that can serve this model."""
    environment: Environment | None = None
    """None: the packages of a release are all that the model needs."""
    training: dict[str, str | int]
    training_rows: Annotated[int, Field(ge=1, le=2**63 - 1)] | None = None
    """How many rows the shares and references here are of; null where an earlier release packed it."""
    metrics: dict[str, float]
    golden_samples: Annotated[list[GoldenSample], Field(min_length=1)]
    golden_tolerance: Annotated[float, Field(gt=0, le=1e-3)]
    """How far an answer may be off, relative to values above 1."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        names = {feature.name for feature in self.features}
        if len({printable(name) for name in names}) != len(self.features):
            raise ValueError("two features have the same name")
        if self.format < 4 and not (self.table is None and all(feature.is_plain for feature in self.features)):
            raise ValueError(f"format {self.format} knows numbers alone, none of them missing: write format 4")
        if self.table and len(self.table.columns) != len(self.features):
            raise ValueError("table: there must be a column for each feature")
        taken = RESERVED | ({"scores"} if self.scores else set()) | ({"outputs"} if self.outputs else set())
        outputs = [output.name for output in self.outputs or []]
        for name in (self.target.name, *outputs):
            if name in taken:
                raise ValueError(f"target: the name {name} is taken by the answer itself")
        if len(set(outputs)) != len(outputs):
            raise ValueError("two outputs have the same name")
        if (self.scores or self.task not in {"classification", "regression"}) and self.format < 4:
            raise ValueError("scores, and any task but classification and regression, take format 4")
        classifies = self.task in {"classification", "outlier_detection", "clustering"}
        if classifies != (self.classes is not None) or (self.task == "regression") != (
            self.target.reference is not None
        ):
            raise ValueError("a classifier has classes, a regressor has a reference of its target")
        if (self.task in {"several_targets", "transformation"}) != (self.outputs is not None):
            raise ValueError("several targets and a transformation have outputs, and they alone")
        if self.probabilities and self.task != "classification":
            raise ValueError("a regressor has no probabilities, nor has anything but a classifier")
        if (self.onnx is None) == (self.no_onnx_reason is None):
            raise ValueError("there must be either an onnx model or the reason why there is none")
        if self.onnx and self.format > 2 and (self.onnx.probabilities is not None) != self.probabilities:
            raise ValueError("an onnx model has an output with probabilities if and only if answers carry them")
        if self.onnx and (self.onnx.scores is not None) != (self.scores is not None):
            raise ValueError("an onnx model has an output with scores if and only if answers carry them")
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
            if len(sample.scores or []) != (self.scores.width if self.scores else 0) or (
                (len(sample.prediction) if isinstance(sample.prediction, list) else 0) != len(outputs)
            ):
                raise ValueError(f"golden sample {number} does not have exactly the outputs and scores of the manifest")
            for feature in self.features:
                if not feature.accepts(sample.input[feature.name]):
                    raise ValueError(f"golden sample {number}: the value of {feature.name!r} is not of its kind")
            if classifies and sample.prediction not in values:
                raise ValueError(f"golden sample {number}: {sample.prediction!r} is no class of the manifest")
        return self

    @model_validator(mode="after")
    def _files_differ(self) -> Self:
        own = self.environment
        locks = [lock.file for lock in own.locks.values()] if own else []
        more = [self.onnx.artifact if self.onnx else None, self.table.categories if self.table else None]
        names = [self.artifact, *filter(None, more), *locks, *(own.code if own else {})]
        if len({*names, MANIFEST}) != len(names) + 1:
            raise ValueError(f"two files of the bundle have one name: {', '.join(names)}")
        return self

    @property
    def feature_names(self) -> list[str]:
        """Names of the features in the model's order."""
        return [feature.name for feature in self.features]

    @property
    def is_numeric(self) -> bool:
        """Whether every feature is a number or an integer that is never missing, and rows are arrays of floats."""
        return self.table is None and all(each.kind in NUMERIC and not each.nullable for each in self.features)

    @property
    def golden_rows(self) -> list[list[Value]]:
        """Inputs of the golden samples as rows: values in the model's order."""
        return [[sample.input[name] for name in self.feature_names] for sample in self.golden_samples]

    @property
    def files(self) -> dict[str, str]:
        """Names of the files it vouches for, with the sha256 of each."""
        converted = {self.onnx.artifact: self.onnx.sha256} if self.onnx else {}
        categories = {}
        if self.table and self.table.categories and self.table.categories_sha256:
            categories = {self.table.categories: self.table.categories_sha256}
        own = self.environment
        locks = {lock.file: lock.sha256 for lock in own.locks.values()} if own else {}
        return {self.artifact: self.sha256, **converted, **categories, **locks, **(own.code if own else {})}

    def class_name(self, value: Label | list[Label]) -> str:
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

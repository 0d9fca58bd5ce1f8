"""What people give to make a bundle of, beside the model itself."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from iris_api.bundle.manifest import Label
from iris_api.packing.samples import FeatureText


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

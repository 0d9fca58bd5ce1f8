"""What MLServer serves an exported bundle by: `iris-model export` puts it, with what it imports, beside the bundle.

The answers are those of the engines, which answer here too, for a pipeline on a table with categories and gaps needs
more than MLServer's own runtime of scikit-learn does. A request has a tensor for each feature, by its name, as
MLServer's codec `pd` makes it of a DataFrame; or, where all features are numbers, one tensor of rows x features.
"""

from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.errors import InferenceError
from mlserver.types import InferenceRequest, InferenceResponse, MetadataTensor, RequestInput, ResponseOutput
from mlserver.utils import get_model_uri

from iris_api.bundle.manifest import NUMERIC, Feature, Value
from iris_api.engines.model import Prediction, RefusedError, Row
from iris_api.local.bundle import user_environment
from iris_api.packing.replay import check

_DATATYPES = {"number": "FP64", "integer": "INT64", "boolean": "BOOL"}


class BundleModel(MLModel):  # type: ignore[misc]  # MLServer is no package of the project's own environment
    """A bundle, ready once its golden samples are answered as promised."""

    async def load(self) -> bool:
        """Load the bundle beside model-settings.json; raise BundleError if it must not be served."""
        directory = Path(await get_model_uri(self._settings))
        about = self._settings.parameters.extra or {}
        with user_environment(directory):
            self._model = check(directory, about["engine"], about["skops_trusted"])
        manifest = self._model.manifest
        self.inputs = [
            MetadataTensor(name=each.name, datatype=_datatype(each), shape=[-1, 1]) for each in manifest.features
        ]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer the rows of a request; raise InferenceError, which says what is wrong with them."""
        rows = self._rows(payload)
        try:
            answers = self._model.predict(rows)
        except RefusedError as error:
            raise InferenceError(f"The model has no answer for these values: {error}") from None
        if None in answers:
            raise InferenceError("The model has no finite answer for these values.")
        outputs = self._outputs([answer for answer in answers if answer])
        asked = {output.name for output in payload.outputs or []}
        if unknown := asked - {output.name for output in outputs}:
            known = ", ".join(output.name for output in outputs)
            raise InferenceError(f"There is no output {', '.join(sorted(unknown))}; there are {known}.")
        return InferenceResponse(
            model_name=self.name,
            model_version=self.version,
            outputs=[output for output in outputs if not asked or output.name in asked],
        )

    def _rows(self, payload: InferenceRequest) -> list[Row]:
        features = self._model.manifest.features
        columns = {tensor.name: _values(tensor) for tensor in payload.inputs}
        names = [feature.name for feature in features]
        if len(columns) == 1 and [*columns] != names[:1]:
            (values,) = columns.values()
            if len(payload.inputs[0].shape) != 2 or len(values) % len(names):
                raise InferenceError(f"Send a tensor for each of {', '.join(names)}, or one of rows x {len(names)}.")
            columns = {name: values[place :: len(names)] for place, name in enumerate(names)}
        if missing := [name for name in names if name not in columns]:
            raise InferenceError(f"There is no tensor for {', '.join(missing)}.")
        if unknown := [name for name in columns if name not in names]:
            raise InferenceError(f"The model has no feature {', '.join(unknown)}.")
        if len({len(values) for values in columns.values()}) != 1 or not columns[names[0]]:
            raise InferenceError("Each tensor must have a value for each row, and there must be a row.")
        judged = [[_judged(each, row, value) for row, value in enumerate(columns[each.name])] for each in features]
        return [list(row) for row in zip(*judged, strict=True)]

    def _outputs(self, answers: Sequence[Prediction]) -> list[ResponseOutput]:
        """Return the same outputs, by the same names, as an instance on a host."""
        manifest = self._model.manifest
        if manifest.outputs:
            columns = zip(*(answer.value for answer in answers), strict=True)
            return [_output(about.name, column) for about, column in zip(manifest.outputs, columns, strict=True)]
        outputs = [_output("prediction", [answer.value for answer in answers])]
        if manifest.probabilities:
            outputs.append(_output("prediction_proba", [answer.probabilities for answer in answers]))
        if manifest.scores:
            outputs.append(_output("scores", [answer.scores for answer in answers]))
        if manifest.classes:
            outputs.append(_output(manifest.target.name, [answer.name for answer in answers]))
        return outputs


def _datatype(feature: Feature) -> str:
    kind: Any = {bool: "boolean", int: "integer"}.get(type((feature.values or [""])[0]), feature.kind)
    return _DATATYPES.get(kind, "BYTES")


def _values(tensor: RequestInput) -> list[Any]:
    """Return the values of a tensor, row after row."""
    values = tensor.data.root
    flat = np.asarray(values, dtype=object).ravel().tolist()
    return [value.decode() if isinstance(value, bytes) else value for value in flat]


def _judged(feature: Feature, row: int, value: Any) -> Value:
    """Return a value as the engines take it; raise InferenceError if the feature has no such value."""
    if isinstance(value, float) and value != value:
        value = None
    if feature.kind == "number" and type(value) is int:
        value = float(value)
    elif _datatype(feature) == "INT64" and isinstance(value, float) and value.is_integer():
        # A column of integers with gaps is one of floats to pandas.
        value = int(value)
    if not feature.accepts(value) or (isinstance(value, float) and not isfinite(value)):
        raise InferenceError(f"Row {row}, {feature.name}: {value!r:.100} is no possible value of this {feature.kind}.")
    if feature.kind in NUMERIC and value is not None:
        least, _, _, greatest = feature.limits
        if not least <= value <= greatest:
            raise InferenceError(f"Row {row}, {feature.name}: {value} is not from {least} to {greatest}.")
    accepted: Value = value
    return accepted


def _output(name: str, values: Sequence[Any]) -> ResponseOutput:
    if isinstance(values[0], str):
        return StringCodec.encode_output(name, list(values))
    return NumpyCodec.encode_output(name, np.array(values))

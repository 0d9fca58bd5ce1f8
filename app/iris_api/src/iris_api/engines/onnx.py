"""Inference by ONNX Runtime: of a model that was proven, when it was packed, to answer as its estimator does.

Nothing here imports scikit-learn: that is what makes an instance small and quick to start.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from iris_api.bundle.files import BundleError, read_file
from iris_api.bundle.manifest import Manifest
from iris_api.engines.columns import Coded, Mixed, Table
from iris_api.engines.model import MISSING as MISSING
from iris_api.engines.model import Answers, Row

INPUT = "input"
DTYPES: dict[str, type[np.floating[Any]]] = {"double": np.float64, "float": np.float32}
_OF_TENSOR: dict[str, Any] = {
    "tensor(double)": np.float64,
    "tensor(float)": np.float32,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,
}


class OnnxEngine:
    """Answers rows by a session of ONNX Runtime.

    The model takes all features as one tensor of floats, called INPUT, or each as a tensor of rows x 1 that has the
    feature's name and its own type. A missing value is NaN in floats, and MISSING in texts.

    Args:
        content: a model in the format of ONNX.
        outputs: names of its outputs: what the estimator's `predict` answers, then probabilities or scores if there are
            any.
        tolerance: how far answers to golden samples may be off.
        lists: whether an answer is a list of values, also where it has one alone.
        scores: whether the second output has scores, and no probabilities.
    """

    name = "onnx"
    # A call takes some 10 us, less than another turn of the event loop.
    turns = 1

    def __init__(
        self, content: bytes, outputs: Sequence[str], tolerance: float, *, lists: bool = False, scores: bool = False
    ) -> None:
        options = onnxruntime.SessionOptions()
        # A few rows are no work for threads, and the host has an instance for every processor.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        # Errors are raised; that they are written to standard error too, in colours, would break a log of JSON.
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        inputs = session.get_inputs()
        # Its own `run` asks for the name of each input again, at each call: a tenth of what a row takes.
        self._run = session._sess.run
        self._dtype = _OF_TENSOR[inputs[0].type]
        self._columns = [(each.name, _OF_TENSOR[each.type]) for each in inputs]
        types = dict.fromkeys(dtype for _, dtype in self._columns)
        places = {dtype: [place for place, each in enumerate(self._columns) if each[1] is dtype] for dtype in types}
        self._by_type = [(dtype, own, [self._columns[place][0] for place in own]) for dtype, own in places.items()]
        # A single column of numbers is the same either way.
        is_one = len(inputs) == 1 and inputs[0].name == INPUT and self._dtype in DTYPES.values()
        self._tensors = self._table if is_one else self._typed
        self._outputs = list(outputs)
        self._lists = lists
        self._scores = scores
        self.tolerance = tolerance

    @classmethod
    def load(cls, directory: Path, manifest: Manifest) -> Self:
        """Load the converted model of a bundle; raise BundleError if it cannot be used."""
        onnx = manifest.onnx
        assert onnx
        # It is never opened here, but a bundle with a damaged file is damaged.
        read_file(directory, manifest.artifact, manifest.sha256)
        content = read_file(directory, onnx.artifact, onnx.sha256)
        tolerance = max(manifest.golden_tolerance, onnx.proof.tolerance)
        try:
            lists, scores = manifest.outputs is not None, manifest.scores is not None
            engine = cls(content, onnx.outputs, tolerance, lists=lists, scores=scores)
            engine(manifest.golden_rows)
        except Exception as error:
            # ONNX Runtime has exceptions of its own; none of them is more than a model that cannot be served.
            raise BundleError(
                f"{directory / onnx.artifact}: cannot be used "
                f"({type(error).__name__}: {' '.join(str(error).split())}). "
                "Pack the model again with the libraries installed here."
            ) from error
        return engine

    def __call__(self, rows: Sequence[Row]) -> Answers:
        """Return the answers to rows of features."""
        values, numbers = self.run(rows)
        if self._scores and numbers is not None:
            return Answers(values.tolist(), None, numbers.tolist())
        return Answers(values.tolist(), None if numbers is None else numbers.tolist())

    def run(self, rows: Sequence[Row] | Table) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Return what `predict` answers to rows of features, and probabilities, rows x classes, or scores, or None."""
        values, *probabilities = self._run(self._outputs, self._tensors(rows), None)
        # A regressor's answers come as a column.
        if values.ndim == 2 and values.shape[1] == 1 and not self._lists:
            values = values[:, 0]
        return values, probabilities[0] if probabilities else None

    def _table(self, rows: Sequence[Row] | Table) -> dict[str, NDArray[Any]]:
        # numpy makes NaN of None.
        return {INPUT: np.asarray(rows.floats if isinstance(rows, Mixed) else rows, dtype=self._dtype)}

    def _typed(self, rows: Sequence[Row] | Table) -> dict[str, NDArray[Any]]:
        if isinstance(rows, Mixed):
            return self._of_columns(rows)
        tensors: dict[str, NDArray[Any]] = {}
        # To make one array of all columns of a type costs little more than to make one of a single column.
        for dtype, places, names in self._by_type:
            if dtype is np.object_:
                values = [MISSING if (value := row[place]) is None else value for place in places for row in rows]
            else:
                values = [row[place] for place in places for row in rows]
            tensors.update(zip(names, np.array(values, dtype).reshape(len(names), -1, 1), strict=True))
        return tensors

    def _of_columns(self, rows: Mixed) -> dict[str, NDArray[Any]]:
        tensors = {}
        for (name, dtype), values in zip(self._columns, rows.columns, strict=True):
            if isinstance(values, Coded):
                # One more for what is missing: no tensor of integers has that.
                more = [] if dtype is np.int64 else [MISSING if dtype is np.object_ else None]
                values = values.taken(np.array([*values.values, *more], dtype))
            tensors[name] = np.asarray(values, dtype).reshape(-1, 1)
        return tensors


def why_unproven(manifest: Manifest) -> str | None:
    """Return why a bundle must not be served by ONNX Runtime here, or None if it may."""
    if manifest.onnx is None:
        return manifest.no_onnx_reason
    if manifest.format == 2:
        return (
            "its proof is of format 2, which did not compare the classes that the model itself answers, nor what it "
            "refuses: pack it again with iris-model pack"
        )
    proof = manifest.onnx.proof
    if proof.artifact_sha256 != manifest.sha256:
        return "its proof is of another artifact"
    if proof.onnxruntime != onnxruntime.__version__:
        return f"it was proven with onnxruntime {proof.onnxruntime}, but {onnxruntime.__version__} is installed"
    return None

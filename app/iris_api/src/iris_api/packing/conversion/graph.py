"""A graph of ONNX in the making: nodes, constants, typed inputs, and models that others converted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from iris_api.engines.onnx import MISSING

Type = Literal["double", "int64", "bool", "string"]
_TYPES: dict[Type, int] = {
    "double": TensorProto.DOUBLE,
    "int64": TensorProto.INT64,
    "bool": TensorProto.BOOL,
    "string": TensorProto.STRING,
}
# The first with trees in double, and what goes with it.
_OPSETS = {"": 21, "ai.onnx.ml": 5}
_IR_VERSION = 10


class NotConvertedError(Exception):
    """There is no way from an estimator, or a part of it, to ONNX; the message says of what."""


@dataclass(frozen=True)
class Tensor:
    """A tensor of rows x width within a graph."""

    name: str
    type: Type
    width: int
    missing: Literal["nan", "none", "NA"] | None = None
    """What the estimator finds where a value is missing: in doubles it is NaN here, in strings `MISSING`."""
    categories: tuple[Any, ...] | None = None
    """Of a column that pandas keeps as a category, in the order of their codes."""


class Graph:
    """Nodes that are added one after the other; each returns the name of its output."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._functions: dict[str, onnx.FunctionProto] = {}
        self._opsets = dict(_OPSETS)
        self._count = 0

    def input(self, name: str, kind: Type, width: int = 1) -> Tensor:
        """Add an input of rows x width."""
        self._inputs.append(helper.make_tensor_value_info(name, _TYPES[kind], [None, width]))
        return Tensor(name, kind, width)

    def node(self, operation: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: Any) -> str:
        """Add a node and return the name of its first output; the others have the same name with their number."""
        name = self._fresh(operation)
        names = [name, *(f"{name}.{number}" for number in range(1, outputs))]
        self._nodes.append(helper.make_node(operation, list(inputs), names, domain=domain, **attributes))
        return name

    def constant(self, value: Any, dtype: Any = None) -> str:
        """Add a constant."""
        name = self._fresh("constant")
        self._constants.append(numpy_helper.from_array(np.asarray(value, dtype=dtype), name))
        return name

    def cast(self, tensor: str, to: Type | Literal["float"]) -> str:
        """Add a cast to another type."""
        return self.node("Cast", tensor, to=TensorProto.FLOAT if to == "float" else _TYPES[to])

    def matrix(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return columns side by side as doubles; a column of pandas' categories as their codes."""
        parts = [self._numbers(each) for each in tensors]
        missing = next((each.missing for each in tensors if each.missing), None)
        name = parts[0] if len(parts) == 1 else self.node("Concat", *parts, axis=1)
        return Tensor(name, "double", sum(each.width for each in tensors), missing)

    def _numbers(self, tensor: Tensor) -> str:
        if tensor.categories is not None:
            return self._codes(tensor, tensor.categories)
        if tensor.type == "string":
            raise NotConvertedError("a column of texts reaches a step that takes numbers")
        return tensor.name if tensor.type == "double" else self.cast(tensor.name, "double")

    def _codes(self, tensor: Tensor, categories: Sequence[Any]) -> str:
        """Return the places of categories, and NaN for a missing or an unknown one."""
        if tensor.type == "double":
            raise NotConvertedError("categories that are integers, some of them missing")
        is_text = tensor.type == "string"
        kind, name = ("strings", tensor.name) if is_text else ("int64s", self.cast(tensor.name, "int64"))
        keys: dict[str, Any] = {f"keys_{kind}": [each if is_text else int(each) for each in categories]}
        # A float holds every place up to 2 to the power of 24.
        values: dict[str, Any] = {
            "values_floats": [float(place) for place in range(len(categories))],
            "default_float": float("nan"),
        }
        return self.cast(self.node("LabelEncoder", name, domain="ai.onnx.ml", **keys, **values), "double")

    def column(self, tensor: Tensor, number: int) -> Tensor:
        """Return one column of a tensor of several."""
        if tensor.width == 1:
            return tensor
        return replace(
            tensor, name=self.node("Gather", tensor.name, self.constant([number], np.int64), axis=1), width=1
        )

    def columns(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return each column for itself."""
        return [self.column(each, number) for each in tensors for number in range(each.width)]

    def gap(self, tensor: Tensor) -> str:
        """Return where values are missing, as booleans."""
        if tensor.type == "double":
            return self.node("IsNaN", tensor.name)
        if tensor.type == "string":
            return self.node("Equal", tensor.name, self.constant([MISSING], object))
        return self.node("Not", self.node("Equal", tensor.name, tensor.name))

    def embed(self, model: onnx.ModelProto, inputs: Sequence[str]) -> list[str]:
        """Add all of another model, whose inputs these are, and return the names of its outputs."""
        prefix = self._fresh("embedded")
        graph = model.graph
        names = {each.name: name for each, name in zip(graph.input, inputs, strict=True)}

        def rename(name: str) -> str:
            return names.setdefault(name, f"{prefix}/{name}") if name else ""

        for constant in graph.initializer:
            copy = onnx.TensorProto()
            copy.CopyFrom(constant)
            copy.name = rename(constant.name)
            self._constants.append(copy)
        for node in graph.node:
            if any(each.HasField("g") for each in node.attribute):
                raise NotConvertedError(f"the operator {node.op_type} holds a graph of its own")
            copied = onnx.NodeProto()
            copied.CopyFrom(node)
            copied.name = ""
            copied.input[:] = [rename(each) for each in node.input]
            copied.output[:] = [rename(each) for each in node.output]
            self._nodes.append(copied)
        for each in model.opset_import:
            # An older model's nodes would mean something else here; skl2onnx was told which to write.
            if self._opsets.setdefault(each.domain, each.version) != each.version and each.domain != "ai.onnx.ml":
                raise NotConvertedError(f"it needs version {each.version} of the operators of {each.domain!r}")
        return [rename(each.name) for each in graph.output]

    def model(self, outputs: Mapping[str, str]) -> tuple[bytes, dict[str, str]]:
        """Return the model with these outputs, in the format of ONNX, and their names in it.

        Args:
            outputs: names of tensors by what they are to be called, if no input is called so.
        """
        inputs = {each.name for each in self._inputs}
        taken = {tensor: name for name, tensor in outputs.items() if name not in inputs}
        for node in self._nodes:
            node.input[:] = [taken.get(each, each) for each in node.input]
            node.output[:] = [taken.get(each, each) for each in node.output]
        found = {name: taken.get(tensor, tensor) for name, tensor in outputs.items()}
        # Their types would have to be known here; ONNX Runtime finds them out.
        values = [onnx.ValueInfoProto(name=name) for name in found.values()]
        graph = helper.make_graph(self._nodes, "model", self._inputs, values, self._constants)
        opsets = [helper.make_opsetid(domain, version) for domain, version in self._opsets.items()]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="iris-model")
        content: bytes = model.SerializeToString(deterministic=True)
        return content, found

    def _fresh(self, kind: str) -> str:
        # A feature may have any name; the inputs come first.
        taken = {each.name for each in self._inputs}
        while True:
            self._count += 1
            if (name := f"{kind}.{self._count}") not in taken:
                return name


def labels_of(graph: Graph, classes: NDArray[Any], numbers: str) -> str:
    """Return the classes by their numbers: texts, integers (booleans too) or doubles."""
    kind: Any = {"i": np.int64, "u": np.int64, "b": np.int64, "f": np.float64}.get(classes.dtype.kind, object)
    if kind is object and not all(isinstance(each, str) for each in classes.tolist()):
        raise NotConvertedError(f"classes of the type {type(classes.tolist()[0]).__name__}")
    if kind is np.int64 and classes.tolist() == list(range(len(classes))):
        return numbers
    return graph.node("Gather", graph.constant(classes.astype(kind)), numbers)

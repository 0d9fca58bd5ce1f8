"""What stands in the bodies of the protocol, for reading requests and for OpenAPI."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr

INPUT = "input"
"""What the metadata call one tensor of rows x features; in a request it may have any name."""


Floats = Literal["FP64", "FP32", "FP16"]
Integers = Literal["INT64", "INT32", "INT16", "INT8", "UINT64", "UINT32", "UINT16", "UINT8"]
Datatype = Literal[Floats, Integers, "BOOL", "BYTES"]

# The protocol's sizes have 64 bits. Python would read thousands of digits, and fail to print what it computes of them.
_LARGEST = 2**63 - 1


class _Part(BaseModel):
    # The protocol leaves room for what others add to it.
    model_config = ConfigDict(extra="ignore")


class InputParameters(_Part):
    """Parameters of an input: the one that the binary tensor extension uses."""

    binary_data_size: Annotated[StrictInt, Field(ge=0, le=_LARGEST)] | None = None


class InputTensor(_Part):
    """The rows, or the values of one feature."""

    name: StrictStr
    shape: Annotated[list[Annotated[StrictInt, Field(ge=1, le=_LARGEST)]], Field(min_length=1, max_length=2)] = Field(
        description="[rows, features], or [features] of a single row; of one feature [rows] or [rows, 1]."
    )
    datatype: Datatype
    parameters: InputParameters | None = None
    data: list[Any] | None = Field(None, description="Row after row, or a list for each row; null for a missing value.")


class OutputParameters(_Part):
    """Parameters of an output: the one that the binary tensor extension uses."""

    binary_data: StrictBool | None = None


class RequestedOutput(_Part):
    """An output that the answer is to have."""

    name: StrictStr
    parameters: OutputParameters | None = None


class RequestParameters(_Part):
    """Parameters of a request: the one that the binary tensor extension uses."""

    binary_data_output: StrictBool = False


class InferRequest(_Part):
    """Body of an inference request."""

    id: StrictStr | None = None
    parameters: RequestParameters | None = None
    inputs: Annotated[list[InputTensor], Field(min_length=1)] = Field(
        description="One tensor of any name, or one for each feature, by their names and in any order."
    )
    outputs: list[RequestedOutput] | None = None


class Tensor(BaseModel):
    """An output."""

    name: str
    datatype: str
    shape: list[int]
    data: list[Any]


class InferResponse(BaseModel):
    """Answer of an inference request."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[Tensor]


class TensorMetadata(BaseModel):
    """What a tensor holds; -1 stands for the number of rows."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, str] | None = None


class ModelMetadata(BaseModel):
    """What a model takes and answers."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ModelNames(BaseModel):
    """What models there are: the one of this server."""

    models: list[str]


class NoShape(BaseModel):
    """What a value alone has where dims can't be empty."""

    shape: list[int]


class TensorConfig(BaseModel):
    """What a tensor holds, in Triton's words: dims are those of a row."""

    name: str
    data_type: str
    dims: list[int]
    reshape: NoShape | None = None


class LatestVersions(BaseModel):
    """How many versions are served."""

    num_versions: int = 1


class VersionPolicy(BaseModel):
    """Which versions are served."""

    latest: LatestVersions = LatestVersions()


class ModelConfig(BaseModel):
    """A model as Triton configures one."""

    name: str
    platform: str
    version_policy: VersionPolicy = VersionPolicy()
    max_batch_size: int
    """Rows that one request may have."""
    input: list[TensorConfig]
    output: list[TensorConfig]


class IndexedModel(BaseModel):
    """A model in the index of the repository."""

    name: str
    version: str
    state: Literal["READY"] = "READY"
    reason: str = ""


class ServerMetadata(BaseModel):
    """What this server is."""

    name: str
    version: str
    extensions: list[str]


class Live(BaseModel):
    """Answer of the liveness check."""

    live: bool


class Ready(BaseModel):
    """Answer of the readiness checks."""

    ready: bool
    name: str | None = None

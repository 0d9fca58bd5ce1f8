"""The settings of one instance, read from IRIS_API_* environment variables."""

import difflib
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from iris_api import __version__

PREFIX = "IRIS_API_"

Seconds = Annotated[int, Field(ge=1, le=3600)]


def _split(value: object) -> object:
    return tuple(filter(None, value.replace(" ", "").split(","))) if isinstance(value, str) else value


class SettingsError(Exception):
    """An environment variable is unknown or has a bad value; the message names it, on one line."""


class Settings(BaseModel):
    """What an instance needs to know; every field is the environment variable IRIS_API_<FIELD>.

    pydantic-settings would read the environment too, but it passes over a misspelt IRIS_API_ variable in silence.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)

    instance: Annotated[int, Field(ge=1)] = 1
    """Number of this instance; systemd fills it in (iris-api@2 has 2)."""
    base_port: Annotated[int, Field(ge=1, le=65535)] = 8001
    """Port of instance 1; each further instance takes the next one."""
    bind_address: IPv4Address | IPv6Address = IPv4Address("127.0.0.1")
    """Address this instance listens on."""
    model_dir: Path
    """Directory of a model bundle: manifest.json and the artifact it names."""
    engine: Literal["auto", "sklearn", "onnx"] = "auto"
    """What computes the answers; auto takes onnx where the bundle proves that it answers alike and memory suffices."""
    release: Annotated[str, Field(min_length=1, max_length=64)] = __version__
    """Name of the deployed release, shown by /health/ready and /metrics."""
    deployment: Annotated[str, Field(max_length=64)] = ""
    """Id of the deployment: release, settings, unit and model together. Shown by /health/ready."""
    memory_max: Annotated[int, Field(ge=1)] | None = None
    """Bytes that the unit's MemoryMax allows; `auto` takes no engine that needs more. None: no bound is known."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level that is logged."""
    request_deadline: Annotated[float, Field(ge=0.1, le=3600)] = 4
    """Seconds from the arrival of a request's body to its answer; what would take longer is refused or ended."""
    max_body_bytes: Annotated[int, Field(ge=256)] = 61440
    """How many bytes the body of one request may have."""
    max_rows: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """How many rows one request may have."""
    max_values: Annotated[int, Field(ge=1)] = 100_000
    """How many values, rows x features, one request may have."""
    max_bytes_in_flight: Annotated[int, Field(ge=0)] = 16_777_216
    """How many bytes of bodies that do not come at once may be on their way here; a request beyond them gets 503."""
    max_batch_rows: Annotated[int, Field(ge=1)] = 1000
    """How many rows of several requests may share one call of the model."""
    max_waiting_rows: Annotated[int, Field(ge=0)] = 0
    """How many rows may wait for the model in a lane; a request beyond them gets 503. 0 stands for 4 x max_rows."""
    skops_trusted: Annotated[tuple[str, ...], BeforeValidator(_split)] = ("sklearn.tree._tree.Tree",)
    """Types, separated by commas, that a skops artifact may hold beside those that skops itself trusts."""
    keepalive: Seconds = 75
    """Seconds for which an idle connection is kept; more than the gateway's own, which must be the one to close it."""
    worker_timeout: Annotated[int, Field(ge=3, le=3600)] = 5
    """Seconds for which the event loop of a worker may stand still before the worker is replaced."""
    graceful_timeout: Seconds = 15
    """Seconds that requests in flight may take to finish when the instance stops."""

    @model_validator(mode="after")
    def _port_exists(self) -> Self:
        if self.port > 65535:
            raise ValueError(f"{PREFIX}BASE_PORT + {PREFIX}INSTANCE - 1 is {self.port}, above 65535")
        return self

    @model_validator(mode="after")
    def _requests_end_before_the_instance(self) -> Self:
        if self.request_deadline >= self.graceful_timeout:
            raise ValueError(
                f"{PREFIX}REQUEST_DEADLINE is {self.request_deadline:g} s, which must be less than "
                f"{PREFIX}GRACEFUL_TIMEOUT, {self.graceful_timeout} s"
            )
        return self

    @property
    def port(self) -> int:
        """The port this instance listens on."""
        return self.base_port + self.instance - 1

    @property
    def bind(self) -> str:
        """Address and port in gunicorn's notation."""
        host = f"[{self.bind_address}]" if self.bind_address.version == 6 else str(self.bind_address)
        return f"{host}:{self.port}"

    @property
    def name(self) -> str:
        """The instance's name, the same as its systemd unit's."""
        return f"iris-api@{self.instance}"

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Read the settings, or say in one line which variables are wrong and how."""
        given = {key: value for key, value in environ.items() if key.startswith(PREFIX)}
        try:
            return cls.model_validate({key.removeprefix(PREFIX).lower(): value for key, value in given.items()})
        except ValidationError as error:
            raise SettingsError("; ".join(cls._explain(problem, given) for problem in error.errors())) from None

    @classmethod
    def _explain(cls, problem: Mapping[str, object], given: Mapping[str, str]) -> str:
        location = problem["loc"]
        if not isinstance(location, tuple) or not location:
            return str(problem["msg"])
        name = str(location[0]).upper()
        variable = PREFIX + name
        known = [field.upper() for field in cls.model_fields]
        match problem["type"]:
            case "missing":
                return f"{variable} is not set"
            case "extra_forbidden":
                nearest = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {PREFIX}{nearest[0]}?" if nearest else f"known are {', '.join(known)}"
                return f"{variable} is not a setting; {hint}"
            case _:
                return f"{variable}={given.get(variable, '')!r}: {problem['msg']}"

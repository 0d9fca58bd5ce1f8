"""From a request's body to rows of values: the one place where input is judged, and described for OpenAPI."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    create_model,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from iris_api.bundle.files import BundleError
from iris_api.bundle.manifest import MANIFEST, NUMERIC, Feature, Manifest
from iris_api.engines.columns import Table
from iris_api.engines.model import Row
from iris_api.predict.dates import is_date, is_datetime
from iris_api.predict.errors import ApiError, Detail, invalid
from iris_api.predict.limits import Limits
from iris_api.predict.steps import LARGE, Steps, finished
from iris_api.predict.tables import LEAST_ROWS, TableReader, is_tabular

# Up to here a float of 64 bits holds every integer, above only some.
_EXACT = 2**53
_MOST_DETAILS = 10
# Values that are validated, and texts of JSON that are decoded, at a time.
_STEP_VALUES = 1000
_LONGEST_NAME = 64
ROW = "Row"
_REFERENCE = "#/components/schemas/{model}"
# Bytes of a value with its name at least: "a":1 and a comma.
_SHORTEST_VALUE = 6
# All of it is ASCII, so that places in a body and in its text are the same.
_OPENING = re.compile(rb"[ \t\n\r]*+\[[ \t\n\r]*+(?!\])")
_COMMA = re.compile(r"[ \t\n\r]*,[ \t\n\r]*")
# Of a message that lists the categories.
_LONGEST_REASON = 500


class RowParser:
    """Turns bodies into rows of one model's features.

    Raises BundleError if a single row of the model has more values than a request may have.
    """

    def __init__(self, manifest: Manifest, limits: Limits) -> None:
        self._limits = limits
        self._width = len(manifest.features)
        if self._width > limits.values:
            raise BundleError(
                f"{MANIFEST} of {manifest.name} {manifest.version}: a row has {self._width} values, but one request "
                f"may have {limits.values}. Set IRIS_API_MAX_VALUES (fortress_max_values) to {self._width} at least."
            )
        one = _row_model(manifest)
        many: Any = Annotated[list[one], Field(min_length=1, max_length=limits.rows)]  # type: ignore[valid-type]
        self._one = TypeAdapter(one)
        self._quotes = 2 * len(manifest.features)
        self._has_texts = any(str in _types_of(feature) for feature in manifest.features)
        inexact = [number for number, feature in enumerate(manifest.features) if _may_be_inexact(manifest, number)]
        self._may_be_inexact = {manifest.features[number].name: number for number in inexact}
        self._many: TypeAdapter[list[BaseModel]] = TypeAdapter(many)
        self.tables = TableReader(manifest) if is_tabular(manifest) else None
        """Reads large batches, if all features are numbers; what it does not take is for this parser."""
        self._rows_of_step = max(1, _STEP_VALUES // len(manifest.features))
        self._least_table = LEAST_ROWS * len(manifest.features) * _SHORTEST_VALUE

    def parse(self, body: bytes) -> tuple[list[Row] | Table, bool]:
        """Return the rows of a body and whether it was a list; raise ApiError, which says what is wrong and where.

        A large list is a table, if all is well with it.
        """
        # What nearly always comes, a row and nothing wrong with it, is taken by the validator's own reading of JSON.
        # That does not see a repeated name, but these quotes do: each name has at least two, and none is missing. So
        # has each text, if the model has features that are texts.
        # A name with a quote in it has more, if that is written as \": it is read the other way.
        # Whatever it does not take is judged, and refused in words, by `parsed`.
        if body[:1] != b"[" and ((quotes := body.count(b'"')) == self._quotes or self._has_texts):
            try:
                row = _values(self._one.validator.validate_json(body))
                if (not self._has_texts or quotes == self._quotes + 2 * sum(type(each) is str for each in row)) and (
                    not self._may_be_inexact or self._is_exact(row)
                ):
                    return [row], False
            except ValidationError:
                pass
        return finished(self.parsed(body))

    def parsed(self, body: bytes) -> Steps[tuple[list[Row] | Table, bool]]:
        """Do as `parse` does, in steps: a step of a body in JSON that is no list is as long as the body."""
        if self.tables and len(body) >= self._least_table:
            table = yield from self.tables.objects(body)
            if table is not None:
                self.check_rows(len(table))
                return table, True
        content = yield from decoded(body)
        if isinstance(content, list):
            return (yield from self.validated(content)), True
        try:
            row = _values(self._one.validate_python(content))
        except ValidationError as error:
            raise _invalid_input(_problems(error)) from None
        if self._may_be_inexact:
            self._require_exact([("", content)])
        return [row], False

    def validate(self, content: list[Any]) -> list[Row]:
        """Return the rows of a list of objects; raise ApiError for the values that are wrong."""
        return finished(self.validated(content))

    def validated(self, content: list[Any]) -> Steps[list[Row]]:
        """Do as `validate` does, in steps."""
        self._limits.check_rows(len(content), self._width)
        rows: list[Row] = []
        problems: list[ErrorDetails] = []
        # An empty list is judged, too.
        for first in range(0, max(1, len(content)), self._rows_of_step):
            try:
                found = self._many.validate_python(content[first : first + self._rows_of_step])
                rows += [_values(row) for row in found]
            except ValidationError as error:
                problems += _problems(error, first)
            if len(problems) >= _MOST_DETAILS:
                break
            yield
        if problems:
            raise _invalid_input(problems)
        if self._may_be_inexact:
            for first in range(0, len(content), self._rows_of_step):
                some = content[first : first + self._rows_of_step]
                self._require_exact([(f"{number}.", row) for number, row in enumerate(some, first)])
                yield
        return rows

    def check_rows(self, rows: int) -> None:
        """Raise ApiError for more rows than a request may have."""
        self._limits.check_rows(rows, self._width)

    def may_round(self, name: str) -> bool:
        """Return whether the model may get an integer for a feature that is not the one that came."""
        return name in self._may_be_inexact

    def _is_exact(self, row: Row) -> bool:
        """Return whether no integer of a row was rounded; of a very great number it is not known."""
        values = [row[number] for number in self._may_be_inexact.values()]
        return all(value is None or -_EXACT < value < _EXACT for value in values)

    def _require_exact(self, rows: list[tuple[str, dict[str, Any]]]) -> None:
        """Raise ApiError for integers that validation, or the table that the model takes, has rounded."""
        details = [
            Detail(field=f"{prefix}{name}", reason=reason)
            for prefix, row in rows
            for name, value in row.items()
            if name in self._may_be_inexact and (reason := inexact(value))
        ]
        if details:
            message = "The body has integers that cannot be taken exactly."
            raise invalid("invalid_input", message, *details[:_MOST_DETAILS])

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of a body, a row or a list of rows; it refers to ROW in the OpenAPI document."""
        many = self._many.json_schema(ref_template=_REFERENCE)
        del many["$defs"]
        return {"oneOf": [many["items"], many]}

    def row_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of a row, which OpenAPI knows as ROW."""
        return self._one.json_schema()


def decode(body: bytes, *, nan: bool = False) -> Any:
    """Return what a body holds as JSON; raise ApiError for what JSON does not have or leaves open.

    With `nan` the word NaN, which Python's json writes for a missing number, is read as null.
    """
    with _refusing():
        content = (_decoder_with_nan if nan else _decoder).decode(body.decode())
        if b"\\u" in body:
            _require_characters(content)
        return content


def decoded(body: bytes) -> Steps[Any]:
    """Do as `decode` does, element by element if the body is a large list."""
    opening = _OPENING.match(body) if len(body) >= LARGE else None
    if not opening:
        return decode(body)
    content = []
    with _refusing():
        text = body.decode()
        place = opening.end()
        while True:
            element, end = _decoder.raw_decode(text, place)
            content.append(element)
            comma = _COMMA.match(text, end)
            if not comma or text.startswith("]", comma.end()):
                break
            place = comma.end()
            yield
        try:
            # What is behind the last element is judged behind one that is right.
            _decoder.decode(f"[0{text[end:]}")
        except json.JSONDecodeError as error:
            raise json.JSONDecodeError(error.msg, text, end - len("[0") + error.pos) from None
        for element in content if b"\\u" in body else ():
            _require_characters(element)
            yield
    return content


def _require_characters(content: Any) -> None:
    """Raise UnicodeEncodeError for half of a surrogate pair: nothing that has to repeat it, as a log, could."""
    json.dumps(content, ensure_ascii=False).encode()


@contextmanager
def _refusing() -> Iterator[None]:
    """Raise ApiError for what the decoder, and what is asked of its texts, raise."""
    try:
        yield
    except UnicodeDecodeError:
        raise _invalid_json("is not UTF-8") from None
    except UnicodeEncodeError:
        raise _invalid_json("has an escape that is no character: half of a surrogate pair") from None
    except json.JSONDecodeError as error:
        raise _invalid_json(f"{error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise _invalid_json("is nested too deeply") from None
    except ValueError:
        # What is left is Python's own limit on the digits of an integer.
        raise _invalid_json("has a number with too many digits") from None


def inexact(value: object) -> str | None:
    """Return why a number is not what a model, which computes with floats of 64 bits, would get; None if it is.

    A decimal becomes the nearest float, as JSON's numbers do everywhere. Of an integer every digit is meant.
    """
    if type(value) is not int or -_EXACT <= value <= _EXACT:
        return None
    try:
        nearest = int(float(value))
    except OverflowError:
        return None
    if nearest == value:
        return None
    return (
        f"The integer {value} is not held exactly by a float of 64 bits, with which the model computes. "
        f"The nearest that is: {nearest}; send that, or a decimal."
    )


def _row_model(manifest: Manifest) -> type[BaseModel]:
    """Build the model of a row: exactly the manifest's features, each of its kind and within its limits.

    Strict: integers are numbers, strings and booleans are not. The limits keep values such as 1e308, finite in
    themselves, from overflowing inside of the model.
    """
    example = manifest.golden_samples[0].input
    # A feature may have any name, a field of Python may not: the name that counts is the alias.
    fields: dict[str, Any] = {
        f"feature_{number}": Annotated[
            _type_of(feature) | None if feature.nullable else _type_of(feature),
            Field(
                alias=feature.name,
                title=feature.name,
                description=_description(feature),
                examples=[example[feature.name]],
            ),
        ]
        for number, feature in enumerate(manifest.features)
    }
    return create_model(ROW, __config__=ConfigDict(extra="forbid"), **fields)


def _type_of(feature: Feature) -> Any:
    """Return the type of a feature's values, as pydantic knows types."""
    if feature.kind in NUMERIC:
        least, _, _, greatest = feature.limits
        if feature.kind == "number":
            return Annotated[float, Field(strict=True, allow_inf_nan=False, ge=least, le=greatest)]
        return Annotated[int, Field(strict=True, ge=least, le=greatest), BeforeValidator(_whole)]
    if feature.kind == "category" and not feature.open:
        return Literal[*(feature.values or [])]
    (kind,) = _types_of(feature)
    strict: Any = Annotated[kind, Field(strict=True)]
    if feature.kind == "date":
        return Annotated[strict, AfterValidator(_date), Field(json_schema_extra={"format": "date"})]
    if feature.kind == "datetime":
        return Annotated[strict, AfterValidator(_datetime), Field(json_schema_extra={"format": "date-time"})]
    return strict


def _types_of(feature: Feature) -> set[type]:
    """Return the type that a value of a feature has in a row."""
    if feature.kind == "category":
        return {type(value) for value in feature.values or []}
    return {{"number": float, "integer": int, "boolean": bool}.get(feature.kind, str)}


def _may_be_inexact(manifest: Manifest, number: int) -> bool:
    """Return whether an integer for a feature may be one that the model does not get exactly: it computes in floats.

    A column of integers, or one of objects, holds every integer.
    """
    feature, table = manifest.features[number], manifest.table
    if feature.kind not in NUMERIC:
        return False
    if feature.kind == "integer" and table and "float" not in table.columns[number].dtype:
        return False
    least, _, _, greatest = feature.limits
    return max(-least, greatest) >= _EXACT


def _whole(value: Any) -> Any:
    """Return a number without a fraction as an integer, for JSON makes no difference; anything else as it is."""
    return int(value) if type(value) is float and value.is_integer() else value


def _date(text: str) -> str:
    if is_date(text):
        return text
    raise PydanticCustomError("date_format", "Input should be a date, such as 2026-01-31")


def _datetime(text: str) -> str:
    if is_datetime(text):
        return text
    raise PydanticCustomError("datetime_format", "Input should be a date and time, such as 2026-01-31T09:30:00Z")


def _description(feature: Feature) -> str:
    unit = f", in {feature.unit}" if feature.unit else ""
    missing = "; may be missing (null)" if feature.nullable else ""
    if feature.kind not in NUMERIC:
        return f"{feature.description}{unit}{missing}"
    _, least, greatest, _ = feature.limits
    return f"{feature.description}{unit}; the training data spans {least:g} to {greatest:g}{missing}"


def _values(row: Any) -> Row:
    # A pydantic model keeps its values in the order of its fields, however they came.
    return list(row.__dict__.values())


def _problems(error: ValidationError, first: int = 0) -> list[ErrorDetails]:
    """Return what is wrong with a row, or with some rows of a list, of which the first one has this number."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    for problem in problems if first else ():
        number, *place = problem["loc"]
        assert isinstance(number, int)
        problem["loc"] = (number + first, *place)
    return problems


def _invalid_input(problems: list[ErrorDetails]) -> ApiError:
    details = [
        Detail(
            field=".".join(map(str, _bounded(problem))) or "body",
            reason=_reason(problem),
        )
        for problem in problems[:_MOST_DETAILS]
    ]
    return invalid("invalid_input", "The body does not have the fields it must have.", *details)


def _reason(problem: ErrorDetails) -> str:
    if problem["type"] == "model_type":
        return "Input should be an object"
    if len(problem["msg"]) > _LONGEST_REASON:
        return "Input should be one of the categories of this feature, which the OpenAPI document lists"
    return problem["msg"]


def _bounded(problem: ErrorDetails) -> list[int | str]:
    """Return the place of a problem; a name that we don't know may be of any length."""
    *outer, last = ["", *problem["loc"]]
    if problem["type"] == "extra_forbidden":
        last = str(last)[:_LONGEST_NAME]
    return [*outer, last][1:]


def _invalid_json(reason: str) -> ApiError:
    return invalid("invalid_json", "The body is not valid JSON.", Detail(field="body", reason=reason))


def _refuse_repeated_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        # JSON leaves open which of them counts: a guard in front of us could have read another one.
        raise invalid(
            "invalid_input", "A name appears twice in the body.", Detail(field="body", reason="repeated name")
        )
    return content


def _refuse_constant(_constant: str) -> float:
    raise _invalid_json("NaN and Infinity are not JSON")


def _refuse_infinity(constant: str) -> None:
    if constant != "NaN":
        raise _invalid_json("Infinity is not JSON")


_decoder = json.JSONDecoder(object_pairs_hook=_refuse_repeated_names, parse_constant=_refuse_constant)
_decoder_with_nan = json.JSONDecoder(object_pairs_hook=_refuse_repeated_names, parse_constant=_refuse_infinity)

"""From a request's body to rows of values: the one place where input is judged, and described for OpenAPI."""

import json
import re
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
_SPACE = re.compile(r"[ \t\n\r]*")
# Characters of JSON that are read at a time.
_PIECE = 1 << 13
# How deep lists and objects may be in each other to be read by pieces.
_DEEPEST = 8
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
        self._texts = [number for number, feature in enumerate(manifest.features) if str in _types_of(feature)]
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
        if body[:1] != b"[" and ((quotes := body.count(b'"')) == self._quotes or self._texts):
            try:
                row = _values(self._one.validator.validate_json(body))
                if (not self._texts or quotes == self._quotes + self._quotes_of_texts(row)) and (
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

    def row(self, content: dict[str, Any]) -> Row | None:
        """Return the row of an object whose numbers are floats; None for one that `validate` has words for."""
        try:
            return _values(self._one.validate_python(content))
        except ValidationError:
            return None

    def check_rows(self, rows: int) -> None:
        """Raise ApiError for more rows than a request may have."""
        self._limits.check_rows(rows, self._width)

    def may_round(self, name: str) -> bool:
        """Return whether the model may get an integer for a feature that is not the one that came."""
        return name in self._may_be_inexact

    def _quotes_of_texts(self, row: Row) -> int:
        texts = [row[number] for number in self._texts]
        return 2 * (len(texts) - texts.count(None))

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
    with _refusing:
        content = (_decoder_with_nan if nan else _decoder).decode(body.decode())
        if b"\\u" in body:
            _require_characters(content)
        return content


def decoded(body: bytes, *, nan: bool = False) -> Steps[Any]:
    """Do as `decode` does, of a large body piece by piece."""
    if len(body) < LARGE:
        return decode(body, nan=nan)
    decoder = _decoder_with_nan if nan else _decoder
    with _refusing:
        text = body.decode()
        start = _skip(text, 0)
        try:
            content, end = yield from _value(decoder, text, start)
            if (behind := _skip(text, end)) < len(text):
                raise json.JSONDecodeError("Extra data", text, behind)
        except _WrongError as wrong:
            if text.startswith("[", start) and start + 1 < wrong.end < len(text):
                # What is behind the last element that is right is judged behind one that is short.
                try:
                    decoder.decode(f"[0{text[wrong.end :]}")
                except json.JSONDecodeError as error:
                    raise json.JSONDecodeError(error.msg, text, wrong.end - len("[0") + error.pos) from None
            # The decoder has words for what is wrong.
            content = decoder.decode(text)
        if b"\\u" in body:
            for part in content if isinstance(content, list) else (content,):
                _require_characters(part)
                yield
    return content


class _WrongError(Exception):
    """Something is wrong with a text in JSON, behind a place up to which it is right."""

    def __init__(self, end: int) -> None:
        super().__init__(end)
        self.end = end


def _value(decoder: json.JSONDecoder, text: str, start: int, depth: int = 0) -> Steps[tuple[Any, int]]:
    """Return the value that starts at a place, and where it ends; raise _WrongError if there is none."""
    short = text[start : start + _PIECE]
    try:
        value, length = decoder.raw_decode(short)
        # A number may go on: what is cut behind an e or a point is read without it.
        if length < len(short) and short[length] not in ".eE":
            return value, start + length
    except ValueError:
        pass
    yield
    if short[:1] in ("[", "{") and depth < _DEEPEST:
        read: Any = _list if short[:1] == "[" else _object
        found: tuple[Any, int] = yield from read(decoder, text, start + 1, depth + 1)
        return found
    try:
        value, end = decoder.raw_decode(text, start)
    except json.JSONDecodeError:
        raise _WrongError(start) from None
    return value, end


def _list(decoder: json.JSONDecoder, text: str, start: int, depth: int) -> Steps[tuple[list[Any], int]]:
    """Return the list of which the first element, or its end, follows a place."""
    found: list[Any] = []
    end = start
    start = _skip(text, start)
    if text.startswith("]", start):
        return found, start + 1
    # What stands between two elements, most probably: where all of a piece is not right, it is read one by one.
    between = {"{": "},", "[": "],"}.get(text[start : start + 1], ",")
    while True:
        stop = text.find(between, start + _PIECE) if between else -1
        comma = stop + len(between) - 1
        try:
            part = decoder.decode(f"[{text[start:comma]}]") if stop >= 0 else []
        except ValueError:
            part = []
        if part:
            found += part
            end = comma
        else:
            between = ""
            try:
                value, end = yield from _value(decoder, text, start, depth)
            except _WrongError:
                raise _WrongError(end) from None
            found.append(value)
        yield
        start = _skip(text, end)
        if text.startswith("]", start):
            return found, start + 1
        if not text.startswith(",", start):
            raise _WrongError(end)
        start = _skip(text, start + 1)
        if text.startswith("]", start):
            raise _WrongError(end)


def _object(decoder: json.JSONDecoder, text: str, start: int, depth: int) -> Steps[tuple[Any, int]]:
    """Return the object of which the first name, or its end, follows a place."""
    pairs: list[tuple[str, Any]] = []
    while True:
        start = _skip(text, start)
        if text.startswith("}", start) and not pairs:
            return {}, start + 1
        if not text.startswith('"', start):
            raise _WrongError(start)
        name, start = yield from _value(decoder, text, start, depth)
        start = _skip(text, start)
        if not text.startswith(":", start):
            raise _WrongError(start)
        value, start = yield from _value(decoder, text, _skip(text, start + 1), depth)
        pairs.append((name, value))
        yield
        start = _skip(text, start)
        if text.startswith("}", start):
            return _refuse_repeated_names(pairs), start + 1
        if not text.startswith(",", start):
            raise _WrongError(start)
        start += 1


def _skip(text: str, start: int) -> int:
    """Return where the white space that starts at a place, if any, ends."""
    found = _SPACE.match(text, start)
    assert found
    return found.end()


def _require_characters(content: Any) -> None:
    """Raise UnicodeEncodeError for half of a surrogate pair: nothing that has to repeat it, as a log, could."""
    json.dumps(content, ensure_ascii=False).encode()


class _Refusing:
    """Raises ApiError for what the decoder, and what is asked of its texts, raise: a generator would take longer."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        match error:
            case None:
                return
            case UnicodeDecodeError():
                reason = "is not UTF-8"
            case UnicodeEncodeError():
                reason = "has an escape that is no character: half of a surrogate pair"
            case json.JSONDecodeError():
                reason = f"{error.msg} at line {error.lineno}, column {error.colno}"
            case RecursionError():
                reason = "is nested too deeply"
            case ValueError():
                # What is left is Python's own limit on the digits of an integer.
                reason = "has a number with too many digits"
            case _:
                return
        raise _invalid_json(reason) from None


_refusing = _Refusing()


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

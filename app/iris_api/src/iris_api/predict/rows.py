"""From a request's body to rows of numbers: the one place where input is judged, and described for OpenAPI."""

import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic_core import ErrorDetails

from iris_api.bundle.files import BundleError
from iris_api.bundle.manifest import MANIFEST, Feature, Manifest
from iris_api.engines.columns import Table
from iris_api.engines.model import Row
from iris_api.predict.errors import ApiError, Detail, invalid
from iris_api.predict.limits import Limits
from iris_api.predict.tables import LEAST_ROWS, TableReader

# Up to here a float of 64 bits holds every integer, above only some.
_EXACT = 2**53
_MOST_DETAILS = 10
_LONGEST_NAME = 64
# Bytes of a value with its name at least: "a":1 and a comma.
_SHORTEST_VALUE = 6


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
        self._may_be_inexact = any(max(-each.minimum, each.maximum) >= _EXACT for each in manifest.features)
        self._many: TypeAdapter[list[BaseModel]] = TypeAdapter(many)
        self.tables = TableReader(manifest)
        """Reads large batches; what it does not take is for this parser."""
        self._least_table = LEAST_ROWS * len(manifest.features) * _SHORTEST_VALUE

    def parse(self, body: bytes) -> tuple[list[Row] | Table, bool]:
        """Return the rows of a body and whether it was a list; raise ApiError, which says what is wrong and where.

        A large list is a table, if all is well with it.
        """
        # What nearly always comes, a row and nothing wrong with it, is taken by the validator's own reading of JSON.
        # That does not see a repeated name, but these quotes do: each name has at least two, and none is missing.
        # A name with a quote in it has more, if that is written as \": it is read the other way.
        # Whatever it does not take is judged, and refused in words, below.
        if len(body) >= self._least_table:
            if (table := self.tables.objects(body)) is not None:
                self._limits.check_rows(len(table), self._width)
                return table, True
        elif body.count(b'"') == self._quotes:
            try:
                row = _values(self._one.validator.validate_json(body))
                if not self._may_be_inexact or all(-_EXACT < value < _EXACT for value in row):
                    return [row], False
            except ValidationError:
                pass
        content = decode(body)
        if isinstance(content, list):
            return self.validate(content), True
        try:
            row = _values(self._one.validate_python(content))
        except ValidationError as error:
            raise _invalid_input(error) from None
        if self._may_be_inexact:
            _require_exact([("", content)])
        return [row], False

    def validate(self, content: list[Any]) -> list[Row]:
        """Return the rows of a list of objects; raise ApiError for the values that are wrong."""
        self._limits.check_rows(len(content), self._width)
        try:
            rows = [_values(row) for row in self._many.validate_python(content)]
        except ValidationError as error:
            raise _invalid_input(error) from None
        if self._may_be_inexact:
            _require_exact([(f"{number}.", row) for number, row in enumerate(content)])
        return rows

    def check_rows(self, rows: int) -> None:
        """Raise ApiError for more rows than a request may have."""
        self._limits.check_rows(rows, self._width)

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of a body: a row or a list of rows."""
        return {"oneOf": [self._one.json_schema(), _inlined(self._many.json_schema())]}


def decode(body: bytes) -> Any:
    """Return what a body holds as JSON; raise ApiError for what JSON does not have or leaves open."""
    try:
        content = _decoder.decode(body.decode())
        if b"\\u" in body:
            # Half of a surrogate pair is no character: nothing that has to repeat it, an answer or a log, could.
            json.dumps(content, ensure_ascii=False).encode()
        return content
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


def _require_exact(rows: list[tuple[str, dict[str, Any]]]) -> None:
    """Raise ApiError for integers that validation has rounded."""
    details = [
        Detail(field=f"{prefix}{name}", reason=reason)
        for prefix, row in rows
        for name, value in row.items()
        if (reason := inexact(value))
    ]
    if details:
        raise invalid("invalid_input", "The body has integers that cannot be taken exactly.", *details[:_MOST_DETAILS])


def _row_model(manifest: Manifest) -> type[BaseModel]:
    """Build the model of a row: exactly the manifest's features, each a number within its limits.

    Strict: integers are numbers, strings and booleans are not. The limits keep values such as 1e308, finite in
    themselves, from overflowing inside of the model.
    """
    example = manifest.golden_samples[0].input
    # A feature may have any name, a field of Python may not: the name that counts is the alias.
    fields: dict[str, Any] = {
        f"feature_{number}": Annotated[
            float,
            Field(
                alias=feature.name,
                title=feature.name,
                strict=True,
                allow_inf_nan=False,
                ge=feature.minimum,
                le=feature.maximum,
                description=_description(feature),
                examples=[example[feature.name]],
            ),
        ]
        for number, feature in enumerate(manifest.features)
    }
    return create_model("Row", __config__=ConfigDict(extra="forbid"), **fields)


def _description(feature: Feature) -> str:
    unit = f", in {feature.unit}" if feature.unit else ""
    return (
        f"{feature.description}{unit}; the training data spans "
        f"{feature.training_minimum:g} to {feature.training_maximum:g}"
    )


def _values(row: Any) -> Row:
    # A pydantic model keeps its values in the order of its fields, however they came.
    return list(row.__dict__.values())


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """Put the one definition of a schema where it is referred to: OpenAPI has another place for definitions."""
    (definition,) = schema.pop("$defs").values()
    return {**schema, "items": definition}


def _invalid_input(error: ValidationError) -> ApiError:
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    details = [
        Detail(
            field=".".join(map(str, _bounded(problem))) or "body",
            reason="Input should be an object" if problem["type"] == "model_type" else problem["msg"],
        )
        for problem in problems[:_MOST_DETAILS]
    ]
    return invalid("invalid_input", "The body does not have the fields it must have.", *details)


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


_decoder = json.JSONDecoder(object_pairs_hook=_refuse_repeated_names, parse_constant=_refuse_constant)

"""Reads what people give to make a bundle of: a sample of the data and a JSON file about its columns."""

import csv
import difflib
import errno
import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from iris_api.bundle.manifest import Category, Kind, Value

# Values of a sample; it is held in memory several times.
LARGEST_SAMPLE = 10_000_000


class SampleError(Exception):
    """A file cannot be used; the message names it, the line or the column, what stands there and what to do."""


@dataclass(frozen=True)
class FeatureText:
    """What people know about a feature, and its numbers do not tell."""

    description: str = ""
    unit: str = ""
    minimum: float | int | None = None
    maximum: float | int | None = None
    kind: Kind | None = None
    nullable: bool | None = None
    values: list[Category] | None = None
    """All categories that are possible, or with `open` the ones to tell."""
    open: bool | None = None
    """Whether other categories are accepted."""
    examples: list[str] | None = None
    """Of a text: what may stand in golden samples in place of invented ones."""


@dataclass(frozen=True)
class Cells:
    """A CSV: the texts of its cells."""

    path: Path
    names: list[str]
    """Of the features: what is to be predicted is none."""
    columns: list[list[str]]
    """The texts of each feature, row by row."""
    lines: list[int]
    """Number of the last line of each row."""
    targets: list[str] | None
    """The texts of the target if one is named."""

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.lines)

    def where(self, row: int) -> str:
        """Return what a message calls a row."""
        return f"{self.path}: line {self.lines[row]}"

    def typed(self, features: Mapping[str, FeatureText]) -> tuple[list[Kind], list[list[Value]]]:
        """Return the kind of each feature and its values; an empty cell is a missing one.

        What is said of a feature decides. Of any other, texts that are all numbers are numbers (but not if one has a
        zero in front, as codes have), all true or false are booleans, and texts without a number among them categories.
        Raise SampleError for a cell that does not fit.
        """
        kinds: list[Kind] = []
        columns: list[list[Value]] = []
        for name, texts in zip(self.names, self.columns, strict=True):
            text = features.get(name, FeatureText())
            kind = text.kind or _kind_of(texts)
            kinds.append(kind)
            columns.append([self._value(row, name, kind, text, each) for row, each in enumerate(texts)])
        if len(self) < 2:
            raise SampleError(
                f"{self.path}: it needs a header with the features' names and at least two rows, but has {len(self)}."
            )
        return kinds, columns

    def _value(self, row: int, name: str, kind: Kind, about: FeatureText, text: str) -> Value:
        if not text.strip():
            return None
        if kind in {"number", "integer"}:
            return _number(self.where(row), name, kind, text)
        if kind == "boolean":
            if (truth := _TRUTHS.get(text.strip().casefold())) is None:
                raise SampleError(f"{self.where(row)} has {text!r:.80} for {name}, which is neither true nor false.")
            return truth
        if about.values and not isinstance(about.values[0], str):
            # 1 may be written 1 or 1.0, and true in several ways.
            return next((value for value in about.values if _same(value, text)), text)
        return text


_TRUTHS = {"true": True, "false": False, "1": True, "0": False}
# Codes that look like numbers, such as those of places: what they say is lost in a number.
_CODE = re.compile(r"\s*[+-]?0\d+\s*")
_SPOILT_NUMBER = re.compile(r"\s*[+-]?\d+[.,]\d+\s*|\s*[+-]?(nan|inf|infinity)\s*", re.IGNORECASE)


def _same(value: Category, text: str) -> bool:
    if isinstance(value, bool):
        return _TRUTHS.get(text.strip().casefold()) is value
    return _is_number(text) and float(text) == value


def _kind_of(texts: Sequence[str]) -> Kind:
    """Return the kind that a column of a CSV looks like."""
    given = [text for text in texts if text.strip()]
    if any(_CODE.fullmatch(text) for text in given):
        return "category"
    if any(_is_number(text) or _SPOILT_NUMBER.fullmatch(text) for text in given) or not given:
        return "number"
    if all(text.strip().casefold() in {"true", "false"} for text in given):
        return "boolean"
    return "category"


def read_sample(path: Path, target: str | None) -> Cells:
    """Return the cells of a CSV; raise SampleError for what cannot be used."""
    columns: list[list[str]] = []
    numbers: list[int] = []
    targets: list[str] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, skipinitialspace=True)
            head = _read_head(path, next(filter(None, lines), []), target)
            columns = [[] for _ in head]
            for line in filter(None, lines):
                where = f"{path}: line {lines.line_num}"
                if len(line) != len(head):
                    raise SampleError(
                        f"{where} has {len(line)} values, the header has {len(head)}. Each line needs one for each "
                        "name; a text with a comma in it stands in double quotes."
                    )
                numbers.append(lines.line_num)
                for column, text in zip(columns, line, strict=True):
                    column.append(text)
                if target is not None:
                    targets.append(_target(where, target, columns[head.index(target)].pop()))
                if len(numbers) * len(head) > LARGEST_SAMPLE:
                    raise SampleError(
                        f"{path}: it has more than {LARGEST_SAMPLE} values. A sample of some thousand rows, drawn at "
                        "random, is enough: sample.sample(10000).to_csv(..., index=False)."
                    )
    except OSError as error:
        raise SampleError(
            f"{path}: cannot be read ({error.strerror}). Give a CSV with rows the model was trained on."
        ) from None
    except UnicodeDecodeError as error:
        raise SampleError(f"{path}: it is no text in UTF-8 (byte {error.start}). Save it as CSV in UTF-8.") from None
    except csv.Error as error:
        raise SampleError(f"{path}: cannot be read as CSV ({error}). Save it with commas and double quotes.") from None
    features = [(name, column) for name, column in zip(head, columns, strict=True) if name != target]
    names, texts = [name for name, _ in features], [column for _, column in features]
    return Cells(path, names, texts, numbers, targets if target is not None else None)


def read_parquet(path: Path, target: str | None) -> tuple[Any, list[Any] | None]:
    """Return the DataFrame of a Parquet file without its target, and the values of that if one is named.

    Raise SampleError for what cannot be used.
    """
    return split_target(read_frame(path), target, str(path))


def read_frame(path: Path) -> Any:
    """Return the DataFrame of a Parquet file; raise SampleError if it cannot be read."""
    try:
        import pandas as pd

        frame = pd.read_parquet(path)
    except ImportError as error:
        raise SampleError(
            f"{path}: Parquet is read by pandas with pyarrow, and one of them is not installed ({error}): "
            "pip install pandas pyarrow, or give a CSV."
        ) from None
    except OSError as error:
        # What is raised for a file that is not there has its name alone.
        reason = error.strerror or (str(error) if path.exists() else os.strerror(errno.ENOENT))
        raise SampleError(f"{path}: cannot be read ({reason}).") from None
    except ValueError as error:
        raise SampleError(f"{path}: cannot be read as Parquet ({error}).") from None
    return frame


def split_target(frame: Any, target: str | None, where: str) -> tuple[Any, list[Any] | None]:
    """Return a DataFrame without the column of the target, and its values; raise SampleError if it is not there."""
    if len(frame) < 2:
        raise SampleError(f"{where}: it needs at least two rows, but has {len(frame)}.")
    if target is None:
        return frame, None
    names = [str(name) for name in frame.columns]
    if target not in names:
        nearest = difflib.get_close_matches(target, names, n=1)
        hint = f"Did you mean {nearest[0]!r}?" if nearest else f"There are {', '.join(names)}."
        raise SampleError(f"{where}: there is no column {target!r}, which --target names. {hint}")
    column = frame.columns[names.index(target)]
    values = frame[column]
    if values.isna().any():
        raise SampleError(f"{where}: row {int(values.isna().argmax())} has no value for the target {target}. Fill it.")
    return frame.drop(columns=[column]), values.tolist()


def _read_head(path: Path, line: Sequence[str], target: str | None) -> list[str]:
    """Return the names of the columns; raise SampleError if the first line does not hold them."""
    head = [name.strip() for name in line]
    if not any(head):
        raise SampleError(f"{path}: it is empty. It needs a header with the features' names and at least two rows.")
    for separator in ";\t|":
        if len(head) == 1 and head[0].count(separator):
            raise SampleError(
                f"{path}: its columns are separated by {separator!r}, and here by commas: {head[0]!r:.80}. Save it "
                "with commas, and with points in its numbers."
            )
    for number, name in enumerate(head, 1):
        if not name:
            raise SampleError(
                f"{path}: column {number} has no name. If it is pandas' index, leave it out: to_csv(..., index=False)."
            )
        if head.index(name) != number - 1:
            raise SampleError(
                f"{path}: columns {head.index(name) + 1} and {number} are both called {name!r}. Rename one."
            )
    counted = [[str(first + number) for number in range(len(head))] for first in (0, 1)]
    if all(_is_number(name) for name in head) and head not in counted:
        raise SampleError(
            f"{path}: its first line, {', '.join(head)[:80]}, is a row and no header. Put a line with the features' "
            "names in front, in the model's order."
        )
    if target is not None and target not in head:
        nearest = difflib.get_close_matches(target, head, n=1)
        hint = f"Did you mean {nearest[0]!r}?" if nearest else f"There are {', '.join(head)}."
        raise SampleError(f"{path}: there is no column {target!r}, which --target names. {hint}")
    if head == [target]:
        raise SampleError(f"{path}: beside the target {target!r} there is no column. It needs one for each feature.")
    return head


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _number(where: str, name: str, kind: Kind, text: str) -> float | int:
    if kind == "integer":
        try:
            return int(text.strip())
        except ValueError:
            pass
    value = float(text) if _is_number(text) and "_" not in text else float("nan")
    if value - value != 0 or (kind == "integer" and not value.is_integer()):
        raise SampleError(
            f"{where} has {text!r:.80}, which is no finite number, for {name}. Fill it or leave the row out; if {name} "
            f"is what is to be predicted: --target {shlex.quote(name)}; if it is a category: --features with "
            f"{json.dumps({name: {'kind': 'category'}}, ensure_ascii=False)}"
        )
    return int(value) if kind == "integer" else value


def _target(where: str, name: str, text: str) -> str:
    """Return what is written for the target; what it means, a number or a class and of which type, the model says."""
    if not text.strip():
        raise SampleError(f"{where} has no value for the target {name}. Fill it or leave the row out.")
    return text


def read_features(path: Path, names: Sequence[str]) -> dict[str, FeatureText]:
    """Return what people know of features, by name; raise SampleError for a name that the sample does not have."""
    known = {name: TypeAdapter(kind) for name, kind in get_type_hints(FeatureText).items()}
    remedy = f'Give a JSON object {{"NAME": {{{", ".join(f"{name!r}: ..." for name in known)}}}}}'.replace("'", '"')
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SampleError(f"{path}: cannot be read ({error.strerror}). {remedy}.") from None
    except (ValueError, RecursionError) as error:
        raise SampleError(f"{path}: cannot be read as JSON ({error}). {remedy}.") from None
    if not isinstance(content, dict):
        raise SampleError(f"{path}: it holds a {type(content).__name__} and no object. {remedy}.")
    for name, about in content.items():
        if name not in names:
            raise SampleError(f"{path}: the sample has no feature {name!r}; it has {', '.join(names)}.")
        if not isinstance(about, dict):
            raise SampleError(f"{path}: {name} has {about!r:.80}. {remedy}.")
        for key, value in about.items():
            try:
                known[key].validate_python(value, strict=True)
            except KeyError:
                raise SampleError(f"{path}: {name} has the key {key!r}. {remedy}.") from None
            except ValidationError as error:
                raise SampleError(f"{path}: {name} has {value!r:.80} for {key}: {error.errors()[0]['msg']}.") from None
    return {name: FeatureText(**about) for name, about in content.items()}

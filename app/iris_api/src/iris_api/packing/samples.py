"""Reads what people give to make a bundle of: a CSV with a sample of the data, and a JSON file about its columns."""

import csv
import difflib
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_type_hints

from pydantic import TypeAdapter, ValidationError

# Values of a sample; it is held in memory several times.
LARGEST_SAMPLE = 10_000_000


class SampleError(Exception):
    """A file cannot be used; the message names it, the line or the column, what stands there and what to do."""


@dataclass(frozen=True)
class FeatureText:
    """What people know about a feature, and its numbers do not tell."""

    description: str = ""
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None


def read_sample(path: Path, target: str | None) -> tuple[list[str], list[list[float]], list[str] | None]:
    """Return the names of the features, a row of numbers for each line, and the texts of the target if one is named.

    Raise SampleError for what cannot be used.
    """
    rows: list[list[float]] = []
    targets: list[str] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, skipinitialspace=True)
            head = _read_head(path, next(filter(None, lines), []), target)
            for line in filter(None, lines):
                where = f"{path}: line {lines.line_num}"
                if len(line) != len(head):
                    raise SampleError(
                        f"{where} has {len(line)} values, the header has {len(head)}. Each line needs one for each "
                        "name; a text with a comma in it stands in double quotes."
                    )
                cells = dict(zip(head, line, strict=True))
                if target is not None:
                    targets.append(_target(where, target, cells.pop(target)))
                rows.append([_number(where, name, text) for name, text in cells.items()])
                if len(rows) * len(head) > LARGEST_SAMPLE:
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
    if len(rows) < 2:
        raise SampleError(
            f"{path}: it needs a header with the features' names and at least two rows, but has {len(rows)}."
        )
    return [name for name in head if name != target], rows, targets if target is not None else None


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


def _number(where: str, name: str, text: str) -> float:
    value = float(text) if _is_number(text) and "_" not in text else float("nan")
    if value - value != 0:
        found = "no value" if not text.strip() else f"{text!r:.80}, which is no finite number,"
        raise SampleError(
            f"{where} has {found} for {name}. Fill it or leave the row out; if {name} is what is to be predicted: "
            f"--target {shlex.quote(name)}"
        )
    return value


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

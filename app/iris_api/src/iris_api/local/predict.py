"""`iris-model predict`: the answers of a bundle to the rows of a file, read and judged as an instance does.

`iris_api.packing.programs` starts it as a program of its own, with what is asked for as an object in JSON.
"""

import csv
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

from iris_api.bundle.files import BundleError
from iris_api.bundle.manifest import Manifest
from iris_api.engines.model import EngineChoice, Model, Prediction, RefusedError, Row
from iris_api.local.bundle import (
    FOR_ROWS,
    complain,
    complain_of_missing,
    missing_packages,
    say_what_differs,
    user_environment,
)
from iris_api.packing.replay import check
from iris_api.packing.samples import SampleError, read_frame

# Rows that are judged, and asked, at a time.
PIECE = 10_000
_MOST_COMPLAINTS = 3
_SUFFIXES = {".csv": "csv", ".parquet": "parquet", ".pq": "parquet"}

Objects = Iterator[list[dict[str, Any]]]
"""Rows as JSON has them, in pieces."""


class FileError(Exception):
    """The file can't be answered; the message says which row and value, and why."""


@dataclass(frozen=True)
class Request:
    """What is asked for; the fields are options of the command."""

    bundle: str
    file: str
    """`-` for standard input."""
    format: str
    """Of the answers: csv, ndjson or json."""
    scores: bool
    engine: EngineChoice
    skops_trusted: Sequence[str]


def main(arguments: Sequence[str]) -> int:
    """Print the answers; return the exit code."""
    if missing := missing_packages(FOR_ROWS):
        return complain_of_missing("predict", missing)
    request = Request(**json.loads(arguments[0]))
    try:
        _predict(request)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has closed the pipe. Python would report the same once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (BundleError, FileError, SampleError) as error:
        return complain(str(error))
    except KeyboardInterrupt:
        return complain("interrupted", 130)
    return 0


def _predict(request: Request) -> None:
    directory = Path(request.bundle)
    with user_environment(directory):
        model = check(directory, request.engine, request.skops_trusted)
    manifest = model.manifest
    if request.scores and not (manifest.probabilities or manifest.scores):
        raise FileError(f"{manifest.name} has neither probabilities nor scores: leave --scores out.")
    say_what_differs(directory, model)
    where = "standard input" if request.file == "-" else request.file
    write = {"csv": _write_csv, "ndjson": _write_ndjson, "json": _write_json}[request.format]
    rows = _judged(manifest, _objects(request.file, where, manifest), where)
    write(sys.stdout, manifest, request.scores, _answers(model, rows, where))


def _objects(file: str, where: str, manifest: Manifest) -> Objects:
    """Yield the rows of a file, by its name, or by what it begins with where that does not tell."""
    path = Path(file)
    form = None if file == "-" else _SUFFIXES.get(path.suffix.lower())
    if form == "parquet":
        return _of_parquet(path, manifest)
    try:
        content = sys.stdin.buffer.read() if file == "-" else path.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise FileError(f"{where}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError as error:
        raise FileError(f"{where}: it is no text in UTF-8 (byte {error.start}). Save it in UTF-8.") from None
    if form is None and text.lstrip()[:1] in ("[", "{"):
        return _of_json(text, where)
    return _of_csv(text, where, manifest)


def _of_csv(text: str, where: str, manifest: Manifest) -> Objects:
    """Yield the rows of a CSV; an empty cell is a missing value."""
    from iris_api.predict.lines import named, value_of

    features = {feature.name: feature for feature in manifest.features}
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    try:
        names = named(next(filter(None, reader), []), features)
        if len(names) == 1 and len(features) > 1 and names[0].count(";"):
            raise FileError(f"{where}: its columns are separated by ';', and here by commas. Save it with commas.")
        if repeated := [name for name in features if names.count(name) > 1]:
            raise FileError(f"{where}: two columns are called {repeated[0]}. Rename one.")

        def rows() -> Iterator[dict[str, Any]]:
            for cells in filter(None, reader):
                if len(cells) != len(names):
                    raise FileError(
                        f"{where}: line {reader.line_num} has {len(cells)} values, the header has {len(names)}. A "
                        "text with a comma in it stands in double quotes."
                    )
                pairs = zip(names, cells, strict=True)
                yield {name: value_of(features[name], cell) if name in features else cell for name, cell in pairs}

        yield from _pieces(rows())
    except csv.Error as error:
        raise FileError(f"{where}: line {reader.line_num} cannot be read as CSV ({error}).") from None


def _of_json(text: str, where: str) -> Objects:
    """Yield the rows of an object, of a list of them, or of one on each line."""
    from iris_api.predict.errors import ApiError
    from iris_api.predict.rows import decode

    def decoded(part: str, place: str) -> Any:
        try:
            return decode(part.encode())
        except ApiError as error:
            raise FileError(f"{place} {_reason(error)}") from None

    # Not at what else is an end of a line to Python: a text may have it.
    lines = text.strip().split("\n")
    try:
        # A single object may stand on several lines.
        by_line = len(lines) > 1 and isinstance(json.loads(lines[0]), dict)
    except (ValueError, RecursionError):
        by_line = False
    if by_line:
        numbered = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
        content: Any = (decoded(line, f"{where}: line {number}") for number, line in numbered)
    else:
        whole = decoded(text, f"{where}:")
        content = iter(whole if isinstance(whole, list) else [whole])
    yield from _pieces(content)


def _of_parquet(path: Path, manifest: Manifest) -> Objects:
    """Yield the rows of a Parquet file."""
    # It imports scikit-learn, which takes longer than an answer by ONNX Runtime, and is needed for nothing else here.
    from iris_api.packing.tables import carried

    frame = read_frame(path)
    frame.columns = [str(name) for name in frame.columns]
    kinds = {feature.name: feature.kind for feature in manifest.features}
    for first in range(0, len(frame), PIECE):
        part = frame.iloc[first : first + PIECE]
        columns = [carried(kinds[name], part[name]) if name in kinds else [None] * len(part) for name in part.columns]
        yield [dict(zip(part.columns, values, strict=True)) for values in zip(*columns, strict=True)]


def _pieces(rows: Iterator[Any]) -> Iterator[list[Any]]:
    while piece := list(islice(rows, PIECE)):
        yield piece


def _judged(manifest: Manifest, objects: Objects, where: str) -> Iterator[tuple[int, list[Row]]]:
    """Yield the rows of the model, in pieces with the number of the first; raise FileError for values that are wrong.

    Columns that the model does not have are left out, which is said on standard error.
    """
    from iris_api.predict.errors import ApiError
    from iris_api.predict.limits import Limits
    from iris_api.predict.rows import RowParser

    parser = RowParser(manifest, Limits(body_bytes=sys.maxsize, rows=sys.maxsize, values=sys.maxsize))
    known = set(manifest.feature_names)
    first = 1
    for piece in objects:
        for number, row in enumerate(piece, first):
            if not isinstance(row, dict):
                raise FileError(f"{where}: row {number} is no object with the names of the features.")
        if first == 1:
            if missing := [name for name in manifest.feature_names if name not in piece[0]]:
                raise FileError(
                    f"{where}: it lacks {_some(missing)}, which the model takes. It has {_some([*piece[0]])}."
                )
            if more := [name for name in piece[0] if name not in known]:
                print(f"iris-model: left out, since the model does not take it: {_some(more)}", file=sys.stderr)
        try:
            yield first, parser.validate([{name: row[name] for name in row if name in known} for row in piece])
        except ApiError as error:
            raise FileError(f"{where}: {_reason(error, first)}{_answered(first)}") from None
        first += len(piece)
    if first == 1:
        raise FileError(f"{where}: it has no row. Give the names of the features, and a row at least.")


def _answers(model: Model, rows: Iterator[tuple[int, list[Row]]], where: str) -> Iterator[list[Prediction]]:
    """Yield the answers, in the pieces of the rows; raise FileError for a row to which there is none."""
    for first, piece in rows:
        answers = []
        try:
            for number, answer in enumerate(model.predict(piece), first):
                if answer is None:
                    raise FileError(f"{where}: row {number}: the model has no finite answer.{_answered(first)}")
                answers.append(answer)
        except RefusedError as error:
            field = f", {error.field}" if error.field else ""
            raise FileError(
                f"{where}: row {first + error.row}{field}: the model refuses it: {error.reason}{_answered(first)}"
            ) from None
        yield answers


def _reason(error: Any, first: int = 1) -> str:
    """Return why rows are refused, with the number of each in the file."""
    told = []
    for detail in (error.details or [])[:_MOST_COMPLAINTS]:
        row, _, name = detail.field.partition(".")
        place = f"row {first + int(row)}{f', {name}' if name else ''}: " if row.isdigit() else ""
        told.append(f"{place}{detail.reason}")
    more = len(error.details or []) - len(told)
    return "; ".join([*told, *([f"and {more} more"] if more > 0 else [])]) or error.message


def _answered(first: int) -> str:
    return "" if first == 1 else f" Rows 1 to {first - 1} are answered above."


def _some(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 10 else f"{', '.join(names[:10])} and {len(names) - 10} more"


Answers = Iterator[list[Prediction]]


def _write_csv(out: TextIO, manifest: Manifest, scores: bool, answers: Answers) -> None:
    """Write a line for each row, with its values below the names of the first line."""
    classes = manifest.classes or []
    outputs = [output.name for output in manifest.outputs or []]
    names = outputs or ["prediction", *([manifest.target.name] if classes else [])]
    if scores and manifest.scores:
        width = manifest.scores.width
        names += ["scores"] if width == 1 else [f"scores_{number}" for number in range(1, width + 1)]
    elif scores:
        names += [f"prediction_proba_{each.name}" for each in classes]
    lines = csv.writer(out, lineterminator="\n")
    # Nothing is written, not even their names, where the first piece is refused.
    first = next(answers)
    lines.writerow(names)
    for piece in chain([first], answers):
        for answer in piece:
            values = answer.value if isinstance(answer.value, list) else [answer.value]
            cells: list[Any] = [*values, *([answer.name] if classes else [])]
            cells += (answer.scores or answer.probabilities or []) if scores else []
            # A truth as JSON, and the CSV that is read, have it.
            lines.writerow([str(each).lower() if isinstance(each, bool) else each for each in cells])


def _objects_of(manifest: Manifest, scores: bool) -> Callable[[Prediction], dict[str, Any]]:
    """Return what makes of an answer the one of `POST /predict`, without what is the same in all of them."""
    outputs = [output.name for output in manifest.outputs or []]

    def answer(found: Prediction) -> dict[str, Any]:
        made: dict[str, Any] = {"prediction": found.value}
        if scores and found.probabilities is not None:
            made["prediction_proba"] = found.probabilities
        if scores and found.scores is not None:
            made["scores"] = found.scores
        if isinstance(found.value, list):
            made["outputs"] = dict(zip(outputs, found.value, strict=True))
        if found.name is not None:
            made[manifest.target.name] = found.name
        return made

    return answer


def _write_ndjson(out: TextIO, manifest: Manifest, scores: bool, answers: Answers) -> None:
    made = _objects_of(manifest, scores)
    for piece in answers:
        out.writelines(json.dumps(made(answer), ensure_ascii=False) + "\n" for answer in piece)


def _write_json(out: TextIO, manifest: Manifest, scores: bool, answers: Answers) -> None:
    made = _objects_of(manifest, scores)
    texts = (json.dumps(made(answer), ensure_ascii=False) for piece in answers for answer in piece)
    # Nothing is written where the first piece is refused.
    out.write("[" + next(texts, ""))
    out.writelines(f",\n {text}" for text in texts)
    out.write("]\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

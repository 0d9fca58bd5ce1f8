"""`iris-model` refuses whatever makes no bundle in one line that says what to change, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import joblib
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.datasets import load_iris
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression

from iris_api.packing import cli, samples
from iris_api.packing.samples import SampleError, read_features, read_sample

from ..forks import Program
from ..paths import BUNDLE, ROOT, SOURCE
from ..slow import Endless
from ..strategies import fuzz

pytestmark = pytest.mark.usefixtures("quick_packing")

CLI = "iris_api.packing.cli"
ENVIRONMENT = os.environ | {"PYTHONPATH": f"{ROOT}:{SOURCE}"}

DATA, CLASSES = load_iris(return_X_y=True)
ROWS = DATA[:, 2:]
HEAD = "petal_length,petal_width"
LINES = "\n".join(f"{a},{b}" for a, b in ROWS.tolist())
SAMPLE = f"{HEAD}\n{LINES}\n"
CLASSIFIER = LogisticRegression(max_iter=1000).fit(ROWS, CLASSES)
REGRESSOR = LinearRegression().fit(ROWS, CLASSES)


def run(*arguments: object) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main([str(each) for each in arguments])
    return code, out.getvalue(), err.getvalue()


class Place:
    """A folder with a model and a sample that would do, of which a test spoils something."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = folder / "model.joblib"
        self.sample = folder / "sample.csv"
        self.models = folder / "models"
        joblib.dump(CLASSIFIER, self.model)
        self.sample.write_text(SAMPLE)

    def pack(self, *options: object, sample: bytes | str | None = None, estimator: Any = None) -> tuple[int, str, str]:
        if sample is not None:
            self.sample.write_bytes(sample if isinstance(sample, bytes) else sample.encode())
        if estimator is not None:
            joblib.dump(estimator, self.model)
        known = ["--name=mine", "--version=1", f"--models-dir={self.models}", "--no-onnx"]
        return run("pack", self.model, self.sample, *known, *options)

    def refuses(self, *parts: str, **given: Any) -> None:
        """Assert that packing is refused in one line with these parts, and that no file was made or changed."""
        options = given.pop("options", [])
        if (sample := given.get("sample")) is not None:
            self.sample.write_bytes(sample if isinstance(sample, bytes) else sample.encode())
        if given.get("estimator") is not None:
            joblib.dump(given.pop("estimator"), self.model)
        before = tree(self.folder)
        code, out, err = self.pack(*options, **given)
        assert (code, out) == (1, "")
        one_line(err)
        for part in parts:
            assert part in err
        assert tree(self.folder) == before


def one_line(err: str) -> None:
    assert err.startswith("iris-model: ")
    assert err.count("\n") == 1 and err.endswith("\n")
    assert "Traceback" not in err and "unexpectedly" not in err


def tree(folder: Path) -> list[tuple[str, float]]:
    return sorted((str(path), path.lstat().st_size) for path in folder.rglob("*"))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize(
    ("sample", "parts"),
    [
        (b"", ["sample.csv: it is empty", "header"]),
        (b"\n\n  \n", ["sample.csv: it is empty"]),
        (b"\xef\xbb\xbf", ["sample.csv: it is empty"]),
        (bytes(range(256)), ["sample.csv: it is no text in UTF-8", "Save it"]),
        (SAMPLE.encode("utf-16"), ["sample.csv: it is no text in UTF-8 (byte 0)"]),
        (b"a,b\x00\n1,2\n", ["sample.csv: "]),
        (b"petal_length,petal_width\n1,2\x00\n3,4\n", ["sample.csv: line 2 has '2\\x00'", "for petal_width"]),
        (LINES, ["sample.csv: its first line, 1.4, 0.2, is a row and no header", "features' names"]),
        ("3,8\n" + LINES, ["its first line, 3, 8, is a row and no header"]),
        (HEAD, ["at least two rows, but has 0"]),
        (HEAD + "\n1,2", ["at least two rows, but has 1"]),
        (SAMPLE.replace(",", ";"), ["its columns are separated by ';'", "commas"]),
        (SAMPLE.replace(",", "\t"), ["its columns are separated by '\\t'"]),
        ("a,a\n1,2\n3,4", ["columns 1 and 2 are both called 'a'", "Rename one"]),
        (",petal_length,petal_width\n0,1,2\n1,3,4", ["column 1 has no name", "index=False"]),
        (HEAD + "\n1,2\n3\n", ["line 3 has 1 values, the header has 2"]),
        (HEAD + "\n1,2\n\n\n3,4,5\n", ["line 5 has 3 values"]),
        (HEAD + "\n1,2\n3,nan\n", ["line 3 has 'nan'", "petal_width", "Fill it or leave the row out"]),
        (HEAD + "\n1,2\n3,\n", ["line 3 has no value for petal_width", "Fill it"]),
        (HEAD + "\n1,2\n-inf,4\n", ["line 3 has '-inf'", "petal_length"]),
        (HEAD + "\n1,2\n1e400,4\n", ["line 3 has '1e400'"]),
        (HEAD + '\n"1,5",2\n', ["line 2 has '1,5'", "petal_length"]),
        (HEAD + "\n1,2\n1_0,4\n", ["line 3 has '1_0'"]),
        (HEAD + '\n1,2\n"' + "x" * 200_000 + '",1\n', ["cannot be read as CSV (field larger than field limit"]),
        ("petal_length\n1\n2\n", ["takes 2 features, but the sample has 1: petal_length"]),
        ("a,b,c\n1,2,3\n2,3,4\n", ["takes 2 features, but the sample has 3: a, b, c", "--target"]),
    ],
)
def test_a_sample_that_is_none(place: Place, sample: bytes | str, parts: list[str]) -> None:
    place.refuses(*parts, sample=sample)


def with_target(*values: str, name: str = "kind") -> str:
    lines = [f"{a},{b},{value}" for (a, b), value in zip(ROWS[40:].tolist(), values, strict=False)]
    return "\n".join([f"{HEAD},{name}", *lines])


@pytest.mark.parametrize(
    ("sample", "estimator", "parts"),
    [
        (with_target("0", "", "1"), None, ["line 3 has no value for the target kind", "leave the row out"]),
        (with_target("0", "  ", "1"), None, ["line 3 has no value for the target kind"]),
        (with_target("0", "nan", "1"), None, ["Row 2 of the sample has 'nan' for the target kind"]),
        (with_target("0", "setosa", "1"), None, ["Row 2 of the sample has 'setosa'", "one of the classes 0, 1, 2"]),
        (with_target("0", "1", "7"), None, ["Row 3 of the sample has '7' for the target kind"]),
        (with_target("0.5", "low", "1"), REGRESSOR, ["Row 2 of the sample has 'low' for the target kind", "numbers"]),
        (with_target("1", "2", name="Kind"), None, ["no column 'kind', which --target names", "Did you mean 'Kind'?"]),
        (with_target("1", "2", name="colour"), None, ["There are petal_length, petal_width, colour"]),
        ("kind\n1\n2\n", None, ["beside the target 'kind' there is no column"]),
    ],
)
def test_a_target_that_is_none(place: Place, sample: str, estimator: Any, parts: list[str]) -> None:
    place.refuses(*parts, sample=sample, estimator=estimator, options=["--target=kind"])


def test_two_rows_are_enough_and_one_class_is_not(place: Place) -> None:
    constant = DummyClassifier().fit(ROWS, np.zeros(len(ROWS)))
    place.refuses("knows the class 0.0 alone", "at least two classes", estimator=constant)
    code, out, err = place.pack(sample=f"{HEAD}\n1,2\n3,4\n", estimator=CLASSIFIER)
    assert (code, err) == (0, ""), err
    assert "mine/1: classification" in out


class Refusing(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Fails in one of its methods."""

    def __init__(self, method: str, error: BaseException) -> None:
        self.method, self.error = method, error

    def fit(self, X: Any, y: Any) -> Refusing:
        self.classes_, self.n_features_in_ = np.unique(y), X.shape[1]
        return self

    def predict(self, X: Any) -> Any:
        if self.method == "predict":
            raise self.error
        return np.full(len(X), self.classes_[0])

    def predict_proba(self, X: Any) -> Any:
        raise self.error

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if self.method == "load":
            raise self.error


class Gone(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Pickled as of a library that is not installed."""

    def __reduce__(self) -> Any:
        return Somewhere, ()


class Somewhere:
    """What `Gone` is pickled as; the test renames its module."""


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (RuntimeError("first line\nsecond line"), "RuntimeError: first line second line"),
        (RecursionError("too deep"), "RecursionError: too deep"),
        (MemoryError(), "MemoryError"),
        (SystemExit(0), "the model ended the program while it was loaded or asked (exit code 0)"),
        (KeyError("x"), "KeyError: 'x'"),
    ],
)
@pytest.mark.parametrize("method", ["load", "predict", "predict_proba"])
def test_an_estimator_that_raises(place: Place, method: str, error: BaseException, part: str) -> None:
    place.refuses(part, estimator=Refusing(method, error).fit(ROWS, CLASSES))


def test_an_estimator_of_a_library_that_is_not_installed(place: Place) -> None:
    joblib.dump(Gone(), place.model)
    content = place.model.read_bytes()
    # Of the same length, which stands in front of it.
    missing = "xgboost".ljust(len(__name__), "_")
    place.model.write_bytes(content.replace(__name__.encode(), missing.encode()))
    assert place.model.read_bytes() != content
    place.refuses(f"ModuleNotFoundError: No module named '{missing}'")


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "it is empty"),
        (b"\x00\x01\x02garbage" * 100, "cannot be loaded"),
        (b"PK\x03\x04", "cannot be loaded"),
        (b"text, and no model\n", "cannot be loaded"),
        (SAMPLE.encode(), "cannot be loaded"),
    ],
)
@pytest.mark.parametrize("suffix", [".joblib", ".skops"])
def test_a_file_that_is_no_model(place: Place, content: bytes, part: str, suffix: str) -> None:
    place.model = place.folder / f"mine{suffix}"
    place.model.write_bytes(content)
    place.refuses(f"{place.model}: {part}")


@pytest.mark.parametrize("value", [{"a": 1}, [1, 2], None, "text", print, np.arange(4)])
def test_an_object_that_is_no_model(place: Place, value: Any) -> None:
    joblib.dump(value, place.model)
    place.refuses("is neither a classifier nor a regressor")


def test_files_that_cannot_be_read(place: Place) -> None:
    folder = place.folder / "folder.joblib"
    folder.mkdir()
    model, sample = place.model, place.sample
    place.model = folder
    place.refuses(f"{folder / 'MLmodel'}: cannot be read", "of any other model give the file")
    place.model = place.folder / "nowhere.joblib"
    place.refuses(f"{place.model}: cannot be read", "Give the file of your model")
    place.model = model
    for path in (folder, place.folder / "nowhere.csv", Path("/proc/self/mem")):
        place.sample = path
        place.refuses(f"{place.sample}: cannot be read", "Give a CSV")
    for name in ("nowhere.parquet", "NOWHERE.PARQUET"):
        place.sample = place.folder / name
        place.refuses(f"{place.sample}: cannot be read (No such file or directory)")
    (place.folder / "NO.PQ").write_bytes(b"\xff")
    place.sample = place.folder / "NO.PQ"
    place.refuses("Parquet")
    place.sample, place.model = sample, place.folder / "model.pkl"
    place.refuses("ends in .joblib or .skops", "joblib.dump")


@pytest.mark.parametrize("option", ["name", "version"])
@pytest.mark.parametrize(
    "value",
    ["", "../x", "../../x", "/etc/x", "a/b", "..", ".x", "A", "ä", "a b", "a\n", "x" * 65, "-", "a\0b", "\udcff"],
)
def test_names_that_are_none(place: Place, option: str, value: str) -> None:
    place.refuses(f"--{option} is {value!r:.60}"[:60], "at most 64 small letters", options=[f"--{option}={value}"])


@pytest.mark.parametrize("value", ["0", "-5", "nan", "-inf"])
def test_a_time_that_is_none(place: Place, value: str) -> None:
    place.refuses("--proof-seconds is", "give more than 0", options=[f"--proof-seconds={value}"])


def test_features_are_counted_without_the_other_columns_of_a_sample(place: Place) -> None:
    estimator = LogisticRegression(max_iter=1000).fit(pd.DataFrame(ROWS, columns=HEAD.split(",")), CLASSES)
    lines = "\n".join(f"{line},{each}" for line, each in zip(LINES.splitlines(), CLASSES, strict=True))
    code, out, err = place.pack("--environment=never", estimator=estimator, sample=f"{HEAD},species\n{lines}\n")
    assert code == 0, err
    assert "mine/1: classification, 2 features." in out


def test_code_that_would_be_left_out(place: Place) -> None:
    place.refuses("--environment never leaves out", "--code", options=["--environment=never", f"--code={__file__}"])


@pytest.mark.parametrize("value", ["a,b", "a,b,c,d", "a,b,b", "a,,c", ","])
def test_classes_that_are_none(place: Place, value: str) -> None:
    place.refuses(
        "2 names" if value == "a,b" else "4 names" if "d" in value else "a name of its own",
        options=[f"--classes={value}"],
    )


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ["cannot be read as JSON", '"description"']),
        (b"\xff\xfe\x00", ["cannot be read as JSON"]),
        (b"[" * 100_000, ["cannot be read as JSON"]),
        (b"[]", ["it holds a list and no object"]),
        (b"null", ["it holds a NoneType"]),
        (b'{"colour": {}}', ["no feature 'colour'; it has petal_length, petal_width"]),
        (b'{"petal_width": 3}', ["petal_width has 3."]),
        (b'{"petal_width": {"colour": 3}}', ["petal_width has the key 'colour'"]),
        (b'{"petal_width": {"minimum": "a"}}', ["petal_width has 'a' for minimum"]),
        (b'{"petal_width": {"unit": 5}}', ["petal_width has 5 for unit"]),
        (b'{"petal_width": {"minimum": NaN}}', ["'petal_width'", "minimum", "nan"]),
        (b'{"petal_width": {"minimum": 1}}', ["'petal_width'", "values from 0.1 to 2.5", "minimum 1"]),
        (b'{"petal_width": {"maximum": 1}}', ["'petal_width'", "values from 0.1 to 2.5", "maximum 1"]),
    ],
)
def test_descriptions_that_are_none(place: Place, content: bytes, parts: list[str]) -> None:
    file = place.folder / "features.json"
    file.write_bytes(content)
    place.refuses(*parts, options=[f"--features={file}"])


def test_a_sample_that_is_too_large(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "LARGEST_SAMPLE", 100)
    place.refuses("it has more than 100 values", "drawn at random")


def test_a_folder_that_cannot_be_written(place: Place) -> None:
    for folder, why in ((place.sample, "it is no folder"), (Path("/proc/nowhere"), "")):
        place.models = folder
        place.refuses(why, "Give another --models-dir")


def test_a_full_disk_leaves_nothing(place: Place) -> None:
    """As far as a file may be no larger than 700 bytes, which the model is not."""
    before, (soft, hard) = tree(place.folder), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (700, hard))
    try:
        code, out, err = place.pack()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (code, out) == (1, ""), err
    one_line(err)
    assert f"{place.models}/mine/1: cannot be written (File too large" in err
    assert tree(place.folder) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_model_is_asked_ends_it_in_one_line(place: Place, number: int) -> None:
    joblib.dump(Endless(number=number).fit(ROWS, CLASSES), place.model)
    before = tree(place.folder)
    assert place.pack() == (130, "", "iris-model: interrupted; nothing was written.\n")
    assert tree(place.folder) == before


def test_an_interruption_leaves_nothing(place: Place, tmp_path_factory: pytest.TempPathFactory) -> None:
    called = tmp_path_factory.mktemp("called") / "called"
    joblib.dump(Endless(str(called)).fit(ROWS, CLASSES), place.model)
    before = tree(place.folder)
    known = [str(place.model), str(place.sample), "--name=mine", "--version=1", f"--models-dir={place.models}"]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        program = Program(CLI, "pack", *known, env=ENVIRONMENT, stdout=out, stderr=err)
        wait_until(lambda: called.exists() and called.read_text().count("\n") > 3)
        program.send_signal(signal.SIGTERM)
        assert program.wait(20) == 130
        out.seek(0)
        err.seek(0)
        assert (out.read(), err.read()) == ("", "iris-model: interrupted; nothing was written.\n")
    assert tree(place.folder) == before


def wait_until(true: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_proof_that_takes_too_long_is_ended_with_what_to_do(place: Place) -> None:
    before = tree(place.folder)
    known = ["--name=mine", "--version=1", f"--models-dir={place.models}"]
    code, out, err = run("pack", place.model, place.sample, *known, "--proof-seconds=0.001")
    assert (code, out) == (1, "")
    one_line(err)
    assert "takes too long" in err and "after 0.001 s" in err and "--no-onnx" in err
    # What it says would do does.
    more = err.split("--proof-seconds ")[1].split(",")[0]
    assert int(more) >= 1
    assert tree(place.folder) == before
    assert run("pack", place.model, place.sample, *known, "--proof-seconds=300")[0] == 0


def test_a_bar_is_on_a_terminal_alone(place: Place) -> None:
    parent, child = os.openpty()
    known = ["--name=mine", "--version=1", f"--models-dir={place.models}"]
    out = io.StringIO()
    with contextlib.closing(os.fdopen(parent, "rb", buffering=0)) as terminal, ThreadPoolExecutor(1) as pool:
        shown = pool.submit(lambda: b"".join(pieces_of(terminal)))
        with os.fdopen(child, "w") as err, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.main(["pack", str(place.model), str(place.sample), *known])
        assert code == 0
        assert b"Proving ONNX" in shown.result() and b"100%" in shown.result()
    assert "ONNX: proven equal" in out.getvalue() and "Proving" not in out.getvalue()


def pieces_of(terminal: io.FileIO) -> Iterator[bytes]:
    # It ends in an error when nobody has the other side open.
    with contextlib.suppress(OSError):
        while piece := terminal.read(1000):
            yield piece


def test_whoever_reads_no_further_is_no_error() -> None:
    command = ["head", "--bytes=5"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as head:
        assert head.stdin
        code, err = show(head.stdin)
    assert (code, err) == (0, "")


def test_a_full_disk_is_an_error_in_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        code, err = show(full)
    assert code == 1
    assert "No space left on device" in err and err.count("\n") == 1
    assert "Traceback" not in err and "ignored" not in err


def show(stdout: IO[Any]) -> tuple[int, str]:
    """Print a bundle as JSON; return the exit code and what was said beside it."""
    with tempfile.TemporaryFile("w+") as err:
        code = Program(CLI, "show", "--json", str(BUNDLE), env=ENVIRONMENT, stdout=stdout, stderr=err).wait()
        err.seek(0)
        return code, err.read()


@pytest.mark.parametrize("command", ["check", "show"])
@pytest.mark.parametrize("bundle", ["/nowhere", "/etc/passwd", "/", "../..", "/dev/null", "\udcff", "/proc/self/fd"])
def test_what_is_no_bundle(command: str, bundle: str) -> None:
    code, out, err = run(command, bundle)
    assert (code, out) == (1, "")
    one_line(err)


CELLS = st.sampled_from(
    ["1", "2.5", "-3e2", "", " ", "nan", "inf", "x", "1_0", '"', "'", ";", "\t", "\0", "ä", "\uff11", "1,5", "true"]
)
LINE = st.lists(CELLS, max_size=4).map(",".join)
TABLE = st.lists(st.one_of(LINE, st.sampled_from([HEAD, "a,b", "0,1", "a;b", "a,a", ",a"])), max_size=5)


@fuzz
@given(
    st.one_of(TABLE.map(lambda lines: "\n".join(lines).encode()), st.binary(max_size=200)),
    st.sampled_from([None, "a", "b"]),
)
def test_any_sample_is_read_or_refused(tmp_path: Path, content: bytes, target: str | None) -> None:
    path = tmp_path / "sample.csv"
    path.write_bytes(content)
    try:
        cells = read_sample(path, target)
        kinds, columns = cells.typed({})
    except SampleError as error:
        assert str(path) in str(error)
        return
    names, targets = cells.names, cells.targets
    assert len(cells) >= 2 and len(set(names)) == len(names) > 0 and target not in names
    assert len(kinds) == len(columns) == len(names) and all(len(column) == len(cells) for column in columns)
    types = {"number": float, "boolean": bool, "category": str}
    for kind, column in zip(kinds, columns, strict=True):
        given = [value for value in column if value is not None]
        assert all(type(value) is types[kind] for value in given)
        assert kind != "number" or np.isfinite(given).all()
    assert (targets is None) == (target is None)
    assert targets is None or (len(targets) == len(cells) and "" not in targets)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda each: st.one_of(
        st.lists(each, max_size=3),
        st.dictionaries(
            st.sampled_from(["a", "b", "unit", "minimum", "maximum", "description", "x"]), each, max_size=3
        ),
    ),
    max_leaves=6,
)


@fuzz
@given(JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=50))
def test_any_description_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "features.json"
    path.write_bytes(content)
    try:
        found = read_features(path, ["a", "b"])
    except SampleError as error:
        assert str(path) in str(error)
    else:
        assert found.keys() <= {"a", "b"}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_cut_of_a_model_is_refused(tmp_path: Path, data: st.DataObject) -> None:
    place = Place(tmp_path)
    content = place.model.read_bytes()
    cut = data.draw(st.integers(0, len(content) - 2))
    place.model.write_bytes(content[:cut])
    place.refuses()

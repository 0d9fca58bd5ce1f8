"""`iris-api` tells a person what it can do, and a deployment what an instance needs; `test_instance` lets it serve."""

from __future__ import annotations

import json

import pytest

from iris_api.bundle.files import read_manifest
from iris_api.engines.choice import BESIDE_MB
from iris_api.server import command
from iris_api.settings import Settings

from ..paths import BUNDLE


def test_help_tells_of_each_variable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "IRIS_API_MODEL_DIR=models/iris/1.0.0 iris-api" in text
    for name, field in Settings.model_fields.items():
        assert f"  IRIS_API_{name.upper()} (" in text
        assert field.description, f"{name} has no description"
    assert "IRIS_API_MODEL_DIR (must be set)\n      Directory of a model bundle" in text
    assert "IRIS_API_BASE_PORT (default: 8001)" in text


def test_what_an_instance_needs_is_told_and_nothing_is_started(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IRIS_API_MODEL_DIR", str(BUNDLE))
    costs = read_manifest(BUNDLE).costs
    assert costs
    for given, expected in (("auto", "onnx"), ("onnx", "onnx"), ("sklearn", "sklearn")):
        monkeypatch.setenv("IRIS_API_ENGINE", given)
        assert command.main(["--need"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["engine"] == expected
        assert told["by_engine"] == {engine: cost.memory_mb + BESIDE_MB for engine, cost in costs.items()}
        assert told["instance_mb"] == told["by_engine"][expected]


@pytest.mark.parametrize(
    ("variable", "value", "complaint"),
    [
        ("IRIS_API_MODEL_DIR", "/nowhere", "/nowhere/manifest.json: cannot be read (No such file or directory)"),
        ("IRIS_API_MAX_ROWS", "0", "IRIS_API_MAX_ROWS='0': Input should be greater than or equal to 1"),
    ],
)
def test_what_cannot_be_told_is_said_in_one_line(
    variable: str, value: str, complaint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IRIS_API_MODEL_DIR", str(BUNDLE))
    monkeypatch.setenv(variable, value)
    assert command.main(["--need"]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert complaint in told.err and len(told.err.splitlines()) == 1

"""The golden comparison: what agrees with a golden sample, what does not, and that any Python can make it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from iris_api.bundle import golden
from iris_api.bundle.golden import is_golden

CLASS: dict[str, Any] = {"input": {}, "prediction": 2, "probabilities": [0.1, 0.9]}
BARE: dict[str, Any] = {"input": {}, "prediction": "a", "probabilities": None}
VALUE = {"input": {}, "prediction": 200.0, "probabilities": None}
SMALL = {"input": {}, "prediction": 0.5}


@pytest.mark.parametrize(
    ("sample", "answer", "agrees"),
    [
        (CLASS, {"prediction": 2, "prediction_proba": [0.1, 0.9], "species": "x"}, True),
        (CLASS, {"prediction": 2, "prediction_proba": [0.1009, 0.8991]}, True),
        (CLASS, {"prediction": 2, "prediction_proba": [0.1011, 0.8989]}, False),
        (CLASS, {"prediction": 1, "prediction_proba": [0.1, 0.9]}, False),
        (CLASS, {"prediction": 2.0009, "prediction_proba": [0.1, 0.9]}, False),
        (CLASS, {"prediction": 2, "prediction_proba": [0.1]}, False),
        (CLASS, {"prediction": 2, "prediction_proba": [0.1, 0.9, 0.0]}, False),
        (CLASS, {"prediction": 2, "prediction_proba": [0.1, None]}, False),
        (CLASS, {"prediction": 2, "prediction_proba": [0.1, float("nan")]}, False),
        (CLASS, {"prediction": 2}, False),
        (CLASS, {"error": "Something went wrong", "code": "internal_error"}, False),
        (BARE, {"prediction": "a"}, True),
        (BARE, {"prediction": "a", "prediction_proba": [1.0]}, False),
        (BARE, {"prediction": "b"}, False),
        (VALUE, {"prediction": 200.19}, True),
        (VALUE, {"prediction": 199.81}, True),
        (VALUE, {"prediction": 200.21}, False),
        (VALUE, {"prediction": 199.79}, False),
        (VALUE, {"prediction": None}, False),
        (VALUE, {"prediction": "200.0"}, False),
        (VALUE, {"prediction": float("nan")}, False),
        (VALUE, {}, False),
        (SMALL, {"prediction": 0.5009}, True),
        (SMALL, {"prediction": 0.5011}, False),
    ],
)
def test_an_answer_agrees_or_not(sample: dict[str, Any], answer: dict[str, Any], agrees: bool) -> None:
    classification = sample in (CLASS, BARE)
    assert is_golden(sample, answer, classification=classification, tolerance=1e-3) is agrees


def test_the_file_needs_nothing_but_python() -> None:
    """As a host's own Python runs it: no package is installed, nor is this one."""
    command = [sys.executable, "-I", "-S", str(golden.__file__)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")

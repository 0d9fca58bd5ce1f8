"""Each estimator and table of `cases` is packed and asked over HTTP, by every engine that its bundle allows.

What is served must be the estimator's own answer to its user's own table, on a thousand rows that it was not fitted on.
`make test-matrix` runs it by this machine's Python; `tests/deployments/test_matrix.py` asks the same bundles on a host,
by the host's. `python -m tests.matrix.table` writes what is served how into docs/models.md.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.matrix import bundles, served
from tests.matrix.cases import CASES


@pytest.mark.parametrize("number", range(len(CASES)), ids=[case.name for case in CASES])
def test_what_is_served_is_the_estimators_own_answer(number: int) -> None:
    case, folder = CASES[number], bundles.folder_of(number)
    manifest = bundles.make(case, folder)
    assert (manifest.onnx is not None) == case.onnx, manifest.no_onnx_reason
    assert {engine: served.ask(folder, engine) for engine in served.engines_of(folder)} == (
        {"sklearn": None, "onnx": None} if case.onnx else {"sklearn": None}
    )


def test_what_is_answered_otherwise_is_seen(tmp_path: Path) -> None:
    bundles.make(CASES[0], tmp_path / "case")
    content = json.loads((tmp_path / "case" / "rows.json").read_text())
    content["expected"]["prediction_proba"][7][0] += 1e-4
    (tmp_path / "case" / "rows.json").write_text(json.dumps(content))
    assert "prediction_proba is off" in str(served.ask(tmp_path / "case", "onnx"))
    content["expected"]["prediction"][7] = "none of them"
    (tmp_path / "case" / "rows.json").write_text(json.dumps(content))
    assert served.ask(tmp_path / "case", "sklearn") == "1 rows differ"


def test_sixty_are_asked_and_onnx_runtime_serves_most_of_them() -> None:
    assert len({case.name for case in CASES}) == len(CASES) == 60
    assert sum(case.onnx for case in CASES) >= 55

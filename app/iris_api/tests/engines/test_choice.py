"""What `auto` takes: ONNX Runtime where it is proven, and only where it does not take too much memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iris_api.bundle.files import read_manifest
from iris_api.bundle.manifest import Cost, Manifest
from iris_api.engines.choice import BESIDE_MB, why_too_large
from iris_api.engines.model import Model

from ..paths import BUNDLE

Edit = Callable[[Callable[[dict[str, Any]], None]], Path]
LIMIT = 512 * 2**20


def cost(memory_mb: float) -> dict[str, float]:
    return Cost(call_us=10, row_us=1, memory_mb=memory_mb).model_dump()


def manifest(onnx: float, sklearn: float) -> Manifest:
    costs = {"onnx": cost(onnx), "sklearn": cost(sklearn)}
    return Manifest.model_validate(read_manifest(BUNDLE).model_dump() | {"format": 3, "costs": costs})


@pytest.mark.parametrize(
    ("onnx", "sklearn", "limit", "refusal"),
    [
        (1300, 454, LIMIT, "1330 MB by it, and the unit's MemoryMax allows 537 MB"),
        (1300, 454, None, "1330 MB by it, more than 2 times the 484 MB"),
        (800, 454, LIMIT, "830 MB by it, and the unit's"),
        (800, 454, 2 * LIMIT, None),
        (800, 454, None, None),
        (90, 150, LIMIT, None),
        # Neither fits: the smaller is the better try.
        (600, 700, LIMIT, None),
        (700, 600, LIMIT, "730 MB"),
        (LIMIT / 1e6 - BESIDE_MB, 400, LIMIT, None),
        (LIMIT / 1e6 - BESIDE_MB + 1, 400, LIMIT, "MemoryMax"),
    ],
)
def test_memory_is_weighed(onnx: float, sklearn: float, limit: int | None, refusal: str | None) -> None:
    found = why_too_large(manifest(onnx, sklearn), limit)
    assert found is None if refusal is None else refusal in str(found)


def test_a_bundle_without_costs_is_served_as_before() -> None:
    old = Manifest.model_validate(read_manifest(BUNDLE).model_dump() | {"format": 2, "costs": None})
    assert why_too_large(old, 1) is None


def test_the_model_is_loaded_by_the_engine_that_fits(edit_manifest: Edit, caplog: pytest.LogCaptureFixture) -> None:
    def weigh(manifest: dict[str, Any]) -> None:
        manifest |= {"format": 3, "costs": {"onnx": cost(1300), "sklearn": cost(454)}}

    bundle = edit_manifest(weigh)
    with caplog.at_level("INFO"):
        assert Model.load(bundle, memory_max=LIMIT).engine.name == "sklearn"
    assert "an instance takes 1330 MB by it" in caplog.text
    # Whoever names an engine gets it.
    assert Model.load(bundle, "onnx", memory_max=LIMIT).engine.name == "onnx"
    assert json.loads((bundle / "manifest.json").read_text())["costs"]

"""The golden comparison: whether an answer is the one that a golden sample of a bundle promises.

An instance makes it before it says that it is ready, packing before it writes a bundle, and iris-deploy before it lets
a new deployment serve. iris-deploy carries this very file and runs it by the host's own Python: it takes what JSON
holds, and needs the standard library alone.
"""

from collections.abc import Mapping
from typing import Any


def is_golden(sample: Mapping[str, Any], answer: Mapping[str, Any], *, classification: bool, tolerance: float) -> bool:
    """Return whether an answer agrees with a golden sample.

    Args:
        sample: one of manifest.json's `golden_samples`: `prediction`, `probabilities`, one a class, or None, and
            `scores`, where answers carry them.
        answer: what `POST /predict` answers for its `input`: `prediction`, and `prediction_proba` if there are any.
        classification: whether `prediction` is a class, which must be equal, or else a number.
        tolerance: how far a number, each probability or what a regressor predicts, may be off: above 1 relative to its
            size, below absolutely.
    """
    shares, expected_shares = answer.get("prediction_proba") or [], sample.get("probabilities") or []
    if len(shares) != len(expected_shares):
        return False
    scores, expected_scores = answer.get("scores") or [], sample.get("scores") or []
    if len(scores) != len(expected_scores):
        return False
    found, expected = answer.get("prediction"), sample["prediction"]
    if isinstance(expected, list):
        agrees = isinstance(found, list) and len(found) == len(expected)
        agrees = agrees and all(_agrees(*pair, tolerance) for pair in zip(found or [], expected, strict=True))
    else:
        agrees = found == expected if classification else _is_near(found, expected, tolerance)
    pairs = [*zip(shares, expected_shares, strict=True), *zip(scores, expected_scores, strict=True)]
    return agrees and all(_is_near(*pair, tolerance) for pair in pairs)


def _agrees(found: Any, expected: Any, tolerance: float) -> bool:
    return _is_near(found, expected, tolerance) if isinstance(expected, float) else bool(found == expected)


def _is_near(found: Any, expected: float, tolerance: float) -> bool:
    # Not a number is near to nothing, and no comparison with NaN is true.
    return isinstance(found, int | float) and abs(found - expected) <= tolerance * max(1.0, abs(expected))

"""Whether an answer is the one that a golden sample of a manifest promises."""

from __future__ import annotations

import math

# Loose enough for any engine: what computed it and how exactly is judged by the application itself when it starts.
TOLERANCE = 1e-4


def agrees(answer: dict[str, object], sample: dict[str, object]) -> bool:
    """Return whether prediction and probabilities are those of the sample, numbers within the tolerance."""

    def near(found: object, expected: object) -> bool:
        if isinstance(found, float) and isinstance(expected, int | float):
            return math.isclose(found, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
        return found == expected

    found, expected = answer.get("prediction_proba") or [], sample.get("probabilities") or []
    assert isinstance(found, list) and isinstance(expected, list)
    together = [(answer.get("prediction"), sample["prediction"]), *zip(found, expected, strict=False)]
    return len(found) == len(expected) and all(near(*pair) for pair in together)

"""What a manifest says of an estimator, without a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from iris_api.bundle.manifest import Manifest
from iris_api.packing.description import describe
from iris_api.packing.pack import About, Sample
from iris_api.packing.preparation import fit_features


def described(estimator: Any, names: Sequence[str], rows: Any, targets: Any = None, **about: Any) -> Manifest:
    """Describe an estimator and its sample as packing does."""
    sample = fit_features(estimator, Sample(names, rows, targets))
    content = describe(estimator, About("mine", "1", "", **about), sample)
    return Manifest.model_validate({**content, "artifact": "model.joblib", "sha256": 64 * "0"})

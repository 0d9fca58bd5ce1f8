"""A sample's columns become the features of an estimator."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from ..described import described


@pytest.mark.parametrize("given", [["b", " a"], ["b ", "a"], [" b", "a "]])
def test_blanks_around_a_name_do_not_matter_to_find_a_column(given: list[str]) -> None:
    rows = np.random.default_rng(0).uniform(0, 1, (60, 2))
    estimator = Ridge().fit(rows, rows[:, 0])
    estimator.feature_names_in_ = np.array([" a", "b"], dtype=object)
    manifest = described(estimator, given, rows[:, ::-1])
    assert manifest.feature_names == [" a", "b"]
    assert manifest.features[0].training_maximum == rows[:, 0].max()

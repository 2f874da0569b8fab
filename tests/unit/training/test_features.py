"""Features: standardised over the training examples, from the allow-list only."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from pipeline.contracts.errors import ContractError
from pipeline.training.features import FeatureSpec, fit_features


def test_training_examples_get_mean_0_and_variance_1() -> None:
    """A constant number becomes 0; other rows use the same numbers; nothing asked is None."""
    values = np.random.default_rng(0).normal([3.0, 7.0], [2.0, 0.0], (500, 2)).astype(np.float32)
    spec = fit_features(values, ("ebv_mag", "psfdepth_r_mag"))
    assert spec is not None
    scaled = spec.standardised(values)
    np.testing.assert_allclose(scaled.mean(axis=0), 0.0, atol=1e-5)
    np.testing.assert_allclose(scaled.std(axis=0), [1.0, 0.0], atol=1e-5)
    assert fit_features(values, ()) is None
    assert FeatureSpec.from_document(spec.document()) == spec


def test_rows_of_a_cube_are_read_as_the_feed_reads_them() -> None:
    """Columns per band become one number each; a missing column, NaN or another count is an error."""
    spec = FeatureSpec(("psfsize_arcsec", "ebv_mag"), (1.0, 1.0, 0.0), (2.0, 2.0, 1.0))
    rows = xr.Dataset(
        {
            "psfsize_arcsec": (("sample", "band"), np.array([[3.0, 5.0]], np.float32)),
            "ebv_mag": ("sample", np.array([0.5], np.float32)),
        }
    )
    np.testing.assert_allclose(spec.of_rows(rows), [[1.0, 2.0, 0.5]])
    with pytest.raises(ContractError, match="does not have them"):
        spec.of_rows(rows[["ebv_mag"]])
    with pytest.raises(ContractError, match="not finite"):
        spec.of_rows(rows * np.nan)
    with pytest.raises(ContractError, match="expected 3 numbers, got 2"):
        spec.standardised(np.zeros((4, 2), np.float32))

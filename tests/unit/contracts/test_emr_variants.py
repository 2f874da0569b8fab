"""Which variants are the EMR system's own."""

from __future__ import annotations

import pytest

from pipeline.contracts.emr_variants import belongs_to_emr


@pytest.mark.parametrize(
    "variant",
    ["v3_color_relaxed", "v4_sota_moffat", "v5", "v5_cosmos_paired", "cosmos_corrected", "cosmos_corrected_2"],
)
def test_old_variants(variant: str) -> None:
    """Every name under which the EMR system wrote."""
    assert belongs_to_emr(variant)


@pytest.mark.parametrize("variant", ["v6_dask", "v30", "v52_x", "new_v5", "cosmos", ""])
def test_other_names(variant: str) -> None:
    """Later versions and names that only resemble them are free."""
    assert not belongs_to_emr(variant)

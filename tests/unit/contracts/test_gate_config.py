"""Bounds of the gates."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from pipeline.contracts.gate_config import GateSection


def test_defaults_are_those_of_the_lessons() -> None:
    """The bounds that the lessons name hold where nothing is configured."""
    section = GateSection()
    assert section.core_auc_max == 0.55
    assert section.core_ratio_range == (0.95, 1.05)
    assert section.normalisation_d_max == 0.1
    assert section.snr_correlation_max == 0.05
    assert section.waive == {}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"core_ratio_range": (1.05, 0.95)}, "core_ratio_range needs low < high"),
        ({"near_threshold_snr": (2.0, 2.0)}, "near_threshold_snr needs low < high"),
        ({"grid_snr": (1.0, 3.0, 2.0)}, "grid_snr needs increasing edges"),
        ({"grid_theta_e_arcsec": (1.0,)}, "at least 2"),
        ({"waive": {"core_only_auc": "no"}}, "at least 20 characters"),
        ({"core_radius": "psf"}, "'fixed' or 'theta_e'"),
        ({"core_auc": 0.6}, "Extra inputs"),
    ],
)
def test_bounds_without_meaning_are_refused(values: dict[str, object], message: str) -> None:
    """Reversed ranges, unordered edges, waivers without a reason and unknown keys are errors."""
    with pytest.raises(ValidationError, match=message):
        GateSection.model_validate(values)

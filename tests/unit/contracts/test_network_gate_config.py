"""The section of the gates on a network: defaults of the lessons, radii that agree, bounds apart from probes."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from pipeline.contracts.gate_config import GateSection
from pipeline.contracts.network_gate_config import NetworkGateSection, mask_name


def test_defaults_are_those_of_the_lessons() -> None:
    """Controls 0.2 and 10 %, suppressed arcs 0.3, the radii of the mask curve."""
    section = GateSection().network
    assert (section.control_mean_p_max, section.control_called_max) == (0.2, 0.1)
    assert section.arc_suppressed_mean_p_max == 0.3
    assert (0.0, *section.mask_radii_px) == (0, 3, 5, 7, 10, 12, 15)


@pytest.mark.parametrize(
    "wrong",
    [
        {"mask_radii_px": (5.0, 3.0)},
        {"mask_core_px": 4.0},
        {"suppression_annulus_px": (25.0, 10.0)},
        {"max_pairs": 5},
        {"anchors": {"url": "x"}},
    ],
)
def test_contradictions_are_refused(wrong: dict[str, object]) -> None:
    """Unordered radii, a core that is not probed, an empty annulus and unknown keys are errors."""
    with pytest.raises(ValidationError):
        NetworkGateSection.model_validate(wrong)


def test_bounds_do_not_ask_for_other_probes() -> None:
    """A bound changes no score, so it leaves the hash; radii and the way of suppressing arcs change it."""
    plain = NetworkGateSection().probe_sha256()
    assert NetworkGateSection(ring_called_max=0.9, realism_auc_max=0.6).probe_sha256() == plain
    for other in ({"mask_radii_px": (5.0, 9.0)}, {"suppression": "annulus"}):
        assert NetworkGateSection.model_validate(other).probe_sha256() != plain


def test_mask_names_have_no_trailing_zeros() -> None:
    """Whole radii are written without a point."""
    assert (mask_name(5.0), mask_name(2.5)) == ("mask_5px", "mask_2.5px")

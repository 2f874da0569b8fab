"""The columns of anchors: the two tiers are two columns, and every reference has one method."""

from __future__ import annotations

from pipeline.contracts.anchors import ANCHOR_REASONS, ANCHORS, MEASURED_ANCHORS, MEASUREMENTS
from pipeline.contracts.lens_references import METHOD_OF_REFERENCE


def test_the_measured_tier_is_no_column_of_the_catalogue_and_the_grade_no_measurement() -> None:
    """Grade and measurement cannot overwrite one another."""
    graded = {variable.name for variable in ANCHORS.variables}
    measured = {variable.name for variable in MEASUREMENTS.variables}
    assert graded & measured == set()
    assert "grade_tier" in graded
    assert "visibility_tier" in measured
    assert {variable.name for variable in MEASURED_ANCHORS.variables} == graded | measured


def test_reasons_begin_with_none_and_are_distinct() -> None:
    """`none` is what an accepted row says."""
    assert ANCHOR_REASONS[0] == "none"
    assert len(set(ANCHOR_REASONS)) == len(ANCHOR_REASONS)


def test_no_reference_is_part_of_another() -> None:
    """References are looked for inside texts, so one that contains another would count for both."""
    references = list(METHOD_OF_REFERENCE)
    assert [(a, b) for a in references for b in references if a != b and a in b] == []

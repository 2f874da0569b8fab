"""Facts about the completeness section."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd

from pipeline.report.completeness import PLANE, completeness_section, shown_threshold
from pipeline.report.inputs import RunInputs


def test_section_shows_plane_curves_failures_and_tables(inputs: RunInputs) -> None:
    """Two figures; the number of scored and failed injections; the names of the tables; both interval names."""
    assert inputs.evaluation is not None
    page = completeness_section(inputs)
    assert page.count("data:image/png") == 2
    whole = inputs.evaluation.documents["selection_function_meta"]["accounting"][0]
    for fact in (f"<td>{whole['n_scored']}</td>", f"<td>{whole['n_failed']}</td>", "selection_function", "Jeffreys"):
        assert fact in page
    assert "Wilson 95" in page
    assert "fpr_surfaces_controls" in page


def test_threshold_shown_is_the_strictest_measurable(inputs: RunInputs) -> None:
    """Without a measurable rate the middle fixed score; else the lowest rate whose threshold is known."""
    assert inputs.evaluation is not None
    surfaces = inputs.evaluation.tables["completeness"]
    assert shown_threshold(surfaces) == ("fixed", 0.5)
    known = pd.DataFrame(
        {
            "fpr_target": [np.nan, 0.01, 0.001, 0.0001],
            "threshold": [0.5, 0.8, 0.9, np.nan],
            "threshold_type": ["fixed", "FPR=1.0e-02", "FPR=1.0e-03", "FPR=1.0e-04"],
        }
    )
    assert shown_threshold(known) == ("FPR=1.0e-03", 0.9)


def test_a_run_outside_the_grid_has_empty_panels_not_an_error(inputs: RunInputs) -> None:
    """Without a cell of the plane or of the curves the figures say so."""
    assert inputs.evaluation is not None
    table = inputs.evaluation.tables["completeness"]
    only = {**inputs.evaluation.tables, "completeness": table[table["surface"] == ""]}
    emptied = dataclasses.replace(inputs.evaluation, tables=only)
    assert PLANE in set(table["surface"])
    assert completeness_section(dataclasses.replace(inputs, evaluation=emptied)).count("data:image/png") == 2


def test_absent_evaluation_gives_the_reason(inputs: RunInputs) -> None:
    """The section says why there is nothing."""
    page = completeness_section(dataclasses.replace(inputs, evaluation=None))
    assert "have not been evaluated" in page
    assert "data:image" not in page

"""Facts about the host section."""

from __future__ import annotations

import dataclasses

import numpy as np

from pipeline.report.hosts import host_section
from pipeline.report.inputs import RunInputs


def test_section_has_both_figures_and_the_medians(inputs: RunInputs) -> None:
    """Distributions and sky map are drawn; the median seeing of pairs is in the table."""
    assert inputs.columns is not None
    page = host_section(inputs)
    is_pair = inputs.columns["role"].to_numpy() == 1
    median = float(np.median(inputs.columns["psfsize_arcsec"].to_numpy()[is_pair, 1].astype(float)))
    assert page.count("data:image/png") == 2
    assert f"<td>{median:.3f}</td>" in page


def test_unknown_quantities_are_dashes(inputs: RunInputs) -> None:
    """A column that is NaN for every host, here the depth, is a dash and not an error."""
    row = host_section(inputs).split("psfdepth r")[1].split("</tr>")[0]
    assert row.count("<td>\u2013</td>") == 6


def test_missing_cube_is_explained(inputs: RunInputs) -> None:
    """Without a training cube the section says why."""
    bare = dataclasses.replace(inputs, cube=None, columns=None, receipts={"training": {}})
    assert "not published" in host_section(bare)

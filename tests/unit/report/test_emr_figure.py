"""Facts about the figure of the EMR surfaces."""

from __future__ import annotations

import pandas as pd
import pytest

from pipeline.report.emr_figure import emr_surfaces_png, summed_share


def _surface(successes: str) -> pd.DataFrame:
    table = pd.DataFrame(
        {"resolution_bin": ["<0.4", "0.4-0.6", "<0.4", ">=1.0"], "depth_bin": [23.0, 23.0, 23.5, 24.0]}
    )
    table["psf_bin"] = [1.1, 1.2, 1.1, 1.3]
    for kind in ("all", "clean"):
        table[f"n_valid_{kind}"] = [10, 4, 30, 0]
        table[f"{successes}_{kind}"] = [2, 4, 10, 0]
    return table


def test_cells_are_summed_before_they_are_divided() -> None:
    """(2 + 10) / (10 + 30) within its Wilson interval; a bin without a valid attempt has no share."""
    found = summed_share(_surface("n_recovered"), "resolution_bin", "n_recovered", "all")
    assert found.loc["<0.4", "share"] == pytest.approx(0.3)
    assert found.loc["<0.4", "n_valid"] == 40
    assert found.loc["<0.4", "low"] < 0.3 < found.loc["<0.4", "high"]
    assert ">=1.0" not in found.index


def test_figure_is_drawn_with_and_without_valid_attempts() -> None:
    """A surface whose attempts all failed still gives a picture, another one."""
    controls = _surface("n_flagged")
    full = emr_surfaces_png(_surface("n_recovered"), controls)
    none = _surface("n_recovered").assign(n_valid_all=0, n_valid_clean=0)
    assert full.startswith(b"\x89PNG")
    assert emr_surfaces_png(none, controls) != full

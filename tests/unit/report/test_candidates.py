"""The page of candidates."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from pipeline.report.candidates import candidate_page, candidate_picture

BANDS = ("g", "r", "z")


@pytest.fixture
def summary() -> dict[str, Any]:
    """Of a search with three positions, one of which was kept out."""
    network = {
        "model": "LensResNet", "bands": list(BANDS), "stamp_size_px": 32, "pixel_scale_arcsec": 0.262,
        "checkpoint_sha256": "c" * 64,
    }  # fmt: skip
    return {
        "target": "file:///positions<1>.csv", "network": network, "network_sha256": "n" * 64, "rows": 3,
        "rows_by_reason": {"none": 2, "brick_missing": 1}, "created_utc": "now", "code_version": "1", "seconds": 2.0,
        "stamps_per_task_second": 40.0,
    }  # fmt: skip


def tables() -> tuple[pd.DataFrame, pd.DataFrame, xr.Dataset]:
    """Scores, two candidates, and their stamps."""
    scores = pd.DataFrame({"logit": np.float32([0.5, np.nan, 2.0])})
    candidates = pd.DataFrame(
        {
            "rank": [1, 2], "row": [2, 0], "n_rows": [1, 4], "position_id": ["best <b>", "second"],
            "ra_deg": [10.0, 11.0], "dec_deg": [-1.0, 2.0], "brickname": "0100p000", "score": [0.88, 0.62],
            "logit": [2.0, 0.5], "psfsize_r_arcsec": 1.25, "depth_r_mag": 23.5,
        }
    )  # fmt: skip
    noise = np.random.default_rng(1).normal(0, 0.01, (2, 3, 32, 32)).astype(np.float32)
    stamps = xr.Dataset(
        {
            "image": (("sample", "band", "y", "x"), noise),
            "sky_sigma_nmgy": (("sample", "band"), np.full((2, 3), 0.01, np.float32)),
        }
    )
    return scores, candidates, stamps


def test_page_shows_every_candidate_and_loads_nothing(summary: dict[str, Any]) -> None:
    """Pictures are inside; texts of users are escaped."""
    page = candidate_page(summary, *tables())
    assert page.count('alt="candidate ') == 2
    assert "best &lt;b&gt;" in page
    assert "4 rows" in page
    assert "brick_missing" in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page)


def test_search_without_a_score_says_so(summary: dict[str, Any]) -> None:
    """The page exists all the same, with the reasons."""
    scores, candidates, _ = tables()
    nothing = summary | {"rows_by_reason": {"brick_missing": 3}}
    page = candidate_page(nothing, scores.assign(logit=np.float32(np.nan)), candidates.iloc[:0], None)
    assert "No position could be scored" in page
    assert "0 of 3 positions" in page


def test_stamp_without_known_noise_still_gets_a_picture() -> None:
    """It is scaled by its peak."""
    stamp = np.zeros((3, 32, 32), np.float32)
    assert candidate_picture(stamp, np.float32([0.01, np.nan, 0.01]), BANDS).startswith(b"\x89PNG")

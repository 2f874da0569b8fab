"""Facts about the gallery."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pipeline.report import gallery
from pipeline.report.gallery import choose_rows, gallery_section
from pipeline.report.inputs import RunInputs, has_role_code


def test_rows_are_distinct_pairs_from_faint_to_bright(inputs: RunInputs) -> None:
    """Twelve different pairs, ordered by arc_snr, near the quantiles of all pairs."""
    assert inputs.columns is not None
    assert inputs.cube is not None
    is_pair = has_role_code(inputs.columns, "pair")
    rows = choose_rows(inputs.columns, is_pair, inputs.cube)
    snr = inputs.columns["arc_snr"].to_numpy()
    assert np.unique(rows).size == rows.size == 12
    assert is_pair[rows].all()
    assert (np.diff(snr[rows]) >= 0).all()
    wanted = np.quantile(np.log(snr[is_pair]), (np.arange(12) + 0.5) / 12)
    assert np.abs(np.log(snr[rows]) - wanted).max() < 0.25


def test_few_shards_are_read(inputs: RunInputs, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more shards than the row limit allows, and never more than six."""
    assert inputs.columns is not None
    assert inputs.cube is not None
    is_pair = has_role_code(inputs.columns, "pair")
    assert np.unique(choose_rows(inputs.columns, is_pair, inputs.cube) // 64).size <= 6
    monkeypatch.setattr(gallery, "MAX_ROWS_READ", 130)
    assert np.unique(choose_rows(inputs.columns, is_pair, inputs.cube) // 64).size <= 2
    monkeypatch.setattr(gallery, "MAX_ROWS_READ", 1)
    assert np.unique(choose_rows(inputs.columns, is_pair, inputs.cube) // 64).size == 1


def test_few_pairs_are_all_shown(inputs: RunInputs) -> None:
    """With three pairs the gallery shows three, with none it says so."""
    assert inputs.columns is not None
    assert inputs.cube is not None
    candidates = has_role_code(inputs.columns, "pair")
    three = candidates & (np.cumsum(candidates) <= 3)
    assert sorted(choose_rows(inputs.columns, three, inputs.cube).tolist()) == np.flatnonzero(three).tolist()
    assert choose_rows(inputs.columns, ~candidates & candidates, inputs.cube).size == 0


def test_section_shows_four_pictures_and_facts_per_pair(inputs: RunInputs) -> None:
    """Twelve cards of host, arc, injected and difference, with arc_snr, Einstein radius and score."""
    page = gallery_section(inputs)
    assert page.count('<div class="pair"') == 12
    assert page.count("data:image/png;base64,") == 48
    assert page.count("1.25\u2033") == page.count("score ") == 12


def test_pairs_without_known_noise_are_left_out(inputs: RunInputs) -> None:
    """A run whose sky noise is nowhere known has no pictures, and a sentence instead."""
    assert inputs.columns is not None
    unknown = inputs.columns.assign(sky_sigma_nmgy=(("sample", "band"), np.full((480, 3), np.nan, np.float32)))
    assert "no pair with an arc and a known sky noise" in gallery_section(dataclasses.replace(inputs, columns=unknown))


def test_without_cube_or_scores_the_section_still_works(inputs: RunInputs) -> None:
    """No cube gives the reason; no training gives pictures without scores."""
    assert "not published" in gallery_section(
        dataclasses.replace(inputs, cube=None, columns=None, receipts={"training": {}})
    )
    page = gallery_section(dataclasses.replace(inputs, training=None))
    assert page.count('<div class="pair"') == 12
    assert "score " not in page

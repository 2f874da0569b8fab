"""The sheet of a bank: numbers that are the bank's, pictures that can be opened, a page that says the verdict."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from pipeline.contracts.source_bank import BANK_COLUMNS, SourceBank
from pipeline.report.bank_sheet import (
    contact_sheet,
    image_broadening,
    quality_numbers,
    summary_text,
    write_bank_sheet,
)
from pipeline.stages.template_quality import judge_bank
from pipeline.storage.locations import Location

SIZE = 48


def make_bank(n_galaxies: int, pedestal: float, psf_fwhm_arcsec: float = 0.11) -> SourceBank:
    """Gaussian galaxies of 0.2 arcsec half-light radius on a flat share of the light, and one rejected dark row."""
    rows, columns_px = np.indices((SIZE, SIZE))
    sigma_px = 0.2 / 0.03 / math.sqrt(2 * math.log(2))
    light = np.exp(-((rows - 23.5) ** 2 + (columns_px - 23.5) ** 2) / (2 * sigma_px**2))
    image = (1 - pedestal) * light / light.sum() + pedestal / SIZE**2
    images = np.concatenate([np.stack([image] * n_galaxies), np.zeros((1, SIZE, SIZE))]).astype(np.float32)
    columns = {column.name: np.full(n_galaxies + 1, 0.2).astype(column.dtype) for column in BANK_COLUMNS}
    columns["index"] = np.arange(n_galaxies + 1)
    columns["usable"] = np.array([1] * n_galaxies + [0], dtype=np.uint8)
    columns["reject_reason"] = np.array([0] * n_galaxies + [2], dtype=np.uint8)
    columns["redshift"] = np.full(n_galaxies + 1, np.nan, dtype=np.float32)
    return SourceBank(images, columns, 0.03, psf_fwhm_arcsec, "observed <F814W>", "here", "now", "d" * 64)


def test_numbers_are_the_banks() -> None:
    """Counts, medians over usable templates, and null where nothing is known."""
    bank = make_bank(5, 0.0)
    numbers = quality_numbers(bank, judge_bank(bank))
    assert (numbers["n_templates"], numbers["n_usable"], numbers["n_by_reason"]["too_faint"]) == (6, 5, 1)
    assert numbers["median"]["hlr_arcsec"] == pytest.approx(0.2, rel=0.02)
    assert numbers["median"]["redshift"] is None
    assert numbers["pedestal_dominated"] is False
    assert numbers["magnification_at_which_psf_equals_seeing"] == pytest.approx((0.9 / 0.11) ** 2)


def test_broadening_is_a_quadrature_sum() -> None:
    """No PSF, no broadening; equal widths give the root of two."""
    assert image_broadening(0.0, 10.0, 0.9) == 1.0
    assert image_broadening(0.1, 81.0, 0.9) == pytest.approx(math.sqrt(2))


def test_terminal_table_names_reasons_and_verdict() -> None:
    """What a person reads first."""
    bank = make_bank(5, 0.8)
    text = summary_text(quality_numbers(bank, judge_bank(bank)))
    assert "usable" in text and "5 (83.3%)" in text and "too_faint" in text
    assert "pedestal dominated" in text and "blended" not in text


def test_contact_sheet_is_a_picture_with_light() -> None:
    """A PNG of ten columns, bright where the galaxies are; more than a hundred templates are thinned out."""
    few = imread(io.BytesIO(contact_sheet(make_bank(5, 0.0))), format="png")
    many = imread(io.BytesIO(contact_sheet(make_bank(150, 0.0))), format="png")
    assert few.shape[1] == many.shape[1] == 2200
    assert many.shape[0] == 10 * few.shape[0]
    grey = few[..., :3].mean(axis=-1)
    assert (grey < 0.05).mean() > 0.2


@pytest.mark.parametrize(("pedestal", "banner"), [(0.0, "banner good"), (0.8, "banner bad")])
def test_folder_holds_sheet_numbers_and_page(tmp_path: Path, pedestal: float, banner: str) -> None:
    """Three files; the page shows the verdict and escapes what it quotes."""
    bank = make_bank(3, pedestal)
    page = write_bank_sheet(Location(str(tmp_path)), bank, judge_bank(bank))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["contact_sheet.png", "index.html", "quality.json"]
    text = Path(page.path).read_text()
    assert banner in text and "&lt;F814W&gt;" in text and "<F814W>" not in text
    assert json.loads((tmp_path / "quality.json").read_text())["pedestal_dominated"] is (pedestal > 0)


def test_an_unknown_resolution_is_null_and_said(tmp_path: Path) -> None:
    """A bank without PSF width is valid JSON and a page."""
    bank = make_bank(3, 0.0, math.nan)
    page = write_bank_sheet(Location(str(tmp_path)), bank, judge_bank(bank))
    numbers = json.loads((tmp_path / "quality.json").read_text())
    assert numbers["psf_fwhm_arcsec"] is None
    assert set(numbers["image_broadening"].values()) == {None}
    assert "does not say what resolution" in Path(page.path).read_text()

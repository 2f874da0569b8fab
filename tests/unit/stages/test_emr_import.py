"""Rows of stamps as training rows; the files around them are tested in tests/unit/driver."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from pipeline.contracts.config import RunConfig
from pipeline.contracts.datasets import REJECT_REASONS, ROLES, SPLITS, TRAINING
from pipeline.contracts.schema import validate
from pipeline.stages.emr_import import IMPORTED_COLUMNS, FoundStamp, imported_pairs

SIZE = 16


def noise(side: int = SIZE) -> np.ndarray:
    """A stamp of noise."""
    return np.random.default_rng(side).normal(0.0, 0.01, (3, side, side)).astype(np.float32)


@pytest.fixture
def imported(make_config: Callable[..., RunConfig]) -> Callable[..., xr.Dataset]:
    """Two rows, an arc and a control; keywords replace columns, None drops one."""
    config = make_config(f"survey.stamp_size_px={SIZE}", "training.preprocess={annulus_px: [5, 8]}")

    def make(stamps: list[FoundStamp], controls: list[FoundStamp | None] | None = None, **replaced: Any) -> xr.Dataset:
        columns = {
            "task_id": ["a", "b"],
            "ra": [10.0, 10.001],
            "dec": [1.0, 1.0],
            "is_control": [0, 1],
            "theta_e_arcsec": [1.0, 0.0],
            "psfsize_r": [1.3, 1.2],
            **replaced,
        }
        table = pd.DataFrame({name: values for name, values in columns.items() if values is not None})
        assert set(table) <= set(IMPORTED_COLUMNS)
        made = imported_pairs(table, stamps, controls or [None, None], np.zeros(2, np.bool_), 7, config)
        validate(made, TRAINING, {"sample": 2, "band": 3, "y": SIZE, "x": SIZE})
        return made

    return make


def test_larger_stamps_keep_their_middle(imported: Callable[..., xr.Dataset]) -> None:
    """The host's pixel, side // 2, becomes pixel size // 2, for odd and even sides."""
    odd, even = noise(25), noise(20)
    made = imported([FoundStamp(odd), FoundStamp(even)])
    np.testing.assert_array_equal(made["injected"].to_numpy()[0], odd[:, 4:20, 4:20])
    np.testing.assert_array_equal(made["injected"].to_numpy()[1], even[:, 2:18, 2:18])
    assert odd[0, 12, 12] == made["injected"].to_numpy()[0, 0, SIZE // 2, SIZE // 2]
    assert made["pair_id"].to_numpy().tolist() == [7, 8]


def test_controls_make_pairs(imported: Callable[..., xr.Dataset]) -> None:
    """An arc with its control is a pair with the flux between them; a broken control spoils the row."""
    arc = noise().copy()
    arc[:, 5, 5] += 1.0
    made = imported([FoundStamp(arc), FoundStamp(noise())], [FoundStamp(noise()), None])
    assert [ROLES[code] for code in made["role"].to_numpy()] == ["pair", "control"]
    assert made["arc_flux_nmgy"].to_numpy()[0] == pytest.approx([1.0] * 3, abs=1e-5)
    assert made["weight_prior"].to_numpy()[0] == 1.0
    made = imported([FoundStamp(arc), FoundStamp(noise())], [FoundStamp(None, "band_missing"), None])
    assert REJECT_REASONS[made["reject_reason"].to_numpy()[0]] == "band_missing"


def test_seeing_never_tells_the_class(imported: Callable[..., xr.Dataset]) -> None:
    """psf_fwhm_used exists for arcs alone and is not read; bands without seeing take that of r."""
    assert "psf_fwhm_used_r" not in IMPORTED_COLUMNS
    stamps = [FoundStamp(noise()), FoundStamp(noise())]
    assert imported(stamps)["psfsize_arcsec"].to_numpy()[0] == pytest.approx([1.3] * 3)
    made = imported(stamps, psfsize_g=[1.5, np.nan])
    assert made["psfsize_arcsec"].to_numpy()[:, 0] == pytest.approx([1.5, 1.2])
    assert REJECT_REASONS[imported(stamps, psfsize_r=[0.0, 1.2])["reject_reason"].to_numpy()[0]] == "psfsize_invalid"


@pytest.mark.parametrize(
    ("replaced", "reason"),
    [
        ({"arc_snr": [0.0, np.nan]}, "arc_masked"),
        ({"theta_e_arcsec": [0.0, 0.0]}, "row_incomplete"),
        ({"dec": [91.0, 1.0]}, "row_incomplete"),
        ({"task_id": [None, "b"]}, "row_incomplete"),
        ({"is_control": [np.nan, 1]}, "row_incomplete"),
        ({"is_control": None}, "row_incomplete"),
        ({"is_control": None, "lens_model": ["SIE", "CONTROL"]}, "none"),
        ({"is_control": None, "theta_e_arcsec": None, "label": [1, 0]}, "none"),
        ({"physics_warnings": ["Processing error: coadd load failed for brick 9404m305", None]}, "brick_missing"),
        ({"physics_warnings": ["Processing error: something else", None]}, "stamp_unreadable"),
        ({"physics_warnings": ["theta_e (0.50) < 0.5 * PSF (1.36): unresolved", None]}, "none"),
    ],
)
def test_columns_give_reasons(imported: Callable[..., xr.Dataset], replaced: dict[str, Any], reason: str) -> None:
    """What a column says of the first row."""
    made = imported([FoundStamp(noise()), FoundStamp(noise())], **replaced)
    assert REJECT_REASONS[made["reject_reason"].to_numpy()[0]] == reason


def test_split_is_of_the_sky_unless_the_table_is_asked(
    imported: Callable[..., xr.Dataset], make_config: Callable[..., RunConfig]
) -> None:
    """Neighbours share a split whatever the table says; a row without position is never trained on."""
    made = imported([FoundStamp(noise()), FoundStamp(noise())], region_split=["train", "test"], ra=[10.0, np.nan])
    assert made["region_split"].to_numpy().tolist() == ["train", "test"]
    assert SPLITS[made["split"].to_numpy()[1]] == "guard"
    made = imported([FoundStamp(noise()), FoundStamp(noise())], region_split=["train", "test"])
    assert len(set(made["split"].to_numpy().tolist())) == 1

"""Deflections of lenstronomy's models on the renderer's samples."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from lenstronomy.LensModel.lens_model import LensModel

from pipeline.contracts.errors import ContractError
from pipeline.contracts.injection import LENS_QUANTITIES, LenstronomyLens
from pipeline.kernels.arc_draws import FIELD_STEP, FIELD_X, FIELD_Y, LENS_COLUMNS, LENS_X, LENS_Y
from pipeline.kernels.lensing import shear_deflection, sie_deflection
from pipeline.stages.lens_models import SAMPLES_PER_PX, DeflectionField, lens_quantities

SIZE = 24
SCALE_ARCSEC = 0.262
DRAWN = (1.2, 0.7, 0.6, 0.04, -0.03)
CENTRE_ARCSEC = (0.11, -0.07)


def section(models: list[str], parameters: list[dict[str, Any]]) -> LenstronomyLens:
    """A configured list of models."""
    return LenstronomyLens.model_validate({"kind": "lenstronomy", "models": models, "parameters": parameters})


SIE_AND_SHEAR = section(
    ["SIE", "SHEAR"],
    [
        {"theta_E": "theta_e_arcsec", "e1": "lens_e1", "e2": "lens_e2"},
        {"gamma1": "shear_gamma1", "gamma2": "shear_gamma2"},
    ],
)


def lens_row() -> np.ndarray:
    """A row of the lens table with a centre between pixels."""
    row = np.zeros(LENS_COLUMNS)
    row[[LENS_X, LENS_Y]] = CENTRE_ARCSEC
    return row


def test_quantities_have_the_names_that_parameters_may_use() -> None:
    """Every name is there; ellipticity is (1 - q) / (1 + q) along the major axis."""
    quantities = lens_quantities(*DRAWN)
    assert tuple(quantities) == LENS_QUANTITIES
    ellipticity = 0.3 / 1.7
    assert quantities["lens_e1"] == pytest.approx(ellipticity * math.cos(1.2))
    assert quantities["lens_e2"] == pytest.approx(ellipticity * math.sin(1.2))
    assert [quantities[name] for name in ("theta_e_arcsec", "lens_q", "lens_phi_rad")] == [1.2, 0.7, 0.6]
    assert (quantities["shear_gamma1"], quantities["shear_gamma2"]) == (0.04, -0.03)


def test_samples_are_the_deflection_at_their_stated_positions() -> None:
    """Sample (row, column) lies at first + step * (column, row) from the lens: SIE plus shear of our own kernels."""
    row = lens_row()
    field = DeflectionField(SIE_AND_SHEAR, SIZE, SCALE_ARCSEC).sample(row, lens_quantities(*DRAWN))
    assert field.dtype == np.float32
    assert field.shape[0] == 2
    assert field.shape[1] == field.shape[2]
    assert row[FIELD_STEP] == pytest.approx(SCALE_ARCSEC / SAMPLES_PER_PX)
    theta_e, q, phi, gamma1, gamma2 = DRAWN
    for i, j in np.random.default_rng(4).integers(0, field.shape[1], (40, 2)):
        x, y = row[FIELD_X] + row[FIELD_STEP] * j, row[FIELD_Y] + row[FIELD_STEP] * i
        mass, shear = sie_deflection(x, y, theta_e, q, phi), shear_deflection(x, y, gamma1, gamma2)
        assert field[0, i, j] == pytest.approx(mass[0] + shear[0], abs=2e-5)
        assert field[1, i, j] == pytest.approx(mass[1] + shear[1], abs=2e-5)


def test_samples_cover_every_corner_of_the_stamp_with_a_margin() -> None:
    """Interpolation over 4 x 4 samples finds its neighbours at the outer edge of the corner pixels."""
    row = lens_row()
    field = DeflectionField(SIE_AND_SHEAR, SIZE, SCALE_ARCSEC).sample(row, lens_quantities(*DRAWN))
    for axis, centre in zip((FIELD_X, FIELD_Y), CENTRE_ARCSEC, strict=True):
        first = -(SIZE // 2 + 0.5) * SCALE_ARCSEC - centre
        last = (SIZE - 1 - SIZE // 2 + 0.5) * SCALE_ARCSEC - centre
        assert row[axis] <= first - row[FIELD_STEP]
        assert row[axis] + (field.shape[1] - 1) * row[FIELD_STEP] >= last + 2 * row[FIELD_STEP]


def test_numbers_and_names_may_be_mixed() -> None:
    """A written number is used as it is: an SIS of 0.5 arcsec deflects by 0.5 arcsec everywhere."""
    models = section(["SIS"], [{"theta_E": 0.5, "center_x": "shear_gamma1"}])
    field = DeflectionField(models, SIZE, SCALE_ARCSEC).sample(lens_row(), lens_quantities(1.2, 0.7, 0.6, 0.0, 0.0))
    assert np.hypot(*field) == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("model", ["SHEAR", "LOS", "LOS_MINIMAL", "LOS_FLEXION"])
def test_lens_is_the_one_of_lenstronomy(model: str) -> None:
    """Also where the other model corrects the line of sight, deflections are those of lenstronomy's own LensModel."""
    names = [name for name in LensModel([model]).lens_model.func_list[0].param_names if name not in ("ra_0", "dec_0")]
    second = {name: 0.01 * (k + 1) for k, name in enumerate(names)}
    first = {"theta_E": 1.2, "e1": 0.1, "e2": -0.05}
    row = lens_row()
    field = DeflectionField(section(["SIE", model], [first, second]), SIZE, SCALE_ARCSEC).sample(row, {})
    axis = row[FIELD_STEP] * np.arange(field.shape[1])
    x, y = np.meshgrid(row[FIELD_X] + axis, row[FIELD_Y] + axis)
    expected = LensModel(["SIE", model]).alpha(x.ravel(), y.ravel(), [first, second])
    np.testing.assert_allclose(field.reshape(2, -1), expected, atol=1e-6)


def test_two_corrections_of_the_line_of_sight_are_refused() -> None:
    """lenstronomy applies one."""
    with pytest.raises(ContractError, match="more than one"):
        DeflectionField(section(["LOS", "LOS_FLEXION"], [{}, {}]), SIZE, SCALE_ARCSEC)


def test_unknown_parameter_is_a_clear_error() -> None:
    """A misspelt parameter names the models, what was given and what lenstronomy said."""
    models = section(["SIE"], [{"theta_e": "theta_e_arcsec", "e1": 0.0, "e2": 0.0}])
    with pytest.raises(ContractError, match=r"injection\.lens: lenstronomy refused \('SIE',\).*theta_e"):
        DeflectionField(models, SIZE, SCALE_ARCSEC).sample(lens_row(), lens_quantities(*DRAWN))


def test_missing_parameter_is_a_clear_error() -> None:
    """A parameter that was left out is named too."""
    models = section(["SIS"], [{"center_x": 0.0}])
    with pytest.raises(ContractError, match=r"lenstronomy refused .*theta_E"):
        DeflectionField(models, SIZE, SCALE_ARCSEC).sample(lens_row(), lens_quantities(*DRAWN))


def test_unknown_model_is_a_clear_error() -> None:
    """A model that lenstronomy does not have is refused by name."""
    with pytest.raises(ContractError, match=r"injection\.lens: lenstronomy has no models \('NO_LENS',\)"):
        DeflectionField(section(["NO_LENS"], [{}]), SIZE, SCALE_ARCSEC)


def test_infinite_deflection_is_refused() -> None:
    """A shear too large for float32 is an error, not a stamp of NaN."""
    models = section(["SHEAR"], [{"gamma1": 1e39, "gamma2": 0.0}])
    with (
        pytest.warns(RuntimeWarning, match="overflow"),
        pytest.raises(ContractError, match="deflections that are not finite"),
    ):
        DeflectionField(models, SIZE, SCALE_ARCSEC).sample(lens_row(), lens_quantities(*DRAWN))

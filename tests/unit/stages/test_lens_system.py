"""Facts about lens systems made from numbers."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from pipeline.contracts.errors import ContractError
from pipeline.kernels.profiles import sersic_bn
from pipeline.stages.lens_system import LensSystem, image_plane, source_plane, total_magnification


@pytest.fixture(scope="module")
def round_system(lens_system: LensSystem) -> LensSystem:
    """The same without ellipticity and shear, the source behind the middle."""
    return dataclasses.replace(
        lens_system, lens_q=1.0, shear_gamma1=0.0, shear_gamma2=0.0, src_x_arcsec=0.0, src_y_arcsec=0.0, src_q=1.0
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("theta_e_arcsec", 0.0),
        ("lens_q", 1.01),
        ("lens_q", 0.04),
        ("lens_slope", 3.0),
        ("lens_slope", 1.0),
        ("shear_gamma1", 1.0),
        ("src_re_arcsec", -0.1),
        ("src_n", 8.1),
        ("src_q", 0.0),
        ("src_x_arcsec", math.nan),
        ("mag_r", math.inf),
    ],
)
def test_unphysical_number_is_named(name: str, value: float, lens_system: LensSystem) -> None:
    """A number outside its range is an error with the name and the value."""
    with pytest.raises(ContractError, match=f"{name.removeprefix('shear_')}.*{value}"):
        dataclasses.replace(lens_system, **{name: value})


def test_magnification_of_an_exponential_disc_behind_an_isothermal_sphere(round_system: LensSystem) -> None:
    """On the axis 2 theta_E / h, less what lies beyond theta_E: mu = 1 + theta_E/beta there, 2 theta_E/beta inside."""
    h = round_system.src_re_arcsec / sersic_bn(1.0)
    beyond = math.exp(-round_system.theta_e_arcsec / h)
    expected = 2.0 * round_system.theta_e_arcsec / h * (1.0 - beyond) + beyond * (
        2.0 * round_system.theta_e_arcsec / h + 1.0
    )
    assert total_magnification(round_system) == pytest.approx(expected, rel=1e-3)


def test_magnification_of_a_distant_source_tends_to_that_of_the_shear(round_system: LensSystem) -> None:
    """Far from the lens 1 / (1 - gamma**2), with the isothermal lens theta_E / r more along the ray."""
    far = dataclasses.replace(round_system, shear_gamma1=0.2, theta_e_arcsec=1e-3, src_x_arcsec=2.0)
    assert total_magnification(far) == pytest.approx(1.0 / (1.0 - 0.04), rel=2e-3)


def test_magnification_does_not_depend_on_where_the_lens_lies(lens_system: LensSystem) -> None:
    """A lens at the edge of a stamp magnifies as one at its centre does."""
    moved = dataclasses.replace(lens_system, lens_x_arcsec=8.0)
    assert total_magnification(moved) == total_magnification(lens_system)


def test_images_without_end_are_an_error(lens_system: LensSystem) -> None:
    """A nearly flat density in strong shear spreads light beyond any grid."""
    with pytest.raises(ContractError, match="lens_slope 1.01"):
        total_magnification(dataclasses.replace(lens_system, lens_slope=1.01, shear_gamma1=0.9))


def _flux(brightness: np.ndarray, axis: np.ndarray) -> float:
    return float(brightness.sum(dtype=np.float64)) * (axis[1] - axis[0]) ** 2


@pytest.mark.parametrize("slope", [1.8, 2.0, 2.3])
def test_planes_hold_the_flux_of_source_and_images(slope: float, lens_system: LensSystem) -> None:
    """The source plane integrates to one, the image plane to the magnification."""
    system = dataclasses.replace(lens_system, src_re_arcsec=0.08, src_n=0.7, lens_slope=slope)
    curves = system.curves()
    source, image = source_plane(system, curves), image_plane(system, curves)
    assert _flux(source.brightness, source.axis_arcsec) == pytest.approx(1.0, abs=0.01)
    assert _flux(image.brightness, image.axis_arcsec) == pytest.approx(total_magnification(system), rel=0.02)


def test_lensing_conserves_the_brightest_brightness(lens_system: LensSystem) -> None:
    """Peak of the image plane is that of the source plane, and the source lies where it was put."""
    system = dataclasses.replace(lens_system, src_n=0.5)
    curves = system.curves()
    source, image = source_plane(system, curves), image_plane(system, curves)
    assert image.brightness.max() == pytest.approx(source.brightness.max(), rel=0.02)
    row, column = np.unravel_index(source.brightness.argmax(), source.brightness.shape)
    step = source.axis_arcsec[1] - source.axis_arcsec[0]
    assert source.axis_arcsec[column] == pytest.approx(system.src_x_arcsec, abs=step)
    assert source.axis_arcsec[row] == pytest.approx(system.src_y_arcsec, abs=step)
    assert np.abs(curves.radial_caustic).max() < source.axis_arcsec[-1]

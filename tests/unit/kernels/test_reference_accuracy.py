"""The renderer against converged images: every draw of tests/data/reference_arcs.npz, and the accuracy curve."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.contracts.survey import PIXEL_SCALE_ARCSEC
from pipeline.kernels.arc_draws import sersic_arcs
from pipeline.kernels.psf import StampPsf
from pipeline.kernels.render import StampGrid, render_arcs

REFERENCE = Path(__file__).parents[2] / "data" / "reference_arcs.npz"
IMAGE_SCALE = 65000
NOT_OF_THE_ARC = ("psfsize_arcsec", "placement", "unit_flux_in_stamp", "peak", "image", "cell_centre_error")
GRID = StampGrid(64, PIXEL_SCALE_ARCSEC)
Reference = dict[str, NDArray[np.float64]]


@pytest.fixture(scope="module")
def reference() -> Reference:
    """Columns of the reference, `image` in units of the unlensed flux."""
    with np.load(REFERENCE) as columns:
        table = {name: columns[name] for name in columns.files}
    table["image"] = table["image"] / IMAGE_SCALE * table["peak"][:, None, None]
    return table


@pytest.fixture(scope="module")
def render_reference(
    reference: Reference, make_psf: Callable[..., StampPsf]
) -> Callable[..., tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Errors of the draws at an accuracy: largest pixel error over the peak, and relative flux error."""
    draws = sersic_arcs(1, **{name: value for name, value in reference.items() if name not in NOT_OF_THE_ARC})
    psfs = [make_psf([psfsize]) for psfsize in reference["psfsize_arcsec"]]

    def errors(**accuracy: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        arcs = render_arcs(draws, psfs, GRID, **accuracy)[:, 0].astype(np.float64)
        pixel = np.abs(arcs - reference["image"]).max(axis=(1, 2)) / reference["peak"]
        return pixel, np.abs(arcs.sum(axis=(1, 2)) / reference["image"].sum(axis=(1, 2)) - 1.0)

    return errors


def _ordinary(reference: Reference) -> NDArray[np.bool_]:
    """Sources of n <= 4 and Re >= 0.08 arcsec."""
    return np.asarray((reference["src_n"] <= 4.0) & (reference["src_re_arcsec"] >= 0.08))


def test_reference_covers_the_range_that_is_promised(reference: Reference) -> None:
    """At least 500 draws over theta_E 0.3-3, q 0.3-1, shear to 0.1, Re 0.05-0.6, n 0.5-6, on and off caustics."""
    assert len(reference["peak"]) >= 500
    for name, low, high in (
        ("theta_e_arcsec", 0.3, 3.0), ("lens_q", 0.3, 1.0), ("src_re_arcsec", 0.05, 0.6), ("src_n", 0.5, 6.0),
        ("src_q", 0.3, 1.0), ("psfsize_arcsec", 0.9, 1.6),
    ):  # fmt: skip
        values = reference[name]
        assert low <= values.min() < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < values.max() <= high
    assert 0.095 < np.hypot(reference["gamma1"], reference["gamma2"]).max() <= 0.1
    assert np.ptp(reference["lens_x_arcsec"]) > 0.9 * PIXEL_SCALE_ARCSEC
    assert set(np.unique(reference["placement"])) == {"disc", "caustic", "centre"}
    assert 100 < _ordinary(reference).sum() < len(reference["peak"]) - 100


def test_every_draw_holds_the_required_accuracy(
    reference: Reference, render_reference: Callable[..., tuple[NDArray[np.float64], NDArray[np.float64]]]
) -> None:
    """At the default accuracy: 0.5 % of peak and of flux for n <= 4 and Re >= 0.08, 1.5 % for the rest."""
    allowed = np.where(_ordinary(reference), 5e-3, 1.5e-2)
    for error in render_reference():
        assert (error <= allowed).all(), f"draws {np.flatnonzero(error > allowed)}: {error[error > allowed]}"


def test_typical_error_is_far_below_the_requirement(
    render_reference: Callable[..., tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> None:
    """At the default accuracy the median error is below 0.1 %, that of 95 % of the draws below 0.2 %."""
    for error in render_reference():
        assert np.median(error) < 1e-3
        assert np.quantile(error, 0.95) < 2e-3


def test_accuracy_moves_along_a_curve(
    reference: Reference,
    render_reference: Callable[..., tuple[NDArray[np.float64], NDArray[np.float64]]],
    integrate: Callable[..., tuple[NDArray[np.float64], float]],
) -> None:
    """From 2e-3 over 1e-2 to 0.05 median, 95 % and worst errors grow, and fewer evaluations are spent."""
    draws = sersic_arcs(1, **{name: value for name, value in reference.items() if name not in NOT_OF_THE_ARC})
    settings = (2e-3, 1e-2, 5e-2)
    runs = [render_reference(accuracy=accuracy) for accuracy in settings]
    costs = [integrate(draws, 64, PIXEL_SCALE_ARCSEC, accuracy)[1] for accuracy in settings]
    for measure in (np.median, np.max, lambda error: np.quantile(error, 0.95)):
        for kind in (0, 1):
            fine, middle, coarse = (measure(run[kind]) for run in runs)
            assert fine < middle < coarse
    assert costs[0] > 1.2 * costs[1] > 1.2 * costs[2]

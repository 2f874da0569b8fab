"""PSF widths against N_eff, and images of point sources against the PSF they went through."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import signal

from pipeline.contracts.errors import ContractError
from pipeline.contracts.survey import PIXEL_SCALE_ARCSEC
from pipeline.kernels.arc_draws import ArcDraws
from pipeline.kernels.fourier import frequencies
from pipeline.kernels.psf import StampPsf, measured_psf, psf_fwhm_arcsec, psf_kernel, round_psf
from pipeline.kernels.render import StampGrid, render_arcs

SIZE = 64
GRID = StampGrid(SIZE, PIXEL_SCALE_ARCSEC)
GAUSSIAN_TABLE = [
    (0.9, 26.74, 0.07194),
    (1.1, 39.95, 0.04878),
    (1.3, 55.79, 0.03518),
    (1.5, 74.28, 0.02655),
    (1.8, 106.96, 0.01852),
]
# Point-like, yet resolved by the float32 positions.
POINT = {"src_re_arcsec": 0.004, "src_n": 0.5}


def _effective_area_px(image: NDArray[np.float64]) -> float:
    return float(image.sum() ** 2 / np.sum(image**2))


def _kernel(psfsize_arcsec: float, profile: str, beta: float = 3.5, half_width: int = SIZE // 2) -> NDArray[np.float64]:
    fwhm = float(psf_fwhm_arcsec(psfsize_arcsec, profile, beta))
    return psf_kernel(fwhm, profile, beta, half_width, PIXEL_SCALE_ARCSEC)


def _render(draws: ArcDraws, psf: StampPsf) -> NDArray[np.float64]:
    return np.asarray(render_arcs(draws, psf, GRID)[0, 0], dtype=np.float64)


@pytest.mark.parametrize(("psfsize_arcsec", "area_px", "centre"), GAUSSIAN_TABLE)
def test_psf_has_the_effective_area_of_psfsize(
    psfsize_arcsec: float,
    area_px: float,
    centre: float,
    make_arcs: Callable[..., ArcDraws],
    make_psf: Callable[..., StampPsf],
) -> None:
    """Kernel and image of a point: a Gaussian has the tabulated N_eff, Moffats solved for it within 1 %."""
    # The tabulated fraction is the integral over the central pixel; the sample at its centre is higher.
    sigma_px = psfsize_arcsec / 2.354820 / PIXEL_SCALE_ARCSEC
    point = make_arcs(**POINT)
    for image in (_kernel(psfsize_arcsec, "gaussian"), _render(point, make_psf([psfsize_arcsec], "gaussian"))):
        assert _effective_area_px(image) == pytest.approx(area_px, rel=5e-4)
        assert image[32, 32] == pytest.approx(1 / (2 * np.pi * sigma_px**2), rel=1e-3)
        assert image[32, 32] == pytest.approx(centre * (1 + 1 / (12 * sigma_px**2)), rel=4e-3)
    for beta in (2.5, 3.5, 4.765):
        assert _effective_area_px(_kernel(psfsize_arcsec, "moffat", beta)) == pytest.approx(area_px, rel=0.01)
        image = _render(point, make_psf([psfsize_arcsec], "moffat", beta))
        assert 1 / np.sum(image**2) == pytest.approx(area_px, rel=0.01)


@pytest.mark.parametrize(
    ("beta", "area_px", "equivalent"), [(2.5, 107.6, 1.805), (3.5, 84.8, 1.602), (4.765, 74.3, 1.5)]
)
def test_moffat_of_the_psfsize_itself_is_too_broad(
    beta: float, area_px: float, equivalent: float, make_arcs: Callable[..., ArcDraws]
) -> None:
    """A Moffat with FWHM 1.3 has the tabulated N_eff; the solved FWHM is smaller by 1.3 / equivalent."""
    fwhm = float(psf_fwhm_arcsec(1.3, "moffat", beta))
    assert fwhm == pytest.approx(1.3 * 1.3 / equivalent, rel=1e-3)
    assert _effective_area_px(psf_kernel(1.3, "moffat", beta, 60, PIXEL_SCALE_ARCSEC)) == pytest.approx(
        area_px, rel=5e-3
    )
    image = _render(make_arcs(**POINT), round_psf([1.3], "moffat", beta, SIZE, PIXEL_SCALE_ARCSEC))
    assert 1 / np.sum(image**2) == pytest.approx(area_px, rel=5e-3)


def test_fwhm_is_vectorised_and_keeps_nan() -> None:
    """Arrays of psfsize give arrays of FWHM, from read-only input, with NaN where psfsize is NaN."""
    psfsize = np.array([[1.0, np.nan], [1.3, 1.8]])
    psfsize.flags.writeable = False
    fwhm = psf_fwhm_arcsec(psfsize, "moffat", 3.5)
    assert fwhm.shape == (2, 2)
    assert np.isnan(fwhm[0, 1])
    assert fwhm[1, 0] == pytest.approx(1.3 * fwhm[0, 0])
    assert np.array_equal(psf_fwhm_arcsec(psfsize, "gaussian", 3.5), psfsize, equal_nan=True)


@pytest.mark.parametrize("profile", ["gaussian", "moffat"])
def test_kernel_has_unit_sum_and_half_maximum_at_half_fwhm(profile: str) -> None:
    """The kernel sums to one, is symmetric, and falls to half its peak at half the FWHM."""
    kernel = psf_kernel(1.2, profile, 3.0, 20, 0.1)
    assert kernel.shape == (41, 41)
    assert kernel.sum() == pytest.approx(1.0, abs=1e-12)
    assert np.array_equal(kernel, kernel.T)
    assert np.array_equal(kernel, kernel[::-1, ::-1])
    assert kernel[20, 26] / kernel[20, 20] == pytest.approx(0.5, rel=1e-9)


def test_moffat_wings_hold_their_flux() -> None:
    """The flux outside R is (1 + R^2 / alpha^2)^(1 - beta)."""
    alpha_px, beta, radius_px = 10.0, 2.5, 30.0
    fwhm = 2 * alpha_px * np.sqrt(2 ** (1 / beta) - 1)
    kernel = psf_kernel(fwhm, "moffat", beta, 400, 1.0)
    y, x = np.mgrid[-400:401, -400:401]
    inside = kernel[np.hypot(x, y) <= radius_px].sum()
    assert 1 - inside == pytest.approx((1 + radius_px**2 / alpha_px**2) ** (1 - beta), rel=0.01)


@pytest.mark.parametrize(
    ("profile", "psfsize_arcsec", "allowed"),
    [
        ("gaussian", 0.9, 7e-4),
        ("gaussian", 1.3, 7e-4),
        ("gaussian", 1.6, 7e-4),
        ("moffat", 0.8, 5.5e-3),
        ("moffat", 0.9, 1.6e-3),
        ("moffat", 1.0, 1.05e-3),
        ("moffat", 1.1, 7e-4),
        ("moffat", 1.3, 6e-4),
        ("moffat", 1.6, 6e-4),
    ],
)
def test_point_between_pixels_is_the_profile_at_its_offset(
    profile: str,
    psfsize_arcsec: float,
    allowed: float,
    make_arcs: Callable[..., ArcDraws],
    make_psf: Callable[..., StampPsf],
) -> None:
    """Wherever a point falls in its pixel, its image is the PSF about that place, to a share of the peak.

    A sharp Moffat has more than a per mille beyond the Nyquist frequency of the pixels.
    """
    fwhm, psf = float(psf_fwhm_arcsec(psfsize_arcsec, profile, 3.5)), make_psf([psfsize_arcsec], profile)
    fine = 8
    kernel = psf_kernel(fwhm, profile, 3.5, 40 * fine, PIXEL_SCALE_ARCSEC / fine) * fine**2
    for dx, dy in ((0, 0), (4, 0), (2, 3), (-3, 1), (4, 4)):
        step = PIXEL_SCALE_ARCSEC / fine
        image = _render(make_arcs(src_x_arcsec=dx * step, src_y_arcsec=dy * step, **POINT), psf)
        first = (40 - 32) * fine
        expected = kernel[first - dy :: fine, first - dx :: fine][:SIZE, :SIZE]
        assert np.abs(image - expected).max() < allowed * expected.max()


def test_interior_flux_is_conserved(make_arcs: Callable[..., ArcDraws], make_psf: Callable[..., StampPsf]) -> None:
    """A PSF passes the zero frequency to 1e-6, and of an interior source the stamp holds the flux to 1e-6."""
    draws = make_arcs(src_x_arcsec=[0.0, 0.09, -0.13], src_y_arcsec=[0.0, 0.11, 0.02], src_re_arcsec=0.1, src_n=0.5)
    widths = [0.9, 1.1, 1.3, 1.6]
    for profile in ("gaussian", "moffat"):
        assert make_psf(widths, profile).transfer[:, 0, 0, 0] == pytest.approx(np.ones(4), abs=1e-6)
    sharp = make_psf([0.7], "gaussian", neglected=1e-6)
    wide = make_psf(widths, "gaussian", neglected=1e-6)
    through = render_arcs(draws._replace(shares=np.ones((3, 1, 4))), wide, GRID)
    flux = through.sum(axis=(2, 3), dtype=np.float64)
    before = render_arcs(draws, sharp, GRID).sum(axis=(2, 3), dtype=np.float64)
    assert flux == pytest.approx(np.broadcast_to(before, (3, 4)), rel=1e-6)


@pytest.mark.parametrize("profile", ["gaussian", "moffat"])
def test_nothing_wraps_around(
    profile: str, make_arcs: Callable[..., ArcDraws], make_psf: Callable[..., StampPsf]
) -> None:
    """A point three pixels from two edges leaves their PSF wing at the opposite ones, to 1e-5 of the peak."""
    offset = (3 - 32) * PIXEL_SCALE_ARCSEC
    point = make_arcs(src_x_arcsec=offset, src_y_arcsec=-offset, **POINT)
    image = _render(point, make_psf([1.6], profile, neglected=1e-6))
    wing = _kernel(1.6, profile, half_width=64)[64 - 61 : 64 + 3, 64 - 3 : 64 + 61]
    peak = image.max()
    assert image.argmax() == 61 * SIZE + 3
    assert np.abs(image - wing)[:, 40:].max() < 1e-5 * peak
    assert np.abs(image - wing)[:24].max() < 1e-5 * peak
    # Wrapped light would be the core of the PSF, of one sign; what is left alternates.
    assert abs((image - wing)[:, 48:].sum()) < 1e-4
    assert abs((image - wing)[:16].sum()) < 1e-4


def test_bands_are_independent(make_arcs: Callable[..., ArcDraws], make_psf: Callable[..., StampPsf]) -> None:
    """A band's image is the same, to the bit, whatever the PSFs of the others and their order."""
    arguments = {"theta_e_arcsec": 1.3, "lens_q": 0.7, "src_x_arcsec": 0.2, "src_re_arcsec": 0.15}
    widths = [1.6, 1.2, 0.95]
    together = render_arcs(make_arcs(3, **arguments), make_psf(widths), GRID)[0]
    reverse = render_arcs(make_arcs(3, **arguments), make_psf(widths[::-1]), GRID)[0]
    assert np.array_equal(together, reverse[::-1])
    for band, width in enumerate(widths):
        alone = _render(make_arcs(1, **arguments), make_psf([width]))
        assert np.array_equal(together[band], alone)
    assert together[2].max() > 1.2 * together[0].max()


@pytest.mark.parametrize("psfsize_arcsec", [1.1, 1.3, 1.6])
def test_measured_moffat_equals_the_analytic_one(
    psfsize_arcsec: float,
    make_arcs: Callable[..., ArcDraws],
    make_psf: Callable[..., StampPsf],
    random_arcs: Callable[[int, int], ArcDraws],
) -> None:
    """A Moffat sampled at native pixels gives the arcs of its closed form to 1e-3 of the peak."""
    stamp = _kernel(psfsize_arcsec, "moffat", half_width=31)
    measured = measured_psf(np.repeat(stamp[None], 3, 0), SIZE)
    draws = random_arcs(12, 3)
    expected = render_arcs(draws, make_psf([psfsize_arcsec] * 3), GRID)
    result = render_arcs(draws, measured, GRID)
    peak = expected.max(axis=(1, 2, 3))
    assert (np.abs(result - expected).max(axis=(1, 2, 3)) < 1e-3 * peak).all()


def _lopsided_psf(size: int = 31) -> NDArray[np.float64]:
    """Elliptical, turned, shifted, with coma; no symmetry left."""
    y, x = np.mgrid[:size, :size] - size // 2 + 0.0
    x, y = x - 0.6, y + 0.35
    u, v = math.cos(0.5) * x + math.sin(0.5) * y, math.cos(0.5) * y - math.sin(0.5) * x
    core = np.exp(-0.5 * ((u / 2.4) ** 2 + (v / 1.8) ** 2))
    return np.asarray(core * (1 + 0.12 * x - 0.08 * y) ** 2)


def test_lopsided_psf_is_convolved_the_right_way_round(make_arcs: Callable[..., ArcDraws]) -> None:
    """A point shows the PSF itself; a Gaussian source equals the direct convolution of its samples."""
    psf = _lopsided_psf()
    psf /= psf.sum()
    measured = measured_psf((7.0 * psf)[None], SIZE)
    assert measured.transfer.shape[1] == 4
    point = _render(make_arcs(**POINT), measured)
    expected = np.zeros((SIZE, SIZE))
    expected[32 - 15 : 32 + 16, 32 - 15 : 32 + 16] = psf
    assert np.abs(point - expected).max() < 1.5e-3 * psf.max()
    sigma, q, phi, x0, y0 = 0.55, 0.6, 1.1, 0.7, -0.4
    source = make_arcs(
        src_n=0.5, src_re_arcsec=sigma * math.sqrt(2 * math.log(2)), src_q=q, src_phi_rad=phi, src_x_arcsec=x0,
        src_y_arcsec=y0,
    )  # fmt: skip
    y, x = (np.mgrid[:SIZE, :SIZE] - 32) * PIXEL_SCALE_ARCSEC
    u = math.cos(phi) * (x - x0) + math.sin(phi) * (y - y0)
    v = math.cos(phi) * (y - y0) - math.sin(phi) * (x - x0)
    samples = np.exp(-0.5 * (u**2 + (v / q) ** 2) / sigma**2) * PIXEL_SCALE_ARCSEC**2 / (2 * np.pi * sigma**2 * q)
    direct = signal.fftconvolve(samples, psf, mode="same")
    image = _render(source, measured)
    assert np.abs(image - direct).max() < 1e-3 * direct.max()
    for wrong in (psf[::-1], psf[:, ::-1], psf[::-1, ::-1], psf.T):
        assert np.abs(image - signal.fftconvolve(samples, wrong, mode="same")).max() > 0.02 * direct.max()


def test_measured_bands_keep_their_own_psf(make_arcs: Callable[..., ArcDraws]) -> None:
    """Read-only float32 stamps of several bands; each is normalised and applied to its band."""
    stamps = np.stack([_kernel(1.2, "moffat", half_width=15), 3.0 * _lopsided_psf()]).astype(np.float32)
    stamps.flags.writeable = False
    both = render_arcs(make_arcs(2), measured_psf(stamps, SIZE), GRID)[0]
    for band in (0, 1):
        alone = _render(make_arcs(1), measured_psf(stamps[band : band + 1], SIZE))
        assert np.abs(both[band] - alone).max() < 1e-3 * alone.max()
        assert both[band].sum(dtype=np.float64) == pytest.approx(1.0, abs=2e-3)


def test_sharper_psf_keeps_more_frequencies(make_psf: Callable[..., StampPsf]) -> None:
    """As many as the sharpest band needs, never more than the basis has."""
    counts = [(make_psf([width], "gaussian").transfer.shape[-1] + 1) // 2 for width in (0.3, 0.9, 1.3, 1.8)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] <= frequencies(SIZE)
    assert counts[-1] < counts[1] <= frequencies(SIZE)
    assert make_psf([1.8, 0.9], "gaussian").transfer.shape == (2, 1, 2 * counts[1] - 1, 2 * counts[1] - 1)
    assert make_psf([1.3]).transfer.dtype == np.float32


@pytest.mark.parametrize(("profile", "beta", "message"), [("airy", 3.5, "airy"), ("moffat", 1.0, "> 1")])
def test_unknown_psf_is_refused(profile: str, beta: float, message: str) -> None:
    """A profile that does not exist, and a Moffat of infinite flux, are ContractErrors everywhere."""
    with pytest.raises(ContractError, match=message):
        psf_fwhm_arcsec(1.3, profile, beta)
    with pytest.raises(ContractError, match=message):
        psf_kernel(1.3, profile, beta, 8, PIXEL_SCALE_ARCSEC)
    with pytest.raises(ContractError, match=message):
        round_psf([1.3], profile, beta, SIZE, PIXEL_SCALE_ARCSEC)
    with pytest.raises(ContractError, match="nan"):
        psf_fwhm_arcsec(1.3, "moffat", math.nan)


@pytest.mark.parametrize(
    ("fwhm", "half_width", "scale"), [(math.nan, 8, 0.262), (0.0, 8, 0.262), (1.0, 0, 0.262), (1.0, 8, 0.0)]
)
def test_unusable_kernels_are_refused(fwhm: float, half_width: int, scale: float) -> None:
    """A width, half width or scale that is not positive is a ContractError that shows what came."""
    with pytest.raises(ContractError, match="psf_kernel: expected"):
        psf_kernel(fwhm, "gaussian", 3.5, half_width, scale)


@pytest.mark.parametrize("fwhm", [math.nan, 0.0, -1.0, math.inf])
def test_unusable_widths_are_refused(fwhm: float) -> None:
    """One bad band is enough."""
    with pytest.raises(ContractError, match="every band"):
        round_psf([1.2, fwhm], "moffat", 3.5, SIZE, PIXEL_SCALE_ARCSEC)


@pytest.mark.parametrize("size", [14, 33])
def test_odd_and_small_stamps_are_refused(size: int) -> None:
    """Stamps have an even size of at least 16."""
    with pytest.raises(ContractError, match="even number"):
        round_psf([1.2], "moffat", 3.5, size, PIXEL_SCALE_ARCSEC)
    with pytest.raises(ContractError, match="even number"):
        measured_psf(np.ones((1, 3, 3)), size)


@pytest.mark.parametrize("shape", [(3, 3), (1, 4, 4), (1, 3, 5), (1, 65, 65)])
def test_measured_stamps_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    """Square, odd, and no larger than the arcs' stamps."""
    with pytest.raises(ContractError, match=r"s odd and <= 64, got"):
        measured_psf(np.ones(shape), SIZE)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 0.0])
def test_measured_stamps_without_finite_flux_are_refused(value: float) -> None:
    """NaN anywhere, or a sum that is not positive, in any band."""
    stamps = np.ones((2, 5, 5))
    stamps[1] = value
    with pytest.raises(ContractError, match="finite stamps of positive flux"):
        measured_psf(stamps, SIZE)

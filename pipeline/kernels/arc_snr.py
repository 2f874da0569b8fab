"""The named signal-to-noise ratios of an injected arc, over the good pixels of one band.

They are not interchangeable: on the same arcs their medians differ by a factor of seven. Write a for the
noise-free arc [nmgy], w for the inverse variance and A for the annulus 4 <= r <= 16 px around the host:

    arc_snr             max a sqrt(w)
    arc_snr_sum         sum a / sqrt(sum 1/w), over the stamp
    arc_snr_matched     sqrt(sum a**2 w), which no other linear one exceeds
    arc_snr_aperture    sum a / sqrt(sum 1/w), over A
    arc_snr_annulus     sum a / (sqrt(N) sigma_pix), over the N pixels of A; sigma_pix from the survey depth
    arc_snr_cumulative  max over k of sum a / sqrt(sum 1/w), over the k pixels of largest a sqrt(w)
    arc_snr_region      max of sum a / sqrt(sum 1/w) over the connected regions of a sqrt(w) > 1

All but the last are proportional to the flux of the arc. None counts the arc's own shot noise; for that see
`pipeline.kernels.arc_noise`. Cumulative: Collett (2015), ApJ 811, 20; region: Holloway et al. (2023),
MNRAS 525, 2341.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from pipeline.contracts.errors import ContractError
from pipeline.contracts.survey import FWHM_PER_SIGMA, ZERO_POINT_MAG

APERTURE_INNER_PX = 4.0
APERTURE_OUTER_PX = 16.0
REGION_THRESHOLD = 1.0

# No DR10 depth is a magnitude outside this range; an inverse variance in nmgy^-2 mostly is.
_DEPTH_RANGE_MAG = (15.0, 30.0)


class HostNoise(NamedTuple):
    """What the linear SNR columns of one host and band need besides the arc; the noises are inf over no pixel.

    weight: (y, x) float32 inverse variance, 0 where bad. [nmgy^-2]
    aperture: (y, x) bool, the good pixels of the annulus.
    stamp_noise_nmgy: sqrt(sum 1/w) over the stamp.
    aperture_noise_nmgy: the same over the aperture.
    annulus_noise_nmgy: sqrt(N) sigma_pix over the aperture.
    """

    weight: NDArray[np.float32]
    aperture: NDArray[np.bool_]
    stamp_noise_nmgy: float
    aperture_noise_nmgy: float
    annulus_noise_nmgy: float


@njit(cache=True, nogil=True, error_model="numpy")
def good_weight(invvar: NDArray[np.float32], maskbits: NDArray[np.int32], bad_mask: int) -> NDArray[np.float32]:
    """Inverse variance of the good pixels, those with 0 < invvar < inf and no bad mask bit.

    Args:
        invvar: (y, x) float32 inverse variance, any value. [nmgy^-2]
        maskbits: (y, x) int32 MASKBITS.
        bad_mask: bits that make a pixel bad, >= 0.

    Returns:
        (y, x) float32 weight, 0 where the pixel is bad. [nmgy^-2]

    Raises:
        ContractError: invvar and maskbits differ in shape.
    """
    if invvar.shape != maskbits.shape:
        raise ContractError("good_weight: expected maskbits of the shape of invvar, got", maskbits.shape, invvar.shape)
    weight = np.zeros(invvar.shape, dtype=np.float32)
    for i in range(invvar.shape[0]):
        for j in range(invvar.shape[1]):
            if 0.0 < invvar[i, j] < np.inf and (np.int64(maskbits[i, j]) & bad_mask) == 0:
                weight[i, j] = invvar[i, j]
    return weight


@njit(cache=True, nogil=True, error_model="numpy")
def annulus_mask(size: int, centre_x_px: float, centre_y_px: float) -> NDArray[np.bool_]:
    """Pixels whose centres lie at 4 <= r <= 16 px from a position.

    Args:
        size: side of the stamp. [px]
        centre_x_px, centre_y_px: centre, 0-based pixel-centre coordinates. [px]

    Returns:
        (size, size) bool.
    """
    mask = np.zeros((size, size), dtype=np.bool_)
    for i in range(size):
        dy2 = (i - centre_y_px) ** 2
        for j in range(size):
            r2 = (j - centre_x_px) ** 2 + dy2
            mask[i, j] = (r2 >= APERTURE_INNER_PX * APERTURE_INNER_PX) & (r2 <= APERTURE_OUTER_PX * APERTURE_OUTER_PX)
    return mask


@njit(cache=True, nogil=True, error_model="numpy")
def host_noise(weight: NDArray[np.float32], annulus: NDArray[np.bool_], sigma_pix_nmgy: float) -> HostNoise:
    """Gather what is common to all arcs on one host and band.

    Args:
        weight: (y, x) float32 from `good_weight`. [nmgy^-2]
        annulus: (y, x) bool from `annulus_mask`.
        sigma_pix_nmgy: noise per pixel for arc_snr_annulus, from `sigma_pix_from_depth`, > 0; NaN if
            unknown, and then arc_snr_annulus is NaN. [nmgy]

    Returns:
        The `HostNoise`; it shares the array `weight`.

    Raises:
        ContractError: weight and annulus differ in shape.
    """
    if weight.shape != annulus.shape:
        raise ContractError("host_noise: expected an annulus of the shape of weight, got", annulus.shape, weight.shape)
    aperture = np.zeros(weight.shape, dtype=np.bool_)
    variance = aperture_variance = 0.0
    good = count = 0
    for i in range(weight.shape[0]):
        for j in range(weight.shape[1]):
            if weight[i, j] > 0.0:
                good += 1
                variance += 1.0 / np.float64(weight[i, j])
                if annulus[i, j]:
                    aperture[i, j] = True
                    count += 1
                    aperture_variance += 1.0 / np.float64(weight[i, j])
    return HostNoise(
        weight,
        aperture,
        math.sqrt(variance) if good > 0 else np.inf,
        math.sqrt(aperture_variance) if count > 0 else np.inf,
        math.sqrt(count) * sigma_pix_nmgy if count > 0 else np.inf,
    )


@njit(cache=True, nogil=True, error_model="numpy")
def arc_snr_linear(arc: NDArray[np.float32], noise: HostNoise) -> tuple[float, float, float, float, float]:
    """SNR columns that are proportional to the flux of the arc and need one pass over it.

    Args:
        arc: (y, x) float32 noise-free arc, finite. [nmgy]
        noise: of the host and band, from `host_noise`.

    Returns:
        (arc_snr, arc_snr_sum, arc_snr_matched, arc_snr_aperture, arc_snr_annulus), each 0.0 if it has no
        good pixel. Bit for bit the same on every machine: no sum is reordered.

    Raises:
        ContractError: the arc has another shape than the host.
    """
    weight, aperture = noise.weight, noise.aperture
    if arc.shape != weight.shape:
        raise ContractError("arc_snr_linear: expected an arc of the shape of the host, got", arc.shape, weight.shape)
    # One accumulator per column: consecutive pixels are independent, so the loop uses vector registers as it stands.
    width = arc.shape[1]
    peaks = np.full(width, -np.inf)
    fluxes, powers, aperture_fluxes = np.zeros(width), np.zeros(width), np.zeros(width)
    for i in range(arc.shape[0]):
        for j in range(width):
            value, w = np.float64(arc[i, j]), np.float64(weight[i, j])
            weighted = value * w
            # |a| a w orders pixels as a sqrt(w) does.
            signed_power = weighted * abs(value) if w > 0.0 else -np.inf
            peaks[j] = signed_power if signed_power > peaks[j] else peaks[j]  # noqa: FURB136
            powers[j] += weighted * value
            fluxes[j] += value if w > 0.0 else 0.0
            aperture_fluxes[j] += value if aperture[i, j] else 0.0
    peak, flux, power, aperture_flux = -np.inf, 0.0, 0.0, 0.0
    for j in range(width):
        peak = max(peak, peaks[j])
        flux += fluxes[j]
        power += powers[j]
        aperture_flux += aperture_fluxes[j]
    return (
        math.copysign(math.sqrt(abs(peak)), peak) if peak > -np.inf else 0.0,
        flux / noise.stamp_noise_nmgy,
        math.sqrt(power),
        aperture_flux / noise.aperture_noise_nmgy,
        aperture_flux / noise.annulus_noise_nmgy,
    )


@njit(cache=True, nogil=True, error_model="numpy")
def arc_snr_columns(
    arc: NDArray[np.float32],
    invvar: NDArray[np.float32],
    maskbits: NDArray[np.int32],
    bad_mask: int,
    centre_x_px: float,
    centre_y_px: float,
) -> tuple[float, float, float, float]:
    """Measure one arc on one host, in one call.

    Args:
        arc: (size, size) float32 noise-free arc, finite. [nmgy]
        invvar, maskbits, bad_mask: as in `good_weight`; centre_x_px, centre_y_px: as in `annulus_mask`.

    Returns:
        The first four of `arc_snr_linear`.

    Raises:
        ContractError: the arrays differ in shape.
    """
    annulus = annulus_mask(arc.shape[0], centre_x_px, centre_y_px)
    noise = host_noise(good_weight(invvar, maskbits, bad_mask), annulus, np.nan)
    peak, total, matched, aperture, _ = arc_snr_linear(arc, noise)
    return peak, total, matched, aperture


@njit(cache=True, nogil=True, error_model="numpy")
def arc_snr_nonlinear(
    arc: NDArray[np.float32], weight: NDArray[np.float32], threshold: float = REGION_THRESHOLD
) -> tuple[float, float]:
    """SNR over pixels that the arc itself selects.

    Args:
        arc: (y, x) float32 noise-free arc, finite. [nmgy]
        weight: (y, x) float32 from `good_weight`. [nmgy^-2]
        threshold: a pixel belongs to a region if a sqrt(w) > threshold, which is >= 0.

    Returns:
        (arc_snr_region, arc_snr_cumulative). A region's pixels share edges (4-connectivity); without any the
        first is 0.0. The second is at least arc_snr, proportional to the flux, and 0.0 without good pixel.

    Raises:
        ContractError: arc and weight differ in shape.
    """
    if arc.shape != weight.shape:
        raise ContractError("arc_snr_nonlinear: expected an arc of the shape of weight, got", arc.shape, weight.shape)
    return _region_snr(arc, weight, threshold), _cumulative_snr(arc, weight)


@njit(cache=True, nogil=True, error_model="numpy")
def _region_snr(arc: NDArray[np.float32], weight: NDArray[np.float32], threshold: float) -> float:
    height, width = arc.shape
    unseen = np.zeros((height, width), dtype=np.bool_)
    for i in range(height):
        for j in range(width):
            unseen[i, j] = np.float64(arc[i, j]) * math.sqrt(np.float64(weight[i, j])) > threshold
    rows, columns = np.empty(arc.size, dtype=np.int64), np.empty(arc.size, dtype=np.int64)
    largest = 0.0
    for i in range(height):
        for j in range(width):
            if not unseen[i, j]:
                continue
            unseen[i, j] = False
            rows[0], columns[0] = i, j
            waiting = 1
            flux = variance = 0.0
            while waiting > 0:
                waiting -= 1
                y, x = rows[waiting], columns[waiting]
                flux += arc[y, x]
                variance += 1.0 / np.float64(weight[y, x])
                for dy, dx in ((-1, 0), (0, -1), (0, 1), (1, 0)):
                    ny, nx = y + dy, x + dx
                    if 0 <= ny < height and 0 <= nx < width and unseen[ny, nx]:
                        unseen[ny, nx] = False
                        rows[waiting], columns[waiting] = ny, nx
                        waiting += 1
            largest = max(largest, flux / math.sqrt(variance))
    return largest


@njit(cache=True, nogil=True, error_model="numpy")
def _cumulative_snr(arc: NDArray[np.float32], weight: NDArray[np.float32]) -> float:
    # A pixel that is not positive lowers every sum it joins, so only positive ones are sorted.
    values, weights, snr = np.empty(arc.size), np.empty(arc.size), np.empty(arc.size)
    count = 0
    peak = -np.inf
    for i in range(arc.shape[0]):
        for j in range(arc.shape[1]):
            value, w = np.float64(arc[i, j]), np.float64(weight[i, j])
            if w > 0.0:
                pixel = value * math.sqrt(w)
                peak = max(peak, pixel)
                if value > 0.0:
                    values[count], weights[count], snr[count] = value, w, pixel
                    count += 1
    if count == 0:
        return peak if peak > -np.inf else 0.0
    flux = variance = largest = 0.0
    for k in np.argsort(-snr[:count], kind="mergesort"):
        flux += values[k]
        variance += 1.0 / weights[k]
        largest = max(largest, flux / math.sqrt(variance))
    return largest


def sigma_pix_from_depth(
    psfdepth_mag: ArrayLike, psfsize_arcsec: ArrayLike, pixel_scale_arcsec: float
) -> NDArray[np.float64]:
    """Noise of a pixel that gives a point source its 5-sigma depth.

    sigma_pix = (10**(0.4 (22.5 - m5)) / 5) / sqrt(N_eff), N_eff = 4 pi (psfsize / (2.3548 pixel scale))**2 px.

    Args:
        psfdepth_mag: 5-sigma point-source depth m5, a magnitude as in the brick and CCD tables, not the
            inverse variance of the catalogues, 15 < m5 < 30; NaN stays NaN. [mag]
        psfsize_arcsec: psfsize of the same band, > 0; NaN stays NaN. Broadcasts with psfdepth_mag. [arcsec]
        pixel_scale_arcsec: > 0. [arcsec/px]

    Returns:
        float64 sigma per pixel, of the common shape. [nmgy]

    Raises:
        ContractError: a depth or psfsize outside its range.
    """
    depth = np.asarray(psfdepth_mag, dtype=np.float64)
    psfsize = np.asarray(psfsize_arcsec, dtype=np.float64)
    low, high = _DEPTH_RANGE_MAG
    if np.any((depth <= low) | (depth >= high)):
        raise ContractError(
            f"sigma_pix_from_depth: expected a 5-sigma depth in magnitudes, {low} < m5 < {high}, "
            f"got {np.nanmin(depth)} to {np.nanmax(depth)}; nmgy^-2 is another unit of the same name"
        )
    if np.any(psfsize <= 0.0):
        raise ContractError(f"sigma_pix_from_depth: expected psfsize_arcsec > 0, got {np.nanmin(psfsize)}")
    point_source_sigma = np.power(10.0, 0.4 * (ZERO_POINT_MAG - depth)) / 5.0
    root_area_px = math.sqrt(4.0 * math.pi) * psfsize / (FWHM_PER_SIGMA * pixel_scale_arcsec)
    return np.asarray(point_source_sigma / root_area_px, dtype=np.float64)


def combine_bands(snr: ArrayLike) -> NDArray[np.float64]:
    """Quadrature sum of one linear SNR column over bands, sqrt(sum snr**2).

    For independent noise this is the SNR of the optimally weighted sum of the bands' measurements, so it is
    the matched filter of the whole cube for arc_snr_matched, and proportional to flux if colours are held.
    Combined arc_snr is a bound, reached where all bands peak in the same pixel.

    Args:
        snr: (..., band) values of one column, one per band; a NaN makes the sum NaN.

    Returns:
        (...) float64, >= 0.

    Raises:
        ContractError: no band.
    """
    values = np.asarray(snr, dtype=np.float64)
    if values.ndim == 0 or values.shape[-1] == 0:
        raise ContractError(f"combine_bands: expected (..., band) with at least one band, got shape {values.shape}")
    return np.asarray(np.sqrt(np.sum(values * values, axis=-1)), dtype=np.float64)

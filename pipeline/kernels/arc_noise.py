"""Shot noise of an injected arc without a gain, and the flux that gives an SNR in its presence.

Where the sky dominates, a pixel's inverse variance w [nmgy^-2] is electrons per nanomaggy over the sky level S
[nmgy per pixel], so F nanomaggies of arc add the variance F / (S w): to the sky's own 1/w as F is to S,
whatever the exposure. DR10's invvar holds the shot noise of the sky and of the catalogued sources already;
only the arc's is missing.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from pipeline.contracts.errors import ContractError
from pipeline.contracts.survey import ZERO_POINT_MAG
from pipeline.kernels.arc_snr import HostNoise
from pipeline.kernels.random import PURPOSE_NOISE, philox4x32

# Sky of DECam exposures, from ccdskycounts and ccdzpt in the CCD tables of the public legacypipe test cases: 6 in
# g, 7 in r, 9 in z and none in i. The z exposures spread over 2.0 to 2.7; so few say little of g and r. [nmgy/px]
SKY_NMGY = {"g": 0.105, "r": 0.30, "z": 2.35}

_MAX_SIDE_PX = 1 << 16
_LOW_WORD = np.uint64(0xFFFFFFFF)
_WORD_BITS = np.uint64(32)
_ROW_SHIFT = np.uint64(16)
_NEWTON_STEPS = 60
# Half width of the central interval of the normal quantile function.
_CENTRAL = 0.425


def default_sky_nmgy(band: str) -> float:
    """Typical DECam sky level of a band; that of a brick follows from its CCD table. [nmgy/px]

    Raises:
        ContractError: a band without measurement.
    """
    if band not in SKY_NMGY:
        raise ContractError(
            f"default_sky_nmgy: expected one of {sorted(SKY_NMGY)}, got {band!r}; configure its sky level"
        )
    return SKY_NMGY[band]


def sky_nmgy_per_pixel(ccdskycounts: ArrayLike, ccdzpt_mag: ArrayLike) -> NDArray[np.float64]:
    """Sky level of exposures, ccdskycounts * 10**(0.4 (22.5 - ccdzpt)).

    Args:
        ccdskycounts: sky of the CCD table, > 0. [ADU/s/px]
        ccdzpt_mag: AB magnitude of 1 ADU/s; a source of magnitude m has 10**(0.4 (ccdzpt - m)) ADU/s. [mag]

    Returns:
        float64 of the common shape. [nmgy/px]

    Raises:
        ContractError: a sky that is not positive and finite.
    """
    counts = np.asarray(ccdskycounts, dtype=np.float64)
    sky = counts * np.power(10.0, 0.4 * (ZERO_POINT_MAG - np.asarray(ccdzpt_mag, dtype=np.float64)))
    if not np.all((sky > 0.0) & np.isfinite(sky)):
        raise ContractError(f"sky_nmgy_per_pixel: expected positive finite sky levels, got {sky.tolist()}")
    return np.asarray(sky, dtype=np.float64)


def effective_sky_nmgy(sky_nmgy: ArrayLike, invvar: ArrayLike) -> float:
    """Sky level of an inverse-variance weighted coadd, sum w_j / sum (w_j / S_j) over exposures j.

    Args:
        sky_nmgy: (exposure,) sky levels S_j, > 0. [nmgy/px]
        invvar: (exposure,) inverse variances w_j of a pixel, in any common unit, > 0.

    Returns:
        The S with which the shot variance of F in the coadd is F / (S sum w_j). [nmgy/px]

    Raises:
        ContractError: no exposure, lengths that differ, or a value that is not positive.
    """
    sky, weight = np.asarray(sky_nmgy, dtype=np.float64), np.asarray(invvar, dtype=np.float64)
    if sky.ndim != 1 or sky.shape != weight.shape or sky.size == 0 or not np.all((sky > 0.0) & (weight > 0.0)):
        raise ContractError(
            "effective_sky_nmgy: expected two equally long lists of positive numbers, one per exposure, "
            f"got {sky.tolist()} and {weight.tolist()}"
        )
    return float(weight.sum() / (weight / sky).sum())


@njit(cache=True, nogil=True, error_model="numpy")
def arc_shot_noise(
    arc: NDArray[np.float32],
    invvar: NDArray[np.float32],
    sky_nmgy: float,
    run_seed: np.uint64,
    task_key: np.uint64,
    band_index: int,
) -> NDArray[np.float32]:
    """One realisation of the arc's shot noise in one band: normal, mean 0, variance arc / (sky * invvar).

    Args:
        arc: (y, x) float32 noise-free arc, finite; what is not positive has no noise. [nmgy]
        invvar: (y, x) float32 inverse variance; noise is 0 where it is not positive and finite. [nmgy^-2]
        sky_nmgy: sky level of the band, > 0. [nmgy/px]
        run_seed: seed of the run, an unsigned 64-bit word.
        task_key: key of the task, from `task_keys`.
        band_index: which band of the run, 0 <= band_index < 2**16.

    Returns:
        (y, x) float32. The deviate of a pixel depends on seed, task, band, row and column only. [nmgy]

    Raises:
        ContractError: shapes that differ or reach 65536 px, or a sky that is not positive.
    """
    height, width = arc.shape
    if arc.shape != invvar.shape or max(height, width) >= _MAX_SIDE_PX:
        raise ContractError("arc_shot_noise: expected two equal shapes below 65536, got", arc.shape, invvar.shape)
    if not sky_nmgy > 0.0:
        raise ContractError("arc_shot_noise: expected sky_nmgy > 0, got", sky_nmgy)
    seed, task = np.uint64(run_seed), np.uint64(task_key)
    use = np.uint64(PURPOSE_NOISE << 16) | np.uint64(band_index)
    noise = np.zeros((height, width), dtype=np.float32)
    blocks = (width + 3) // 4
    # A block yields four words, kept apart so that blocks fill vector registers.
    words = np.empty((4, blocks), dtype=np.uint32)
    variance, offsets, deviates = np.empty(width), np.empty(width), np.empty(width)
    for i in range(height):
        largest = 0.0
        for j in range(width):
            value, weight = np.float64(arc[i, j]), np.float64(invvar[i, j])
            variance[j] = value / (sky_nmgy * weight) if (value > 0.0) & (weight > 0.0) & (weight < np.inf) else 0.0
            largest = max(largest, variance[j])
        if not largest > 0.0:
            continue
        for k in range(blocks):
            words[0, k], words[1, k], words[2, k], words[3, k] = philox4x32(
                task & _LOW_WORD,
                task >> _WORD_BITS,
                (np.uint64(i) << _ROW_SHIFT) | np.uint64(k),
                use,
                seed & _LOW_WORD,
                seed >> _WORD_BITS,
            )
        for j in range(width):
            offsets[j] = (np.float64(words[j % 4, j // 4]) + 0.5) * 2.0**-32 - 0.5
        for j in range(width):
            deviates[j] = _central_quantile(offsets[j])
        for j in range(width):
            if abs(offsets[j]) > _CENTRAL and variance[j] > 0.0:
                deviates[j] = _tail_quantile(offsets[j])
        for j in range(width):
            noise[i, j] = deviates[j] * math.sqrt(variance[j])
    return noise


# Standard normal quantile of 1/2 + offset to a relative error of 2e-7, odd in the offset and ten times faster than
# `priors.normal_quantile`: Wichura (1988), Applied Statistics 37, 477, PPND7 of AS 241, less its far tail, which
# begins beyond the last of 2**32 offsets.
@njit(cache=True, nogil=True, error_model="numpy")
def _central_quantile(offset: float) -> float:
    r = 0.180625 - offset * offset
    numerator = ((59.109374720 * r + 159.29113202) * r + 50.434271938) * r + 3.3871327179
    return offset * numerator / (((67.187563600 * r + 78.757757664) * r + 17.895169469) * r + 1.0)


@njit(cache=True, nogil=True, error_model="numpy")
def _tail_quantile(offset: float) -> float:
    r = math.sqrt(-math.log(0.5 - abs(offset))) - 1.6
    numerator = ((0.17023821103 * r + 1.3067284816) * r + 2.7568153900) * r + 1.4234372777
    return math.copysign(numerator / ((0.12021132975 * r + 0.73700164250) * r + 1.0), offset)


@njit(cache=True, nogil=True, error_model="numpy")
def _flux_for_peak_snr(
    snr: float, unit_arc: NDArray[np.float32], weight: NDArray[np.float32], sky_nmgy: float
) -> float:
    """Smallest flux with F t / sqrt(1/w + F t / (S w)) = snr in some pixel: the closed form, least over pixels.

    Args:
        snr: wanted value, > 0.
        unit_arc: (y, x) float32 arc of one unit of flux, t. [nmgy per nmgy]
        weight: (y, x) float32 from `good_weight`, w. [nmgy^-2]
        sky_nmgy: sky level S, > 0; inf leaves the shot noise out. [nmgy/px]

    Returns:
        The flux, inf if no good pixel is positive. [nmgy]
    """
    least = np.inf
    shot = snr * snr / sky_nmgy
    for i in range(unit_arc.shape[0]):
        for j in range(unit_arc.shape[1]):
            t, w = np.float64(unit_arc[i, j]), np.float64(weight[i, j])
            if t > 0.0 and w > 0.0:
                least = min(least, (shot + math.sqrt(shot * shot + 4.0 * w * snr * snr)) / (2.0 * w * t))
    return least


@njit(cache=True, nogil=True, error_model="numpy")
def _flux_for_matched_snr(
    snr: float, unit_arc: NDArray[np.float32], weight: NDArray[np.float32], sky_nmgy: float
) -> float:
    """Flux with sum F**2 t**2 / (1/w + F t / (S w)) = snr**2, by Newton's method to a relative 1e-12.

    Args:
        snr, unit_arc, weight, sky_nmgy: as in `_flux_for_peak_snr`; a negative t adds no variance.

    Returns:
        The flux, inf if the good pixels hold none. [nmgy]
    """
    power = 0.0
    for i in range(unit_arc.shape[0]):
        for j in range(unit_arc.shape[1]):
            power += np.float64(unit_arc[i, j]) ** 2 * np.float64(weight[i, j])
    if not power > 0.0:
        return np.inf
    # The sum is convex in F and the start is below the root: the first step passes it, the others fall to it.
    flux = snr / math.sqrt(power)
    for _ in range(_NEWTON_STEPS):
        total, slope = -snr * snr, 0.0
        for i in range(unit_arc.shape[0]):
            for j in range(unit_arc.shape[1]):
                t = np.float64(unit_arc[i, j])
                dilution = 1.0 + flux * max(t, 0.0) / sky_nmgy
                term = t * t * np.float64(weight[i, j]) * flux / (dilution * dilution)
                total += term * flux * dilution
                slope += term * (1.0 + dilution)
        step = total / slope
        flux -= step
        if abs(step) <= 1e-12 * flux:
            break
    return flux


@njit(cache=True, nogil=True, error_model="numpy")
def _flux_for_sum_snr(snr: float, signal: float, variance: float, shot_variance: float) -> float:
    """Flux with F T / sqrt(V + F U) = snr: (snr**2 U + sqrt(snr**4 U**2 + 4 T**2 snr**2 V)) / (2 T**2).

    Args:
        snr: wanted value, > 0.
        signal: T, sum of the arc of unit flux over the pixels that count. [nmgy per nmgy]
        variance: V, sum of 1/w over them, > 0. [nmgy^2]
        shot_variance: U, sum of t / (S w) over them, >= 0. [nmgy^2 per nmgy]

    Returns:
        The flux, inf if the signal is not positive. [nmgy]
    """
    if not signal > 0.0:
        return np.inf
    shot = snr * snr * shot_variance
    return (shot + math.sqrt(shot * shot + 4.0 * signal * signal * snr * snr * variance)) / (2.0 * signal * signal)


def flux_for_snr_with_shot_noise(
    metric: str, snr: float, unit_arc: NDArray[np.float32], noise: HostNoise, sky_nmgy: float
) -> float:
    """Flux at which an arc reaches an SNR whose denominator includes the arc's own shot noise.

    Args:
        metric: "arc_snr", "arc_snr_sum", "arc_snr_matched", "arc_snr_aperture" or "arc_snr_annulus".
        snr: wanted value, > 0.
        unit_arc: (y, x) float32 arc of one unit of flux; the flux returned multiplies it. [nmgy per nmgy]
        noise: of the host and band, from `host_noise`.
        sky_nmgy: sky level of the band, > 0; inf leaves the shot noise out. [nmgy/px]

    Returns:
        The flux, inf if no flux reaches the SNR. [nmgy]

    Raises:
        ContractError: an unknown metric, shapes that differ, or an argument that is not positive.
    """
    if unit_arc.shape != noise.weight.shape or not (snr > 0.0 and sky_nmgy > 0.0):
        raise ContractError(
            f"flux_for_snr_with_shot_noise: expected an arc of shape {noise.weight.shape}, snr > 0 and sky_nmgy > 0, "
            f"got {unit_arc.shape}, {snr}, {sky_nmgy}"
        )
    if metric == "arc_snr":
        return float(_flux_for_peak_snr(snr, unit_arc, noise.weight, sky_nmgy))
    if metric == "arc_snr_matched":
        return float(_flux_for_matched_snr(snr, unit_arc, noise.weight, sky_nmgy))
    pixels = noise.weight > 0.0 if metric == "arc_snr_sum" else noise.aperture
    counted = unit_arc[pixels].astype(np.float64)
    pixel_variance: NDArray[np.float64] | float
    if metric in {"arc_snr_sum", "arc_snr_aperture"}:
        pixel_variance = 1.0 / noise.weight[pixels].astype(np.float64)
        variance = float(pixel_variance.sum())
    elif metric == "arc_snr_annulus":
        variance = noise.annulus_noise_nmgy**2
        pixel_variance = variance / max(counted.size, 1)
    else:
        raise ContractError(
            f"flux_for_snr_with_shot_noise: expected a metric with a closed denominator, got {metric!r}"
        )
    shot_variance = float((np.maximum(counted, 0.0) * pixel_variance).sum()) / sky_nmgy
    return float(_flux_for_sum_snr(snr, float(counted.sum()), variance, shot_variance))

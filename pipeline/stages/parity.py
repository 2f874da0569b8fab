"""Do two cutout sources give the same pixels for the same positions?

Four numbers per stamp and band: the ratio of the fluxes in an aperture, which does not mind a shift of a fraction of
a pixel; the median background difference; the rms difference of single pixels; and the whole-pixel shift that makes
the two stamps most alike. The verdict is about their medians over stamps, so a single odd stamp does not decide it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import astropy.units as u
import numpy as np
import pandas as pd
from astropy.coordinates import SkyCoord
from numpy.typing import ArrayLike, NDArray

from pipeline.contracts.anchors import ParityLimits
from pipeline.contracts.errors import ContractError
from pipeline.contracts.survey import MAD_TO_SIGMA

MAX_SHIFT_PX = 2
_SKY_RADIUS_FRAC = 24.0 / 64.0
_MIN_COMMON_PX = 50


@dataclass(frozen=True)
class StampPair:
    """Comparison of one stamp in one band.

    Attributes:
        identical: every pixel that both have is equal to the last bit.
        common_frac: share of pixels that are finite in both.
        ratio: aperture flux of b over that of a; NaN for a stamp fainter than aperture_snr_min.
        offset_sigma: median of b - a, in units of a's sky sigma.
        rms_sigma: rms of b - a without the offset, in the same units.
        max_sigma: largest |b - a|, in the same units.
        shift_x_px, shift_y_px: shift of b against a with the smallest rms. [pixel]
    """

    identical: bool
    common_frac: float
    ratio: float
    offset_sigma: float
    rms_sigma: float
    max_sigma: float
    shift_x_px: int
    shift_y_px: int


def match_stamps(
    ra_a_deg: ArrayLike, dec_a_deg: ArrayLike, ra_b_deg: ArrayLike, dec_b_deg: ArrayLike, radius_arcsec: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of two sources that show the same position: the nearest of b for each of a, within a radius. [deg]

    Returns:
        Row numbers in a, ascending, and in b.
    """
    first = SkyCoord(np.atleast_1d(ra_a_deg) * u.deg, np.atleast_1d(dec_a_deg) * u.deg)
    second = SkyCoord(np.atleast_1d(ra_b_deg) * u.deg, np.atleast_1d(dec_b_deg) * u.deg)
    if not len(first) or not len(second):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    index, separation, _ = first.match_to_catalog_sky(second)
    near = np.flatnonzero(separation.arcsec <= radius_arcsec)
    return near.astype(np.int64), np.asarray(index, dtype=np.int64)[near]


def compare_stamps(a: NDArray[np.float32], b: NDArray[np.float32], limits: ParityLimits) -> StampPair:
    """Compare one band of one stamp.

    Args:
        a: (y, x) reference. [nmgy]
        b: (y, x) the other source; the middle of the larger one is compared. [nmgy]
        limits: aperture_radius_px and aperture_snr_min are used.

    Raises:
        ContractError: not two square stamps whose sizes differ by an even number.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[0] != a.shape[1] or b.shape[0] != b.shape[1]:
        raise ContractError(f"parity: expected two square stamps, got {a.shape} and {b.shape}")
    if (a.shape[0] - b.shape[0]) % 2:
        raise ContractError(f"parity: stamps of {a.shape[0]} and {b.shape[0]} px have no common middle pixel")
    size = min(a.shape[0], b.shape[0])
    a, b = _middle(a, size), _middle(b, size)
    common = np.isfinite(a) & np.isfinite(b)
    nothing = StampPair(False, float(common.mean()), math.nan, math.nan, math.nan, math.nan, 0, 0)
    offset = np.arange(size) - size // 2
    radius = np.hypot(offset[:, None], offset[None, :])
    sky = common & (radius >= _SKY_RADIUS_FRAC * size)
    if common.sum() < _MIN_COMMON_PX or sky.sum() < _MIN_COMMON_PX:
        return nothing
    first, second = a.astype(np.float64), b.astype(np.float64)
    level = [float(np.median(image[sky])) for image in (first, second)]
    sigma = MAD_TO_SIGMA * float(np.median(np.abs(first[sky] - level[0])))
    if sigma <= 0:
        return nothing
    aperture = common & (radius < limits.aperture_radius_px)
    flux = [float((image[aperture] - sky_level).sum()) for image, sky_level in zip((first, second), level, strict=True)]
    bright = flux[0] >= limits.aperture_snr_min * sigma * math.sqrt(aperture.sum())
    difference = (second - first)[common]
    middle = float(np.median(difference))
    shift = _best_shift(first, second, common)
    return StampPair(
        identical=bool(np.array_equal(a[common], b[common])),
        common_frac=float(common.mean()),
        ratio=flux[1] / flux[0] if bright else math.nan,
        offset_sigma=middle / sigma,
        rms_sigma=float(np.sqrt(np.mean((difference - middle) ** 2))) / sigma,
        max_sigma=float(np.abs(difference).max()) / sigma,
        shift_x_px=shift[0],
        shift_y_px=shift[1],
    )


def parity_verdict(pairs: pd.DataFrame, bands: Sequence[str], limits: ParityLimits) -> dict[str, object]:
    """Statistics per band and a verdict over all.

    Args:
        pairs: column band and the fields of StampPair, one row per stamp and band.
        bands: bands that must be there.
        limits: see ParityLimits.

    Returns:
        verdict: "identical", "agree", "differ" or "insufficient"; problems: what decided it; bands: per band the
        number of stamps, ratio statistics and medians (None where there is no stamp); limits.
    """
    problems: list[str] = []
    too_few: list[str] = []
    statistics: dict[str, object] = {}
    for band in bands:
        rows = pairs[(pairs["band"] == band) & np.isfinite(pairs["rms_sigma"].to_numpy(np.float64))]
        ratios = rows["ratio"].to_numpy(np.float64)
        ratios = ratios[np.isfinite(ratios)]
        medians = {name: _median(rows[name].to_numpy(np.float64)) for name in ("offset_sigma", "rms_sigma")}
        moved = int(((rows["shift_x_px"] != 0) | (rows["shift_y_px"] != 0)).sum())
        statistics[band] = {
            "n_stamps": len(rows),
            "n_identical": int(rows["identical"].sum()),
            "n_shifted": moved,
            "ratio": _ratio_statistics(ratios),
            "median_offset_sigma": medians["offset_sigma"],
            "median_rms_sigma": medians["rms_sigma"],
            "largest_difference_sigma": float(rows["max_sigma"].max()) if len(rows) else None,
        }
        if len(rows) and rows["identical"].all():
            continue
        if ratios.size < limits.min_stamps:
            too_few.append(f"{band}: {ratios.size} stamps with a flux ratio, {limits.min_stamps} needed")
            continue
        ratio, offset, rms = float(np.median(ratios)), medians["offset_sigma"] or 0.0, medians["rms_sigma"] or 0.0
        if abs(ratio - 1.0) > limits.ratio_tolerance:
            problems.append(f"{band}: median flux ratio {ratio:.4f}, expected 1 within {limits.ratio_tolerance}")
        if abs(offset) > limits.offset_sigma_max:
            problems.append(f"{band}: backgrounds differ by {offset:.3f} sigma, at most {limits.offset_sigma_max}")
        if rms > limits.rms_sigma_max:
            problems.append(f"{band}: pixels differ by {rms:.3f} sigma rms, at most {limits.rms_sigma_max}")
        if 2 * moved > len(rows):
            problems.append(f"{band}: {moved} of {len(rows)} stamps are shifted by a pixel or more")
    present = pairs[pairs["band"].isin(list(bands))]
    if problems:
        verdict = "differ"
    elif too_few or not len(present):
        verdict = "insufficient"
    else:
        verdict = "identical" if bool(present["identical"].all()) else "agree"
    return {"verdict": verdict, "problems": problems + too_few, "bands": statistics, "limits": asdict(limits)}


def _middle(image: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    start = image.shape[0] // 2 - size // 2
    return image[start : start + size, start : start + size]


def _best_shift(first: NDArray[np.float64], second: NDArray[np.float64], common: NDArray[np.bool_]) -> tuple[int, int]:
    """(x, y) by which the second stamp is moved against the first, by the least mean square difference."""
    margin = slice(MAX_SHIFT_PX, -MAX_SHIFT_PX)
    here, valid = first[margin, margin], common[margin, margin]
    best, least = (0, 0), math.inf
    shifts = [(x, y) for y in range(-MAX_SHIFT_PX, MAX_SHIFT_PX + 1) for x in range(-MAX_SHIFT_PX, MAX_SHIFT_PX + 1)]
    # No shift comes first: it wins where stamps without structure are equally alike.
    for x, y in sorted(shifts, key=lambda shift: (math.hypot(*shift), shift)):
        moved = np.roll(second, (-y, -x), axis=(0, 1))[margin, margin]
        both = valid & np.roll(common, (-y, -x), axis=(0, 1))[margin, margin]
        if not both.any():
            continue
        difference = (moved - here)[both]
        square = float(np.mean((difference - np.median(difference)) ** 2))
        if square < least:
            best, least = (x, y), square
    return best


def _ratio_statistics(ratios: NDArray[np.float64]) -> dict[str, float | int | None]:
    if not ratios.size:
        return {"n": 0, "median": None, "mean": None, "std": None, "p05": None, "p95": None}
    spread = float(ratios.std(ddof=1)) if ratios.size > 1 else None
    low, high = np.quantile(ratios, [0.05, 0.95])
    return {
        "n": int(ratios.size),
        "median": float(np.median(ratios)),
        "mean": float(ratios.mean()),
        "std": spread,
        "p05": float(low),
        "p95": float(high),
    }


def _median(values: NDArray[np.float64]) -> float | None:
    return float(np.median(values)) if values.size else None

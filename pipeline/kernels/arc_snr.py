"""The four named signal-to-noise ratios of an injected arc.

They are not interchangeable: on the same arcs their medians differ by a factor of seven. All are
linear in the flux of the arc, and none counts the shot noise of the arc itself.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

APERTURE_INNER_PX = 4.0
APERTURE_OUTER_PX = 16.0


@njit(cache=True, nogil=True, error_model="numpy")
def arc_snr_columns(
    arc: NDArray[np.float32],
    invvar: NDArray[np.float32],
    maskbits: NDArray[np.int32],
    bad_mask: int,
    centre_x_px: float,
    centre_y_px: float,
) -> tuple[float, float, float, float]:
    """SNR columns of one band over the good pixels, those with 0 < invvar < inf and no bad mask bit.

    Args:
        arc: (y, x) float32 noise-free arc, finite. [nmgy]
        invvar: (y, x) float32 inverse variance; anything else than a positive finite value is bad. [nmgy^-2]
        maskbits: (y, x) int32 MASKBITS.
        bad_mask: bits that make a pixel bad, >= 0.
        centre_x_px, centre_y_px: centre of the aperture, 0-based pixel-centre coordinates. [px]

    Returns:
        (arc_snr, arc_snr_sum, arc_snr_matched, arc_snr_aperture), each 0.0 if it has no good pixel:
        max a sqrt(w); sum a / sqrt(sum 1/w); sqrt(sum a^2 w), the optimum; and the second again
        within 4 <= r <= 16 px of the centre.
    """
    good = 0
    peak = -np.inf
    flux = variance = power = 0.0
    aperture_flux = aperture_variance = 0.0
    for i in range(arc.shape[0]):
        dy2 = (i - centre_y_px) ** 2
        for j in range(arc.shape[1]):
            weight = np.float64(invvar[i, j])
            if not 0.0 < weight < np.inf or (np.int64(maskbits[i, j]) & bad_mask) != 0:
                continue
            value = np.float64(arc[i, j])
            good += 1
            peak = max(peak, value * math.sqrt(weight))
            flux += value
            variance += 1.0 / weight
            power += value * value * weight
            r2 = (j - centre_x_px) ** 2 + dy2
            if APERTURE_INNER_PX * APERTURE_INNER_PX <= r2 <= APERTURE_OUTER_PX * APERTURE_OUTER_PX:
                aperture_flux += value
                aperture_variance += 1.0 / weight
    if good == 0:
        return 0.0, 0.0, 0.0, 0.0
    aperture = aperture_flux / math.sqrt(aperture_variance) if aperture_variance > 0.0 else 0.0
    return peak, flux / math.sqrt(variance), math.sqrt(power), aperture

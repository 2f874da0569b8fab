"""Spreading of point-like samples on the pixel grid so that their sub-pixel positions survive the PSF.

Averaging samples into the pixel that holds them puts each at the pixel's centre: an error of 1 % of the peak
for arcs, 10 % for compact sources, that no supersampling removes. Here a sample at x is spread over 5 x 5 pixels
with weights all but phi(x - j), and the PSF's transfer function is divided by the transform of phi. phi is a sum of
cosines on a width of 5 pixels, so its transform vanishes at every whole frequency (flux is kept exactly). Its
three coefficients minimise the aliasing left after PSFs of 0.85 to 1.6 arcsec: 5e-4 of the peak for a point
source at the worst position, where the quadratic spline leaves 2e-2 at 0.9 arcsec.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.kernels.simd import LANES

# Pixels that a sample reaches beyond its own.
SPREAD_PX = 2
# Functions of a position in its pixel, of which the weights are sums.
SPREAD_FUNCTIONS = 4
# Function k is x**k (1 + BENDS_2[k] x**2 + BENDS_4[k] x**4), x the position. [px^-2, px^-4]
BENDS_2, BENDS_4 = (0.0, 0.0, -0.15197093, -0.05419055), (0.0, 0.04214741, 0.0, 0.0)
# Coefficients of the functions in the weights of the next pixel in the direction of x, and of the one after it.
_NEXT = (0.22467359, 0.40491882, 0.10822818, -0.17048919)
_AFTER = (0.00888156, 0.04851504, 0.10289674, 0.07975551)

_WIDTH_PX = 5.0
_COSINES = (0.65729505, 0.16700379, 0.00914548)


def spread_profile(offset_px: ArrayLike) -> NDArray[np.float64]:
    """phi at an offset from the sample, any shape, 0 beyond 2.5 px; its integral is 1. [1/px]"""
    offset = np.asarray(offset_px, dtype=np.float64)
    value = np.ones_like(offset)
    for order, coefficient in enumerate(_COSINES, start=1):
        value += 2.0 * coefficient * np.cos(2.0 * np.pi * order * offset / _WIDTH_PX)
    return np.where(np.abs(offset) < 0.5 * _WIDTH_PX, value / _WIDTH_PX, 0.0)


def spread_transfer(frequency: ArrayLike) -> NDArray[np.float64]:
    """Fourier transform of phi, any shape, positive for |frequency| <= 0.5. [frequency: cycles/px]"""
    reach = _WIDTH_PX * np.asarray(frequency, dtype=np.float64)
    value = np.sinc(reach)
    for order, coefficient in enumerate(_COSINES, start=1):
        value += coefficient * (np.sinc(reach - order) + np.sinc(reach + order))
    return value


def spread_functions(position_px: ArrayLike) -> NDArray[np.float64]:
    """The functions at positions in [-0.5, 0.5] px from a pixel's centre, any shape; the last axis counts them."""
    x = np.asarray(position_px, dtype=np.float64)[..., None]
    bend = 1.0 + np.multiply(BENDS_2, x**2) + np.multiply(BENDS_4, x**4)
    return np.asarray(bend * x ** np.arange(SPREAD_FUNCTIONS))


def spread_coefficients() -> NDArray[np.float32]:
    """Coefficients of the weights: that of pixel j is the sum over k of row k, column j + SPREAD_PX, times function k.

    Functions and coefficients minimise the largest error of a point source behind Moffat PSFs of 0.8 to 1.3 arcsec, the
    transform of phi being divided by, under the condition that the weights sum to 1 at every position. At 0.8, 0.9, 1.0
    and 1.1 arcsec a point errs by up to 5.0e-3, 1.4e-3, 9e-4 and 6e-4 of its peak; with weights phi(x - j), which these
    are to 1.1e-3 px^-1, it would by 4.2e-3, 1.0e-3, 7e-4 and 5e-4, with cubics by 6.2e-3, 2.4e-3, 1.6e-3 and 1.1e-3.

    Returns:
        (SPREAD_FUNCTIONS, LANES) float32, columns beyond 2 SPREAD_PX zero. [px^-k]
    """
    parity = (-1.0) ** np.arange(SPREAD_FUNCTIONS)
    sides = np.array([parity * _AFTER, parity * _NEXT, np.zeros(SPREAD_FUNCTIONS), _NEXT, _AFTER])
    sides[SPREAD_PX] = (np.arange(SPREAD_FUNCTIONS) == 0) - sides.sum(axis=0)
    table = np.zeros((SPREAD_FUNCTIONS, LANES), np.float32)
    table[:, : len(sides)] = sides.T
    return table


def spread_box() -> NDArray[np.float32]:
    """Weights of a sample that stands for a whole pixel: phi averaged over the pixel, (5,) float32."""
    nodes, weights = np.polynomial.legendre.leggauss(16)
    pixel = np.arange(-SPREAD_PX, SPREAD_PX + 1)
    return np.asarray(spread_profile(pixel[:, None] + 0.5 * nodes) @ weights * 0.5, dtype=np.float32)

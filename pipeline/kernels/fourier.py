"""The real Fourier basis in which arcs meet their PSF: a few dozen cosines and sines an axis, by matrix products.

A stamp after the PSF holds no frequency above that of the seeing, so K cosines and sines an axis about the stamp's
centre, on a period long enough that nothing wraps around, describe it; K follows from the PSF. Two small matrix
products take a spread stamp there and two bring each band back, at the speed of the BLAS. In this basis a PSF that
is even in x and y is one number a coefficient; any other PSF mixes the cosine and the sine of equal frequency.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipeline.kernels.spreading import SPREAD_PX

_F = np.float32
# Multiplications of one product; OpenBLAS takes threads from 2**18 on.
_BLOCK = 200_000


class Basis(NamedTuple):
    """Cosines and sines on one half of an axis, the other half following by parity. All float32.

    Attributes:
        cos_in, sin_in: (frequency, size // 2 + SPREAD_PX) on the spread stamp.
        cos_out, sin_out: (frequency, size // 2) on the stamp, with the weights of the inverse.
    """

    cos_in: NDArray[np.float32]
    sin_in: NDArray[np.float32]
    cos_out: NDArray[np.float32]
    sin_out: NDArray[np.float32]


def period_px(size: int) -> int:
    """Period of the basis of (size, size) stamps: light spread from the stamp reaches no pixel the wrong way round.

    Light travels size // 2 - 2 SPREAD_PX px before it can; the wings of a PSF beyond that are folded back.
    """
    return 3 * size // 2


def frequencies(size: int) -> int:
    """Cosines an axis of the complete basis, without the Nyquist frequency."""
    return (period_px(size) + 1) // 2


@lru_cache(maxsize=8)
def stamp_basis(size: int) -> Basis:
    """The basis of (size, size) stamps, size even: every frequency below Nyquist's."""
    period = period_px(size)
    frequency = np.arange(frequencies(size))[:, None]
    inside = np.arange(size // 2 + SPREAD_PX) + 0.5
    outside = np.arange(size // 2) + 0.5
    weight = np.where(frequency == 0, 1.0, 2.0) / period

    def angle(position: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        return np.asarray(2.0 * np.pi * frequency * position / period)

    return Basis(
        np.cos(angle(inside)).astype(np.float32),
        np.sin(angle(inside))[1:].astype(np.float32),
        (weight * np.cos(angle(outside))).astype(np.float32),
        (weight * np.sin(angle(outside)))[1:].astype(np.float32),
    )


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def to_spectrum(spread: NDArray[np.float32], basis: Basis, kept: int, spectrum: NDArray[np.float32]) -> None:
    """Coefficients of a spread stamp.

    Args:
        spread: (size + 2 SPREAD_PX, stride) float32, from `cells.integrate_component`. [flux]
        basis: of that size.
        kept: K, how many cosines an axis, 2 <= K <= `frequencies(size)`.
        spectrum: (2K - 1, 2K - 1) float32 receives cosines, then sines, rows y and columns x. [0, 0] is the flux.
    """
    k = kept
    rows = spread.shape[0]
    half = rows // 2
    even, odd = np.empty((rows, half), np.float32), np.empty((rows, half), np.float32)
    for i in range(rows):
        right, left, e, o = spread[i, half:rows], spread[i, :half], even[i], odd[i]
        for j in range(half):
            e[j] = right[j] + left[half - 1 - j]
            o[j] = right[j] - left[half - 1 - j]
    cosines, sines = np.empty((rows, k), np.float32), np.empty((rows, k - 1), np.float32)
    _product(even, basis.cos_in[:k].T, cosines)
    _product(odd, basis.sin_in[: k - 1].T, sines)
    even_y, odd_y = np.empty((half, 2 * k - 1), np.float32), np.empty((half, 2 * k - 1), np.float32)
    for i in range(half):
        e, o = even_y[i, :k], odd_y[i, :k]
        high, low = cosines[half + i], cosines[half - 1 - i]
        for j in range(k):
            e[j] = high[j] + low[j]
            o[j] = high[j] - low[j]
        e, o = even_y[i, k:], odd_y[i, k:]
        high, low = sines[half + i], sines[half - 1 - i]
        for j in range(k - 1):
            e[j] = high[j] + low[j]
            o[j] = high[j] - low[j]
    _product(basis.cos_in[:k], even_y, spectrum[:k])
    _product(basis.sin_in[: k - 1], odd_y, spectrum[k:])


@njit(cache=True, nogil=True, error_model="numpy")
def _product(left: NDArray[np.float32], right: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """out = left @ right in blocks of rows so small that the BLAS never divides one among threads.

    A divided product rounds differently, and results must not depend on the number of threads.
    """
    step = max(_BLOCK // (right.shape[0] * right.shape[1]), 1)
    for first in range(0, left.shape[0], step):
        np.dot(left[first : first + step], right, out[first : first + step])


@njit(cache=True, nogil=True, error_model="numpy")
def _transposed_product(left: NDArray[np.float32], right: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """out = left.T @ right, in blocks as `_product` takes them where it must."""
    if left.shape[0] * left.shape[1] * right.shape[1] <= _BLOCK:
        np.dot(left.T, right, out)
    else:
        _product(np.ascontiguousarray(left.T), right, out)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def apply_transfer(
    spectrum: NDArray[np.float32], transfer: NDArray[np.float32], convolved: NDArray[np.float32]
) -> None:
    """Convolve with a PSF, that is, multiply its transfer function.

    Args:
        spectrum: (2K - 1, 2K - 1) float32.
        transfer: (1, 2K - 1, 2K - 1) float32 for a PSF even in x and y; else (4, ...), the parts that are
            even-even, even in y and odd in x, odd in y and even in x, odd-odd.
        convolved: (2K - 1, 2K - 1) float32 receives the product.
    """
    n = spectrum.shape[0]
    k = (n + 1) // 2
    for i in range(n):
        s, t, out = spectrum[i], transfer[0, i], convolved[i]
        for j in range(n):
            out[j] = s[j] * t[j]
    if transfer.shape[0] == 1:
        return
    for i in range(n):
        partner_i, sign_i = _partner(i, k)
        for j in range(n):
            partner_j, sign_j = _partner(j, k)
            value = _F(0.0)
            if partner_j >= 0:
                value += sign_j * transfer[1, i, j] * spectrum[i, partner_j]
            if partner_i >= 0:
                value += sign_i * transfer[2, i, j] * spectrum[partner_i, j]
            if partner_i >= 0 and partner_j >= 0:
                value += sign_i * sign_j * transfer[3, i, j] * spectrum[partner_i, partner_j]
            convolved[i, j] += value


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def to_stamps(convolved: NDArray[np.float32], basis: Basis, stamps: NDArray[np.float32]) -> None:
    """Stamps of several bands from their coefficients.

    Args:
        convolved: (band, 2K - 1, 2K - 1) float32.
        basis: of the stamps' size.
        stamps: (band, size, size) float32 receives the stamps.
    """
    bands, size, n = stamps.shape[0], stamps.shape[1], convolved.shape[1]
    k, half = (n + 1) // 2, size // 2
    even, odd = np.empty((half, n), np.float32), np.empty((half, n), np.float32)
    cosines = np.empty((bands * size, k), np.float32)
    sines = np.empty((bands * size, k - 1), np.float32)
    for band in range(bands):
        _transposed_product(basis.cos_out[:k], convolved[band, :k], even)
        _transposed_product(basis.sin_out[: k - 1], convolved[band, k:], odd)
        for i in range(half):
            above, below = band * size + half + i, band * size + half - 1 - i
            e, o, high, low = even[i, :k], odd[i, :k], cosines[above], cosines[below]
            for j in range(k):
                high[j] = e[j] + o[j]
                low[j] = e[j] - o[j]
            e, o, high, low = even[i, k:], odd[i, k:], sines[above], sines[below]
            for j in range(k - 1):
                high[j] = e[j] + o[j]
                low[j] = e[j] - o[j]
    even_x, odd_x = np.empty((bands * size, half), np.float32), np.empty((bands * size, half), np.float32)
    _product(cosines, basis.cos_out[:k], even_x)
    _product(sines, basis.sin_out[: k - 1], odd_x)
    for band in range(bands):
        for i in range(size):
            e, o, out = even_x[band * size + i], odd_x[band * size + i], stamps[band, i]
            right, left = out[half:], out[:half]
            for j in range(half):
                right[j] = e[j] + o[j]
                left[half - 1 - j] = e[j] - o[j]


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _partner(index: int, k: int) -> tuple[int, np.float32]:
    """The sine of a cosine and the cosine of a sine, with the sign it enters with; -1 if there is none."""
    if index == 0:
        return -1, _F(0.0)
    return (index + k - 1, _F(-1.0)) if index < k else (index - k + 1, _F(1.0))

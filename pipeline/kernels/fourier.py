"""The real Fourier basis in which arcs meet their PSF: a few dozen cosines and sines an axis, by matrix products.

A stamp after the PSF holds no frequency above that of the seeing, so K cosines and sines an axis about the stamp's
centre, on a period long enough that nothing wraps around, describe it; K follows from the PSF. Two small matrix
products take a spread stamp there and two bring each band back; even and odd functions need half of an axis each. In
this basis a PSF that is even in x and y is one number a coefficient; any other PSF mixes the cosine and the sine of
equal frequency.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipeline.kernels.products import COLUMN_STEP, MIN_MIRRORED_ROWS, MIN_ROWS, mirrored_product, product
from pipeline.kernels.spreading import SPREAD_PX

# Cosines an axis that a spectrum has at least, enough rows for the products.
MIN_KEPT = max((MIN_ROWS + 1) // 2, MIN_MIRRORED_ROWS + 1)

_F = np.float32


class Basis(NamedTuple):
    """Cosines and sines on one half of an axis, the other half following by parity. All float32.

    Attributes:
        cos_in, sin_in: (size // 2 + SPREAD_PX, columns) on the spread stamp, frequencies along the row; zeros up to a
            multiple of COLUMN_STEP columns.
        cos_out, sin_out: (frequency, size // 2) on the stamp, with the weights of the inverse; sines from frequency 1.
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

    columns = -(-frequency.size // COLUMN_STEP) * COLUMN_STEP
    cos_in, sin_in = np.zeros((2, inside.size, columns), np.float32)
    cos_in[:, : frequency.size] = np.cos(angle(inside)).T
    sin_in[:, : frequency.size - 1] = np.sin(angle(inside))[1:].T
    return Basis(
        cos_in,
        sin_in,
        (weight * np.cos(angle(outside))).astype(np.float32),
        (weight * np.sin(angle(outside)))[1:].astype(np.float32),
    )


@njit(cache=True, nogil=True, error_model="numpy")
def to_spectrum(
    spread: NDArray[np.float32], basis: Basis, kept: int, reach_px: int, spectrum: NDArray[np.float32]
) -> None:
    """Coefficients of a spread stamp.

    Args:
        spread: (size + 2 SPREAD_PX, stride) float32, from `cells.integrate_component`. [flux]
        basis: of that size.
        kept: K, how many cosines an axis, MIN_KEPT <= K <= `frequencies(size)`.
        reach_px: rows and columns on either side of the centre beyond which all is zero and not read, MIN_KEPT <= reach
            <= size // 2 + SPREAD_PX. [px]
        spectrum: (2K - 1, 2K - 1) float32 receives cosines, then sines, rows y and columns x. [0, 0] is the flux.
    """
    first, width, n = spread.shape[0] // 2 - reach_px, 2 * reach_px, 2 * kept - 1
    flat, out = spread.reshape(spread.size), spectrum.reshape(n * n)
    even, odd = np.empty(reach_px * max(width, n), np.float32), np.empty(reach_px * max(width, n), np.float32)
    by_column = np.empty(width * n, np.float32)
    stride = spread.shape[1]
    _forward(flat, first * (stride + 1), stride, width, basis, kept, reach_px, even, odd, by_column)
    _forward(by_column, 0, n, n, basis, kept, reach_px, even, odd, out)


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _forward(
    values: NDArray[np.float32], first: int, stride: int, columns: int, basis: Basis, kept: int, reach_px: int,
    even: NDArray[np.float32], odd: NDArray[np.float32], out: NDArray[np.float32],
) -> None:  # fmt: skip
    """Coefficients along the first axis of (2 reach_px, columns) values, laid out as (columns, 2 kept - 1)."""
    _fold(values, first, stride, columns, reach_px, even, odd)
    n = 2 * kept - 1
    cosines, sines = basis.cos_in, basis.sin_in
    width = cosines.shape[1]
    product(even, 0, columns, reach_px, cosines.reshape(cosines.size), width, columns, kept, out, 0, n)
    product(odd, 0, columns, reach_px, sines.reshape(sines.size), width, columns, kept - 1, out, kept, n)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _fold(
    values: NDArray[np.float32], first: int, stride: int, columns: int, half: int, even: NDArray[np.float32],
    odd: NDArray[np.float32],
) -> None:  # fmt: skip
    """Rows of `values` beyond the middle plus and minus their mirror images, (half, columns) each."""
    for i in range(half):
        high, low = first + (half + i) * stride, first + (half - 1 - i) * stride
        after, before = values[high : high + columns], values[low : low + columns]
        e, o = even[i * columns : (i + 1) * columns], odd[i * columns : (i + 1) * columns]
        for j in range(columns):
            e[j] = after[j] + before[j]
            o[j] = after[j] - before[j]


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def apply_transfer(
    spectrum: NDArray[np.float32], share: float, transfer: NDArray[np.float32], kept: int,
    convolved: NDArray[np.float32],
) -> None:  # fmt: skip
    """Convolve with a PSF, that is, multiply its transfer function.

    Args:
        spectrum: (2K - 1, 2K - 1) float32.
        share: of the unit flux, multiplies all.
        transfer: (1, 2K - 1, 2K - 1) float32 for a PSF even in x and y; else (4, ...), the parts that are
            even-even, even in y and odd in x, odd in y and even in x, odd-odd.
        kept: cosines an axis that this PSF needs, MIN_KEPT <= kept <= K.
        convolved: (2K - 1, 2K - 1) float32 receives the product in the rows of the frequencies below `kept`.
    """
    n, weight = spectrum.shape[0], _F(share)
    k = (n + 1) // 2
    s, t, out = spectrum.reshape(n * n), transfer[0].reshape(n * n), convolved.reshape(n * n)
    for first, count in ((0, kept * n), (k * n, (kept - 1) * n)):
        source, factor, target = s[first : first + count], t[first : first + count], out[first : first + count]
        for index in range(count):
            target[index] = weight * source[index] * factor[index]
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
            convolved[i, j] += weight * value


@njit(cache=True, nogil=True, error_model="numpy")
def to_stamp(convolved: NDArray[np.float32], kept: int, basis: Basis, stamp: NDArray[np.float32]) -> None:
    """The stamp of one band from its coefficients.

    Args:
        convolved: (2K - 1, 2K - 1) float32.
        kept: cosines an axis that are read, MIN_KEPT <= kept <= K.
        basis: of the stamp's size.
        stamp: (size, size) float32 receives the stamp.
    """
    size, n = stamp.shape[0], convolved.shape[0]
    half, first_sine = size // 2, (n + 1) // 2
    cosines, sines = basis.cos_out.reshape(basis.cos_out.size), basis.sin_out.reshape(basis.sin_out.size)
    flat, by_row = convolved.reshape(n * n), np.empty((2 * kept - 1) * size, np.float32)
    odd, middle = first_sine * n, kept * size
    mirrored_product(flat, 0, n, odd, kept, cosines, sines, half, kept, by_row, 0, size)
    mirrored_product(flat, first_sine, n, odd + first_sine, kept, cosines, sines, half, kept - 1, by_row, middle, size)
    mirrored_product(by_row, 0, size, middle, kept, cosines, sines, half, size, stamp.reshape(size * size), 0, size)


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _partner(index: int, k: int) -> tuple[int, np.float32]:
    """The sine of a cosine and the cosine of a sine, with the sign it enters with; -1 if there is none."""
    if index == 0:
        return -1, _F(0.0)
    return (index + k - 1, _F(-1.0)) if index < k else (index - k + 1, _F(1.0))

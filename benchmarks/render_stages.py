"""Where the time of one arc goes: the parts of the renderer, each repeated in a compiled loop.

Also the two operations that sampling repeats: a redraw, which ends in the SNR of one band, and a change of flux.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipeline.contracts.survey import PIXEL_SCALE_ARCSEC
from pipeline.kernels.arc_draws import (
    GAMMA1,
    GAMMA2,
    LENS_PHI,
    LENS_Q,
    LENS_X,
    LENS_Y,
    OFFSET_X,
    OFFSET_Y,
    PHI,
    RE,
    SLOPE,
    SRC_X,
    SRC_Y,
    THETA_E,
    ArcDraws,
    N,
    Q,
    check_draw,
)
from pipeline.kernels.arc_snr import HostNoise, annulus_mask, arc_snr_linear, host_noise
from pipeline.kernels.cells import _list_pixels, _peak_flux, integrate_component, shoot_pixels
from pipeline.kernels.fourier import to_spectrum
from pipeline.kernels.light import SERSIC, sersic_brightness, set_sersic
from pipeline.kernels.products import COLUMN_STEP, product
from pipeline.kernels.psf import StampPsf
from pipeline.kernels.rays import ISOTHERMAL, set_lens
from pipeline.kernels.render import (
    _TOLERANCE_PER_ACCURACY,
    RenderState,
    _image_box,
    _reach_px,
    _tail_radius,
    render_spectrum,
    render_stamps,
    render_state,
)
from pipeline.kernels.spread_pixels import spread_pixels

Box = tuple[int, int, int, int]
_NO_FIELD = np.zeros((2, 4, 4), np.float32)


class Stages(NamedTuple):
    """Means over draws of single Sersic sources.

    microseconds: by stage. pixels: pixels that may see the source. evaluations: of the brightness, these included.
    frequencies: cosines an axis. matrix_mflop: multiplications and additions of all matrix products.
    matrix_gflops: speed of such a product of matrices that stay in the first-level cache.
    """

    microseconds: dict[str, float]
    pixels: float
    evaluations: float
    frequencies: int
    matrix_mflop: float
    matrix_gflops: float


def redraw_batch(draws: ArcDraws, psf: StampPsf, size: int, accuracy: float) -> Callable[[], Any]:
    """New geometry to SNR in one band for each draw, as sampling does before it knows the flux."""
    state, noise = render_state(size), _noise(size)
    transfer, kept = psf.transfer[:1], psf.kept[:1]
    snr = np.empty(len(draws.lens))
    return lambda: _redraw(draws.lens, draws.components, transfer, kept, accuracy, state, noise, snr)


def rescale_batch(arcs: NDArray[np.float32]) -> Callable[[], Any]:
    """The flux of every arc in every band changed."""
    flux_nmgy, out = np.linspace(1.0, 2.0, arcs.shape[1], dtype=np.float32), np.empty_like(arcs)
    return lambda: _rescale(arcs, flux_nmgy, out)


def stage_times(draws: ArcDraws, psf: StampPsf, size: int, accuracy: float, repeats: int) -> Stages:
    """CPU time of each part, averaged over the draws."""
    state, noise = render_state(size), _noise(size)
    bands, n = psf.transfer.shape[0], psf.transfer.shape[2]
    kept = (n + 1) // 2
    spectra, stamps = np.empty((1, n, n), np.float32), np.empty((bands, size, size), np.float32)
    shares = np.ones((1, bands))
    sums: dict[str, float] = {}
    pixels = evaluations = mflop = 0.0
    for lens, components in zip(draws.lens, draws.components, strict=True):
        part = components[0]
        evaluations += render_spectrum(
            lens, components, draws.templates, 1.0, draws.fields[0], PIXEL_SCALE_ARCSEC, accuracy, kept, state, spectra
        )
        reach = part[RE] * _tail_radius(part[N]) + math.hypot(part[OFFSET_X], part[OFFSET_Y])
        box = _image_box(lens, reach, size, PIXEL_SCALE_ARCSEC)
        total = (box[1] - box[0]) * (box[3] - box[2])
        pixels += total
        reach_px = _reach_px(box, size)
        mflop += _matrix_mflop(reach_px, size, kept, bands)
        loops: dict[str, Callable[[int], Any]] = {
            "set-up": lambda r: _set_up(lens, components, accuracy, state, r),  # noqa: B023
            "ray shooting": lambda r: _shoot(lens, box, state, r),  # noqa: B023
            "brightness": lambda r: _brightness(total, state, r),  # noqa: B023
            "order selection": lambda r: _orders(total, accuracy, state, r),  # noqa: B023
            "whole pixels": lambda r: _whole_pixels(box, state, r),  # noqa: B023
            "integration": lambda r: _integrate(lens, draws.templates[0], box, accuracy, state, r),  # noqa: B023
            "to_spectrum": lambda r: _to_spectrum(kept, reach_px, state, spectra, r),  # noqa: B023
            "stamps": lambda r: _stamps(shares, psf.transfer, psf.kept, state, spectra, stamps, r),
            "SNR of one band": lambda r: _snr(stamps, noise, r),
        }
        for name, loop in loops.items():
            loop(1)
            start = time.process_time()
            loop(repeats)
            sums[name] = sums.get(name, 0.0) + (time.process_time() - start) / repeats * 1e6
    count = len(draws.lens)
    means = {name: value / count for name, value in sums.items()}
    before_cells = sum(means[name] for name in ("brightness", "order selection", "whole pixels"))
    means["cells"] = means.pop("integration") - before_cells
    return Stages(means, pixels / count, evaluations / count, kept, mflop / count, _matrix_gflops(20 * repeats))


def _noise(size: int) -> HostNoise:
    weight = np.full((size, size), 400.0, np.float32)
    return host_noise(weight, annulus_mask(size, size / 2, size / 2), 0.05)


def _matrix_mflop(reach_px: int, size: int, kept: int, bands: int) -> float:
    n, half = 2 * kept - 1, size // 2
    forward = 2 * reach_px * reach_px * n + reach_px * n * n
    back = half * n * n + size * half * n
    return 2.0 * (forward + bands * back) / 1e6


def _matrix_gflops(repeats: int) -> float:
    rows, columns, inner = 90, COLUMN_STEP, 40
    left, right = np.full(inner * rows, 0.5, np.float32), np.full(inner * columns, 0.5, np.float32)
    out = np.empty(rows * columns, np.float32)
    _products(left, right, out, rows, columns, inner, 1)
    start = time.process_time()
    _products(left, right, out, rows, columns, inner, repeats)
    return 2.0 * rows * columns * inner * repeats / (time.process_time() - start) / 1e9


@njit(nogil=True, error_model="numpy")
def _products(
    left: NDArray[np.float32], right: NDArray[np.float32], out: NDArray[np.float32], rows: int, columns: int,
    inner: int, repeats: int,
) -> None:  # fmt: skip
    for _ in range(repeats):
        product(left, 0, rows, inner, right, columns, rows, columns, out, 0, columns)


@njit(nogil=True, error_model="numpy")
def _redraw(
    lens: NDArray[np.float64], components: NDArray[np.float64], transfer: NDArray[np.float32],
    kept: NDArray[np.int64], accuracy: float,
    state: RenderState, noise: HostNoise, snr: NDArray[np.float64],
) -> None:  # fmt: skip
    frequencies = (transfer.shape[2] + 1) // 2
    spectra = np.empty((1, transfer.shape[2], transfer.shape[2]), np.float32)
    stamps = np.empty((1, state.work.size, state.work.size), np.float32)
    templates, field = np.zeros((1, 2, 2), np.float32), np.zeros((2, 4, 4), np.float32)
    shares = np.ones((1, 1))
    for k in range(lens.shape[0]):
        render_spectrum(
            lens[k], components[k], templates, 1.0, field, PIXEL_SCALE_ARCSEC, accuracy, frequencies, state, spectra
        )
        render_stamps(spectra, shares, transfer, kept, state.basis, stamps)
        snr[k] = arc_snr_linear(stamps[0], noise)[2]


@njit(nogil=True, error_model="numpy")
def _rescale(arcs: NDArray[np.float32], flux_nmgy: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    for k in range(arcs.shape[0]):
        for band in range(arcs.shape[1]):
            for i in range(arcs.shape[2]):
                row, target = arcs[k, band, i], out[k, band, i]
                for j in range(row.size):
                    target[j] = flux_nmgy[band] * row[j]


@njit(nogil=True, error_model="numpy")
def _set_up(lens: NDArray[np.float64], components: NDArray[np.float64], accuracy: float, state: RenderState,
            repeats: int) -> float:  # fmt: skip
    """Checks, the constants of lens and light, the pixels that may see the source, an empty spread stamp."""
    part, pixels = components[0], 0
    for _ in range(repeats):
        check_draw(lens, components, 1)
        set_lens(
            ISOTHERMAL, lens[THETA_E], lens[LENS_Q], lens[LENS_PHI], lens[SLOPE], lens[GAMMA1], lens[GAMMA2],
            lens[SRC_X], lens[SRC_Y], state.lens,
        )  # fmt: skip
        set_sersic(
            part[RE], part[N], part[Q], part[PHI], part[OFFSET_X], part[OFFSET_Y], lens[LENS_PHI],
            PIXEL_SCALE_ARCSEC**2, accuracy, state.light[0],
        )  # fmt: skip
        box = _image_box(lens, part[RE] * _tail_radius(part[N]), state.work.size, PIXEL_SCALE_ARCSEC)
        state.spread[:] = np.float32(0.0)
        pixels += (box[1] - box[0]) * (box[3] - box[2])
    return pixels


@njit(nogil=True, error_model="numpy")
def _shoot(lens: NDArray[np.float64], box: Box, state: RenderState, repeats: int) -> None:
    for _ in range(repeats):
        shoot_pixels(ISOTHERMAL, state.lens, _NO_FIELD, lens[LENS_X], lens[LENS_Y], PIXEL_SCALE_ARCSEC, box, state.work)


@njit(nogil=True, error_model="numpy")
def _brightness(total: int, state: RenderState, repeats: int) -> None:
    for _ in range(repeats):
        sersic_brightness(state.work.src_x, state.work.src_y, total, state.light[0], state.work.brightness)


@njit(nogil=True, error_model="numpy")
def _orders(total: int, accuracy: float, state: RenderState, repeats: int) -> None:
    work = state.work
    sersic_brightness(work.src_x, work.src_y, total, state.light[0], work.brightness)
    peak = _peak_flux(work.brightness, work.extent2, total, PIXEL_SCALE_ARCSEC**2)
    limit = _TOLERANCE_PER_ACCURACY * accuracy * peak
    for _ in range(repeats):
        _list_pixels(state.light[0], np.float32(limit), total, -1, work)


@njit(nogil=True, error_model="numpy")
def _whole_pixels(box: Box, state: RenderState, repeats: int) -> None:
    work, rows, columns = state.work, box[1] - box[0], box[3] - box[2]
    first = box[0] * work.stride + box[2]
    for _ in range(repeats):
        spread_pixels(work.brightness, rows, columns, state.tables.box, first, work.stride, state.spread)


@njit(nogil=True, error_model="numpy")
def _integrate(
    lens: NDArray[np.float64], template: NDArray[np.float32], box: Box, accuracy: float, state: RenderState,
    repeats: int,
) -> None:  # fmt: skip
    for _ in range(repeats):
        state.spread[:] = np.float32(0.0)
        integrate_component(
            SERSIC, state.light[0], template, ISOTHERMAL, state.lens, _NO_FIELD, lens[LENS_X], lens[LENS_Y],
            PIXEL_SCALE_ARCSEC, box, _TOLERANCE_PER_ACCURACY * accuracy, state.tables, state.work, state.spread,
        )  # fmt: skip


@njit(nogil=True, error_model="numpy")
def _to_spectrum(kept: int, reach_px: int, state: RenderState, spectra: NDArray[np.float32], repeats: int) -> None:
    for _ in range(repeats):
        to_spectrum(state.spread.reshape(-1, state.work.stride), state.basis, kept, reach_px, spectra[0])


@njit(nogil=True, error_model="numpy")
def _stamps(
    shares: NDArray[np.float64], transfer: NDArray[np.float32],
    kept: NDArray[np.int64], state: RenderState, spectra: NDArray[np.float32],
    stamps: NDArray[np.float32], repeats: int,
) -> None:  # fmt: skip
    for _ in range(repeats):
        render_stamps(spectra, shares, transfer, kept, state.basis, stamps)


@njit(nogil=True, error_model="numpy")
def _snr(stamps: NDArray[np.float32], noise: HostNoise, repeats: int) -> float:
    total = 0.0
    for _ in range(repeats):
        total += arc_snr_linear(stamps[0], noise)[2]
    return total

"""Lensed arcs on stamps: the batch entry `render_arcs` and the per-draw kernels behind it.

Surface brightness is conserved: a pixel is the integral of the source's brightness over the pixel's
footprint in the source plane, and the source has unit flux before lensing. Nothing is renormalised,
so the flux of the stamp is the magnification, less what falls outside. Light outside the stamp's pixels is not
rendered, nor what the PSF would scatter of it into the stamp.

A draw is integrated once, whatever the number of bands and whatever its flux: `render_spectrum` takes it to
the Fourier basis, `render_stamps` brings it through the PSF of each band.

accuracy: the largest pixel error allowed, as a fraction of the arc's peak. It sets the flux error allowed in
a cell and the share of the flux inside the softened cusp. docs/performance.md shows what is reached at what cost.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipeline.contracts.errors import ContractError
from pipeline.kernels.arc_draws import (
    FIELD_STEP,
    FIELD_X,
    FIELD_Y,
    GAMMA1,
    GAMMA2,
    KIND,
    LENS_PHI,
    LENS_Q,
    LENS_X,
    LENS_Y,
    MIRROR,
    OFFSET_X,
    OFFSET_Y,
    PHI,
    PROFILE,
    RE,
    SLOPE,
    SRC_X,
    SRC_Y,
    TEMPLATE,
    THETA_E,
    ArcDraws,
    N,
    Q,
    check_draw,
)
from pipeline.kernels.cells import integrate_component, shoot_pixels
from pipeline.kernels.fourier import MIN_KEPT, Basis, apply_transfer, stamp_basis, to_spectrum, to_stamp
from pipeline.kernels.light import IMAGE, LIGHT_CONSTANTS, set_image, set_sersic
from pipeline.kernels.profiles import sersic_bn
from pipeline.kernels.psf import StampPsf
from pipeline.kernels.rays import FIELD, ISOTHERMAL, LENS_CONSTANTS, set_lens
from pipeline.kernels.scratch import Tables, Workspace, integration_tables, workspace
from pipeline.kernels.spreading import SPREAD_PX

DEFAULT_ACCURACY = 5e-3
ACCURACY_MIN, ACCURACY_MAX = 1e-4, 0.1

_TOLERANCE_PER_ACCURACY = 0.04
_CORE_SHARE_PER_ACCURACY = 1.0
# Normal deviate beyond which 3e-4 of a gamma distribution lies: light further out is not looked for.
_TAIL_DEVIATE = 3.43
_THREAD = threading.local()
# Arrays that kernels were compiled for by `warm_up`; others would be compiled again, and round otherwise.
_COMPILED: tuple[Literal["C"], Literal["W"]] = ("C", "W")


class StampGrid(NamedTuple):
    """Pixels of a stamp: `size` even and >= 16, centre at pixel size // 2. [pixel_scale_arcsec: arcsec/px]"""

    size: int
    pixel_scale_arcsec: float


class RenderState(NamedTuple):
    """Everything of one thread that rendering reuses from draw to draw."""

    tables: Tables
    basis: Basis
    work: Workspace
    spread: NDArray[np.float32]
    lens: NDArray[np.float64]
    light: NDArray[np.float64]


def render_state(size: int, components: int = 1) -> RenderState:
    """Tables and scratch arrays for stamps of (size, size) pixels and up to so many components."""
    work = workspace(size)
    return RenderState(
        integration_tables(),
        stamp_basis(size),
        work,
        np.zeros((size + 2 * SPREAD_PX) * work.stride, np.float32),
        np.zeros(LENS_CONSTANTS),
        np.zeros((components, LIGHT_CONSTANTS)),
    )


def _state_of_thread(size: int, components: int) -> RenderState:
    """The calling thread's state; the last one is kept, for its pages cost more than a few arcs."""
    if getattr(_THREAD, "key", None) != (size, components):
        _THREAD.state, _THREAD.key = render_state(size, components), (size, components)
    state: RenderState = _THREAD.state
    return state


def render_arcs(
    draws: ArcDraws, psf: StampPsf | Sequence[StampPsf], grid: StampGrid, accuracy: float = DEFAULT_ACCURACY
) -> NDArray[np.float32]:
    """Arcs of unit unlensed flux, through the PSF of each band.

    Args:
        draws: what to render.
        psf: of all draws, or one for each. From `psf.round_psf` or `psf.measured_psf` for the grid's size.
        grid: pixels of the stamps.
        accuracy: largest pixel error over the peak, 1e-4 to 0.1.

    Returns:
        (sample, band, y, x) float32. [source flux per pixel]

    Raises:
        ContractError: a draw, a grid or an accuracy outside its range, or counts that do not agree.
    """
    samples, n_components, bands = draws.shares.shape
    shared = isinstance(psf, StampPsf)
    psfs = [psf] if isinstance(psf, StampPsf) else list(psf)
    if not shared and len(psfs) != samples:
        raise ContractError(f"render_arcs: expected one PSF or one for each of {samples} draws, got {len(psfs)}")
    if draws.lens.shape[0] != samples or draws.components.shape[:2] != (samples, n_components):
        raise ContractError(
            f"render_arcs: shares {draws.shares.shape} do not agree with lens {draws.lens.shape} "
            f"and components {draws.components.shape}"
        )
    if not ACCURACY_MIN <= accuracy <= ACCURACY_MAX:
        raise ContractError(f"render_arcs: expected an accuracy in [{ACCURACY_MIN}, {ACCURACY_MAX}], got {accuracy}")
    if grid.size < 16 or grid.size % 2 or not 0.0 < grid.pixel_scale_arcsec < np.inf:
        raise ContractError(f"render_arcs: expected an even size >= 16 and a pixel scale > 0, got {grid}")
    if not np.isfinite(draws.shares).all():
        raise ContractError("render_arcs: expected finite shares")
    lens, components, shares = (
        np.require(table, requirements=_COMPILED) for table in (draws.lens, draws.components, draws.shares)
    )
    templates, fields = (np.require(table, requirements=_COMPILED) for table in (draws.templates, draws.fields))
    arcs = np.empty((samples, bands, grid.size, grid.size), np.float32)
    state = _state_of_thread(grid.size, n_components)
    for sample in range(0, samples, max(samples, 1) if shared else 1):
        used = psfs[0 if shared else sample]
        transfer = np.require(used.transfer, requirements=_COMPILED)
        kept = np.require(used.kept, requirements=_COMPILED)
        if transfer.shape[0] != bands or used.size != grid.size:
            raise ContractError(
                f"render_arcs: expected PSFs of {bands} bands for {grid.size} px, got {transfer.shape[0]} bands for "
                f"{used.size} px"
            )
        stop = samples if shared else sample + 1
        _render_batch(
            lens[sample:stop], components[sample:stop], shares[sample:stop], templates, draws.template_scale_arcsec,
            fields, sample, transfer, kept, grid.pixel_scale_arcsec, accuracy, state, arcs[sample:stop],
        )  # fmt: skip
    return arcs


@njit(cache=True, nogil=True, error_model="numpy")
def _render_batch(
    lens: NDArray[np.float64],
    components: NDArray[np.float64],
    shares: NDArray[np.float64],
    templates: NDArray[np.float32],
    template_scale_arcsec: float,
    fields: NDArray[np.float32],
    first: int,
    transfer: NDArray[np.float32],
    kept: NDArray[np.int64],
    pixel_scale_arcsec: float,
    accuracy: float,
    state: RenderState,
    arcs: NDArray[np.float32],
) -> None:
    frequencies = (transfer.shape[2] + 1) // 2
    spectra = np.empty((components.shape[1], transfer.shape[2], transfer.shape[2]), np.float32)
    for sample in range(lens.shape[0]):
        field = fields[min(first + sample, fields.shape[0] - 1)]
        render_spectrum(
            lens[sample], components[sample], templates, template_scale_arcsec, field, pixel_scale_arcsec, accuracy,
            frequencies, state, spectra,
        )  # fmt: skip
        render_stamps(spectra, shares[sample], transfer, kept, state.basis, arcs[sample])


@njit(cache=True, nogil=True, error_model="numpy")
def render_spectrum(
    lens: NDArray[np.float64],
    components: NDArray[np.float64],
    templates: NDArray[np.float32],
    template_scale_arcsec: float,
    field: NDArray[np.float32],
    pixel_scale_arcsec: float,
    accuracy: float,
    kept: int,
    state: RenderState,
    spectra: NDArray[np.float32],
) -> float:
    """Integrate one draw and take each of its components to the Fourier basis.

    Args:
        lens, components: one row of `ArcDraws`. templates, template_scale_arcsec, field: as there.
        pixel_scale_arcsec: > 0. [arcsec/px]
        accuracy: as in `render_arcs`, not checked here.
        kept: frequencies an axis that the PSF needs.
        state: from `render_state`; its basis decides the size of the stamp.
        spectra: (component, 2 kept - 1, 2 kept - 1) float32 receives the coefficients; [c, 0, 0] is the flux in the
            stamp of component c, its magnification if none falls outside.

    Returns:
        Number of brightness evaluations.

    Raises:
        ContractError: a number outside its range.
    """
    check_draw(lens, components, templates.shape[0])
    size = state.work.size
    kind = int(lens[KIND])
    set_lens(
        kind, lens[THETA_E], lens[LENS_Q], lens[LENS_PHI], lens[SLOPE], lens[GAMMA1], lens[GAMMA2],
        lens[SRC_X], lens[SRC_Y], state.lens,
    )  # fmt: skip
    if kind == FIELD:
        state.lens[15], state.lens[16], state.lens[17] = lens[FIELD_X], lens[FIELD_Y], 1.0 / lens[FIELD_STEP]
    area = pixel_scale_arcsec * pixel_scale_arcsec
    reach = 0.0
    for c in range(components.shape[0]):
        part, constants = components[c], state.light[c]
        if int(part[PROFILE]) == IMAGE:
            set_image(
                templates.shape[1], template_scale_arcsec, part[PHI], part[MIRROR], part[OFFSET_X], part[OFFSET_Y],
                lens[LENS_PHI], area, constants,
            )  # fmt: skip
            radius = 0.7072 * templates.shape[1] * template_scale_arcsec
        else:
            set_sersic(
                part[RE], part[N], part[Q], part[PHI], part[OFFSET_X], part[OFFSET_Y], lens[LENS_PHI], area,
                min(_CORE_SHARE_PER_ACCURACY * accuracy, 0.05), constants,
            )  # fmt: skip
            radius = part[RE] * _tail_radius(part[N])
        reach = max(reach, radius + math.hypot(part[OFFSET_X], part[OFFSET_Y]))
    box = _image_box(lens, reach, size, pixel_scale_arcsec)
    reach_px = _reach_px(box, size)
    evaluations = 0.0
    rows, columns = box[1] - box[0], box[3] - box[2]
    if rows >= 2 and columns >= 2:
        shoot_pixels(kind, state.lens, field, lens[LENS_X], lens[LENS_Y], pixel_scale_arcsec, box, state.work)
    for c in range(components.shape[0]):
        state.spread[:] = np.float32(0.0)
        if rows >= 2 and columns >= 2:
            template = templates[int(components[c, TEMPLATE])] if int(components[c, PROFILE]) == IMAGE else templates[0]
            evaluations += integrate_component(
                int(components[c, PROFILE]), state.light[c], template, kind, state.lens, field, lens[LENS_X],
                lens[LENS_Y], pixel_scale_arcsec, box, _TOLERANCE_PER_ACCURACY * accuracy, state.tables, state.work,
                state.spread,
            )  # fmt: skip
        to_spectrum(state.spread.reshape(-1, state.work.stride), state.basis, kept, reach_px, spectra[c])
    return evaluations


@njit(cache=True, nogil=True, error_model="numpy")
def render_stamps(
    spectra: NDArray[np.float32],
    shares: NDArray[np.float64],
    transfer: NDArray[np.float32],
    kept: NDArray[np.int64],
    basis: Basis,
    stamps: NDArray[np.float32],
) -> None:
    """Stamps of several bands from the spectra of a draw's components.

    Args:
        spectra: (component, 2K - 1, 2K - 1) float32, from `render_spectrum`.
        shares: (component, band) float64 flux of each component in each band; 1 for one of unit flux.
        transfer, kept: of `StampPsf`, (band, part, 2K - 1, 2K - 1) float32 and (band,) int64.
        basis: of the stamps' size.
        stamps: (band, size, size) float32 receives the arcs. [flux per pixel]
    """
    n = transfer.shape[2]
    convolved = np.empty((n, n), np.float32)
    for band in range(transfer.shape[0]):
        if spectra.shape[0] == 1:
            apply_transfer(spectra[0], shares[0, band], transfer[band], kept[band], convolved)
        else:
            apply_transfer(_mixed(spectra, shares[:, band]), 1.0, transfer[band], kept[band], convolved)
        to_stamp(convolved, kept[band], basis, stamps[band])


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _mixed(spectra: NDArray[np.float32], shares: NDArray[np.float64]) -> NDArray[np.float32]:
    """Sum of the spectra of a draw's components, each times its share."""
    total = np.zeros(spectra.shape[1:], np.float32)
    flat = total.reshape(total.size)
    for c in range(spectra.shape[0]):
        source, weight = spectra[c].reshape(total.size), np.float32(shares[c])
        for k in range(total.size):
            flat[k] += weight * source[k]
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def _tail_radius(n: float) -> float:
    """Radius beyond which 3e-4 of a Sersic profile's flux lies, by Wilson & Hilferty (1931), in units of Re."""
    a = 2.0 * n
    x = a * (1.0 - 1.0 / (9.0 * a) + _TAIL_DEVIATE / (3.0 * math.sqrt(a))) ** 3
    return float((x / sersic_bn(n)) ** n)


@njit(cache=True, nogil=True, error_model="numpy")
def _reach_px(box: tuple[int, int, int, int], size: int) -> int:
    """Rows and columns of the spread stamp, on either side of its centre, that the pixels of a box reach."""
    half = size // 2
    inner = max(half - box[0], box[1] - half, half - box[2], box[3] - half)
    return max(inner + SPREAD_PX, MIN_KEPT)


@njit(cache=True, nogil=True, error_model="numpy")
def _image_box(
    lens: NDArray[np.float64], reach_arcsec: float, size: int, pixel_scale_arcsec: float
) -> tuple[int, int, int, int]:
    """Pixels that may see the source; the whole stamp for lenses whose deflection has no simple bound."""
    if int(lens[KIND]) != ISOTHERMAL:
        return 0, size, 0, size
    q = lens[LENS_Q]
    flattening = math.sqrt((1.0 - q) * (1.0 + q))
    largest = math.sqrt(q) * math.atanh(flattening) / flattening if flattening > 1e-3 else 1.0
    shear = math.hypot(lens[GAMMA1], lens[GAMMA2])
    # A position is its source position plus the deflection, so images lie about the source.
    around = reach_arcsec + largest * lens[THETA_E]
    around += shear * (math.hypot(lens[SRC_X], lens[SRC_Y]) + around) / (1.0 - shear)
    half = min(around / pixel_scale_arcsec + 1.5, 4.0 * size)
    x = (lens[LENS_X] + lens[SRC_X]) / pixel_scale_arcsec + size // 2
    y = (lens[LENS_Y] + lens[SRC_Y]) / pixel_scale_arcsec + size // 2
    return (
        min(max(int(y - half), 0), size),
        min(max(int(y + half) + 1, 0), size),
        min(max(int(x - half), 0), size),
        min(max(int(x + half) + 1, 0), size),
    )

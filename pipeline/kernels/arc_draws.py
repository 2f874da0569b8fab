"""What an arc is made of, as tables that the render kernels read row by row.

Angles run from +x to +y of the pixel grid. The lens centre is relative to the centre of the stamp's pixel
size // 2, the source to the lens, a component to the source.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from pipeline.contracts.errors import ContractError
from pipeline.kernels.lensing import EPL_Q_MIN
from pipeline.kernels.light import IMAGE, SERSIC
from pipeline.kernels.profiles import SERSIC_N_MAX, SERSIC_N_MIN
from pipeline.kernels.rays import FIELD, ISOTHERMAL, POWER_LAW

# Columns of the lens table.
KIND, THETA_E, LENS_Q, LENS_PHI, SLOPE, GAMMA1, GAMMA2, LENS_X, LENS_Y, SRC_X, SRC_Y = range(11)
FIELD_X, FIELD_Y, FIELD_STEP = 11, 12, 13
LENS_COLUMNS = 14
# Columns of the component table; RE, N and Q belong to SERSIC, TEMPLATE and MIRROR to IMAGE.
PROFILE, OFFSET_X, OFFSET_Y, PHI, RE, N, Q = range(7)
TEMPLATE, MIRROR = 4, 5
COMPONENT_COLUMNS = 7

# Below it float32 positions no longer resolve the source.
RE_MIN_ARCSEC = 1e-4

_NO_TEMPLATES = np.zeros((1, 2, 2), np.float32)
_NO_FIELDS = np.zeros((1, 2, 4, 4), np.float32)


class ArcDraws(NamedTuple):
    """Draws to render, one a row.

    Attributes:
        lens: (sample, LENS_COLUMNS) float64: kind of lens model (rays.ISOTHERMAL, POWER_LAW, FIELD), theta_e
            [arcsec], axis ratio, position angle [rad], density slope, shear, lens centre and source position
            [arcsec]; for FIELD, position of the first deflection sample from the lens and the step [arcsec].
        components: (sample, component, COMPONENT_COLUMNS) float64: profile (light.SERSIC, light.IMAGE), offset from the
            source [arcsec], position angle [rad]; then Re along the major axis [arcsec], index and axis ratio,
            or number of the template and 1 or -1 for its handedness.
        shares: (sample, component, band) float64, share of the unit flux of the source in each band.
        templates: (template, S, S) float32 images of unit sum.
        template_scale_arcsec: their pixel scale. [arcsec/px]
        fields: (sample, 2, n, n) float32 deflections of FIELD lenses; one row of anything if there are none. [arcsec]
    """

    lens: NDArray[np.float64]
    components: NDArray[np.float64]
    shares: NDArray[np.float64]
    templates: NDArray[np.float32] = _NO_TEMPLATES
    template_scale_arcsec: float = 1.0
    fields: NDArray[np.float32] = _NO_FIELDS


def sersic_arcs(
    bands: int,
    *,
    theta_e_arcsec: ArrayLike,
    lens_q: ArrayLike,
    lens_phi_rad: ArrayLike,
    gamma1: ArrayLike,
    gamma2: ArrayLike,
    lens_x_arcsec: ArrayLike,
    lens_y_arcsec: ArrayLike,
    src_x_arcsec: ArrayLike,
    src_y_arcsec: ArrayLike,
    src_re_arcsec: ArrayLike,
    src_n: ArrayLike,
    src_q: ArrayLike,
    src_phi_rad: ArrayLike,
    lens_slope: ArrayLike = 2.0,
) -> ArcDraws:
    """Draws of single Sersic sources of one colour behind power-law lenses with shear.

    Args:
        bands: number of bands, >= 1.
        theta_e_arcsec: intermediate-axis Einstein radius, >= 0; 0 gives the unlensed source. [arcsec]
        lens_q: axis ratio of the convergence, 0 < q <= 1.
        lens_phi_rad: position angle of its major axis. [rad]
        gamma1, gamma2: external shear about the lens, |gamma| < 1.
        lens_x_arcsec, lens_y_arcsec: lens centre in the stamp. [arcsec]
        src_x_arcsec, src_y_arcsec: source centre relative to the lens centre. [arcsec]
        src_re_arcsec: half-light radius along the source's major axis, >= 1e-4. [arcsec]
        src_n: Sersic index, 0.3 <= n <= 8.
        src_q: axis ratio of the source, 0 < q <= 1.
        src_phi_rad: position angle of its major axis. [rad]
        lens_slope: density slope, 1 < slope < 3; exactly 2 takes the isothermal fast path.

    Returns:
        Draws for `render.render_arcs`; every argument may be a number or (sample,), broadcast together.
    """
    values = (
        theta_e_arcsec, lens_q, lens_phi_rad, lens_slope, gamma1, gamma2, lens_x_arcsec, lens_y_arcsec,
        src_x_arcsec, src_y_arcsec, src_phi_rad, src_re_arcsec, src_n, src_q,
    )  # fmt: skip
    columns = np.broadcast_arrays(*(np.atleast_1d(np.asarray(value, dtype=np.float64)) for value in values))
    count = columns[0].size
    lens = np.zeros((count, LENS_COLUMNS))
    lens[:, KIND] = np.where(columns[3] == 2.0, ISOTHERMAL, POWER_LAW)
    lens[:, THETA_E : SRC_Y + 1] = np.stack(columns[:10], axis=1)
    components = np.zeros((count, 1, COMPONENT_COLUMNS))
    components[:, 0, PHI : Q + 1] = np.stack(columns[10:], axis=1)
    return ArcDraws(lens, components, np.ones((count, 1, bands)))


@njit(cache=True, nogil=True, error_model="numpy")
def check_draw(lens: NDArray[np.float64], components: NDArray[np.float64], template_count: int) -> None:
    """Check the ranges that `ArcDraws` states for one row; ContractError names what is outside, NaN included."""
    kind = int(lens[KIND])
    if kind not in (ISOTHERMAL, POWER_LAW, FIELD):
        raise ContractError("arc draw: unknown lens kind", lens[KIND])
    if not 0.0 <= lens[THETA_E] < np.inf:
        raise ContractError("arc draw: expected a finite theta_e_arcsec >= 0, got", lens[THETA_E])
    if not 0.0 < lens[LENS_Q] <= 1.0:
        raise ContractError("arc draw: expected a lens axis ratio in (0, 1], got", lens[LENS_Q])
    if kind == POWER_LAW and not (1.0 < lens[SLOPE] < 3.0 and lens[LENS_Q] >= EPL_Q_MIN):
        raise ContractError("arc draw: expected a slope in (1, 3) and q >= 0.05, got", lens[SLOPE], lens[LENS_Q])
    if kind == FIELD and not 0.0 < lens[FIELD_STEP] < np.inf:
        raise ContractError("arc draw: expected a step of the deflection field > 0, got", lens[FIELD_STEP])
    if not lens[GAMMA1] * lens[GAMMA1] + lens[GAMMA2] * lens[GAMMA2] < 1.0:
        raise ContractError("arc draw: expected |gamma| < 1, got gamma1, gamma2", lens[GAMMA1], lens[GAMMA2])
    placement = lens[LENS_X] + lens[LENS_Y] + lens[SRC_X] + lens[SRC_Y] + lens[LENS_PHI]
    if not -np.inf < placement < np.inf:
        raise ContractError("arc draw: expected finite positions and lens angle, got a sum of", placement)
    for row in range(components.shape[0]):
        part = components[row]
        if not -np.inf < part[OFFSET_X] + part[OFFSET_Y] + part[PHI] < np.inf:
            raise ContractError("arc draw: expected a finite offset and angle, got", part[OFFSET_X], part[OFFSET_Y])
        if int(part[PROFILE]) == SERSIC:
            if not RE_MIN_ARCSEC <= part[RE] < np.inf:
                raise ContractError("arc draw: expected src_re_arcsec >= 1e-4, got", part[RE])
            if not SERSIC_N_MIN <= part[N] <= SERSIC_N_MAX:
                raise ContractError("arc draw: expected a Sersic index in [0.3, 8], got", part[N])
            if not 0.0 < part[Q] <= 1.0:
                raise ContractError("arc draw: expected a source axis ratio in (0, 1], got", part[Q])
        elif int(part[PROFILE]) == IMAGE:
            if not 0.0 <= part[TEMPLATE] < template_count:
                raise ContractError("arc draw: no such template", part[TEMPLATE], template_count)
            if part[MIRROR] * part[MIRROR] != 1.0:
                raise ContractError("arc draw: expected a handedness of 1 or -1, got", part[MIRROR])
        else:
            raise ContractError("arc draw: unknown source profile", part[PROFILE])

"""What the EMR system made of cutouts that are kept out here: stamps all the same, and the seeing it fell back to."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.contracts.survey import PSFSIZE_RANGE_ARCSEC
from pipeline.stages.cutouts import reason_code

_WITHOUT_BRICK = ("brick_missing", "brick_corrupt")


def has_emr_stamp(cutouts: xr.Dataset) -> NDArray[np.bool_]:
    """(sample,) True where the EMR system wrote a stamp: the brick was read and the window meets it.

    Pixels beyond the edge are 0, as they were there. A window without one pixel in the brick ended in an error row.

    Args:
        cutouts: the variables of the cutouts cube.
    """
    reason = cutouts["reject_reason"].to_numpy()
    read = ~np.isin(reason, [reason_code(name) for name in _WITHOUT_BRICK])
    met: NDArray[np.bool_] = cutouts["in_bounds"].to_numpy() == 1
    for name in ("image", "invvar"):
        met = met | (cutouts[name].to_numpy() != 0).any(axis=(1, 2, 3))
    return read & met


def emr_psfsize(psfsize_arcsec: NDArray[np.floating], manifest_arcsec: NDArray[np.floating]) -> NDArray[np.float32]:
    """Seeing per row and band: that of the cutout, where it is none that of the manifest. [arcsec]

    The EMR system took any positive number of a map; numbers that are no seeing are not taken here.

    Args:
        psfsize_arcsec, manifest_arcsec: (sample, band). [arcsec]
    """
    low, high = PSFSIZE_RANGE_ARCSEC
    with np.errstate(invalid="ignore"):
        known = (psfsize_arcsec >= low) & (psfsize_arcsec <= high)
    return np.where(known, psfsize_arcsec, manifest_arcsec).astype(np.float32)

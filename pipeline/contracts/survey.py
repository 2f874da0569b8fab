"""Constants and conversions of the DESI Legacy Surveys DR10 (legacysurvey.org/dr10/description).

Images are nanomaggies per pixel on TAN grids of 0.262 arcsec; +x is West, +y is North.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

PIXEL_SCALE_ARCSEC = 0.262
BRICK_SIZE_PX = 3600
ZERO_POINT_MAG = 22.5
BANDS = ("g", "r", "i", "z")
COADD_KINDS = ("image", "invvar", "psfsize")
MAD_TO_SIGMA = 1.4826
FWHM_PER_SIGMA = 2.0 * math.sqrt(2.0 * math.log(2.0))

# A/E(B-V) of Schlafly & Finkbeiner (2011) as listed in the DR10 catalogue description.
EXTINCTION_COEFFICIENT = {"g": 3.214, "r": 2.165, "i": 1.592, "z": 1.211}

# legacysurvey.org/dr10/bitmasks: MASKBITS.
MASKBITS = {
    "NPRIMARY": 0,
    "BRIGHT": 1,
    "SATUR_G": 2,
    "SATUR_R": 3,
    "SATUR_Z": 4,
    "ALLMASK_G": 5,
    "ALLMASK_R": 6,
    "ALLMASK_Z": 7,
    "WISEM1": 8,
    "WISEM2": 9,
    "BAILOUT": 10,
    "MEDIUM": 11,
    "GALAXY": 12,
    "CLUSTER": 13,
    "SATUR_I": 14,
    "ALLMASK_I": 15,
    "SUB_BLOB": 16,
}


def mask_value(*names: str) -> int:
    """Sum of 2**bit over the named MASKBITS; KeyError for a name DR10 does not have."""
    return sum(1 << MASKBITS[name] for name in names)


# Pixels that the EMR system left out of its r-band SNR and counted in bad_pixel_frac.
BAD_PIXEL_MASK = mask_value("NPRIMARY", "BRIGHT", "SATUR_R", "ALLMASK_R", "BAILOUT", "MEDIUM")
WISE_MASK = mask_value("WISEM1", "WISEM2")

# Range outside which a psfsize map value is not a seeing. [arcsec]
PSFSIZE_RANGE_ARCSEC = (0.4, 4.0)


def flux_nmgy_from_mag(mag: NDArray[np.float64]) -> NDArray[np.float64]:
    """AB magnitudes to nanomaggies, 10**((22.5 - mag) / 2.5). NaN stays NaN."""
    return np.power(10.0, (ZERO_POINT_MAG - np.asarray(mag, dtype=np.float64)) / 2.5)


def mag_from_flux_nmgy(flux_nmgy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Nanomaggies to AB magnitudes; NaN where the flux is not positive."""
    flux = np.asarray(flux_nmgy, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(flux > 0, ZERO_POINT_MAG - 2.5 * np.log10(flux), np.nan)


def mw_transmission(ebv_mag: NDArray[np.float64], band: str) -> NDArray[np.float64]:
    """Fraction of the light left by Galactic extinction, 10**(-0.4 A_band), for E(B-V) in mag."""
    coefficient = EXTINCTION_COEFFICIENT[band]
    return np.power(10.0, -0.4 * coefficient * np.asarray(ebv_mag, dtype=np.float64))

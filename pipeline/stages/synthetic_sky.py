"""Synthetic survey: bricks of coadds as DR10 makes them, and the parent catalogue of their hosts.

Brick k follows from the seed and k alone. Fluxes are as observed, so `ebv` is a column, not an effect.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from astropy.wcs import WCS

from pipeline.contracts.survey import BANDS, MASKBITS, PIXEL_SCALE_ARCSEC, ZERO_POINT_MAG, mask_value
from pipeline.stages.synthetic_defects import GAP_BIT, NAN_BIT, make_defects, make_hosts, rasterise_defects
from pipeline.stages.synthetic_light import coadded_noise, paint_halos, paint_sources
from pipeline.stages.synthetic_sources import (
    HOSTS,
    NOISE,
    SATURATION_NMGY,
    Sources,
    SyntheticSky,
    brick_centre,
    brick_rng,
    make_conditions,
    make_field_galaxies,
    make_large_galaxies,
    make_stars,
)

_SKY_NMGY = (0.11, 0.30, 0.75, 1.9)
_PSFSIZE_STEP_ARCSEC = 1.0 / 512.0


def make_brick(sky: SyntheticSky, index: int) -> xr.Dataset:
    """Coadds of one brick.

    Returns:
        image: (band, y, x) float32, NaN in a few clumps, 0 where there is no exposure. [nmgy/pixel]
        invvar: (band, y, x) float32, sky and source Poisson variance without the covariance that Lanczos-3
            resampling makes; 0 without exposure and where ALLMASK is set. [nmgy**-2]
        psfsize: (band, y, x) float32, Gaussian FWHM of equal N_eff; 0 where there is no exposure. [arcsec]
        maskbits: (y, x) int32 MASKBITS.
        attrs: brickname, ra_deg, dec_deg of the centre, which is pixel (size - 1) / 2.
    """
    conditions = make_conditions(sky, index)
    flags = rasterise_defects(make_defects(sky, index), (0, 0), (sky.brick_size_px,) * 2, sky.brick_size_px)
    channels = [BANDS.index(band) for band in sky.bands]
    image = np.zeros((len(channels), sky.brick_size_px, sky.brick_size_px), dtype=np.float32)
    sources = Sources.join(
        [
            make_stars(sky, index),
            make_large_galaxies(sky, index),
            make_field_galaxies(sky, index),
            make_hosts(sky, index),
        ]
    )
    paint_sources(image, sources, conditions, channels)
    paint_halos(image, make_stars(sky, index), channels)
    invvar, psfsize = np.empty_like(image), np.empty_like(image)
    for plane, channel in enumerate(channels):
        rng = brick_rng(sky, index, NOISE, channel)
        noise, weight = coadded_noise(rng, sky.brick_size_px)
        gap = (flags >> (GAP_BIT + channel)) & 1 == 1
        allmask = flags & mask_value(f"ALLMASK_{BANDS[channel].upper()}") != 0
        image[plane][allmask] = SATURATION_NMGY[channel]
        np.minimum(image[plane], SATURATION_NMGY[channel], out=image[plane])
        invvar[plane] = conditions.invvar[channel] * weight / (1.0 + image[plane] / _SKY_NMGY[channel])
        image[plane] += noise / np.sqrt(invvar[plane])
        invvar[plane] *= 1.0 + 0.01 * rng.standard_normal(gap.shape, dtype=np.float32)
        invvar[plane][gap | allmask] = 0.0
        image[plane][gap] = 0.0
        image[plane][(flags >> (NAN_BIT + channel)) & 1 == 1] = np.nan
        axis = np.arange(sky.brick_size_px, dtype=np.float64)
        seeing = conditions.psfsize_arcsec(channel, axis[None, :], axis[:, None])
        psfsize[plane] = np.rint(seeing / _PSFSIZE_STEP_ARCSEC) * _PSFSIZE_STEP_ARCSEC
        psfsize[plane][gap] = 0.0
    planes = ("band", "y", "x")
    return xr.Dataset(
        {
            "image": (planes, image, {"units": "nmgy"}),
            "invvar": (planes, invvar, {"units": "nmgy**-2"}),
            "psfsize": (planes, psfsize, {"units": "arcsec"}),
            "maskbits": (planes[1:], flags & ((1 << len(MASKBITS)) - 1), {"units": "1"}),
        },
        coords={"band": list(sky.bands)},
        attrs=dict(zip(("brickname", "ra_deg", "dec_deg"), brick_centre(sky, index), strict=True)),
    )


def make_parent_rows(sky: SyntheticSky, index: int) -> pd.DataFrame:
    """Parent catalogue of one brick, one row per host, without painting the brick.

    Columns: ra, dec [deg]; brickname; gmag, rmag, zmag, w1mag [AB, as observed]; rz, zw1 [mag]; ebv [mag];
    psfdepth_r [5-sigma AB mag]; psfsize_g, psfsize_r, psfsize_z [arcsec]; objid; region_id, which is the
    brick's index; region_split, empty; is_v3_color_relaxed: z < 20.4, r - z > 0.4, z - W1 > 0.8.
    """
    name, ra_deg, dec_deg = brick_centre(sky, index)
    hosts, conditions = make_hosts(sky, index), make_conditions(sky, index)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [ra_deg, dec_deg]
    wcs.wcs.crpix = [sky.brick_size_px / 2 + 0.5] * 2
    wcs.wcs.cd = np.diag([-1.0, 1.0]) * PIXEL_SCALE_ARCSEC / 3600
    ra, dec = wcs.wcs_pix2world(hosts.x, hosts.y, 0)
    g, r, _, z = ZERO_POINT_MAG - 2.5 * np.log10(hosts.flux_nmgy)
    z_w1 = brick_rng(sky, index, HOSTS, 1).normal(1.4, 0.3, g.size)
    columns: dict[str, object] = {"ra": ra % 360.0, "dec": dec, "brickname": np.full(g.size, name, dtype=object)}
    mags = {"gmag": g, "rmag": r, "zmag": z, "w1mag": z - z_w1, "rz": r - z, "zw1": z_w1}
    columns |= {column: values.astype(np.float32) for column, values in mags.items()}
    columns |= {"ebv": conditions.ebv_mag, "psfdepth_r": conditions.depth_mag[BANDS.index("r")]}
    columns |= {f"psfsize_{band}": conditions.seeing_arcsec[BANDS.index(band)] for band in "grz"}
    columns |= {"objid": np.arange(g.size, dtype=np.int64), "region_id": np.int32(index), "region_split": ""}
    columns |= {"is_v3_color_relaxed": (z < 20.4) & (r - z > 0.4) & (z_w1 > 0.8)}
    return pd.DataFrame(columns, index=pd.RangeIndex(g.size))

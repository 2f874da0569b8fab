"""Frozen randomness of a manifest: every draw of a task follows from its names, through Spark's hash."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.spark_hash import UNIFORM_STEPS, TextColumn, hash_modulo, hash_uniform, spark_xxhash64
from pipeline.stages.spark_text import java_double_texts

SALT_RADIUS, SALT_ANGLE, SALT_SRC_PHI, SALT_SHEAR_PHI = 101, 102, 103, 104
SALTS_GR, SALTS_RZ = (105, 106), (107, 108)
SALT_LENS_E, SALT_LENS_PHI = 109, 110

_SOURCE_REACH = 0.8
_LENS_E_LOW, _LENS_E_WIDTH = 0.05, 0.45
_COLOUR_SIGMA_MAG = 0.2
_GR_MEAN_MAG, _RZ_MEAN_MAG = 0.2, 0.1
_COLOUR_RANGE_MAG = (-0.5, 1.5)
_SMALLEST_UNIFORM = 1e-12


def host_hashes(brickname: TextColumn, ra_deg: NDArray[np.float64], dec_deg: NDArray[np.float64]) -> NDArray[np.int64]:
    """Hash of brick and position as texts, with which the seed of each task of a host begins; arrays (host,)."""
    return spark_xxhash64(
        brickname, TextColumn.of(java_double_texts(ra_deg)), TextColumn.of(java_double_texts(dec_deg))
    )


def task_seeds(
    hosts: NDArray[np.int64], config_id: TextColumn, replicate: NDArray[np.integer], split_seed: int
) -> NDArray[np.int64]:
    """task_seed64 of rows; it does not depend on the selection set.

    Args:
        hosts: (row,) from `host_hashes`.
        config_id: (row,) names of grid entries, or CONTROL; a null counts as "ctrl".
        replicate: (row,) numbers from 0.
        split_seed: seed of the build.
    """
    named = np.where(
        config_id.valid,
        spark_xxhash64(config_id, seeds=hosts),
        spark_xxhash64("ctrl", seeds=hosts),
    )
    numbers = TextColumn.of([str(number) for number in range(int(replicate.max(initial=-1)) + 1)])
    return spark_xxhash64(numbers.take(replicate), split_seed, seeds=named)


def draw_frozen(seeds: NDArray[np.int64], theta_e_arcsec: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Columns src_x_arcsec to lens_phi_rad of rows; zero for controls but for the colours.

    Positions are uniform over the disc of 0.8 theta_E, angles uniform, colours normal and clipped, ellipticities
    uniform in 0.05 to 0.5. Angles are measured from +x (columns) to +y (rows) of the pixel grid.

    Args:
        seeds: (row,) task_seed64.
        theta_e_arcsec: (row,) Einstein radius, 0 for controls. [arcsec]
    """

    def uniform(salt: int) -> NDArray[np.float64]:
        return hash_uniform(spark_xxhash64(seeds, salt))

    def positive_only(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(theta_e_arcsec > 0, values, 0.0)

    cosine, sine, _ = _tables()
    angle = _steps(seeds, SALT_ANGLE)
    radius_arcsec = np.sqrt(uniform(SALT_RADIUS)) * _SOURCE_REACH * theta_e_arcsec
    return {
        "src_x_arcsec": positive_only(radius_arcsec * cosine[angle]),
        "src_y_arcsec": positive_only(radius_arcsec * sine[angle]),
        "src_phi_rad": positive_only(2.0 * math.pi * uniform(SALT_SRC_PHI)),
        "shear_phi_rad": positive_only(math.pi * uniform(SALT_SHEAR_PHI)),
        "src_gr": _colour(seeds, SALTS_GR, _GR_MEAN_MAG),
        "src_rz": _colour(seeds, SALTS_RZ, _RZ_MEAN_MAG),
        "lens_e": positive_only(_LENS_E_LOW + uniform(SALT_LENS_E) * _LENS_E_WIDTH),
        "lens_phi_rad": positive_only(math.pi * uniform(SALT_LENS_PHI)),
    }


def lens_models(theta_e_arcsec: NDArray[np.float64]) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """Column lens_model: (row,) codes and what they mean."""
    return (theta_e_arcsec > 0).astype(np.int32), ("CONTROL", "SIE")


def _colour(seeds: NDArray[np.int64], salts: tuple[int, int], mean_mag: float) -> NDArray[np.float64]:
    cosine, _, radius = _tables()
    normal = radius[_steps(seeds, salts[0])] * cosine[_steps(seeds, salts[1])]
    return np.clip(normal * _COLOUR_SIGMA_MAG + mean_mag, *_COLOUR_RANGE_MAG)


def _steps(seeds: NDArray[np.int64], salt: int) -> NDArray[np.int64]:
    return hash_modulo(spark_xxhash64(seeds, salt), UNIFORM_STEPS)


@cache
def _tables() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Cosine and sine of 2 pi u, and sqrt(-2 ln u), of the million uniforms there are.

    From the C library one by one: numpy's own functions round otherwise on processors of other kinds.
    """
    uniforms = (np.arange(UNIFORM_STEPS) / np.float64(UNIFORM_STEPS)).tolist()
    angles = [2.0 * math.pi * u for u in uniforms]
    cosine = np.fromiter(map(math.cos, angles), np.float64, UNIFORM_STEPS)
    sine = np.fromiter(map(math.sin, angles), np.float64, UNIFORM_STEPS)
    logarithm = np.fromiter((math.log(max(u, _SMALLEST_UNIFORM)) for u in uniforms), np.float64, UNIFORM_STEPS)
    return cosine, sine, np.sqrt(-2.0 * logarithm)

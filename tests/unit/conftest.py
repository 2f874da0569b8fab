"""A source bank in memory, of templates whose handedness and orientation can be told, and a lens system."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pipeline.contracts.source_bank import BANK_COLUMNS, SourceBank, bank_digest
from pipeline.stages.arc_scene import Observation
from pipeline.stages.lens_system import LensSystem

SIDE_PX = 32
PIXEL_SCALE_ARCSEC = 0.03


@pytest.fixture(scope="session")
def make_bank() -> Callable[..., SourceBank]:
    """See `template_bank`."""
    return template_bank


@pytest.fixture(scope="session")
def lens_system() -> LensSystem:
    """An elliptical isothermal lens off the middle in weak shear, with an exponential disc behind it."""
    return LensSystem(
        theta_e_arcsec=1.4,
        lens_q=0.75,
        lens_phi_rad=0.5,
        lens_slope=2.0,
        shear_gamma1=0.03,
        shear_gamma2=-0.02,
        lens_x_arcsec=0.1,
        lens_y_arcsec=-0.2,
        src_x_arcsec=0.3,
        src_y_arcsec=0.1,
        src_re_arcsec=0.15,
        src_n=1.0,
        src_q=0.6,
        src_phi_rad=1.0,
        mag_r=22.0,
        gr=0.3,
        rz=0.2,
    )


@pytest.fixture(scope="session")
def observation() -> Observation:
    """Seeing and depths like those of DR10."""
    return Observation((1.3, 1.2, 1.1), (24.7, 23.9, 23.0))


def template_bank(n_templates: int = 5, unusable: tuple[int, ...] = (1,)) -> SourceBank:
    """Templates with a core at the middle, a blob 6 px along +x and one 3 px along +y; wider ones later."""
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX] - (SIDE_PX - 1) / 2
    width_px = 1.5 + 0.2 * np.arange(n_templates)[:, None, None]
    blobs = ((0.0, 0.0, 0.5), (6.0, 0.0, 0.3), (0.0, 3.0, 0.2))
    light = sum(share * np.exp(-((x - dx) ** 2 + (y - dy) ** 2) / (2 * width_px**2)) for dx, dy, share in blobs)
    images = np.asarray(light / light.sum(axis=(1, 2), keepdims=True), np.float32)
    columns: dict[str, np.ndarray] = {
        column.name: np.full(n_templates, column.missing or 0, dtype=column.dtype) for column in BANK_COLUMNS
    }
    columns["index"] = np.arange(100, 100 + n_templates)
    columns["hlr_arcsec"] = np.linspace(0.12, 0.2, n_templates).astype(np.float32)
    columns["usable"] = np.ones(n_templates, np.uint8)
    columns["usable"][list(unusable)] = 0
    columns["reject_reason"][list(unusable)] = 2
    return SourceBank(
        images=images,
        columns=columns,
        pixel_scale_arcsec=PIXEL_SCALE_ARCSEC,
        psf_fwhm_arcsec=0.1,
        galaxy_kind="three Gaussians",
        source="test suite",
        created_utc="2026-01-01T00:00:00Z",
        digest=bank_digest(images, columns, PIXEL_SCALE_ARCSEC),
    )

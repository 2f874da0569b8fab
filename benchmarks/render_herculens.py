# mypy: disable-error-code="import-not-found"
"""herculens, compiled and vectorised over draws; imported by `render.py` where it is installed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from herculens.Coordinates.pixel_grid import PixelGrid
from herculens.Instrument.psf import PSF
from herculens.LensImage.lens_image import LensImage
from herculens.LensImage.Numerics.convolution import PixelKernelConvolution
from herculens.LightModel.light_model import LightModel
from herculens.MassModel.mass_model import MassModel
from jax import numpy as jnp
from numpy.typing import NDArray
from render_scenes import PEER_BATCH, SIZE, Draw, lenstronomy_lens, lenstronomy_sersic

from pipeline.contracts.survey import PIXEL_SCALE_ARCSEC

Kernels = list[NDArray[np.float64]]


def batch(draws: list[Draw], kernels: Kernels, supersampling: int) -> Callable[[], Any]:
    """Render all draws; all bands in one compiled call, whose common parts the compiler may share."""
    models = [_lens_image(PSF(psf_type="PIXEL", kernel_point_source=kernel), supersampling) for kernel in kernels]

    def stamp(lens: Any, source: Any) -> Any:
        return jnp.stack([model.model(kwargs_lens=lens, kwargs_source=source) for model in models])

    compiled = jax.jit(jax.vmap(stamp))
    calls = [_arguments(draws[k : k + PEER_BATCH]) for k in range(0, len(draws), PEER_BATCH)]
    return lambda: [np.asarray(compiled(lens, source)) for lens, source in calls]


def single_band(draws: list[Draw], kernels: Kernels, supersampling: int) -> NDArray[np.float32]:
    """Images (draw, y, x), each through its own kernel."""
    model = _lens_image(PSF(psf_type="NONE"), supersampling)
    unconvolved = jax.jit(jax.vmap(lambda lens, source: model.model(kwargs_lens=lens, kwargs_source=source)))
    images = np.asarray(unconvolved(*_arguments(draws)))
    return np.array(
        [PixelKernelConvolution(kernel).convolution2d(image) for image, kernel in zip(images, kernels, strict=True)]
    )


def _arguments(draws: list[Draw]) -> tuple[Any, Any]:
    """One list of arguments with an array over draws for each number; radii along the major axis."""
    each = []
    for draw in draws:
        (sersic,) = lenstronomy_sersic(draw)
        major = sersic | {"R_sersic": sersic["R_sersic"] / math.sqrt(draw["src_q"])}
        each.append((lenstronomy_lens(draw), [major]))
    stacked: tuple[Any, Any] = jax.tree.map(lambda *values: jnp.asarray(values), *each)
    return stacked


def _lens_image(psf: Any, supersampling: int) -> Any:
    origin_arcsec = -(SIZE // 2) * PIXEL_SCALE_ARCSEC
    grid = PixelGrid(
        nx=SIZE,
        ny=SIZE,
        transform_pix2angle=np.eye(2) * PIXEL_SCALE_ARCSEC,
        ra_at_xy_0=origin_arcsec,
        dec_at_xy_0=origin_arcsec,
    )
    return LensImage(
        grid,
        psf,
        lens_mass_model_class=MassModel(["SIE", "SHEAR"]),
        source_model_class=LightModel(["SERSIC_ELLIPSE"]),
        kwargs_numerics={"supersampling_factor": supersampling},
    )

# mypy: disable-error-code="import-not-found"
"""jaxtronomy, compiled and vectorised over draws; imported by `render.py` where it is installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp
from jaxtronomy.Data.imaging_data import ImageData
from jaxtronomy.ImSim.image_model import ImageModel
from jaxtronomy.ImSim.Numerics.convolution import PixelKernelConvolution
from jaxtronomy.LensModel.lens_model import LensModel
from jaxtronomy.LightModel.light_model import LightModel
from lenstronomy.Data.psf import PSF
from numpy.typing import NDArray
from render_scenes import PEER_BATCH, SIZE, Draw, lenstronomy_lens, lenstronomy_sersic

from pipeline.contracts.survey import PIXEL_SCALE_ARCSEC

Kernels = list[NDArray[np.float64]]


def batch(draws: list[Draw], kernels: Kernels, supersampling: int) -> Callable[[], Any]:
    """Render all draws; all bands in one compiled call, whose common parts the compiler may share."""
    models = [_image_model(PSF(psf_type="PIXEL", kernel_point_source=kernel), supersampling) for kernel in kernels]

    def stamp(lens: Any, source: Any) -> Any:
        return jnp.stack([model.image(lens, source) for model in models])

    compiled = jax.jit(jax.vmap(stamp))
    calls = [_arguments(draws[k : k + PEER_BATCH]) for k in range(0, len(draws), PEER_BATCH)]
    return lambda: [np.asarray(compiled(lens, source)) for lens, source in calls]


def single_band(draws: list[Draw], kernels: Kernels, supersampling: int) -> NDArray[np.float32]:
    """Images (draw, y, x), each through its own kernel."""
    model = _image_model(PSF(psf_type="NONE"), supersampling)
    convolution = PixelKernelConvolution(kernels[0])

    def stamp(lens: Any, source: Any, kernel: Any) -> Any:
        return convolution.convolution2d(model.image(lens, source), kernel)

    compiled, stacked = jax.jit(jax.vmap(stamp)), jnp.asarray(np.array(kernels))
    starts = range(0, len(draws), PEER_BATCH)
    parts = [compiled(*_arguments(draws[k : k + PEER_BATCH]), stacked[k : k + PEER_BATCH]) for k in starts]
    return np.concatenate([np.asarray(part) for part in parts])


def _arguments(draws: list[Draw]) -> tuple[Any, Any]:
    """One list of arguments with an array over draws for each number."""
    each = [(lenstronomy_lens(draw), lenstronomy_sersic(draw)) for draw in draws]
    stacked: tuple[Any, Any] = jax.tree.map(lambda *values: jnp.asarray(values), *each)
    return stacked


def _image_model(psf: Any, supersampling: int) -> Any:
    origin_arcsec = -(SIZE // 2) * PIXEL_SCALE_ARCSEC
    image = ImageData(
        image_data=np.zeros((SIZE, SIZE)),
        background_rms=1.0,
        exposure_time=1.0,
        ra_at_xy_0=origin_arcsec,
        dec_at_xy_0=origin_arcsec,
        transform_pix2angle=np.eye(2) * PIXEL_SCALE_ARCSEC,
    )
    return ImageModel(
        image,
        psf,
        lens_model_class=LensModel(["SIE", "SHEAR"]),
        source_model_class=LightModel(["SERSIC_ELLIPSE"]),
        kwargs_numerics={"supersampling_factor": supersampling, "supersampling_convolution": False},
    )

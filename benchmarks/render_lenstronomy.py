"""lenstronomy in three ways: as its tutorials use it, with classes kept, and with rays shared by the bands.

Run as a program it prints stamps per CPU second with classes kept, in a process that does nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from lenstronomy.Data.imaging_data import ImageData
from lenstronomy.Data.psf import PSF
from lenstronomy.ImSim.image_model import ImageModel
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LightModel.light_model import LightModel
from numpy.typing import NDArray
from render_scenes import (
    FWHM_ARCSEC,
    PEER_BATCH,
    SIZE,
    Draw,
    Images,
    common_draws,
    lenstronomy_interpol,
    lenstronomy_lens,
    lenstronomy_sersic,
    moffat_kernel,
)
from render_timing import Case, measured_rates

from pipeline.contracts.survey import PIXEL_SCALE_ARCSEC

Kernels = list[NDArray[np.float64]]
Renderer = Callable[[Draw], Images]


def built_per_stamp(kernels: Kernels, supersampling: int) -> Renderer:
    """Every class anew for every stamp and band."""

    def render(draw: Draw) -> Images:
        models = [_image_model(kernel, supersampling, "SERSIC_ELLIPSE") for kernel in kernels]
        lens, source = lenstronomy_lens(draw), lenstronomy_sersic(draw)
        return np.array([model.image(lens, source) for model in models], dtype=np.float32)

    return render


def classes_reused(kernels: Kernels, supersampling: int) -> Renderer:
    """One image model a band, kept."""
    models = [_image_model(kernel, supersampling, "SERSIC_ELLIPSE") for kernel in kernels]

    def render(draw: Draw) -> Images:
        lens, source = lenstronomy_lens(draw), lenstronomy_sersic(draw)
        return np.array([model.image(lens, source) for model in models], dtype=np.float32)

    return render


def rays_shared(kernels: Kernels, supersampling: int) -> Renderer:
    """Rays and brightness once, by hand, and the image models' convolution for each band."""
    models = [_image_model(kernel, supersampling, "SERSIC_ELLIPSE") for kernel in kernels]
    x, y = models[0].ImageNumerics.coordinates_evaluate

    def render(draw: Draw) -> Images:
        beta_x, beta_y = models[0].LensModel.ray_shooting(x, y, lenstronomy_lens(draw))
        light = models[0].SourceModel.surface_brightness(beta_x, beta_y, lenstronomy_sersic(draw))
        return np.array([model.ImageNumerics.re_size_convolve(light) for model in models], dtype=np.float32)

    return render


def galaxy_images(kernels: Kernels, supersampling: int) -> Renderer:
    """INTERPOL with classes kept; the image is interpolated from its own kept spline."""
    models = [_image_model(kernel, supersampling, "INTERPOL") for kernel in kernels]

    def render(draw: Draw) -> Images:
        lens, source = lenstronomy_lens(draw), lenstronomy_interpol(draw)
        return np.array([model.image(lens, source) for model in models], dtype=np.float32)

    return render


def _image_model(kernel: NDArray[np.float64], supersampling: int, source: str) -> Any:
    origin_arcsec = -(SIZE // 2) * PIXEL_SCALE_ARCSEC
    image = ImageData(
        image_data=np.zeros((SIZE, SIZE)),
        ra_at_xy_0=origin_arcsec,
        dec_at_xy_0=origin_arcsec,
        transform_pix2angle=np.eye(2) * PIXEL_SCALE_ARCSEC,
    )
    return ImageModel(
        image,
        PSF(psf_type="PIXEL", kernel_point_source=kernel),
        lens_model_class=LensModel(["SIE", "SHEAR"]),
        source_model_class=LightModel([source]),
        kwargs_numerics={"supersampling_factor": supersampling, "supersampling_convolution": False},
    )


def main() -> None:
    """Print the rate of `classes_reused`."""
    draws = common_draws(PEER_BATCH, seed=1)
    render = classes_reused([moffat_kernel(fwhm) for fwhm in FWHM_ARCSEC], 4)
    rates = measured_rates({"": Case(lambda: [render(draw) for draw in draws], len(draws))}, rounds=5)
    print(np.median(rates[""]))


if __name__ == "__main__":
    main()

# mypy: disable-error-code="import-not-found"
"""caustics, vectorised over draws; imported by `render.py` where it is installed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import caustics
import numpy as np
import torch
from numpy.typing import NDArray
from render_scenes import PEER_BATCH, SIZE, Draw, source_centre

from pipeline.contracts.survey import PIXEL_SCALE_ARCSEC
from pipeline.kernels.profiles import sersic_bn, sersic_flux_factor

Kernels = list[NDArray[np.float64]]

torch.set_num_threads(1)


def batch(draws: list[Draw], kernels: Kernels, supersampling: int) -> Callable[[], Any]:
    """Render all draws, one vectorised call a band."""
    simulators = [_simulator(kernel, supersampling) for kernel in kernels]
    calls: Any = torch.split(_parameters(draws, simulators[0]), PEER_BATCH)

    def render() -> NDArray[np.float32]:
        with torch.no_grad():
            bands = [torch.cat([torch.vmap(simulator)(call) for call in calls]) for simulator in simulators]
        return np.asarray(torch.stack(bands, dim=1) * PIXEL_SCALE_ARCSEC**2)

    return render


def single_band(draws: list[Draw], kernels: Kernels, supersampling: int) -> NDArray[np.float32]:
    """Images (draw, y, x), each through its own kernel."""
    return np.array([batch([d], [k], supersampling)()[0, 0] for d, k in zip(draws, kernels, strict=True)])


def _simulator(kernel: NDArray[np.float64], supersampling: int) -> Any:
    cosmology = caustics.FlatLambdaCDM(name="cosmology")
    sie = caustics.SIE(cosmology=cosmology, name="sie")
    shear = caustics.ExternalShear(cosmology=cosmology, name="shear")
    lens = caustics.SinglePlane(cosmology=cosmology, lenses=[sie, shear], name="lens", z_l=0.5, z_s=1.0)
    return caustics.LensSource(
        lens=lens,
        source=caustics.Sersic(name="sersic"),
        pixelscale=PIXEL_SCALE_ARCSEC,
        pixels_x=SIZE,
        quad_level=supersampling,
        psf=torch.as_tensor(kernel, dtype=torch.float32),
    )


def _parameters(draws: list[Draw], simulator: Any) -> torch.Tensor:
    """(draw, parameter), in the order the simulator asks for them."""
    each = [_named(draw) for draw in draws]
    names = [f"{next(iter(parameter.parents)).name}.{parameter.name}" for parameter in simulator.dynamic_params]
    return torch.tensor([[named[name] for name in names] for named in each], dtype=torch.float32)


def _named(draw: Draw) -> dict[str, float]:
    """Radii along the major axis; positions from the stamp's middle, half a pixel off our origin; its own b_n."""
    half_px = 0.5 * PIXEL_SCALE_ARCSEC
    x, y = draw["lens_x_arcsec"] + half_px, draw["lens_y_arcsec"] + half_px
    centre = source_centre(draw)
    n = draw["src_n"]
    b = 2.0 * n - 1.0 / 3.0 + 4.0 / (405.0 * n) + 46.0 / (25515.0 * n**2) + 131.0 / (1148175.0 * n**3)
    b -= 2194697.0 / (30690717750.0 * n**4)
    radius_arcsec = draw["src_re_arcsec"] * (b / sersic_bn(n)) ** n
    brightness = 1.0 / (sersic_flux_factor(n, b) * radius_arcsec**2 * draw["src_q"])
    # caustics measures position angles as we do, and brings every angle into [0, pi).
    return {
        "sie.x0": x, "sie.y0": y, "sie.q": draw["lens_q"], "sie.phi": draw["lens_phi_rad"] % math.pi,
        "sie.Rein": draw["theta_e_arcsec"],
        "shear.x0": x, "shear.y0": y, "shear.gamma_1": draw["gamma1"], "shear.gamma_2": draw["gamma2"],
        "sersic.x0": centre["center_x"] + half_px, "sersic.y0": centre["center_y"] + half_px,
        "sersic.q": draw["src_q"], "sersic.phi": draw["src_phi_rad"] % math.pi, "sersic.n": n,
        "sersic.Re": radius_arcsec, "sersic.Ie": brightness,
    }  # fmt: skip

"""Deflections of lenstronomy's lens models, sampled for the renderer: mass models that our kernels lack."""

from __future__ import annotations

import math

import numpy as np
from lenstronomy.LensModel.LineOfSight.single_plane_los import SinglePlaneLOS
from lenstronomy.LensModel.LineOfSight.single_plane_los_flexion import SinglePlaneLOSFlexion
from lenstronomy.LensModel.single_plane import SinglePlane
from numpy.typing import NDArray

from pipeline.contracts.errors import ContractError
from pipeline.contracts.injection import LenstronomyLens
from pipeline.kernels.arc_draws import FIELD_STEP, FIELD_X, FIELD_Y

# Samples per pixel; cubic interpolation between them errs below 1e-4 arcsec where arcs form.
SAMPLES_PER_PX = 4
# Samples beyond the stamp on each side.
_MARGIN = 4
# Models that correct what the others of the list do, by the class of lens that applies them.
_LINE_OF_SIGHT = {
    "LOS": SinglePlaneLOS,
    "LOS_MINIMAL": SinglePlaneLOS,
    "LOS_FLEXION": SinglePlaneLOSFlexion,
    "LOS_FLEXION_MINIMAL": SinglePlaneLOSFlexion,
}


class DeflectionField:
    """Samples the configured models around each draw's lens centre.

    Raises:
        ContractError: a model that lenstronomy does not have.
    """

    def __init__(self, section: LenstronomyLens, size: int, pixel_scale_arcsec: float) -> None:
        self._parameters = section.parameters
        self._models = section.models
        try:
            self._model = _single_plane(list(section.models))
        except (ValueError, ImportError) as error:
            raise ContractError(f"injection.lens: lenstronomy has no models {section.models}: {error}") from error
        self._step_arcsec = pixel_scale_arcsec / SAMPLES_PER_PX
        count = (size + 1) * SAMPLES_PER_PX + 2 * _MARGIN
        first = -(size // 2 + 0.5) * pixel_scale_arcsec - _MARGIN * self._step_arcsec
        self._axis_arcsec = first + self._step_arcsec * np.arange(count)

    def sample(self, lens_row: NDArray[np.float64], quantities: dict[str, float]) -> NDArray[np.float32]:
        """Deflection over the stamp, and where its samples lie.

        Args:
            lens_row: row of `ArcDraws.lens`, whose FIELD columns are filled.
            quantities: value of each name in LENS_QUANTITIES.

        Returns:
            (2, n, n) float32 deflections along +x and +y. [arcsec]

        Raises:
            ContractError: lenstronomy refuses the parameters, or a deflection is not finite.
        """
        lens_x, lens_y = lens_row[7], lens_row[8]
        x, y = np.meshgrid(self._axis_arcsec - lens_x, self._axis_arcsec - lens_y)
        arguments = [
            {name: quantities[value] if isinstance(value, str) else value for name, value in parameters.items()}
            for parameters in self._parameters
        ]
        try:
            alpha = self._model.alpha(x.ravel(), y.ravel(), arguments)
        except (TypeError, ValueError, KeyError) as error:
            raise ContractError(
                f"injection.lens: lenstronomy refused {self._models} with {arguments}: {error}"
            ) from error
        field = np.stack(alpha).reshape(2, *x.shape).astype(np.float32)
        if not np.isfinite(field).all():
            raise ContractError(f"injection.lens: {self._models} with {arguments} has deflections that are not finite")
        lens_row[[FIELD_X, FIELD_Y, FIELD_STEP]] = x[0, 0], y[0, 0], self._step_arcsec
        return field


def _single_plane(models: list[str]) -> SinglePlane:
    """The lens that lenstronomy's `LensModel` would hold, without the cosmology that is loaded with that class."""
    corrections = [index for index, model in enumerate(models) if model in _LINE_OF_SIGHT]
    if len(corrections) > 1:
        raise ValueError("more than one model corrects the line of sight")
    if corrections:
        return _LINE_OF_SIGHT[models[corrections[0]]](models, corrections[0])
    return SinglePlane(models)


def lens_quantities(theta_e_arcsec: float, q: float, phi_rad: float, gamma1: float, gamma2: float) -> dict[str, float]:
    """The drawn quantities by the names that lenstronomy parameters may use."""
    ellipticity = (1.0 - q) / (1.0 + q)
    return {
        "theta_e_arcsec": theta_e_arcsec,
        "lens_q": q,
        "lens_e1": ellipticity * math.cos(2.0 * phi_rad),
        "lens_e2": ellipticity * math.sin(2.0 * phi_rad),
        "lens_phi_rad": phi_rad,
        "shear_gamma1": gamma1,
        "shear_gamma2": gamma2,
    }

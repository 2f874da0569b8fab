"""Draws: what one arc is made of, from the priors or from an EMR row as it stands."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.contracts.injection import InjectionSection
from pipeline.contracts.manifest import FROZEN_COLUMNS
from pipeline.contracts.priors import Prior, Priors
from pipeline.contracts.survey import PIXEL_SCALE_ARCSEC
from pipeline.kernels.arc_draws import LENS_COLUMNS
from pipeline.kernels.priors import DISC, FIXED, LOGUNIFORM, NORMAL, PRIOR_COLUMNS, UNIFORM, draw_priors
from pipeline.kernels.rays import FIELD, ISOTHERMAL, POWER_LAW
from pipeline.stages.linear_pieces import LinearPieces
from pipeline.stages.sources import Components, SourceModel

_KINDS = {"fixed": FIXED, "uniform": UNIFORM, "loguniform": LOGUNIFORM, "normal": NORMAL, "disc": DISC}
# A tabulated prior is the quantile of a number uniform in (0, 1).
_UNIT_ROW = (UNIFORM, 0.0, 1.0, 0.0, 0.0, 0.0)
_ANGLES = {
    "lens_phi_rad": math.pi,
    "shear_phi_rad": math.pi,
    "src_phi_rad": math.pi,
    "beta_phi_rad": 2 * math.pi,
    "jitter_phi_rad": 2 * math.pi,
}


@dataclass(frozen=True)
class ArcDraw:
    """One lens and one source, as the renderer takes them.

    Positions of the lens are relative to the stamp centre (pixel size // 2), of the source relative to
    the lens; angles run from +x to +y of the pixel grid; `src_re_arcsec` is along the major axis.
    """

    theta_e_arcsec: float
    lens_q: float
    lens_phi_rad: float
    lens_slope: float
    shear_gamma1: float
    shear_gamma2: float
    lens_x_arcsec: float
    lens_y_arcsec: float
    src_x_arcsec: float
    src_y_arcsec: float
    src_re_arcsec: float
    src_n: float
    src_q: float
    src_phi_rad: float
    src_mag_r: float
    src_gr: float
    src_rz: float
    src_redshift: float
    components: Components

    def magnitude(self, band: str) -> float:
        """Unlensed AB magnitude in g, r or z."""
        offset = {"g": self.src_gr, "r": 0.0, "z": -self.src_rz}
        return self.src_mag_r + offset[band]

    def lens_row(self, kind: int) -> NDArray[np.float64]:
        """The draw's row of `ArcDraws.lens` for a kind of lens model."""
        row = np.zeros(LENS_COLUMNS)
        row[:11] = (
            kind, self.theta_e_arcsec, self.lens_q, self.lens_phi_rad, self.lens_slope, self.shear_gamma1,
            self.shear_gamma2, self.lens_x_arcsec, self.lens_y_arcsec, self.src_x_arcsec, self.src_y_arcsec,
        )  # fmt: skip
        return row


class Drawer:
    """Draws arcs from the priors of a configuration, keyed by (seed, task, purpose, attempt)."""

    def __init__(self, injection: InjectionSection, source: SourceModel) -> None:
        self._source = source
        self._colours = injection.colours
        rows: dict[str, tuple[float, ...]] = {}
        self._tables: dict[str, LinearPieces] = {}
        if injection.priors is not None:
            rows |= {name: self._row(name, getattr(injection.priors, name)) for name in Priors.model_fields}
            rows |= {name: (UNIFORM, 0.0, turn, 0.0, 0.0, 0.0) for name, turn in _ANGLES.items()}
            if injection.lens.kind == "epl":
                rows["lens_slope"] = self._row("lens_slope", injection.lens.slope)
            if injection.colours is not None:
                rows["src_redshift"] = self._row("src_redshift", injection.colours.src_redshift)
            rows |= {name: self._row(name, prior) for name, prior in source.priors().items()}
        self._names = tuple(rows)
        self._table = np.array(list(rows.values())).reshape(-1, PRIOR_COLUMNS)

    def draw(
        self, run_seed: int, task_key: np.uint64, purpose: int, attempt: int, centre_px: tuple[float, float]
    ) -> ArcDraw:
        """One draw. [centre_px: (centre_dx_px, centre_dy_px) of the host in its stamp]"""
        values = np.empty(self._table.shape[0])
        draw_priors(self._table, np.uint64(run_seed), task_key, np.uint64(purpose), np.uint64(attempt), values)
        drawn = dict(zip(self._names, values.tolist(), strict=True))
        drawn |= {name: pieces.quantile(drawn[name]) for name, pieces in self._tables.items()}
        offset = drawn["beta_over_theta_e"] * drawn["theta_e_arcsec"]
        jitter, jitter_phi = drawn["lens_jitter_arcsec"], drawn["jitter_phi_rad"]
        redshift, gr, rz = drawn.get("src_redshift", math.nan), drawn["src_gr"], drawn["src_rz"]
        if self._colours is not None:
            gr += float(np.interp(redshift, self._colours.redshift, self._colours.gr))
            rz += float(np.interp(redshift, self._colours.redshift, self._colours.rz))
        components = self._source.components(drawn)
        return ArcDraw(
            theta_e_arcsec=drawn["theta_e_arcsec"],
            lens_q=drawn["lens_q"],
            lens_phi_rad=drawn["lens_phi_rad"],
            lens_slope=drawn.get("lens_slope", 2.0),
            shear_gamma1=drawn["shear"] * math.cos(2 * drawn["shear_phi_rad"]),
            shear_gamma2=drawn["shear"] * math.sin(2 * drawn["shear_phi_rad"]),
            lens_x_arcsec=centre_px[0] * PIXEL_SCALE_ARCSEC + jitter * math.cos(jitter_phi),
            lens_y_arcsec=centre_px[1] * PIXEL_SCALE_ARCSEC + jitter * math.sin(jitter_phi),
            src_x_arcsec=offset * math.cos(drawn["beta_phi_rad"]),
            src_y_arcsec=offset * math.sin(drawn["beta_phi_rad"]),
            src_re_arcsec=components.re_arcsec,
            src_n=components.n,
            src_q=components.q,
            src_phi_rad=components.phi_rad,
            src_mag_r=drawn["src_mag_r"],
            src_gr=gr,
            src_rz=rz,
            src_redshift=redshift,
            components=components,
        )

    def _row(self, name: str, prior: Prior) -> tuple[float, ...]:
        if prior.points is None or prior.density is None:
            return prior_row(prior)
        self._tables[name] = LinearPieces.through(prior.points, prior.density)
        return _UNIT_ROW


def lens_kind(injection: InjectionSection) -> int:
    """Kind of the configured lens model, as `pipeline.kernels.rays` numbers them."""
    return {"sie": ISOTHERMAL, "epl": POWER_LAW, "lenstronomy": FIELD}[injection.lens.kind]


def prior_row(prior: Prior) -> tuple[float, ...]:
    """One row of the table that `draw_priors` takes; KeyError for a tabulated prior."""
    low, high = prior.bounds
    return (_KINDS[prior.kind], low, high, prior.mean or 0.0, prior.sigma or 1.0, prior.value or 0.0)


def frozen_arc(rows: xr.Dataset, index: int, centre_px: tuple[float, float], source: SourceModel) -> ArcDraw | None:
    """The arc of an EMR manifest row: its frozen numbers, the host's magnitude plus src_dmag, n = 1 or a template.

    Ellipticities become axis ratios by q = (1 - e) / (1 + e). None if the row's template cannot be lensed.
    """
    row = {name: rows.variables[name].values[index] for name in (*FROZEN_COLUMNS, "mag_r")}
    shear = float(row["shear"])
    shear_phi = float(row["shear_phi_rad"])
    components = source.frozen_components(
        str(rows.variables["task_id"].values[index]),
        float(row["src_reff_arcsec"]),
        _axis_ratio(float(row["src_e"])),
        float(row["src_phi_rad"]),
    )
    if components is None:
        return None
    return ArcDraw(
        theta_e_arcsec=float(row["theta_e_arcsec"]),
        lens_q=_axis_ratio(float(row["lens_e"])),
        lens_phi_rad=float(row["lens_phi_rad"]),
        lens_slope=2.0,
        shear_gamma1=shear * math.cos(2 * shear_phi),
        shear_gamma2=shear * math.sin(2 * shear_phi),
        lens_x_arcsec=centre_px[0] * PIXEL_SCALE_ARCSEC,
        lens_y_arcsec=centre_px[1] * PIXEL_SCALE_ARCSEC,
        src_x_arcsec=float(row["src_x_arcsec"]),
        src_y_arcsec=float(row["src_y_arcsec"]),
        src_re_arcsec=components.re_arcsec,
        src_n=components.n,
        src_q=components.q,
        src_phi_rad=components.phi_rad,
        src_mag_r=float(row["mag_r"]) + float(row["src_dmag"]),
        src_gr=float(row["src_gr"]),
        src_rz=float(row["src_rz"]),
        src_redshift=math.nan,
        components=components,
    )


def _axis_ratio(ellipticity: float) -> float:
    return (1.0 - ellipticity) / (1.0 + ellipticity)

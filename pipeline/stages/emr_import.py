"""Training rows from finished stamps: those of every generation of the EMR system, and of its successor.

A row that cannot be used is kept, without pixels and with the first reason that applies. Numbers that old tables do
not hold stay undefined: host magnitudes, the lens centre, every SNR but the EMR ones. g and z seeing are those of r
where a table has r alone, as in the EMR manifests; psf_fwhm_used, which exists for arcs only, is never taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from pipeline.contracts.config import RunConfig
from pipeline.contracts.datasets import REJECT_REASONS, SPLITS, TRAINING
from pipeline.contracts.emr_columns import ERROR_PREFIX
from pipeline.contracts.survey import PSFSIZE_RANGE_ARCSEC
from pipeline.stages.cutouts import reason_code, sky_sigma
from pipeline.stages.emr_splits import relabelled_splits
from pipeline.stages.manifest import host_ids
from pipeline.stages.pairs import CONTROL, INJECTED, PAIR, UNUSED
from pipeline.stages.splits import assign_splits

# Limits of the EMR loaders: |pixel| in nmgy, and variance of a band.
_LARGEST_NMGY = 1e6
_LEAST_VARIANCE = 1e-10
# Older names of columns, and the reasons inside the texts of EMR error rows.
_RENAMED = {"lensed_hlr_arcsec": "cosmos_hlr_arcsec", "task_id": "galaxy_id", "region_split": "split"}
_ERRORS = {"coadd load failed": "brick_missing", "broadcast": "out_of_bounds"}
_COPIED = {
    "theta_e_arcsec": "theta_e_arcsec",
    "lens_phi_rad": "lens_phi_rad",
    "src_x_arcsec": "src_x_arcsec",
    "src_y_arcsec": "src_y_arcsec",
    "src_re_arcsec": "src_reff_arcsec",
    "src_phi_rad": "src_phi_rad",
    "arc_snr": "arc_snr",
    "arc_snr_sum": "arc_snr_sum",
    "magnification": "magnification",
    "lensed_hlr_arcsec": "lensed_hlr_arcsec",
}
IMPORTED_COLUMNS = (
    *("task_id", "galaxy_id", "brickname", "ra", "dec", "region_split", "split", "is_control", "label", "lens_model"),
    *("cutout_ok", "bad_pixel_frac", "wise_brightmask_frac", "physics_warnings", "source_mode", "cosmos_index"),
    *("psfsize_g", "psfsize_r", "psfsize_z", "psfdepth_r", "ebv", "gmag", "rmag", "zmag", "theta_e_arcsec", "src_e"),
    *("shear", "shear_phi_rad", "src_reff_arcsec", "src_x_arcsec", "src_y_arcsec", "src_phi_rad", "lens_e"),
    *("lens_phi_rad", "arc_snr", "arc_snr_sum", "magnification", "lensed_hlr_arcsec", "cosmos_hlr_arcsec"),
)


@dataclass(frozen=True)
class FoundStamp:
    """A decoded stamp (band, y, x) float32, or the reason why there is none."""

    image: NDArray[np.float32] | None
    reason: str = "none"


def imported_pairs(
    table: pd.DataFrame,
    stamps: Sequence[FoundStamp],
    controls: Sequence[FoundStamp | None],
    duplicate: NDArray[np.bool_],
    first_row: int,
    config: RunConfig,
) -> xr.Dataset:
    """One shard of the training cube. Larger stamps are cut to the middle, index size // 2 on index size // 2.

    Args:
        table: rows with some of IMPORTED_COLUMNS; columns that no table has are absent.
        stamps: (sample) the stamp of every row.
        controls: (sample) the same host without arc, None where the table has none.
        duplicate: (sample,) True where an earlier row has the same task_id.
        first_row: number of the first row, which numbers the pairs.
        config: bands, stamp size, quality limits and splits.
    """
    rows = _Rows(table)
    n_rows, size, bands = len(table), config.survey.stamp_size_px, config.survey.bands
    sizes = {"sample": n_rows, "band": len(bands), "y": size, "x": size}
    out: dict[str, NDArray[np.generic]] = {
        variable.name: np.full(
            [sizes[dim] for dim in variable.dims],
            variable.fill_value,
            object if variable.dtype == "str" else variable.dtype,
        )
        for variable in TRAINING.variables
    }
    control = rows.is_control()
    ra, dec = rows.number("ra"), rows.number("dec")
    reasons = _row_reasons(rows, control, duplicate, ra, dec)
    injected = [_cut(stamp, size) for stamp in stamps]
    without = [None if stamp is None else _cut(stamp, size) for stamp in controls]
    seeing = rows.seeing(bands)
    for row in range(n_rows):
        twin = without[row]
        if reasons[row] == "none":
            reasons[row] = _stamp_reason(rows, row, injected[row], twin, seeing[row], control[row] == 1, config)
        image = injected[row].image
        if reasons[row] == "none" and image is not None:
            _keep(out, row, image, None if twin is None else twin.image, is_control=control[row] == 1)
    _fill_columns(out, rows, control, seeing, ra, dec, config)
    out["reject_reason"][:] = [reason_code(reason) for reason in reasons]
    out["pair_id"][:] = first_row + np.arange(n_rows)
    used = out["role"] != UNUSED
    for name in ("arc_snr", "arc_snr_sum", "magnification", "lensed_hlr_arcsec"):
        out[name][~used] = np.nan
    out["weight_prior"][np.isin(out["role"], (PAIR, INJECTED))] = 1.0
    out["attempts"][np.isin(out["role"], (PAIR, INJECTED))] = 1
    return xr.Dataset({variable.name: (variable.dims, out[variable.name]) for variable in TRAINING.variables})


class _Rows:
    """Columns of a table under their present names; undefined where the table has none."""

    def __init__(self, table: pd.DataFrame) -> None:
        self._table = table
        self._n_rows = len(table)

    def has(self, name: str) -> bool:
        return name in self._table

    def number(self, name: str) -> NDArray[np.float64]:
        source = name if name in self._table else _RENAMED.get(name, name)
        if source not in self._table:
            return np.full(self._n_rows, np.nan)
        return pd.to_numeric(self._table[source], errors="coerce").to_numpy(np.float64, na_value=np.nan)

    def text(self, name: str) -> list[str]:
        values = self._table.get(name)
        other = self._table.get(_RENAMED.get(name, name))
        texts = pd.Series([None] * self._n_rows, dtype=object) if values is None else values.astype(object)
        if other is not None:
            texts = texts.where(texts.notna(), other.astype(object))
        return [str(value) for value in texts.where(texts.notna(), "").tolist()]

    def is_control(self) -> NDArray[np.float64]:
        """1 for controls, 0 for arcs, NaN where no column says so."""
        if self.has("is_control"):
            return self.number("is_control")
        if self.has("label"):
            return 1.0 - self.number("label")
        model = self.text("lens_model")
        return np.array([np.nan if not name else float(name == "CONTROL") for name in model])

    def seeing(self, bands: Sequence[str]) -> NDArray[np.float32]:
        """(sample, band) psfsize, that of r for bands without one. [arcsec]"""
        red = self.number("psfsize_r")
        columns = [self.number(f"psfsize_{band}") for band in bands]
        return np.stack([np.where(np.isfinite(own), own, red) for own in columns], axis=1).astype(np.float32)


def _row_reasons(
    rows: _Rows,
    control: NDArray[np.float64],
    duplicate: NDArray[np.bool_],
    ra: NDArray[np.float64],
    dec: NDArray[np.float64],
) -> list[str]:
    """The first reason that the columns alone give."""
    with np.errstate(invalid="ignore"):
        placed = (ra >= 0) & (ra < 360) & (np.abs(dec) <= 90)
        # Real lenses of the successor's tables have a label and no Einstein radius.
        sized = (control != 0) | (rows.number("theta_e_arcsec") > 0) | rows.has("label")
    named = np.array([bool(task) for task in rows.text("task_id")])
    complete = placed & sized & named & np.isin(control, (0.0, 1.0))
    reasons = np.where(complete, "none", "row_incomplete").astype(object)
    for row, text in enumerate(rows.text("physics_warnings")):
        if text.startswith(ERROR_PREFIX):
            reasons[row] = _error_reason(text.removeprefix(ERROR_PREFIX))
    reasons[duplicate] = "duplicate_row"
    return [str(reason) for reason in reasons]


def _error_reason(text: str) -> str:
    if text in REJECT_REASONS:
        return text
    return next((reason for part, reason in _ERRORS.items() if part in text), "stamp_unreadable")


def _stamp_reason(
    rows: _Rows,
    row: int,
    stamp: FoundStamp,
    twin: FoundStamp | None,
    seeing_arcsec: NDArray[np.float32],
    is_control: bool,
    config: RunConfig,
) -> str:
    low, high = PSFSIZE_RANGE_ARCSEC
    found = [stamp] if twin is None else [stamp, twin]
    for each in found:
        if each.image is None:
            return each.reason
    if rows.has("cutout_ok") and rows.number("cutout_ok")[row] != 1:
        return "out_of_bounds"
    images = [each.image for each in found if each.image is not None]
    if not all(np.isfinite(image).all() for image in images):
        return "nonfinite_pixels"
    for image in images:
        if np.abs(image).max() > _LARGEST_NMGY or image.var(axis=(1, 2), dtype=np.float64).min() < _LEAST_VARIANCE:
            return "implausible_pixels"
    masked = rows.number("bad_pixel_frac")[row]
    if rows.has("bad_pixel_frac") and not masked <= config.quality.bad_pixel_frac_max:
        return "mask_unreadable" if np.isnan(masked) else "masked"
    if not ((seeing_arcsec >= low) & (seeing_arcsec <= high)).all():
        return "psfsize_invalid"
    return "arc_masked" if not is_control and rows.number("arc_snr")[row] == 0.0 else "none"


def _cut(stamp: FoundStamp, size: int) -> FoundStamp:
    if stamp.image is None or stamp.image.shape[-1] == size:
        return stamp
    side = stamp.image.shape[-1]
    start = side // 2 - size // 2
    if start < 0 or start + size > side:
        return FoundStamp(None, "stamp_shape")
    return FoundStamp(np.ascontiguousarray(stamp.image[:, start : start + size, start : start + size]))


def _keep(
    out: dict[str, NDArray[np.generic]],
    row: int,
    image: NDArray[np.float32],
    twin: NDArray[np.float32] | None,
    *,
    is_control: bool,
) -> None:
    out["injected"][row] = image
    if is_control:
        out["control"][row] = image
        out["role"][row] = CONTROL
        for name in ("arc_flux_nmgy", "src_flux_nmgy"):
            out[name][row] = 0.0
    elif twin is not None:
        out["control"][row] = twin
        out["role"][row] = PAIR
        out["arc_flux_nmgy"][row] = (image.astype(np.float64) - twin).sum(axis=(1, 2))
    else:
        out["role"][row] = INJECTED
    out["sky_sigma_nmgy"][row] = sky_sigma((image if twin is None else twin)[None])[0]


def _fill_columns(
    out: dict[str, NDArray[np.generic]],
    rows: _Rows,
    control: NDArray[np.float64],
    seeing: NDArray[np.float32],
    ra: NDArray[np.float64],
    dec: NDArray[np.float64],
    config: RunConfig,
) -> None:
    for name in ("task_id", "brickname", "region_split"):
        out[name][:] = rows.text(name)
    out["region_split_relabel"] = relabelled_splits(rows.text("task_id"), rows.text("region_split"))
    out["ra_deg"][:], out["dec_deg"][:] = ra, dec
    out["is_control"][:] = control == 1
    for target, source in {"mag_g": "gmag", "mag_r": "rmag", "mag_z": "zmag", "ebv_mag": "ebv"}.items():
        out[target][:] = rows.number(source)
    out["psfdepth_r_mag"][:] = _depth_mag(rows)
    for name in ("bad_pixel_frac", "wise_brightmask_frac"):
        out[name][:] = rows.number(name)
    # EMR stamps hold the host on pixel size // 2 to half a pixel; the remainder was not kept.
    out["centre_dx_px"][:] = out["centre_dy_px"][:] = 0.0
    out["psfsize_arcsec"][:] = out["psf_fwhm_arcsec"][:] = seeing
    for target, source in _COPIED.items():
        out[target][:] = rows.number(source)
    for target, source in {"lens_q": "lens_e", "src_q": "src_e"}.items():
        e = rows.number(source)
        out[target][:] = (1.0 - e) / (1.0 + e)
    shear, phi = rows.number("shear"), rows.number("shear_phi_rad")
    out["shear_gamma1"][:], out["shear_gamma2"][:] = shear * np.cos(2 * phi), shear * np.sin(2 * phi)
    template = rows.number("cosmos_index")
    out["src_template"][:] = np.where(np.isfinite(template), template, -1)
    sersic = np.array([mode == "sersic" for mode in rows.text("source_mode")]) & (control == 0)
    out["src_n"][:] = np.where(sersic, 1.0, np.nan)
    placed = np.isfinite(ra) & np.isfinite(dec) & (ra >= 0) & (ra < 360) & (np.abs(dec) <= 90)
    where = np.flatnonzero(placed)
    names = np.array(rows.text("brickname"), dtype=object)
    out["host_id"][where] = host_ids(names[where].tolist(), ra[where].tolist(), dec[where].tolist())
    out["split"][:] = SPLITS.index("guard")
    out["split"][where], out["split_healpix"][where] = assign_splits(
        ra[where], dec[where], config.run.seed, config.splits
    )
    if config.manifest.split_from == "table":
        known = {name: code for code, name in enumerate(SPLITS)}
        out["split"][:] = [known.get(name, SPLITS.index("guard")) for name in rows.text("region_split")]


def _depth_mag(rows: _Rows) -> NDArray[np.float64]:
    """5-sigma depth in mag; the successor's tables, which have a label, hold the inverse variance of the flux."""
    depth = rows.number("psfdepth_r")
    if not rows.has("label"):
        return depth
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(depth > 0, 22.5 - 2.5 * np.log10(5.0 / np.sqrt(depth)), np.nan)

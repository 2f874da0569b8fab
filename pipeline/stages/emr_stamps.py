"""Rows of the EMR stamps table from a shard of both cubes and, for an EMR manifest, from its own columns.

Every row of the manifest gives a row. One without stamp is an error row: no pixels, no numbers, cutout_ok 0 and the
reason in `physics_warnings`. What is NULL for controls there is NULL here, so none of it may be a feature of a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from pipeline.contracts.config import RunConfig
from pipeline.contracts.datasets import REJECT_REASONS, SPLITS
from pipeline.contracts.emr_columns import ERROR_PREFIX, PARTITION, PIPELINE_VERSION
from pipeline.contracts.errors import ContractError
from pipeline.contracts.manifest import FROZEN_COLUMNS
from pipeline.contracts.survey import ZERO_POINT_MAG
from pipeline.stages.emr_cutouts import emr_psfsize

# Below these the EMR system wrote a warning: theta_E over seeing, and arc_snr over 2 (theta_E / seeing)**2.
_RESOLVED = 0.5
_FAINT = 0.1
_NO_SELECTION = "none"
_NO_REGION = -1
_LENS_MODELS = {"sie": "SIE", "epl": "EPL", "lenstronomy": "LENSTRONOMY"}

Masked = np.ma.MaskedArray[Any, Any]


@dataclass(frozen=True)
class EmrShard:
    """One shard of a run, as its cubes and its manifest have it.

    Attributes:
        manifest: the rows' columns of `EMR_COLUMNS` and `IDENTITY_COLUMNS`; None for a parent catalogue.
        cutouts: columns of the cutouts cube.
        pairs: columns of the training cube.
        has_stamp: (sample,) bool, True where `injected` was made.
    """

    manifest: pd.DataFrame | None
    cutouts: xr.Dataset
    pairs: xr.Dataset
    has_stamp: NDArray[np.bool_]


def emr_stamp_columns(shard: EmrShard, config: RunConfig, *, metrics_only: bool = False) -> dict[str, Masked]:
    """The columns of STAMP_TABLE but `stamp_npz`, masked where NULL, in the rows' order.

    Parameters of a frozen row are those of its manifest, bit for bit; of any other row those of its draw.

    Args:
        shard: see `EmrShard`.
        config: the run's configuration; its SNR columns must be of band r.
        metrics_only: value of the column of that name.

    Raises:
        ContractError: SNR columns of another band, or rows of another manifest.
    """
    if config.sampling.band != "r":
        raise ContractError(f"arc_snr of the EMR tables is that of band r, this run has that of {config.sampling.band}")
    given = _identity(shard, config) | _parameters(shard, config)
    control = shard.pairs["is_control"].to_numpy() == 1
    return given | _measured(shard, config, given, control, metrics_only=metrics_only)


def _identity(shard: EmrShard, config: RunConfig) -> dict[str, Masked]:
    pairs, manifest = shard.pairs, shard.manifest
    n_rows = len(shard.has_stamp)
    columns: dict[str, Masked] = {
        "task_id": _known(pairs["task_id"].to_numpy()),
        "brickname": _known(pairs["brickname"].to_numpy()),
        "ra": _known(pairs["ra_deg"].to_numpy()),
        "dec": _known(pairs["dec_deg"].to_numpy()),
        "stamp_size": _known(np.full(n_rows, config.survey.stamp_size_px)),
        "bandset": _known(np.full(n_rows, "".join(config.survey.bands), dtype=object)),
        "is_control": _known(pairs["is_control"].to_numpy()),
        "ab_zp_nmgy": _known(np.full(n_rows, ZERO_POINT_MAG)),
        "pipeline_version": _known(np.full(n_rows, PIPELINE_VERSION, dtype=object)),
        PARTITION: _known(_splits(pairs)),
    }
    if manifest is None:
        columns |= {
            "experiment_id": _known(np.full(n_rows, config.run.name, dtype=object)),
            "region_id": _known(np.full(n_rows, _NO_REGION)),
            "replicate": _known(np.zeros(n_rows)),
            "config_id": _known(np.full(n_rows, config.injection.mode, dtype=object)),
            **{name: _null(n_rows) for name in ("task_seed64", "psf_bin", "depth_bin")},
            **{
                name: _known(np.full(n_rows, _NO_SELECTION, dtype=object))
                for name in ("selection_set_id", "ranking_mode", "selection_strategy")
            },
        }
        columns |= {name: _finite(pairs[source].to_numpy()) for name, source in _CARRIED.items()}
        psfsize = pairs["psfsize_arcsec"].to_numpy()[:, config.survey.bands.index("r")]
        return columns | {"psfsize_r": _finite(psfsize)}
    if manifest["task_id"].tolist() != pairs["task_id"].to_numpy().tolist():
        raise ContractError("manifest and cube hold other rows, or the same in another order")
    names = "experiment_id selection_set_id ranking_mode selection_strategy region_id replicate config_id"
    columns |= {name: _of(manifest[name]) for name in (*names.split(), "task_seed64", "psf_bin", "depth_bin")}
    if config.injection.mode != "frozen":
        # The manifest's grid cell and seed describe arcs that were not made.
        drawn = np.where(columns["is_control"] == 1, columns["config_id"].data, config.injection.mode).astype(object)
        columns |= {"config_id": _known(drawn), "task_seed64": _null(n_rows)}
    return columns | {name: _of(manifest[name]) for name in ("psfsize_r", "psfdepth_r", "ebv")}


_CARRIED = {"psfdepth_r": "psfdepth_r_mag", "ebv": "ebv_mag"}


def _splits(pairs: xr.Dataset) -> NDArray[np.object_]:
    """The manifest's split, where it has none that of the sky."""
    given = pairs["region_split"].to_numpy().astype(object)
    sky = np.array(SPLITS, dtype=object)[pairs["split"].to_numpy()]
    return np.where(given == "", sky, given)


def _parameters(shard: EmrShard, config: RunConfig) -> dict[str, Masked]:
    """Lens and source as the row asks for them; 0 for controls."""
    if config.injection.mode == "frozen" and shard.manifest is not None:
        columns = {name: _of(shard.manifest[name]) for name in (*FROZEN_COLUMNS, "lens_model")}
        control = shard.pairs["is_control"].to_numpy() == 1
        # An error row keeps the manifest's angle, a control's own is NULL.
        hidden = control & shard.has_stamp
        return columns | {"lens_phi_rad": np.ma.array(columns["lens_phi_rad"], mask=hidden)}
    pairs = shard.pairs
    drawn = {str(name): pairs[name].to_numpy().astype(np.float64) for name in pairs if pairs[name].dims == ("sample",)
             and pairs[name].dtype.kind == "f"}  # fmt: skip
    gamma1, gamma2 = drawn["shear_gamma1"], drawn["shear_gamma2"]
    magnitude = pairs["src_mag"].to_numpy().astype(np.float64)
    band = {name: magnitude[:, config.survey.bands.index(name)] for name in config.survey.bands}
    unknown = np.full(len(gamma1), np.nan)
    wanted = {
        "theta_e_arcsec": drawn["theta_e_arcsec"],
        "src_dmag": band["r"] - pairs["mag_r"].to_numpy(),
        "src_reff_arcsec": drawn["src_re_arcsec"],
        "src_e": _ellipticity(drawn["src_q"]),
        "shear": np.hypot(gamma1, gamma2),
        "src_x_arcsec": drawn["src_x_arcsec"],
        "src_y_arcsec": drawn["src_y_arcsec"],
        "src_phi_rad": drawn["src_phi_rad"],
        "shear_phi_rad": 0.5 * np.arctan2(gamma2, gamma1),
        "src_gr": band.get("g", unknown) - band["r"],
        "src_rz": band["r"] - band.get("z", unknown),
        "lens_e": _ellipticity(drawn["lens_q"]),
        "lens_phi_rad": drawn["lens_phi_rad"],
    }
    required = ("theta_e_arcsec", "src_dmag", "src_reff_arcsec", "src_e", "shear")
    columns = {
        name: _known(np.nan_to_num(values)) if name in required else _finite(values) for name, values in wanted.items()
    }
    control = pairs["is_control"].to_numpy() == 1
    model = np.where(control, "CONTROL", _LENS_MODELS[config.injection.lens.kind]).astype(object)
    return columns | {"lens_model": _known(model)}


def _measured(
    shard: EmrShard, config: RunConfig, given: dict[str, Masked], control: NDArray[np.bool_], *, metrics_only: bool
) -> dict[str, Masked]:
    cutouts, pairs, made = shard.cutouts, shard.pairs, shard.has_stamp
    n_rows = len(made)
    arc = made & ~control
    in_bounds = cutouts["in_bounds"].to_numpy() == 1
    fraction = cutouts["bad_pixel_frac"].to_numpy()
    mask_known = made & in_bounds & np.isfinite(fraction)
    cutout_ok = made & (cutouts["cutout_ok"].to_numpy() == 1)
    snr = {name: pairs[name].to_numpy().astype(np.float64) for name in ("arc_snr", "arc_snr_sum")}
    snr_known = arc & mask_known & np.isfinite(snr["arc_snr"])
    seeing = _seeing(shard, config)
    theta_e = np.asarray(given["theta_e_arcsec"], dtype=np.float64)
    magnification = pairs["magnification"].to_numpy().astype(np.float64)
    sensible = np.isfinite(magnification) & (magnification > 0)
    from_bank = config.injection.source.kind == "bank"
    pixels = config.survey.stamp_size_px**2
    columns: dict[str, Masked] = {
        "cutout_ok": _known(cutout_ok),
        "metrics_ok": _known(mask_known & cutout_ok & (snr_known | control)),
        "metrics_only": _known(np.full(n_rows, metrics_only)),
        "arc_snr": np.ma.array(snr["arc_snr"], mask=~snr_known),
        "arc_snr_sum": np.ma.array(snr["arc_snr_sum"], mask=~snr_known),
        "magnification": np.ma.array(magnification, mask=~(arc & np.isfinite(magnification))),
        "tangential_stretch": _null(n_rows),
        "radial_stretch": _null(n_rows),
        "expected_arc_radius": np.ma.array(theta_e, mask=~arc),
        "physics_valid": np.ma.array(arc & sensible, mask=made & control),
        "physics_warnings": _warnings(shard, theta_e, seeing[:, config.survey.bands.index("r")], snr, snr_known),
        "source_mode": _known(np.full(n_rows, "cosmos" if from_bank else "sersic", dtype=object)),
        "cosmos_index": np.ma.array(pairs["src_template"].to_numpy(), mask=~arc | ~np.bool_(from_bank)),
        "lensed_hlr_arcsec": np.ma.array(
            pairs["lensed_hlr_arcsec"].to_numpy().astype(np.float64), mask=~arc | ~np.bool_(from_bank)
        ),
    }
    for name in ("bad_pixel_frac", "wise_brightmask_frac"):
        # The cubes hold float32; the number of pixels behind it is exact.
        share = np.rint(np.nan_to_num(cutouts[name].to_numpy()).astype(np.float64) * pixels) / pixels
        columns[name] = np.ma.array(share, mask=~mask_known)
    for band in ("g", "r", "z"):
        used = seeing[:, config.survey.bands.index(band)] if band in config.survey.bands else np.full(n_rows, np.nan)
        columns[f"psf_fwhm_used_{band}"] = np.ma.array(used, mask=~(arc & np.isfinite(used)))
    return columns


def _seeing(shard: EmrShard, config: RunConfig) -> NDArray[np.float64]:
    """(sample, band) seeing used, the manifest's own float64 numbers where they were used. [arcsec]"""
    cut = shard.cutouts["psfsize_arcsec"].to_numpy()
    if shard.manifest is None:
        return cut.astype(np.float64)
    brick = np.stack([shard.manifest[f"psfsize_{band}"].to_numpy(np.float64) for band in config.survey.bands], axis=1)
    if config.injection.psf.psfsize_from == "manifest":
        return brick
    used = emr_psfsize(cut, brick) if config.injection.emr_compat else cut
    return np.where(used == cut, cut.astype(np.float64), brick)


def _warnings(
    shard: EmrShard,
    theta_e_arcsec: NDArray[np.float64],
    seeing_arcsec: NDArray[np.float64],
    snr: dict[str, NDArray[np.float64]],
    snr_known: NDArray[np.bool_],
) -> Masked:
    reason = shard.pairs["reject_reason"].to_numpy()
    texts: list[str | None] = []
    for row, made in enumerate(shard.has_stamp.tolist()):
        if not made:
            texts.append(ERROR_PREFIX + REJECT_REASONS[reason[row]])
            continue
        theta, seeing, found = float(theta_e_arcsec[row]), float(seeing_arcsec[row]), []
        if theta > 0 and theta / seeing < _RESOLVED:
            found.append(f"theta_e ({theta:.2f}) < {_RESOLVED} * PSF ({seeing:.2f}): unresolved")
        expected = 2.0 * (theta / seeing) ** 2
        if snr_known[row] and snr["arc_snr"][row] < _FAINT * expected:
            found.append(f"SNR ({snr['arc_snr'][row]:.1f}) much lower than expected (~{expected:.1f})")
        texts.append("; ".join(found) or None)
    return np.ma.array(np.array(texts, dtype=object), mask=[text is None for text in texts])


def rows_with_control(shard: EmrShard, cutout_ok: Sequence[int], control: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(sample,) rows of the paired table: positives in bounds whose control is finite everywhere.

    Args:
        shard: see `EmrShard`.
        cutout_ok: (sample,) the column of that name.
        control: (sample, band, y, x) control stamps. [nmgy]
    """
    positive: NDArray[np.bool_] = shard.pairs["is_control"].to_numpy() == 0
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(control).all(axis=(1, 2, 3)))
    kept: NDArray[np.bool_] = np.asarray(cutout_ok) == 1
    return shard.has_stamp & positive & kept & finite


def _ellipticity(axis_ratio: NDArray[np.float64]) -> NDArray[np.float64]:
    return (1.0 - axis_ratio) / (1.0 + axis_ratio)


def _known(values: NDArray[Any]) -> Masked:
    return np.ma.array(values, mask=np.zeros(len(values), dtype=np.bool_))


def _null(n_rows: int) -> Masked:
    return np.ma.array(np.zeros(n_rows), mask=np.ones(n_rows, dtype=np.bool_))


def _finite(values: NDArray[Any]) -> Masked:
    known = np.asarray(values, dtype=np.float64)
    return np.ma.array(known, mask=~np.isfinite(known))


def _of(series: pd.Series) -> Masked:
    absent = series.isna().to_numpy(np.bool_)
    values = series.to_numpy(dtype=object) if series.dtype.kind not in "iuf" else series.to_numpy()
    return np.ma.array(values, mask=absent)

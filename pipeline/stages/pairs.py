"""Pairs: one shard of the training cube from one shard of cutouts; every positive beside its control."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.contracts.config import RunConfig
from pipeline.contracts.datasets import HOST_COLUMNS, ROLES, TRAINING
from pipeline.contracts.errors import ContractError
from pipeline.kernels.psf import psf_fwhm_arcsec
from pipeline.kernels.random import task_keys
from pipeline.stages.cutouts import reason_code
from pipeline.stages.emr_cutouts import emr_psfsize, has_emr_stamp
from pipeline.stages.emr_splits import relabelled_splits
from pipeline.stages.injection import Accepted, Exposure, Injector, expose
from pipeline.stages.samplers import Refused
from pipeline.stages.splits import assign_splits

UNUSED, PAIR, CONTROL, INJECTED = range(len(ROLES))
_DRAW_COLUMNS = (
    "theta_e_arcsec",
    "lens_q",
    "lens_phi_rad",
    "shear_gamma1",
    "shear_gamma2",
    "lens_x_arcsec",
    "lens_y_arcsec",
    "src_x_arcsec",
    "src_y_arcsec",
    "src_re_arcsec",
    "src_n",
    "src_q",
    "src_phi_rad",
)


def make_pairs(
    cutouts: xr.Dataset, rows: xr.Dataset, first_row: int, config: RunConfig, injector: Injector
) -> xr.Dataset:
    """Fill one shard of the training cube.

    A row that cannot be used keeps NaN pixels, role "unused" and its reason; with `injection.emr_compat` it keeps
    role and reason, but has the stamps that the EMR system made of it. A control row keeps its host pixels in both
    stamps. Nothing depends on other rows, other shards or the order of work.

    Args:
        cutouts: the cutouts cube's variables of the shard's rows.
        rows: the manifest rows of the shard (`contracts.manifest.ROWS`).
        first_row: number of the shard's first row in the manifest; numbers the pairs.
        injector: draws and renders; its counters are advanced.

    Raises:
        ContractError: rows and cutouts are not the same rows in the same order.
    """
    shared = [variable.name for variable in HOST_COLUMNS if variable.name in rows]
    different = [name for name in shared if not cutouts[name].drop_attrs().equals(rows[name].drop_attrs())]
    if different:
        raise ContractError(f"cutouts and manifest rows of a shard differ in {', '.join(different)}")
    out = _empty(cutouts, config)
    keys = task_keys(cutouts["task_id"].to_numpy().tolist())
    usable = cutouts["usable"].to_numpy()
    is_control = cutouts["is_control"].to_numpy()
    image, kept_out_for = cutouts["image"].to_numpy(), cutouts["reject_reason"].to_numpy()
    out["pair_id"][:] = first_row + np.arange(len(usable))
    out["split"][:], out["split_healpix"][:] = assign_splits(
        cutouts["ra_deg"].to_numpy(), cutouts["dec_deg"].to_numpy(), config.run.seed, config.splits
    )
    out["region_split_relabel"] = relabelled_splits(
        cutouts["task_id"].to_numpy().tolist(), cutouts["region_split"].to_numpy().tolist()
    )
    psf = config.injection.psf
    if psf.profile != "measured":
        out["psf_fwhm_arcsec"][:] = psf_fwhm_arcsec(cutouts["psfsize_arcsec"].to_numpy(), psf.profile, psf.moffat_beta)
    invvar = cutouts["invvar"].to_numpy()
    wanted = usable.astype(np.bool_)
    if config.injection.emr_compat:
        wanted |= has_emr_stamp(cutouts)
        seeing = emr_psfsize(cutouts["psfsize_arcsec"].to_numpy(), rows["psfsize_manifest_arcsec"].to_numpy())
        cutouts = cutouts.assign(psfsize_arcsec=(("sample", "band"), seeing))
    for index in range(len(usable)):
        if not wanted[index]:
            out["reject_reason"][index] = kept_out_for[index]
            continue
        if is_control[index]:
            _keep_control(out, index, image[index])
            continue
        host = injector.host(cutouts, index, keys[index])
        if isinstance(host, str):
            out["reject_reason"][index] = reason_code(host)
            continue
        frozen = config.injection.mode == "frozen"
        accepted = injector.freeze(rows, index, host) if frozen else injector.accept(host)
        if isinstance(accepted, Refused):
            out["reject_reason"][index] = reason_code(accepted.reason)
            out["attempts"][index] = accepted.attempts
            continue
        _keep_pair(out, index, image[index], accepted, expose(injector, host, accepted, invvar[index]))
        if injector.sky_nmgy is not None:
            out["sky_nmgy"][index] = injector.sky_nmgy
    kept_out = usable == 0
    out["role"][kept_out] = UNUSED
    out["reject_reason"][kept_out] = kept_out_for[kept_out]
    return xr.Dataset({variable.name: (variable.dims, out[variable.name]) for variable in TRAINING.variables})


def _empty(cutouts: xr.Dataset, config: RunConfig) -> dict[str, NDArray[np.generic]]:
    size = config.survey.stamp_size_px
    sizes = {"sample": cutouts.sizes["sample"], "band": len(config.survey.bands), "y": size, "x": size}
    copied = {variable.name for variable in HOST_COLUMNS}
    out: dict[str, NDArray[np.generic]] = {}
    for variable in TRAINING.variables:
        if variable.name in copied:
            out[variable.name] = cutouts[variable.name].to_numpy()
        else:
            shape = tuple(sizes[dim] for dim in variable.dims)
            out[variable.name] = np.full(shape, variable.fill_value, dtype=variable.dtype)
    # 0 would name the first template of a bank.
    out["src_template"][:] = -1
    return out


def _keep_control(out: dict[str, NDArray[np.generic]], index: int, image: NDArray[np.float32]) -> None:
    out["injected"][index] = image
    out["control"][index] = image
    out["role"][index] = CONTROL
    for name in ("theta_e_arcsec", "src_flux_nmgy", "arc_flux_nmgy"):
        out[name][index] = 0.0


def _keep_pair(
    out: dict[str, NDArray[np.generic]],
    index: int,
    image: NDArray[np.float32],
    accepted: Accepted,
    exposure: Exposure,
) -> None:
    out["injected"][index] = image + (exposure.arc_nmgy + exposure.noise_nmgy)
    out["control"][index] = image
    out["role"][index] = PAIR
    for name in _DRAW_COLUMNS:
        out[name][index] = getattr(accepted.draw, name)
    out["src_mag"][index] = exposure.src_mag
    out["src_flux_nmgy"][index] = exposure.src_flux_nmgy
    out["arc_flux_nmgy"][index] = exposure.arc_nmgy.sum(axis=(1, 2), dtype=np.float64)
    for name, value in exposure.columns.items():
        out[name][index] = value
    out["snr_target"][index] = accepted.snr_target
    out["attempts"][index] = accepted.attempts
    out["weight_prior"][index] = accepted.weight_prior
    out["mag_outside_prior"][index] = accepted.outside_prior

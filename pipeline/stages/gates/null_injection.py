"""Gate on the null: without flux an injection changes nothing, with flux it adds the arc's light and no other."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.contracts.config import RunConfig
from pipeline.stages.gates.result import (
    NO_NULL,
    SHARE_AT_FAULT,
    GateInput,
    Measurement,
    Reinjection,
    has_role,
    wilson_interval,
)
from pipeline.stages.injection import Accepted, Host, Injector
from pipeline.stages.pairs import make_pairs
from pipeline.stages.samplers import Refused

# Sigmas of shot noise, and units in the last place of the brightest pixel, that are no light.
_NOISE_SIGMAS = 7.0
_ROUNDING = float(np.finfo(np.float32).eps)
_ROWS_PER_BLOCK = 512


class _WithoutFlux(Injector):
    """An injector that accepts what it always accepts, with sources of no flux."""

    def accept(self, host: Host) -> Accepted | Refused:
        return _extinguished(super().accept(host))

    def freeze(self, rows: xr.Dataset, index: int, host: Host) -> Accepted | Refused:
        return _extinguished(super().freeze(rows, index, host))


def no_injection(config: RunConfig) -> str:
    """Why nothing can be injected again; empty if it can."""
    return "not applicable: imported stamps were injected elsewhere" if config.manifest.kind == "stamps" else ""


def audit_null_injection(sample: GateInput) -> Measurement:
    """A zero-flux arc changes nothing, a control row has no arc, and a pair differs by its arc alone.

    * `null_rows` pairs are made once more by the pipeline's own code with sources of zero flux: injected,
      control and the stored control must be equal in every pixel.
    * stamps of control rows must be equal in every pixel.
    * injected minus control of every sampled pair must sum to `arc_flux_nmgy` in every band, and nowhere be
      negative, within `null_light_tolerance` of the arc's flux and peak, the rounding of float32, and 7 sigma
      of the arc's shot noise where the run adds any (sigma from sky_sigma, sky level and arc flux).

    The value is the number of offending rows.
    """
    if sample.reinjection is None:
        raise ValueError("no pairs were given that could be injected again")
    counts = {
        **_changed_without_flux(sample.reinjection, sample),
        "control_rows_with_arc": _control_rows_with_arc(sample.stamps),
        **_other_light(sample),
    }
    n_again = sample.reinjection.stored.sizes["sample"]
    n_checked = n_again + int(has_role(sample.stamps, "pair", "control").sum())
    offending = {name: count for name, count in counts.items() if count}
    return Measurement(
        passed=not offending,
        value=float(sum(counts.values())),
        bound="0 offending rows",
        detail={**counts, "injected_again": n_again, "pairs": int(has_role(sample.stamps, "pair").sum())},
        message=f"offending: {offending}"
        if offending
        else f"{n_again} pairs injected again without flux are their controls bit for bit; pairs differ by their arcs",
        interval_95=wilson_interval(min(sum(counts.values()), n_checked), n_checked),
        null=NO_NULL,
        interval_of=SHARE_AT_FAULT,
    )


def _extinguished(accepted: Accepted | Refused) -> Accepted | Refused:
    if isinstance(accepted, Refused):
        return accepted
    return replace(accepted, draw=replace(accepted.draw, src_mag_r=math.inf))


def _changed_without_flux(again: Reinjection, sample: GateInput) -> dict[str, int]:
    """Rows that a zero-flux injection changes, and rows that it does not make pairs of."""
    if not has_role(again.stored, "pair").any() or not has_role(again.stored, "pair").all():
        raise ValueError("rows to inject again must be pairs, and there must be some")
    injector = _WithoutFlux(sample.config, again.pilot, again.assets)
    made = make_pairs(again.cutouts, again.rows, 0, sample.config, injector)
    stored = again.stored["control"].to_numpy()
    equal = np.ones(len(stored), dtype=bool)
    for name in ("injected", "control"):
        equal &= (made[name].to_numpy() == stored).all(axis=(1, 2, 3))
    is_pair = has_role(made, "pair")
    return {"no_pair_when_injected_again": int((~is_pair).sum()), "changed_without_flux": int((is_pair & ~equal).sum())}


def _control_rows_with_arc(stamps: xr.Dataset) -> int:
    rows = np.flatnonzero(has_role(stamps, "control"))
    injected, control = stamps["injected"].to_numpy(), stamps["control"].to_numpy()
    return sum(not np.array_equal(injected[row], control[row]) for row in rows.tolist())


def _other_light(sample: GateInput) -> dict[str, int]:
    """Pairs whose difference has another flux than the arc, or is negative somewhere."""
    stamps, tolerance = sample.stamps, sample.config.gates.null_light_tolerance
    pair = np.flatnonzero(has_role(stamps, "pair"))
    counts = {"flux_is_not_the_arc": 0, "negative_light": 0}
    for start in range(0, pair.size, _ROWS_PER_BLOCK):
        rows = pair[start : start + _ROWS_PER_BLOCK]
        control = stamps["control"].to_numpy()[rows].astype(np.float64)
        injected = stamps["injected"].to_numpy()[rows].astype(np.float64)
        added = (injected - control).reshape(*control.shape[:2], -1)
        arc_flux = stamps["arc_flux_nmgy"].to_numpy()[rows].astype(np.float64)
        sky, sigma = (stamps[name].to_numpy()[rows].astype(np.float64) for name in ("sky_nmgy", "sky_sigma_nmgy"))
        peak = added.max(axis=2)
        rounding = _ROUNDING * np.abs(injected).reshape(added.shape).max(axis=2)
        flux_error = np.abs(added.sum(axis=2) - arc_flux)
        flux_limit = tolerance * np.abs(arc_flux) + rounding * math.sqrt(added.shape[2]) + _shot(arc_flux, sky, sigma)
        dip_limit = tolerance * np.maximum(peak, 0.0) + rounding + _shot(peak, sky, sigma)
        counts["flux_is_not_the_arc"] += int((~(flux_error <= flux_limit)).any(axis=1).sum())
        counts["negative_light"] += int((~(added.min(axis=2) >= -dip_limit)).any(axis=1).sum())
    return counts


def _shot(
    flux_nmgy: NDArray[np.float64], sky_nmgy: NDArray[np.float64], sigma_nmgy: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Seven sigma of the shot noise of a flux on a sky level; 0 where none was added. [nmgy]"""
    with np.errstate(invalid="ignore", divide="ignore"):
        noise = _NOISE_SIGMAS * sigma_nmgy * np.sqrt(np.maximum(flux_nmgy, 0.0) / sky_nmgy)
    return np.where(np.isfinite(sky_nmgy), noise, 0.0)

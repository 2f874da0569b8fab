"""Gates on shortcuts: whether the core, the radial profile or the metadata alone tell the classes apart."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.contracts.datasets import INJECTED_ROLES
from pipeline.contracts.gate_config import GateSection
from pipeline.contracts.survey import PIXEL_SCALE_ARCSEC
from pipeline.stages.gates.apertures import CORE_STATISTICS, core_statistics, radial_profiles
from pipeline.stages.gates.baselines import (
    fit_baseline,
    out_of_fold_auc,
    pair_swap_null,
    shuffle_labels,
    swap_within_pairs,
)
from pipeline.stages.gates.result import Attribution, GateInput, Measurement, cohen_d, gate_generator, has_role

_RATIO_BAND = "r"
_BOOTSTRAPS = 1000
_PSF_WIDTHS, _SMALLEST_CORE_PX = 1.5, 2.0
# theta_E over PSF FWHM: unresolved, marginal, resolved.
_RESOLUTION_EDGES = (0.0, 0.8, 1.0, np.inf)
_METADATA = ("mag_g", "mag_r", "mag_z", "ebv_mag", "psfdepth_r_mag", "bad_pixel_frac", "wise_brightmask_frac")
_METADATA_BANDS = ("psfsize_arcsec", "sky_sigma_nmgy")


def compare_core_brightness(sample: GateInput) -> Measurement:
    """Injected cores are as bright as the cores of the same hosts without arc.

    The value is the ratio of the means over all sampled pairs of the mean r-band flux within
    `core_ratio_radius_px` of the host. The 95 % interval resamples hosts, so repeated hosts count once.
    """
    section = sample.config.gates
    pairs = sample.stamps.isel(sample=np.flatnonzero(has_role(sample.stamps, "pair")))
    controls = sample.stamps.isel(sample=np.flatnonzero(has_role(sample.stamps, "control")))
    band = sample.bands_found.index(_RATIO_BAND)
    radius = _core_radii(sample, pairs, section.core_ratio_radius_px)
    injected, control = (
        core_statistics(pairs, name, radius, slice(band, band + 1))[:, 0] for name in ("injected", "control")
    )
    mean_injected, mean_control = float(injected.mean()), float(control.mean())
    if not mean_control > 0.0:
        raise ValueError(f"control cores hold no flux (mean {mean_control:.4g} nmgy), so they have no ratio")
    ratio = mean_injected / mean_control
    low, high = section.core_ratio_range
    interval = _ratio_interval(injected, control, pairs["host_id"].to_numpy(), sample.config.run.seed)
    null, null_std = pair_swap_null(
        lambda first, second: float(first.mean() / second.mean()),
        injected,
        control,
        1.0,
        gate_generator(sample.config.run.seed, "core_brightness_ratio_null"),
    )
    other = np.empty(0)
    if controls.sizes["sample"]:
        other_radius = _borrowed_radii(sample, radius, controls.sizes["sample"])
        other = core_statistics(controls, "control", other_radius, slice(band, band + 1))[:, 0]
    return Measurement(
        passed=low <= ratio <= high,
        value=ratio,
        bound=f"{low} <= injected / control <= {high} {_core_words(section, section.core_ratio_radius_px)}",
        detail={
            "mean_injected_nmgy": mean_injected,
            "mean_control_nmgy": mean_control,
            "mean_control_rows_nmgy": float(other.mean()) if other.size else None,
            "core_radius": section.core_radius,
            "median_radius_px": float(np.median(radius)),
            "bootstraps": _BOOTSTRAPS,
            "null_std": null_std,
            "cohen_d": cohen_d(injected, control),
            "ratio_by_theta_e_over_fwhm": _ratios_by_resolution(sample, pairs, injected, control),
        },
        message=f"injected cores are {ratio:.4f} times as bright, 95 % interval {interval[0]:.4f} to {interval[1]:.4f}",
        interval_95=interval,
        null=null,
        attribution=_ratio_attribution(injected, control, other, section.min_per_class),
    )


def _core_words(section: GateSection, radius_px: float) -> str:
    """Where the core ends, in words."""
    if section.core_radius == "theta_e":
        return f"within theta_E less the seeing, by pair, at most {radius_px} px"
    return f"within {radius_px} px"


def classify_core(sample: GateInput) -> Measurement:
    """A linear classifier that sees only the core cannot tell injected from control stamps.

    Features are seven statistics of the pixels within `core_auc_radius_px` in every band; see
    `fit_baseline`. The permutation null swaps labels within pairs, control rows staying controls: a
    null above 0.5 says the control rows come from other hosts than the pairs.
    """
    section = sample.config.gates
    chosen = _Classes.of(sample)
    radius = _core_radii(sample, chosen.pairs, section.core_auc_radius_px)
    all_radii = np.empty(chosen.controls.sizes["sample"])
    all_radii[chosen.twin] = radius
    others = np.setdiff1d(np.arange(all_radii.size), chosen.twin)
    all_radii[others] = _borrowed_radii(sample, radius, others.size)
    injected = core_statistics(chosen.pairs, "injected", radius)
    control = core_statistics(chosen.controls, "control", all_radii)
    return _classify_stamps(
        sample, "core_only_auc", chosen, injected, control, section.core_auc_max,
        _core_words(section, section.core_auc_radius_px), "the core alone",
        {"statistics": CORE_STATISTICS, "core_radius": section.core_radius},
    )  # fmt: skip


def classify_radial_profile(sample: GateInput) -> Measurement:
    """A linear classifier that sees only azimuthal medians cannot tell injected from control stamps.

    Features are the medians in `radial_bins` rings of equal width in every band. A set that fails can be
    learnt as "any ring", without the shape of an arc.
    """
    section = sample.config.gates
    chosen = _Classes.of(sample)
    injected = radial_profiles(chosen.pairs["injected"].to_numpy(), section.radial_bins)
    control = radial_profiles(chosen.controls["control"].to_numpy(), section.radial_bins)
    return _classify_stamps(
        sample, "radial_profile_auc", chosen, injected, control, section.radial_auc_max,
        f"of {section.radial_bins} rings", "the radial profile alone", {},
    )  # fmt: skip


def count_metadata(sample: GateInput) -> tuple[int, int]:
    """Injected rows and control rows; a pair's own control has its metadata and is not counted."""
    return int(has_role(sample.columns, *INJECTED_ROLES).sum()), int(has_role(sample.columns, "control").sum())


def no_control_rows(sample: GateInput) -> str:
    """Why metadata cannot tell the classes apart; empty if they could."""
    n_pair, n_control = count_metadata(sample)
    if n_pair == 0 or n_control > 0:
        return ""
    return "not applicable: every negative is the control of a pair and has its metadata, there are no control rows"


def classify_metadata(sample: GateInput) -> Measurement:
    """A linear classifier that sees only columns of the host cannot tell the classes apart.

    Features are seeing, sky noise, depth, host magnitudes, extinction and mask fractions, never a column
    that describes the arc; a column that lacks values adds whether it does. Pair members share their
    columns, so pairs are compared with control rows. At most `max_samples` rows are drawn from the whole cube.
    """
    section = sample.config.gates
    generator = gate_generator(sample.config.run.seed, "metadata_only_auc")
    pair, control = (np.flatnonzero(has_role(sample.columns, *roles)) for roles in (INJECTED_ROLES, ("control",)))
    pair, control = (_thinned(rows, section.max_samples // 2, generator) for rows in (pair, control))
    rows = np.concatenate([pair, control])
    features, names = _metadata_features(sample.columns.isel(sample=rows), sample.config.survey.bands)
    label = np.repeat(np.array([1, 0]), [pair.size, control.size])
    host_id = sample.columns["host_id"].to_numpy()[rows]
    found = fit_baseline(features, label, host_id, section.folds, shuffle_labels, generator)
    return Measurement(
        passed=found.auc <= section.metadata_auc_max,
        value=found.auc,
        bound=f"out-of-fold AUC <= {section.metadata_auc_max} of {len(names)} columns of the host",
        detail={**found.detail(), "features": names},
        message=f"metadata alone give AUC {found.auc:.4f} for {pair.size} pairs against {control.size} control rows",
        interval_95=found.interval_95,
        null=found.chance("labels shuffled"),
    )


@dataclass(frozen=True)
class _Classes:
    """Sampled stamps by class: pairs, all controls, and the row of each pair among the controls."""

    pairs: xr.Dataset
    controls: xr.Dataset
    twin: NDArray[np.int64]

    @classmethod
    def of(cls, sample: GateInput) -> _Classes:
        pair = np.flatnonzero(has_role(sample.stamps, "pair"))
        control = np.flatnonzero(has_role(sample.stamps, "pair", "control"))
        return cls(sample.stamps.isel(sample=pair), sample.stamps.isel(sample=control), np.searchsorted(control, pair))


def _classify_stamps(
    sample: GateInput,
    name: str,
    chosen: _Classes,
    injected: NDArray[np.float64],
    control: NDArray[np.float64],
    auc_max: float,
    of_what: str,
    features_are: str,
    detail: dict[str, Any],
) -> Measurement:
    """Measurement of a classifier of features of injected stamps (pair, feature) and controls (control, feature)."""
    section = sample.config.gates
    host_pair, host_control = chosen.pairs["host_id"].to_numpy(), chosen.controls["host_id"].to_numpy()
    n_pair = host_pair.size
    label = np.repeat(np.array([1, 0]), [n_pair, host_control.size])
    hosts = np.concatenate([host_pair, host_control])
    relabel = swap_within_pairs(n_pair + chosen.twin)
    generator = gate_generator(sample.config.run.seed, name)
    found = fit_baseline(np.concatenate([injected, control]), label, hosts, section.folds, relabel, generator)
    other = np.setdiff1d(np.arange(host_control.size), chosen.twin)
    host_auc = None
    if other.size >= section.min_per_class:
        rows = np.concatenate([chosen.twin, other])
        is_pair = np.repeat(np.array([1, 0]), [n_pair, other.size])
        host_auc = out_of_fold_auc(control[rows], is_pair, host_control[rows], section.folds)
    arc_auc = out_of_fold_auc(
        np.concatenate([injected, control[chosen.twin]]),
        np.repeat(np.array([1, 0]), n_pair),
        np.concatenate([host_pair, host_pair]),
        section.folds,
    )
    return Measurement(
        passed=found.auc <= auc_max,
        value=found.auc,
        bound=f"out-of-fold AUC <= {auc_max} {of_what}",
        detail={**found.detail(), **detail},
        message=f"{features_are} gives AUC {found.auc:.4f}; labels swapped within pairs give {found.null.mean():.4f}",
        interval_95=found.interval_95,
        null=found.chance("labels swapped within pairs"),
        attribution=Attribution("AUC", found.auc, host_auc, arc_auc, 0.5),
    )


def _core_radii(sample: GateInput, pairs: xr.Dataset, fixed_px: float) -> NDArray[np.float64]:
    """(pair,) core radii as `gates.core_radius` says. [pixel]"""
    if sample.config.gates.core_radius == "fixed":
        return np.full(pairs.sizes["sample"], fixed_px)
    theta_e, fwhm = _theta_e_and_fwhm(sample, pairs)
    radius = (theta_e - _PSF_WIDTHS * fwhm) / PIXEL_SCALE_ARCSEC
    if not np.isfinite(radius).all():
        raise ValueError("theta_e_arcsec or psfsize_arcsec of a pair is not finite")
    return np.clip(radius, min(_SMALLEST_CORE_PX, fixed_px), fixed_px)


def _borrowed_radii(sample: GateInput, radius: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Radii for control rows, which have no arc, drawn from those of the pairs."""
    return gate_generator(sample.config.run.seed, "core_radius").choice(radius, n)


def _theta_e_and_fwhm(sample: GateInput, pairs: xr.Dataset) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(pair,) Einstein radius and r seeing. [arcsec]"""
    band = sample.bands_found.index(_RATIO_BAND)
    return (
        pairs["theta_e_arcsec"].to_numpy().astype(np.float64),
        pairs["psfsize_arcsec"].to_numpy()[:, band].astype(np.float64),
    )


def _ratios_by_resolution(
    sample: GateInput, pairs: xr.Dataset, injected: NDArray[np.float64], control: NDArray[np.float64]
) -> list[dict[str, float | None]]:
    """The ratio in strata of theta_E over PSF FWHM."""
    theta_e, fwhm = _theta_e_and_fwhm(sample, pairs)
    strata: list[dict[str, float | None]] = []
    for low, high in pairwise(_RESOLUTION_EDGES):
        inside = (theta_e >= low * fwhm) & (theta_e < high * fwhm)
        flux = float(control[inside].sum())
        ratio = float(injected[inside].sum()) / flux if flux > 0 else None
        strata.append({"low": low, "high": None if high == np.inf else high, "n": int(inside.sum()), "ratio": ratio})
    return strata


def _ratio_attribution(
    injected: NDArray[np.float64], control: NDArray[np.float64], other: NDArray[np.float64], min_per_class: int
) -> Attribution:
    """Ratios of mean core flux, so that total over all controls is host selection times arc overlap where it can be."""
    overlap = float(injected.mean() / control.mean())
    everything = np.concatenate([control, other])
    enough = other.size >= min_per_class and float(other.mean()) > 0
    return Attribution(
        "ratio of mean core flux",
        float(injected.mean() / everything.mean()),
        float(control.mean() / other.mean()) if enough else None,
        overlap,
        1.0,
    )


def _ratio_interval(
    injected: NDArray[np.float64], control: NDArray[np.float64], host_id: NDArray[np.int64], seed: int
) -> tuple[float, float]:
    """Central 95 % of the ratio of sums over bootstrap samples of hosts."""
    host = np.unique(host_id, return_inverse=True)[1]
    sums = np.stack([np.bincount(host, weights=injected), np.bincount(host, weights=control)], axis=1)
    generator = gate_generator(seed, "core_brightness_ratio")
    totals = np.stack([sums[generator.integers(0, len(sums), len(sums))].sum(axis=0) for _ in range(_BOOTSTRAPS)])
    low, high = np.quantile(totals[:, 0] / totals[:, 1], [0.025, 0.975])
    return float(low), float(high)


def _metadata_features(columns: xr.Dataset, bands: tuple[str, ...]) -> tuple[NDArray[np.float64], list[str]]:
    """(sample, feature) finite features and their names; NaN becomes the median, beside an indicator."""
    named = {name: columns[name].to_numpy().astype(np.float64) for name in _METADATA}
    for name in _METADATA_BANDS:
        values = columns[name].to_numpy().astype(np.float64)
        named |= {f"{name}[{band}]": values[:, index] for index, band in enumerate(bands)}
    features: dict[str, NDArray[np.float64]] = {}
    for name, values in named.items():
        absent = np.isnan(values)
        if not absent.all():
            features[name] = np.where(absent, np.median(values[~absent]), values)
        if absent.any() and not absent.all():
            features[f"{name} is NaN"] = absent.astype(np.float64)
    return np.stack(list(features.values()), axis=1), list(features)


def _thinned(rows: NDArray[np.int64], n_max: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """At most n_max of the rows, in order."""
    return rows if rows.size <= n_max else np.sort(generator.choice(rows, n_max, replace=False))

"""Gate on the radial pattern: injected stamps fall off from their centre as real lenses do, raw and normalised.

A set whose cores are too bright beside its outskirts teaches that contrast as the mark of a lens.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.stats import rankdata

from pipeline.contracts.config import RunConfig
from pipeline.contracts.training_config import PreprocessSection
from pipeline.stages.gates.apertures import annulus_statistics, radial_profiles
from pipeline.stages.gates.result import GateInput, Measurement, Null, count_pairs, gate_generator, has_role

_PERMUTATIONS = 400
_BOOTSTRAPS = 400
_MAX_INJECTED = 2000
# Regions of the published comparison of training stamps with anchors. [pixel]
_REGIONS_PX = {"core": (0.0, 8.0), "inner": (8.0, 16.0), "outer": (16.0, 24.0)}


def no_anchors(config: RunConfig) -> str:
    """Why there is no real lens to compare with; empty if anchors are configured."""
    return "" if config.anchors is not None else "not applicable: the configuration names no anchors"


def count_anchors(sample: GateInput) -> tuple[int, int]:
    """Injected stamps among the sampled ones, and anchors."""
    return count_pairs(sample)[0], 0 if sample.anchors is None else sample.anchors.sizes["sample"]


def compare_anchor_pattern(sample: GateInput) -> Measurement:
    """Radial profiles of injected stamps have the distribution of those of real lenses.

    Profiles are azimuthal medians in `radial_bins` rings per band: raw in nmgy, and normalised as the trainer does, in
    MAD of `training.preprocess.annulus_px`. Each ring, band and kind is compared by Cliff's delta, the chance that an
    injected stamp exceeds an anchor less the chance of the contrary: 0 for equal distributions, 1 for separate ones.
    The value is the largest |delta|, the bound `anchor_delta_max`. The null permutes which stamps are anchors; the
    95 % interval resamples stamps at the ring that decided.

    Raises:
        ValueError: there are no anchors, or a pixel is not finite.
    """
    if sample.anchors is None:
        raise ValueError("expected stamps of anchors, got none")
    section, spec = sample.config.gates, sample.config.training.preprocess
    generator = gate_generator(sample.config.run.seed, "anchor_pattern")
    injected = _injected_stamps(sample.stamps, generator)
    real = sample.anchors["image"].to_numpy()
    features = np.concatenate([_features(stamps, section.radial_bins, spec) for stamps in (injected, real)])
    names = [
        f"{kind}[{band}][{ring}]"
        for kind in ("raw", "normalised")
        for band in sample.bands_found
        for ring in range(section.radial_bins)
    ]
    ranks = np.stack([rankdata(column) for column in features.T], axis=1)
    is_injected = np.arange(len(ranks)) < len(injected)
    delta = _cliff_delta(ranks, is_injected)
    worst = int(np.argmax(np.abs(delta)))
    value = float(np.abs(delta[worst]))
    null = np.array(
        [np.abs(_cliff_delta(ranks, generator.permutation(is_injected))).max() for _ in range(_PERMUTATIONS)]
    )
    interval = _interval(features[is_injected, worst], features[~is_injected, worst], generator)
    raw, normalised = np.split(np.abs(delta), 2)
    return Measurement(
        passed=value <= section.anchor_delta_max,
        value=value,
        bound=f"largest |Cliff delta| <= {section.anchor_delta_max} of {section.radial_bins} rings, raw and normalised",
        detail={
            "worst": names[worst],
            "largest_by_kind": {"raw": float(raw.max()), "normalised": float(normalised.max())},
            "delta": dict(zip(names, delta.tolist(), strict=True)),
            "medians": _region_medians(injected, real, sample.bands_found, spec),
            "n_injected": len(injected),
            "n_anchors": len(real),
            "null_mean": float(null.mean()),
            "null_q95": float(np.quantile(null, 0.95)),
            "bootstraps": _BOOTSTRAPS,
        },
        message=f"largest |delta| is {value:.3f}, of {names[worst]}: injected stamps are "
        + ("brighter" if delta[worst] > 0 else "fainter")
        + f" there than {len(real)} real lenses; equal samples of these sizes give {null.mean():.3f}",
        interval_95=interval,
        null=Null(
            "stamps shuffled between the sets", _PERMUTATIONS, (1 + int((null >= value).sum())) / (1 + _PERMUTATIONS)
        ),
    )


def _injected_stamps(stamps: xr.Dataset, generator: np.random.Generator) -> NDArray[np.float32]:
    """Injected stamps of at most _MAX_INJECTED hosts, one per host. (sample, band, y, x) [nmgy]"""
    pair = np.flatnonzero(has_role(stamps, "pair"))
    _, first = np.unique(stamps["host_id"].to_numpy()[pair], return_index=True)
    chosen = pair[np.sort(first)]
    if chosen.size > _MAX_INJECTED:
        chosen = np.sort(generator.permutation(chosen)[:_MAX_INJECTED])
    images: NDArray[np.float32] = stamps["injected"].to_numpy()[chosen]
    return images


def _features(stamps: NDArray[np.float32], n_bins: int, spec: PreprocessSection) -> NDArray[np.float64]:
    """(sample, kind * band * ring) profiles, raw before normalised, rings fastest. [nmgy, MAD]"""
    return np.concatenate([radial_profiles(stamps, n_bins), radial_profiles(_normalised(stamps, spec), n_bins)], axis=1)


def _normalised(stamps: NDArray[np.float32], spec: PreprocessSection) -> NDArray[np.float32]:
    """The stamps as the trainer sees them. (sample, band, y, x) [MAD]"""
    statistics = annulus_statistics(stamps, spec.annulus_px, spec.clip * spec.unit_mad)
    median, mad = (statistics[:, :, index, None, None] for index in (0, 1))
    return np.clip((stamps - median) / (mad * spec.unit_mad), -spec.clip, spec.clip).astype(np.float32)


def _cliff_delta(ranks: NDArray[np.float64], first: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(feature,) Cliff's delta of the rows `first` against the others, from ranks with ties averaged."""
    n = int(first.sum())
    m = first.size - n
    delta: NDArray[np.float64] = 2.0 * (ranks[first].sum(axis=0) - n * (n + 1) / 2.0) / (n * m) - 1.0
    return delta


def _interval(
    injected: NDArray[np.float64], real: NDArray[np.float64], generator: np.random.Generator
) -> tuple[float, float]:
    """Central 95 % of |delta| over bootstrap samples of both sets."""
    first = np.arange(injected.size + real.size) < injected.size
    drawn = np.empty(_BOOTSTRAPS)
    for number in range(_BOOTSTRAPS):
        values = np.concatenate([generator.choice(part, part.size) for part in (injected, real)])
        drawn[number] = abs(float(_cliff_delta(rankdata(values)[:, None], first)[0]))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def _region_medians(
    injected: NDArray[np.float32], real: NDArray[np.float32], bands: tuple[str, ...], spec: PreprocessSection
) -> dict[str, Any]:
    """Median over stamps of the mean pixel of each region, by set, kind and band."""
    offset = np.arange(injected.shape[-1]) - injected.shape[-1] // 2
    radius = np.hypot(offset[:, None], offset[None, :])
    found: dict[str, Any] = {}
    for name, stamps in (("injected", injected), ("anchors", real)):
        for kind, pixels in (("raw", stamps), ("normalised", _normalised(stamps, spec))):
            for region, (low, high) in _REGIONS_PX.items():
                inside = (radius >= low) & (radius < high)
                medians = np.median(pixels[:, :, inside].mean(axis=2, dtype=np.float64), axis=0)
                found[f"{name} {kind} {region}"] = dict(zip(bands, medians.tolist(), strict=True))
    return found

"""Gate on normalisation: what the trainer divides by must not tell the classes apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.stages.gates.apertures import ANNULUS_STATISTICS, annulus_statistics
from pipeline.stages.gates.baselines import pair_swap_null
from pipeline.stages.gates.result import Attribution, GateInput, Measurement, cohen_d, gate_generator, has_role

_BOOTSTRAPS = 400


def compare_normalisation(sample: GateInput) -> Measurement:
    """The statistics that stamps are normalised with are those of the sky, whether or not there is an arc.

    Median, MAD and clipped share of the trainer's annulus (`training.preprocess`) are compared, per band, as
    Cohen's d: injected against control members of the pairs, and injected against all control stamps. The
    value is the largest |d|; the bound is `normalisation_d_max`. Its 95 % interval resamples hosts.

    An arc that reaches into the annulus counts in full: it raises median and MAD of the injected member
    alone. The detail gives the mean shift of the median in MAD, the mean ratio of MADs, and the share of
    pairs whose annulus holds arc light above one MAD in some pixel.
    """
    section, spec = sample.config.gates, sample.config.training.preprocess
    stamps = sample.stamps
    pair, other = (np.flatnonzero(has_role(stamps, role)) for role in ("pair", "control"))
    measured = {
        "injected": annulus_statistics(stamps["injected"].to_numpy()[pair], spec.annulus_px, spec.clip * spec.unit_mad),
        "control": annulus_statistics(stamps["control"].to_numpy()[pair], spec.annulus_px, spec.clip * spec.unit_mad),
        "rows": annulus_statistics(stamps["control"].to_numpy()[other], spec.annulus_px, spec.clip * spec.unit_mad),
    }
    names = [f"{statistic}[{band}]" for band in sample.bands_found for statistic in ANNULUS_STATISTICS]
    injected, control, rows = (values.reshape(len(values), len(names)) for values in measured.values())
    everything = np.concatenate([control, rows])
    found: dict[str, dict[str, float | None]] = {}
    for index, name in enumerate(names):
        found[name] = {
            "d_pair_members": cohen_d(injected[:, index], control[:, index]),
            "d_all_controls": cohen_d(injected[:, index], everything[:, index]),
            "d_host_selection": (
                cohen_d(control[:, index], rows[:, index]) if other.size >= section.min_per_class else None
            ),
        }
    worst, against = max(
        ((name, kind) for name in names for kind in ("d_pair_members", "d_all_controls")),
        key=lambda which: abs(found[which[0]][which[1]] or 0.0),
    )
    value = abs(found[worst][against] or 0.0)
    column = names.index(worst)
    reference = control if against == "d_pair_members" else everything
    host_id = stamps["host_id"].to_numpy()
    hosts = (
        host_id[pair],
        host_id[pair] if against == "d_pair_members" else np.concatenate([host_id[pair], host_id[other]]),
    )
    own = injected[:, column], control[:, column]
    null, null_std = pair_swap_null(cohen_d, *own, 0.0, gate_generator(sample.config.run.seed, "normalisation_null"))
    interval = _interval(injected[:, column], reference[:, column], hosts, sample.config.run.seed)
    return Measurement(
        passed=value <= section.normalisation_d_max,
        value=value,
        bound=f"|Cohen d| <= {section.normalisation_d_max} of median, MAD and clipped share in {spec.annulus_px} px",
        detail={
            "columns": found,
            "worst": worst,
            "against": against,
            "bootstraps": _BOOTSTRAPS,
            "null_std": null_std,
            "arc_in_annulus": _arc_in_annulus(measured["injected"], measured["control"], sample, pair),
        },
        message=f"largest |d| is {value:.4f}, of {worst}, injected against "
        + ("their own controls" if against == "d_pair_members" else "all controls"),
        interval_95=interval,
        null=null,
        attribution=Attribution(
            f"Cohen d of {worst}",
            float(found[worst]["d_all_controls"] or 0.0),
            found[worst]["d_host_selection"],
            float(found[worst]["d_pair_members"] or 0.0),
            0.0,
        ),
    )


def _arc_in_annulus(
    injected: NDArray[np.float64], control: NDArray[np.float64], sample: GateInput, pair: NDArray[np.int64]
) -> dict[str, list[float] | float]:
    """How the arcs change the annulus, per band; statistics are (pair, band, 3)."""
    low, high = sample.config.training.preprocess.annulus_px
    size = sample.stamps.sizes["x"]
    offset = np.arange(size) - size // 2
    radius = np.hypot(offset[:, None], offset[None, :])
    inside = (radius >= low) & (radius < high)
    lit = 0
    for row, mad in zip(pair.tolist(), control[:, :, 1], strict=True):
        difference = (
            sample.stamps["injected"].to_numpy()[row][:, inside] - sample.stamps["control"].to_numpy()[row][:, inside]
        )
        lit += bool((difference > mad[:, None]).any())
    return {
        "mean_median_shift_mad": ((injected[:, :, 0] - control[:, :, 0]) / control[:, :, 1]).mean(axis=0).tolist(),
        "mean_mad_ratio": (injected[:, :, 1] / control[:, :, 1]).mean(axis=0).tolist(),
        "share_of_pairs_with_arc_light": lit / pair.size,
    }


def _interval(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    hosts: tuple[NDArray[np.int64], NDArray[np.int64]],
    seed: int,
) -> tuple[float, float]:
    """Central 95 % of |Cohen d| over bootstrap samples of the hosts of both samples together."""
    host = np.unique(np.concatenate(hosts), return_inverse=True)[1]
    n_hosts = int(host.max()) + 1
    generator = gate_generator(seed, "normalisation_statistics")
    drawn = np.empty(_BOOTSTRAPS)
    for bootstrap in range(_BOOTSTRAPS):
        weight = np.bincount(generator.integers(0, n_hosts, n_hosts), minlength=n_hosts)[host]
        a, b = weight[: first.size], weight[first.size :]
        drawn[bootstrap] = abs(cohen_d(np.repeat(first, a), np.repeat(second, b)))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)

"""The SNR distribution: achieved against target, weighted back to the prior, and the four definitions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from pipeline.report.acceptance import acceptance_part
from pipeline.report.charts import (
    COLOUR_CONTROL,
    COLOUR_POSITIVE,
    COLOUR_TARGET,
    add_legend,
    as_png,
    label_axes,
    new_figure,
    pin_log_ticks,
    say_empty,
)
from pipeline.report.inputs import RunInputs, has_role_code
from pipeline.report.markup import (
    Html,
    banner,
    count_text,
    figure,
    missing,
    note,
    number_text,
    paragraph,
    section,
    share_text,
    table,
)
from pipeline.report.sampling import sampling_part
from pipeline.stages.sampling import Pilot, SnrTarget

_HISTOGRAM_BINS = 32
_ROUND_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
_MEANING = {
    "arc_snr": "largest arc flux over noise of a good pixel",
    "arc_snr_sum": "summed arc flux over summed noise of good pixels",
    "arc_snr_matched": "matched filter with the true arc",
    "arc_snr_aperture": "as arc_snr_sum, 4 to 16 px around the host",
    "arc_snr_annulus": "the same light over the noise of psfdepth_r",
    "arc_snr_region": "best connected region of pixels above one sigma",
    "arc_snr_cumulative": "best sum of the highest pixels",
}


def snr_section(inputs: RunInputs) -> Html:
    """Section 3: achieved SNR, acceptance, weights."""
    title = "3. Arc signal-to-noise: achieved against target"
    pairs = pair_values(inputs, (inputs.config.sampling.metric, "attempts", "weight_prior"))
    if pairs is None:
        return section("snr", title, missing(inputs.why_no_cube("training")))
    finite = np.isfinite(pairs[0]) & np.isfinite(pairs[2])
    snr, attempts, weight = (values[finite] for values in pairs)
    if not snr.size:
        why = inputs.without_pairs("The training cube holds no pair with a finite SNR and weight.")
        return section("snr", title, missing(why))
    target = run_target(inputs)
    parts: list[str] = [paragraph(_method_sentence(inputs))]
    if not finite.all():
        parts.append(banner(f"{int((~finite).sum()):,} pairs have an SNR or weight that is not finite.", "bad"))
    parts.append(
        figure(
            _snr_png(inputs, snr, weight, target),
            "histograms of the arc signal-to-noise and of the weighted pairs",
            "Left: achieved density of pairs in ln SNR with Poisson errors, and the target. Right: the same pairs "
            "weighted by weight_prior, against the density of unselected prior draws (the pilot). The two agree if the "
            "weights turn the sample back into the prior. Errors: square root of the sum of squared weights.",
        )
    )
    if target is not None:
        parts += [_share_table(inputs, snr, target), _distance_sentence(inputs)]
    if inputs.is_import:
        return section("snr", title, *parts, note("Draws and weights of imported arcs are not known here."))
    return section("snr", title, *parts, acceptance_part(inputs, attempts, weight), sampling_part(inputs))


def conversion_section(inputs: RunInputs) -> Html:
    """Section 4: how the SNR columns compare, row by row."""
    title = "4. The SNR definitions side by side"
    pairs = pair_values(inputs, tuple(_MEANING))
    if pairs is None:
        return section("conversions", title, missing(inputs.why_no_cube("training")))
    columns = dict(zip(_MEANING, pairs, strict=True))
    rows = []
    for name, meaning in _MEANING.items():
        positive = (columns[name] > 0) & (columns["arc_snr_matched"] > 0)
        if not positive.any():
            continue
        low, median, high = np.quantile(columns[name][positive], [0.05, 0.5, 0.95]).tolist()
        ratios = columns[name][positive] / columns["arc_snr_matched"][positive]
        cells = [number_text(value) for value in (low, median, high, *np.quantile(ratios, [0.05, 0.5, 0.95]).tolist())]
        rows.append((name, meaning, count_text(int(positive.sum())), *cells))
    if not rows:
        why = inputs.without_pairs("No pair has an arc_snr_matched, to which the others are compared.")
        return section("conversions", title, missing(why))
    return section(
        "conversions",
        title,
        table(
            ("Column", "Meaning", "Pairs", "5 %", "Median", "95 %", "Ratio 5 %", "Ratio median", "Ratio 95 %"),
            rows,
            caption="Quantiles over the pairs of each column, and of its ratio to arc_snr_matched in the same row.",
            text_columns=(0, 1),
        ),
        note(
            f"All in band {inputs.config.sampling.band}. The ratios depend on arc size and seeing, so a median "
            "converts a sample, not a single arc; published cuts are in one definition only."
        ),
    )


def pair_values(inputs: RunInputs, names: Sequence[str]) -> list[NDArray[np.float64]] | None:
    """Columns of the pair rows as (pair,) float64; None without a training cube."""
    if inputs.columns is None:
        return None
    is_pair = has_role_code(inputs.columns, "pair")
    return [inputs.columns[name].to_numpy()[is_pair].astype(np.float64) for name in names]


def run_target(inputs: RunInputs) -> SnrTarget | None:
    """The run's target, less the bins that were left out as unreachable; None without one."""
    if inputs.config.sampling.target is None:
        return None
    return SnrTarget.of(inputs.config.sampling.target).without(inputs.pilot.unreachable if inputs.pilot else ())


def _method_sentence(inputs: RunInputs) -> str:
    sampling = inputs.config.sampling
    if sampling.target is None:
        return f"Method {sampling.method}: arcs follow the priors or the manifest, no SNR target was set."
    return (
        f"Method {sampling.method}, hosts {sampling.hosts}, target metric {sampling.metric} in band {sampling.band}, "
        f"at most {1 if sampling.method == 'direct' else sampling.max_attempts} draws per row."
    )


def _fine_edges(snr: NDArray[np.float64], target: SnrTarget | None) -> NDArray[np.float64]:
    """Edges in ln SNR that no jump of the target falls between."""
    if target is None:
        positive = np.log(snr[snr > 0])
        low, high = (float(positive.min()), float(positive.max())) if positive.size else (0.0, 1.0)
        return np.linspace(low, max(high, low + 1e-3), _HISTOGRAM_BINS + 1)
    ln_edges = np.log(np.array(target.edges))
    width = (ln_edges[-1] - ln_edges[0]) / _HISTOGRAM_BINS
    pieces = [
        np.linspace(low, high, max(1, round((high - low) / width)) + 1)[:-1]
        for low, high in itertools.pairwise(ln_edges.tolist())
    ]
    return np.concatenate([*pieces, ln_edges[-1:]])


def _snr_png(
    inputs: RunInputs, snr: NDArray[np.float64], weight: NDArray[np.float64], target: SnrTarget | None
) -> bytes:
    picture, [achieved, other] = new_figure(1, 2, 3.7)
    metric = inputs.config.sampling.metric
    edges = _fine_edges(snr, target)
    with np.errstate(divide="ignore"):
        ln_snr = np.clip(np.log(np.maximum(snr, 0.0)), edges[0], edges[-1])
    _draw_density(achieved, ln_snr, np.ones_like(snr), edges, f"{snr.size:,} pairs")
    if target is not None:
        _draw_target(achieved, target)
    label_axes(achieved, "Achieved", f"{metric} [1]", "density per unit ln SNR")
    add_legend(achieved)
    label_axes(other, "Weighted back to the prior", f"{metric} [1]", "prior density per unit ln SNR")
    if target is None:
        say_empty(other, "this run has no SNR target, so no pilot")
    elif inputs.pilot is None:
        say_empty(other, "there is no pilot.json")
    elif target.values:
        say_empty(other, "a grid of fixed values has no density")
    else:
        _draw_density(other, ln_snr, weight, edges, "pairs x weight_prior")
        _draw_pilot(other, inputs.pilot)
        add_legend(other)
    for axis in (achieved, other):
        ticks = [tick for tick in _ROUND_TICKS if np.exp(edges[0]) * 0.999 <= tick <= np.exp(edges[-1]) * 1.001]
        if axis is achieved or (inputs.pilot is not None and target is not None):
            pin_log_ticks(axis, ticks)
            axis.set_ylim(bottom=0)
    return as_png(picture)


def _draw_density(
    axis: Axes, ln_snr: NDArray[np.float64], weight: NDArray[np.float64], edges: NDArray[np.float64], label: str
) -> None:
    width = np.diff(edges)
    heights = np.histogram(ln_snr, bins=edges, weights=weight)[0] / (ln_snr.size * width)
    errors = np.sqrt(np.histogram(ln_snr, bins=edges, weights=weight**2)[0]) / (ln_snr.size * width)
    axis.stairs(heights, np.exp(edges), color=COLOUR_POSITIVE, fill=True, alpha=0.28, label=label)
    centres = np.exp(0.5 * (edges[:-1] + edges[1:]))
    axis.errorbar(centres, heights, yerr=errors, fmt="none", ecolor=COLOUR_POSITIVE, elinewidth=1.1, capsize=1.5)


def _draw_target(axis: Axes, target: SnrTarget) -> None:
    if target.values:
        for snr in target.values:
            axis.axvline(snr, color=COLOUR_TARGET, linewidth=1.2)
        return
    ln_nodes, left, right = target.cells(_HISTOGRAM_BINS)
    ends = np.exp(np.repeat(ln_nodes, 2)[1:-1])
    axis.plot(ends, np.stack([left, right], axis=1).ravel(), color=COLOUR_TARGET, linewidth=1.6, label="target")


def _draw_pilot(axis: Axes, pilot: Pilot) -> None:
    snr, density, error = np.exp(pilot.ln_nodes), np.array(pilot.density), np.array(pilot.density_error)
    axis.plot(snr, density, color=COLOUR_CONTROL, linewidth=1.5, label=f"pilot, {pilot.n_draws:,} prior draws")
    axis.fill_between(snr, density - error, density + error, color=COLOUR_CONTROL, alpha=0.3, linewidth=0)


def _share_table(inputs: RunInputs, snr: NDArray[np.float64], target: SnrTarget) -> Html:
    edges, shares = target.comparison_bins()
    counts = np.histogram(np.clip(snr, edges[0], edges[-1]), bins=edges)[0]
    rows = []
    for low, high, share, count in zip(edges[:-1], edges[1:], shares, counts.tolist(), strict=True):
        expected = share * snr.size
        spread = float(np.sqrt(expected * (1.0 - share)))
        sigmas = (count - expected) / spread if spread > 0 else 0.0
        hits = _pilot_hits(inputs, target, float(low), float(high))
        rows.append(
            (
                f"{low:.4g} \u2013 {high:.4g}",
                share_text(share, 1.0),
                share_text(count, snr.size),
                count_text(count),
                number_text(expected, 4),
                f"{sigmas:+.1f}",
                hits,
            )
        )
    return table(
        (
            inputs.config.sampling.metric,
            "Target share",
            "Achieved share",
            "Pairs",
            "Expected",
            "Deviation [\u03c3]",
            "Prior draws of the pilot",
        ),
        rows,
        caption="Pairs per bin of the target; \u03c3 is that of a binomial draw.",
    )


def _pilot_hits(inputs: RunInputs, target: SnrTarget, low: float, high: float) -> str:
    if inputs.pilot is None or (low, high) not in list(itertools.pairwise(target.edges)):
        return ""
    position = list(itertools.pairwise(target.edges)).index((low, high))
    return share_text(inputs.pilot.target_hits[position], inputs.pilot.n_draws)


def _distance_sentence(inputs: RunInputs) -> Html:
    if inputs.gates is None:
        return note(inputs.why_no_gates())
    result = next((result for result in inputs.gates.results if result.name == "snr_target"), None)
    if result is None or result.value is None or "tv_mean_ideal" not in result.detail:
        return note("The gate snr_target has no value" + (f": {result.message}" if result else "."))
    detail = result.detail
    return paragraph(
        f"Total variation from the target: {result.value:.4f}. An ideal sampler of this size reaches "
        f"{detail['tv_mean_ideal']:.4f} \u00b1 {detail['tv_std_ideal']:.4f}; KS p = {number_text(detail.get('ks_p'))}, "
        f"\u03c7\u00b2 p = {number_text(detail.get('chi2_p'))}, pairs outside the target: {detail['pairs_outside']}."
    )

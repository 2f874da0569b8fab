"""Gates on a trained network: what it says of stamps with one thing changed, and what it should have said."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pipeline.contracts.config import RunConfig
from pipeline.contracts.network_gate_config import mask_name
from pipeline.contracts.survey import PIXEL_SCALE_ARCSEC
from pipeline.stages.gates.probe_scores import (
    Floats,
    Rows,
    column,
    finite_column,
    hidden_odds,
    injected_rows,
    judged_scores,
    scores,
    visible_pairs,
)
from pipeline.stages.gates.result import GateInput, Measurement, gate_generator, wilson_interval
from pipeline.stages.gates.score_nulls import rank_swap_null, shuffled_mean_null, sign_null
from pipeline.stages.host_bootstrap import RankedScores, bootstrap_weights, percentile_interval

BOOTSTRAPS = 400


def count_scored(sample: GateInput) -> tuple[int, int]:
    """Scored injected stamps and scored control stamps."""
    if sample.scores is None:
        raise ValueError("no scores of a network were given")
    label = sample.scores["label"].to_numpy()
    if not np.isin(label, (0, 1)).all():
        raise ValueError(f"expected labels 0 and 1, got {np.unique(label)[:5].tolist()}")
    return int((label == 1).sum()), int((label == 0).sum())


def score_controls(sample: GateInput) -> Measurement:
    """The network does not call hosts without arc lenses.

    A control is its pair injected with an arc of no flux, bit for bit (the data-level gate proves that), so this is
    the null injection of the network. The value is the mean score of all controls; the share of them that is called
    a lens is bounded too. The interval resamples hosts. The null shuffles the labels of all scored stamps: p is the
    chance of so low a mean from a network that tells the classes apart by nothing. With `visible_arc_snr` scores are
    those of a visible arc, see `judged_scores`.
    """
    section = sample.config.gates.network
    rows = np.flatnonzero(column(sample, "label") == 0)
    score = judged_scores(sample, "logit", rows)
    called = score > section.called_lens_p
    share, mean = float(called.mean()), float(score.mean())
    interval = _mean_interval(sample, score, rows)
    kind = column(sample, "kind")[rows]
    generator = gate_generator(sample.config.run.seed, "control_scores")
    by_kind = {str(name): float(score[kind == name].mean()) for name in np.unique(kind)}
    return Measurement(
        passed=mean <= section.control_mean_p_max and share <= section.control_called_max,
        value=mean,
        bound=f"mean score <= {section.control_mean_p_max} and share above {section.called_lens_p} <= "
        f"{section.control_called_max}",
        detail={
            "called_lens_share": share,
            "called_lens_interval_95": wilson_interval(int(called.sum()), called.size),
            "mean_score_by_kind": by_kind,
            "mean_score_of_injected": float(judged_scores(sample, "logit", injected_rows(sample)).mean()),
            "visible_arc_snr": section.visible_arc_snr,
            "arcs_not_visible_per_control": hidden_odds(sample),
            "bootstraps": BOOTSTRAPS,
        },
        message=f"controls score {mean:.3f} on average, {100 * share:.1f} % are called lenses",
        interval_95=interval,
        null=shuffled_mean_null(judged_scores(sample, "logit"), rows, generator),
    )


def no_inverse_variance(config: RunConfig) -> str:
    """Why stamps cannot be put in units of their noise; empty if they can."""
    return "not applicable: imported stamps carry no inverse variance" if config.manifest.kind == "stamps" else ""


def ablate_depth(sample: GateInput) -> Measurement:
    """The network ranks stamps as well in units of their noise, pixel by pixel, as in units of flux.

    The value is the AUC of the test split minus that with every pixel times sqrt(invvar). The network's
    normalisation takes out the depth of a stamp as a whole, so what is lost is what it takes from the absolute
    brightness of bright pixels, whose invvar is lower, and from depth that changes over a stamp. The interval
    resamples hosts; the null swaps the two ranks of random hosts. The detail correlates the scores of controls with
    sky noise and seeing (Spearman).
    """
    bound = sample.config.gates.network.snr_ablation_drop_max
    plain, ablated = (scores(sample, name) for name in ("logit", "logit_snr_image"))
    label, host = column(sample, "label"), column(sample, "host_id")
    aucs = _auc_intervals(sample, {"plain": plain, "ablated": ablated})
    drop = aucs["plain"][0] - aucs["ablated"][0]
    drops = np.array(aucs["plain"][1]) - np.array(aucs["ablated"][1])
    found = percentile_interval(drop, drops)
    null = rank_swap_null(label, host, plain, ablated, gate_generator(sample.config.run.seed, "snr_ablation"))
    controls = np.flatnonzero(label == 0)
    depth = {
        name: _spearman(plain[controls], column(sample, name)[controls])
        for name in ("sky_sigma_nmgy", "psfsize_arcsec")
    }
    return Measurement(
        passed=drop <= bound,
        value=drop,
        bound=f"AUC lost in units of noise <= {bound}",
        detail={
            "auc": aucs["plain"][0],
            "auc_in_units_of_noise": aucs["ablated"][0],
            "spearman_of_control_scores": depth,
            "bootstraps": BOOTSTRAPS,
        },
        message=f"AUC {aucs['plain'][0]:.4f} becomes {aucs['ablated'][0]:.4f} in units of noise",
        interval_95=(found.low, found.high),
        null=null,
    )


def suppress_arcs(sample: GateInput) -> Measurement:
    """The network does not call a pair member a lens whose arc was taken away.

    What is taken away is set by `suppression`. The value is the mean score. What is left of the arc in the core is
    all that such a stamp has over its control, so the detail gives the mean excess over the controls of the same
    pairs, with a null of random signs per host: an excess says that the core alone is taken for a lens. With
    `visible_arc_snr` pairs are those with such an arc, and scores those of a visible arc, see `judged_scores`.
    """
    section = sample.config.gates.network
    injected, control = visible_pairs(sample)
    suppressed = judged_scores(sample, "logit_arc_suppressed", injected)
    full, bare = judged_scores(sample, "logit", injected), judged_scores(sample, "logit", control)
    mean = float(suppressed.mean())
    excess = suppressed - bare
    generator = gate_generator(sample.config.run.seed, "arc_suppressed")
    null = sign_null(
        "excess over controls of random sign, by host", excess, column(sample, "host_id")[injected], generator
    )
    return Measurement(
        passed=mean <= section.arc_suppressed_mean_p_max,
        value=mean,
        bound=f"mean score <= {section.arc_suppressed_mean_p_max}",
        detail={
            "suppression": section.suppression,
            "pairs": injected.size,
            "mean_score_with_arc": float(full.mean()),
            "mean_score_of_controls": float(bare.mean()),
            "excess_over_controls": float(excess.mean()),
            "excess_interval_95": _mean_interval(sample, excess, injected),
            "called_lens_share": float((suppressed > section.called_lens_p).mean()),
            "bootstraps": BOOTSTRAPS,
        },
        message=f"pairs score {full.mean():.3f} with arc, {mean:.3f} without, their controls {bare.mean():.3f}; "
        f"what is left of the arc in the core adds {excess.mean():+.4f} (p {null.p:.3g})",
        interval_95=_mean_interval(sample, suppressed, injected),
        null=null,
    )


def add_rings(sample: GateInput) -> Measurement:
    """The network does not call an even ring a lens that has radius, colours and peak SNR of an arc.

    The value is the share of controls of pairs that is called a lens once the ring is put in. The detail gives the
    same of the controls as they are and of the pairs with their arcs, the AUC of arcs against rings (0.5: the network
    sees no difference), and the share with one ring of 0.01 nmgy at 15 px, the same in every stamp. With
    `visible_arc_snr` pairs are those with such an arc, and scores those of a visible arc, see `judged_scores`.
    """
    section = sample.config.gates.network
    injected, control = visible_pairs(sample)
    ring, fixed = (judged_scores(sample, name, control) for name in ("logit_ring", "logit_fixed_ring"))
    arc, bare = judged_scores(sample, "logit", injected), judged_scores(sample, "logit", control)
    called = ring > section.called_lens_p
    host = column(sample, "host_id")
    ranked = RankedScores(np.repeat(np.array([1, 0]), ring.size), np.concatenate([arc, ring]))
    weights = bootstrap_weights(np.tile(host[control], 2), sample.config.run.seed, BOOTSTRAPS)
    arcs_over_rings = ranked.auc(np.ones(2 * ring.size))
    against = percentile_interval(arcs_over_rings, [ranked.auc(weight) for weight in weights])
    generator = gate_generator(sample.config.run.seed, "synthetic_ring")
    share = float(called.mean())
    shares = {
        "controls": float((bare > section.called_lens_p).mean()),
        "arcs": float((arc > section.called_lens_p).mean()),
        "fixed_ring": float((fixed > section.called_lens_p).mean()),
    }
    return Measurement(
        passed=share <= section.ring_called_max,
        value=share,
        bound=f"share above {section.called_lens_p} <= {section.ring_called_max}",
        detail={
            "called_lens_share_of": shares,
            "pairs": injected.size,
            "fixed_ring_interval_95": wilson_interval(int((fixed > section.called_lens_p).sum()), fixed.size),
            "mean_score": float(ring.mean()),
            "auc_arcs_against_rings": arcs_over_rings,
            "auc_interval_95": (against.low, against.high),
            "bootstraps": BOOTSTRAPS,
        },
        message=f"{100 * share:.1f} % of the controls are called lenses with an even ring, "
        f"{100 * shares['controls']:.1f} % without, {100 * shares['arcs']:.1f} % with their arc; arcs against rings: "
        f"AUC {arcs_over_rings:.3f}",
        interval_95=wilson_interval(int(called.sum()), called.size),
        null=sign_null("excess over controls of random sign, by host", ring - bare, host[control], generator),
    )


def mask_centres(sample: GateInput) -> Measurement:
    """What the network knows does not come from the core alone.

    AUC of the test split with the pixels nearer than each radius hidden in both classes, as the trainer hides them.
    The value is the share of AUC - 0.5 that is lost by hiding the core. The detail has the whole curve with
    intervals over hosts, the radius at which half is lost, the steepest step, and what an ideal network would lose:
    the share of the arcs' squared light inside each radius.
    """
    section = sample.config.gates.network
    radii = (0.0, *section.mask_radii_px)
    columns = ["logit", *(f"logit_{mask_name(radius)}" for radius in section.mask_radii_px)]
    aucs = _auc_intervals(sample, {name: scores(sample, name) for name in columns})
    curve = np.array([aucs[name][0] for name in columns])
    drawn = np.array([aucs[name][1] for name in columns])
    whole = percentile_interval(float(curve[0]), drawn[0])
    if not whole.low > 0.5:
        raise ValueError(f"AUC {curve[0]:.3f} ({whole.low:.3f} to {whole.high:.3f}) is not above chance")
    lost = (curve[0] - curve) / (curve[0] - 0.5)
    core = radii.index(section.mask_core_px)
    value = float(lost[core])
    found = percentile_interval(value, (drawn[0] - drawn[core]) / (drawn[0] - 0.5))
    steps = np.diff(lost)
    steepest = int(np.argmax(steps))
    injected = injected_rows(sample)
    label, host = column(sample, "label"), column(sample, "host_id")
    generator = gate_generator(sample.config.run.seed, "centre_mask_curve")
    null = rank_swap_null(label, host, scores(sample, columns[0]), scores(sample, columns[core]), generator)
    power = {
        f"{radius:g}": float(finite_column(sample, f"arc_power_{mask_name(radius)}", injected).mean())
        for radius in section.mask_radii_px
    }
    theta_e_px = finite_column(sample, "theta_e_arcsec", injected) / PIXEL_SCALE_ARCSEC
    intervals = [percentile_interval(float(auc), draws) for auc, draws in zip(curve, drawn, strict=True)]
    return Measurement(
        passed=value <= section.mask_lost_share_max,
        value=value,
        bound=f"share of AUC - 0.5 lost by hiding r < {section.mask_core_px:g} px <= {section.mask_lost_share_max}",
        detail={
            "curve": [
                {"radius_px": radius, "auc": auc.value, "low": auc.low, "high": auc.high, "lost_share": float(share)}
                for radius, auc, share in zip(radii, intervals, lost, strict=True)
            ],
            "half_lost_px": _crossing(np.array(radii), lost, 0.5),
            "steepest_step": {
                "from_px": radii[steepest],
                "to_px": radii[steepest + 1],
                "lost_share": float(steps[steepest]),
            },
            "arc_power_inside": power,
            "median_theta_e_px": float(np.median(theta_e_px)),
            "bootstraps": BOOTSTRAPS,
        },
        message="AUC "
        + ", ".join(f"{auc:.3f} (r < {radius:g} px)" for radius, auc in zip(radii, curve.tolist(), strict=True))
        + f"; the core holds {100 * power[f'{section.mask_core_px:g}']:.0f} % of the arcs' squared light",
        interval_95=(found.low, found.high),
        null=null,
    )


def _mean_interval(sample: GateInput, values: Floats, rows: Rows) -> tuple[float, float]:
    """95 % of the mean over bootstrap samples of hosts."""
    host, seed = column(sample, "host_id")[rows], sample.config.run.seed
    drawn = [float((weight * values).sum() / weight.sum()) for weight in bootstrap_weights(host, seed, BOOTSTRAPS)]
    found = percentile_interval(float(values.mean()), drawn)
    return found.low, found.high


def _auc_intervals(sample: GateInput, scores: dict[str, Floats]) -> dict[str, tuple[float, list[float]]]:
    """AUC of every set of scores, and its values over the same bootstrap samples of hosts."""
    label, host = column(sample, "label"), column(sample, "host_id")
    ranked = {name: RankedScores(label, values) for name, values in scores.items()}
    weights = list(bootstrap_weights(host, sample.config.run.seed, BOOTSTRAPS))
    return {
        name: (ranking.auc(np.ones(label.size)), [ranking.auc(weight) for weight in weights])
        for name, ranking in ranked.items()
    }


def _spearman(score: Floats, values: NDArray[Any]) -> dict[str, float | None]:
    """Rank correlation and its p; None of values that do not differ."""
    if np.ptp(values) == 0.0 or np.ptp(score) == 0.0:
        return {"r": None, "p": None}
    found = stats.spearmanr(score, values)
    return {"r": float(found.statistic), "p": float(found.pvalue)}


def _crossing(radii: Floats, lost: Floats, share: float) -> float | None:
    """First radius at which a share is lost, linear between radii; None if it never is. [pixel]"""
    above = np.flatnonzero(lost >= share)
    if not above.size:
        return None
    upper = int(above[0])
    if upper == 0:
        return float(radii[0])
    step = (share - lost[upper - 1]) / (lost[upper] - lost[upper - 1])
    return float(radii[upper - 1] + step * (radii[upper] - radii[upper - 1]))

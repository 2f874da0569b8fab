"""What the scores are worth: operating points, purity on the sky, calibration, strata, the gap between splits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from pipeline.report.anchors import anchor_parts
from pipeline.report.charts import (
    COLOUR_CONTROL,
    COLOUR_POSITIVE,
    add_legend,
    as_png,
    label_axes,
    new_figure,
    pin_log_ticks,
    say_empty,
)
from pipeline.report.inputs import RunInputs
from pipeline.report.markup import (
    DASH,
    Html,
    count_text,
    details,
    figure,
    heading,
    missing,
    note,
    number_text,
    paragraph,
    section,
    table,
)

_SNR_TICKS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
NOT_SUFFICIENT = "n/a: too few negatives"
_STRATA = {
    "arc_snr": "arc_snr",
    "theta_e_over_psf": "\u03b8_E / psfsize",
    "depth_5sig": "5\u03c3 depth [mag]",
    "source_mag": "source r, unlensed [mag]",
    "host_mag": "host r [mag]",
    "psf_fwhm": "psfsize r [arcsec]",
}


def evaluation_section(inputs: RunInputs) -> Html:
    """Section 8: metrics of the test split with intervals, and what they would mean for a survey."""
    title = "8. Evaluation of the scores"
    stored = inputs.evaluation
    if stored is None:
        return section("evaluation", title, missing(inputs.why_no_evaluation()))
    document, strata = stored.documents["evaluation"], stored.tables["strata"]
    calibration = document["calibration"]
    return section(
        "evaluation",
        title,
        heading("Thresholds by false-positive rate"),
        _points_table(document),
        heading(f"On the sky, at a base rate of {document['base_rate']:g}"),
        _yield_table(document),
        note(
            f"Assumes that a share of {document['base_rate']:g} of all objects are lenses, and that the controls of "
            "this run stand for all others; spirals, rings and artefacts would raise the false-positive rate."
        ),
        heading("Calibration"),
        paragraph(
            f"Expected calibration error {number_text(calibration['ece'], 3)}, Brier score "
            f"{number_text(calibration['brier'], 3)} (a constant score gives "
            f"{number_text(calibration['brier_of_constant'], 3)}), at a share of positives of "
            f"{number_text(calibration['positive_share'], 3)}; other shares need other probabilities."
        ),
        figure(
            metrics_png(calibration, strata),
            "reliability curve, and AUC and true-positive rate by stratum",
            f"First: share of positives against mean score ({calibration['method']}). Others: TPR at the lowest "
            "measurable FPR, one threshold for the whole sample, and AUC; bars are 95 % intervals.",
        ),
        details("Strata as a table", _strata_table(strata)),
        heading("Validation against test"),
        _gap_table(document["split_gap"]),
        note(
            "Explained: what the metric of the validation split changes by when its strata are weighted to be as "
            "frequent as the test split's. A share is given only where the interval of the gap excludes 0."
        ),
        details("Settings of the evaluation", _settings_table(document["settings"])),
        *anchor_parts(inputs),
    )


def lowest_rate(table_columns: list[str], strata: pd.DataFrame) -> str | None:
    """Column of the TPR at the lowest false-positive rate that has values; None if none has."""
    names = [name for name in table_columns if name.startswith("tpr_at_fpr_") and not name.endswith(("_low", "_high"))]
    known = [name for name in names if strata[name].notna().any()]
    return min(known, key=lambda name: float(name.removeprefix("tpr_at_fpr_")), default=None)


def _points_table(document: Mapping[str, Any]) -> Html:
    rows = []
    intervals = document["bootstrap"]["intervals"]
    for point in document["operating_points"]:
        bootstrap = intervals[f"tpr_at_fpr_{point['fpr']:g}"]
        if point["sufficient"]:
            cells = (
                number_text(point["threshold_logit"], 4),
                number_text(point["tpr"], 3),
                _ends(point["tpr_low"], point["tpr_high"]),
                _ends(bootstrap["low"], bootstrap["high"]),
            )
        else:
            cells = (DASH, NOT_SUFFICIENT, DASH, DASH)
        rows.append((f"{point['fpr']:g}", *cells, count_text(point["n_negatives"])))
    return table(
        ("FPR", "Threshold (logit)", "TPR", "95 %, threshold fixed", "95 %, bootstrap", "Negatives"),
        rows,
        caption=f"{document['operating_points'][0]['method']}; {document['bootstrap']['method']}. A rate needs 10 / "
        "rate negatives; nothing is extrapolated.",
    )


def _yield_table(document: Mapping[str, Any]) -> Html:
    rows = []
    for entry in document["survey_yield"]:
        if entry["sufficient"]:
            cells = (
                number_text(entry["purity"], 3),
                _ends(entry["purity_low"], entry["purity_high"]),
                number_text(entry["candidates_per_million"], 4),
                _ends(entry["candidates_per_million_low"], entry["candidates_per_million_high"]),
            )
        else:
            cells = (NOT_SUFFICIENT, DASH, DASH, DASH)
        rows.append((f"{entry['fpr']:g}", *cells))
    head = ("FPR", "Purity", "Range", "Candidates per million", "Range")
    return table(head, rows, caption=f"Ranges: {document['survey_yield'][0]['method']}.")


def metrics_png(calibration: Mapping[str, Any], strata: pd.DataFrame) -> bytes:
    """Reliability curve, and AUC and TPR by stratum.

    Args:
        calibration: "calibration" of the document `evaluation`.
        strata: table `strata`.
    """
    picture, axes = new_figure(2, 4, 5.6)
    curve = pd.DataFrame(calibration["reliability"])
    first = axes[0]
    first.plot([0, 1], [0, 1], color="#5b6670", linestyle=":")
    share = curve["positive_share"].to_numpy()
    bars = np.maximum([share - curve["share_low"], curve["share_high"] - share], 0.0)
    first.errorbar(curve["mean_score"], share, yerr=bars, color=COLOUR_POSITIVE, marker="o", ms=4, linewidth=1.2)
    label_axes(first, "Reliability", "mean score", "share of positives")
    axes[-1].set_axis_off()
    rate = lowest_rate(list(strata.columns), strata)
    for number, (axis, (name, title)) in enumerate(zip(axes[1:-1], _STRATA.items(), strict=True)):
        rows = strata[(strata["variable"] == name) & strata["low"].notna()]
        label_axes(axis, "", title, "AUC or TPR" if number in (0, 3) else "")
        if rows.empty:
            say_empty(axis, "unknown for this run")
            continue
        middle = ((rows["low"] + rows["high"]) / 2.0).to_numpy()
        _points(axis, middle, rows, "auc", COLOUR_CONTROL, "AUC")
        if rate is not None:
            _points(axis, middle, rows, rate, COLOUR_POSITIVE, f"TPR, FPR {rate.removeprefix('tpr_at_fpr_')}")
        axis.set_ylim(-0.03, 1.03)
        if name == "arc_snr":
            pin_log_ticks(axis, _SNR_TICKS)
            add_legend(axis)
    first.set_xlim(-0.02, 1.02)
    return as_png(picture)


def _points(axis: Any, x: Any, rows: pd.DataFrame, name: str, colour: str, label: str) -> None:
    value = rows[name].to_numpy()
    low, high = (rows[f"{name}_{end}"].fillna(rows[name]).to_numpy() for end in ("low", "high"))
    bars = np.maximum([value - low, high - value], 0.0)
    axis.errorbar(x, value, yerr=bars, color=colour, marker="o", ms=4, linewidth=1.2, label=label)


def _strata_table(strata: pd.DataFrame) -> Html:
    rate = lowest_rate(list(strata.columns), strata)
    rows = []
    for entry in strata.to_dict("records"):
        outside = np.isnan(entry["low"])
        rows.append(
            (
                str(entry["variable"]),
                "outside or unknown" if outside else f"{entry['low']:g} {DASH} {entry['high']:g}",
                count_text(entry["n_positives"]),
                f"{count_text(entry['n_negatives'])} ({entry['negatives']})",
                number_text(entry["auc"], 4),
                _ends(entry["auc_low"], entry["auc_high"]),
                number_text(entry[rate], 3) if rate else DASH,
                _ends(entry[f"{rate}_low"], entry[f"{rate}_high"]) if rate else DASH,
            )
        )
    shown = f"TPR at FPR {rate.removeprefix('tpr_at_fpr_')}" if rate else "TPR"
    head = ("Variable", "Stratum", "Positives", "Negatives", "AUC", "95 %", shown, "95 %")
    return table(head, rows, text_columns=(0, 1))


def _gap_table(gaps: list[Mapping[str, Any]]) -> Html:
    rows = [
        (
            str(gap["metric"]),
            str(gap["matched_on"]),
            number_text(gap["val"], 4),
            number_text(gap["test"], 4),
            f"{number_text(gap['gap'], 3)} ({_ends(gap['gap_low'], gap['gap_high'])})",
            f"{number_text(gap['explained'], 3)} ({_ends(gap['explained_low'], gap['explained_high'])})",
            number_text(gap["share_explained"], 3),
            number_text(gap["unmatched_test_share"], 2),
        )
        for gap in gaps
        if gap["sufficient"]
    ]
    head = ("Metric", "Matched on", "Val", "Test", "Val \u2212 test", "Explained", "Share", "Test unmatched")
    return table(head, rows, caption=f"Intervals: {gaps[0]['method']}.", text_columns=(0, 1))


def _settings_table(settings: Mapping[str, Any]) -> Html:
    edges = {f"edges.{name}": values for name, values in settings["edges"].items()}
    shown = {name: value for name, value in settings.items() if name != "edges"} | edges
    rows = [
        (f"evaluation.{name}", ", ".join(f"{x:g}" for x in (value if isinstance(value, list) else [value])))
        for name, value in shown.items()
    ]
    return table(("Key", "Value"), rows, text_columns=(0, 1))


def _ends(low: float | None, high: float | None) -> str:
    return f"{number_text(low, 3)} {DASH} {number_text(high, 3)}"

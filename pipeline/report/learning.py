"""What the network learned: curves per epoch, ROC, completeness at low false-positive rates."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from pipeline.report.census import interval_text
from pipeline.report.charts import (
    COLOUR_CONTROL,
    COLOUR_POSITIVE,
    add_legend,
    as_png,
    common_edges,
    draw_steps,
    label_axes,
    new_figure,
)
from pipeline.report.confusion import confusion_part
from pipeline.report.inputs import RunInputs, TrainingOutcome
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

_SCORE_BINS = 40


def learning_section(inputs: RunInputs) -> Html:
    """Section 7: training curves and the metrics of the test split."""
    title = "7. Training and test"
    outcome = inputs.training
    if outcome is None:
        return section("training", title, missing(inputs.why_no_training()))
    metrics = outcome.metrics
    auc = metrics["auc"]
    return section(
        "training",
        title,
        paragraph(
            f"Test split: {count_text(metrics['n_positives'])} injected stamps, {count_text(metrics['n_negatives'])} "
            f"controls. AUC {number_text(auc['value'], 4)}, 95 % interval {interval_text(auc)} ({auc['method']})."
        ),
        figure(
            _curves_png(outcome),
            "loss and validation AUC per epoch",
            "Left: mean binary cross-entropy per epoch, training examples augmented, validation examples not. Right: "
            "AUC of the validation split; the ring marks the epoch whose weights were kept.",
        ),
        figure(
            _test_png(outcome),
            "ROC and score distribution of the test split",
            "Left: ROC of the test split on a logarithmic axis; the dotted line is chance, and the grey part, below "
            "one over the number of negatives, cannot be measured. Right: logits by class.",
        ),
        heading("Completeness at a false-positive rate"),
        _completeness_table(outcome),
        note(
            "Negatives are hosts of the same catalogue without an arc; "
            "the survey's own false positives (spirals, mergers, artefacts) are more varied, so these rates "
            "do not carry over to the sky."
        ),
        confusion_part(outcome, inputs.bands),
        details("Epochs as a table", _epoch_table(outcome)),
    )


def _curves_png(outcome: TrainingOutcome) -> bytes:
    picture, [left, right] = new_figure(1, 2, 3.3)
    epochs = [epoch["epoch"] + 1 for epoch in outcome.history]
    left.plot(epochs, [e["train_loss"] for e in outcome.history], color=COLOUR_CONTROL, marker="o", ms=4, label="train")
    val_loss = [e["val_loss"] for e in outcome.history]
    left.plot(epochs, val_loss, color=COLOUR_POSITIVE, marker="s", ms=4, label="validation")
    label_axes(left, "Loss", "epoch", "cross-entropy [nat]")
    add_legend(left)
    val_auc = [e["val_auc"] for e in outcome.history]
    right.plot(epochs, val_auc, color=COLOUR_POSITIVE, marker="s", ms=4)
    best = epochs.index(outcome.metrics["kept_epoch"] + 1)
    right.plot([epochs[best]], [val_auc[best]], marker="o", ms=13, fillstyle="none", color="#1c2228")
    label_axes(right, "Validation AUC", "epoch", "AUC")
    for axis in (left, right):
        _whole_epochs(axis, epochs)
    return as_png(picture)


def _whole_epochs(axis: Axes, epochs: list[int]) -> None:
    step = max(1, len(epochs) // 10)
    axis.set_xticks(epochs[::step])
    axis.set_xlim(epochs[0] - 0.4, epochs[-1] + 0.4)


def _test_png(outcome: TrainingOutcome) -> bytes:
    picture, [left, right] = new_figure(1, 2, 3.9)
    roc, metrics = outcome.metrics["roc"], outcome.metrics
    floor = 1.0 / metrics["n_negatives"]
    fpr, tpr = np.array(roc["fpr"], dtype=np.float64), np.array(roc["tpr"], dtype=np.float64)
    left.step(np.maximum(fpr, floor / 2), tpr, where="post", color=COLOUR_POSITIVE, linewidth=1.8, label="network")
    chance = np.geomspace(floor / 2, 1.0, 200)
    left.plot(chance, chance, color="#5b6670", linestyle=":", label="chance")
    left.axvspan(floor / 2, floor, color="#e3e7ea", linewidth=0)
    left.set_xscale("log")
    left.set_xlim(floor / 2, 1.0)
    left.set_ylim(0.0, 1.02)
    label_axes(left, "ROC, test split", "false-positive rate", "true-positive rate")
    add_legend(left, "upper left")
    label = outcome.scores["label"].to_numpy()
    logit = outcome.scores["logit"].to_numpy(dtype=np.float64)
    edges = common_edges([logit], _SCORE_BINS)
    draw_steps(right, logit[label == 0], edges, COLOUR_CONTROL, "controls", filled=True)
    draw_steps(right, logit[label == 1], edges, COLOUR_POSITIVE, "injected", filled=True)
    label_axes(right, "Scores, test split", "logit", "share of the class")
    add_legend(right)
    return as_png(picture)


def _completeness_table(outcome: TrainingOutcome) -> Html:
    rows = []
    for entry in outcome.metrics["tpr_at_fpr"]:
        n_negatives, tpr = entry["n_negatives"], entry["tpr"]
        shown = number_text(tpr, 3) if tpr is not None else "n/a: too few negatives"
        ends = (
            f"{number_text(entry['tpr_low'], 3)} {DASH} {number_text(entry['tpr_high'], 3)}" if tpr is not None else ""
        )
        allowed = number_text(entry["fpr"] * n_negatives, 3)
        rows.append((f"{entry['fpr']:g}", shown, ends, count_text(n_negatives), allowed))
    method = outcome.metrics["tpr_at_fpr"][0]["method"]
    return table(
        ("FPR", "TPR", "95 %", "Negatives", "Negatives allowed"),
        rows,
        caption="TPR of the loosest threshold that keeps the FPR; needs at least 10 negatives above the threshold. "
        f"Interval at that threshold: {method}.",
    )


def _epoch_table(outcome: TrainingOutcome) -> Html:
    rows = [
        (
            f"{epoch['epoch'] + 1}",
            number_text(epoch["train_loss"], 4),
            number_text(epoch["val_loss"], 4),
            number_text(epoch["val_auc"], 4),
            number_text(epoch["learning_rate"], 3),
            number_text(epoch["seconds"], 3),
        )
        for epoch in outcome.history
    ]
    return table(("Epoch", "Train loss", "Val loss", "Val AUC", "Learning rate", "Seconds"), rows, text_columns=())

"""Facts about the training section."""

from __future__ import annotations

import dataclasses

from pipeline.report.inputs import RunInputs
from pipeline.report.learning import best_epoch, learning_section


def test_section_has_curves_roc_and_numbers(inputs: RunInputs) -> None:
    """AUC, its method, and the class sizes are in the text; two figures are drawn."""
    assert inputs.training is not None
    metrics = inputs.training.metrics
    page = learning_section(inputs)
    assert f"{metrics['auc']['value']:.4f}" in page
    assert "Obuchowski" in page
    assert f"{metrics['n_positives']} injected" in page
    assert page.count("data:image/png") == 2


def test_too_few_negatives_are_not_a_number(inputs: RunInputs) -> None:
    """A rate that the negatives cannot carry is not quoted."""
    assert "n/a: too few negatives" in learning_section(inputs)


def test_bins_show_counts_and_absent_aucs(inputs: RunInputs) -> None:
    """Each arc_snr bin has its number of positives; small bins have no AUC."""
    assert inputs.training is not None
    page = learning_section(inputs)
    for entry in inputs.training.metrics["auc_by_arc_snr"]:
        assert f"<td>{entry['n_positives']}</td>" in page
        assert entry["auc"] is None or f"{entry['auc']:.4f}" in page


def test_best_epoch_is_the_first_of_the_best(inputs: RunInputs) -> None:
    """Highest validation AUC wins, ties by lower loss, then the earlier epoch."""
    assert inputs.training is not None

    def best(*epochs: tuple[float, float]) -> int:
        history = tuple({"val_auc": auc, "val_loss": loss} for auc, loss in epochs)
        assert inputs.training is not None
        return best_epoch(dataclasses.replace(inputs.training, history=history))

    assert best((0.8, 0.5), (0.9, 0.6), (0.7, 0.1)) == 1
    assert best((0.9, 0.6), (0.9, 0.5), (0.9, 0.5)) == 1


def test_absent_training_gives_the_reason(inputs: RunInputs) -> None:
    """Without results the section holds a reason and no figure."""
    page = learning_section(dataclasses.replace(inputs, training=None))
    assert "No network was trained" in page
    assert "data:image" not in page

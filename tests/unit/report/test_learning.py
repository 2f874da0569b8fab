"""Facts about the training section."""

from __future__ import annotations

import dataclasses

from pipeline.report.confusion import confusion_part
from pipeline.report.inputs import RunInputs
from pipeline.report.learning import learning_section


def test_section_has_curves_roc_and_numbers(inputs: RunInputs) -> None:
    """AUC, its method, and the class sizes are in the text; two figures are drawn beside the stamps."""
    assert inputs.training is not None
    metrics = inputs.training.metrics
    page = learning_section(inputs)
    assert f"{metrics['auc']['value']:.4f}" in page
    assert "Obuchowski" in page
    assert f"{metrics['n_positives']} injected" in page
    stamps = confusion_part(inputs.training, inputs.bands)
    assert page.count("data:image/png") == 2 + stamps.count("data:image/png")


def test_too_few_negatives_are_not_a_number(inputs: RunInputs) -> None:
    """A rate that the negatives cannot carry is not quoted."""
    assert "n/a: too few negatives" in learning_section(inputs)


def test_stamps_that_were_scored_wrongly_are_shown(inputs: RunInputs) -> None:
    """Both classes with logit and identity; arc values for injected stamps only."""
    assert inputs.training is not None
    page = confusion_part(inputs.training, inputs.bands)
    assert page in learning_section(inputs)
    control, injected = page.split("Injected stamps with the lowest scores")
    assert 'title="worst-control"' in control
    assert 'title="worst-injected"' in injected
    assert "arc_snr" not in control
    assert "1.50\u2033" in injected
    assert page.count("data:image/png") == 2


def test_absent_training_gives_the_reason(inputs: RunInputs) -> None:
    """Without results the section holds a reason and no figure."""
    page = learning_section(dataclasses.replace(inputs, training=None))
    assert "No network was trained" in page
    assert "data:image" not in page

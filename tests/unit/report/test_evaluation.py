"""Facts about the evaluation section."""

from __future__ import annotations

import dataclasses

import pandas as pd

from pipeline.report.evaluation import NOT_SUFFICIENT, evaluation_section, lowest_rate
from pipeline.report.inputs import RunInputs


def test_section_states_methods_base_rate_and_calibration(inputs: RunInputs) -> None:
    """Interval methods, the base rate, ECE and the gap and the settings are in the text; one figure."""
    page = evaluation_section(inputs)
    for fact in ("Wilson", "bootstrap over hosts", "base rate of 0.0001", "Brier", "arc_snr", "Test unmatched"):
        assert fact in page
    assert page.count("data:image/png") == 1
    for setting in ("evaluation.base_rate", "evaluation.bootstrap_replicates", "evaluation.edges.theta_e_arcsec"):
        assert setting in page
    assert "0.375, 0.625" in page


def test_rates_without_negatives_are_not_numbers(inputs: RunInputs) -> None:
    """The small run carries no rate of 0.01: each of three rates says so in both tables."""
    assert evaluation_section(inputs).count(NOT_SUFFICIENT) == 6


def test_lowest_rate_is_the_strictest_that_has_values() -> None:
    """Ends of intervals and columns of NaN do not count."""
    strata = pd.DataFrame({"tpr_at_fpr_0.01": [0.5], "tpr_at_fpr_0.001": [0.2], "tpr_at_fpr_0.0001": [float("nan")]})
    strata["tpr_at_fpr_0.0001_low"] = 0.1
    assert lowest_rate(list(strata.columns), strata) == "tpr_at_fpr_0.001"
    assert lowest_rate([], strata) is None


def test_absent_evaluation_gives_the_reason(inputs: RunInputs) -> None:
    """Trained but not evaluated, and not trained, are told apart."""
    without = dataclasses.replace(inputs, evaluation=None)
    assert "have not been evaluated" in evaluation_section(without)
    assert "No network was trained" in evaluation_section(dataclasses.replace(without, training=None))

"""Facts about attempts and weights."""

from __future__ import annotations

import numpy as np

from pipeline.report.acceptance import acceptance_part
from pipeline.report.inputs import RunInputs


def test_table_counts_exhausted_rows_and_large_weights(inputs: RunInputs) -> None:
    """The table holds rows asked, exhausted rows, the largest attempt and the largest weight."""
    part = acceptance_part(inputs, np.array([1.0, 1.0, 90.0]), np.array([1.0, 1.0, 4.0]))
    assert "<td>6</td>" in part
    assert part.count("50.00\u202f%") == 2
    assert "<td>90</td>" in part
    assert "<td>2.00</td>" in part


def test_weights_of_zero_are_drawn_as_a_sentence(inputs: RunInputs) -> None:
    """Weights that are all zero do not break the figure."""
    assert "data:image/png" in acceptance_part(inputs, np.array([1.0, 1.0]), np.zeros(2))

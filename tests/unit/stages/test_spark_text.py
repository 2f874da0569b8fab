"""Numbers as Spark writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.stages.spark_text import java_double_texts, micro_units, six_decimals


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (59.0, "59.0"),
        (-30.489874, "-30.489874"),
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (1e-3, "0.001"),
        (9.62913318380196e-4, "9.62913318380196E-4"),
        (-1e-5, "-1.0E-5"),
        (9999999.0, "9999999.0"),
        (1e7, "1.0E7"),
        (-12345678.9, "-1.23456789E7"),
        (1.5e300, "1.5E300"),
        (float("nan"), "NaN"),
        (float("-inf"), "-Infinity"),
    ],
)
def test_layout_of_java(value: float, text: str) -> None:
    """Exponents below 1e-3 and from 1e7, and always a digit behind the point."""
    assert java_double_texts(np.array([value, 1.25])) == [text, "1.25"]


def test_texts_that_spark_made(golden_hashes: Path) -> None:
    """All recorded numbers but three far from any position; those differ by Java's extra digits, as recorded."""
    recorded = pd.read_parquet(golden_hashes / "double_to_string.parquet")
    found = np.array(java_double_texts(recorded["x"].to_numpy()), object)
    np.testing.assert_array_equal(found, recorded["shortest"].to_numpy(object))
    unlike = found != recorded["str"].to_numpy(object)
    np.testing.assert_array_equal(unlike, recorded["differs_from_shortest"].to_numpy())
    assert unlike.sum() == 3
    magnitude = recorded["x"].abs()
    fixed = recorded[(magnitude < 1e16).to_numpy()]
    assert six_decimals(fixed["x"].tolist()) == fixed["fmt6"].tolist()


def test_rounding_that_spark_made(golden_hashes: Path) -> None:
    """Halves go away from zero; NaN becomes 0."""
    recorded = pd.read_parquet(golden_hashes / "round_e6.parquet")
    np.testing.assert_array_equal(micro_units(recorded["x"].to_numpy()), recorded["e6"].to_numpy())
    assert micro_units(np.array([2.5e-6, -2.5e-6, 0.4e-6, np.nan])).tolist() == [3, -3, 0, 0]


def test_six_decimals_round_to_nearest() -> None:
    """The exact binary value decides, and thousands are set apart."""
    assert six_decimals([59.1071848, -0.0000004, 1234.5]) == [
        "59.107185",
        "-0.000000",
        "1,234.500000",
    ]

"""Numbers as Spark writes them: double to string, six fixed decimals, and rounding half up."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

# Java writes numbers from 1e-3 up to 1e7 without exponent, Python a wider range.
_PLAIN_LOW, _PLAIN_HIGH = 1e-3, 1e7
_NAMED = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def java_double_texts(values: NDArray[np.float64]) -> list[str]:
    """`cast(double as string)` of Spark on a JDK before 19: fewest digits that give the number back, Java's layout.

    Those JDKs write some numbers with a digit more or less than needed; none is known between 1e-17 and 1e22, where
    positions lie.
    """
    texts = list(map(repr, values.tolist()))
    magnitude = np.abs(values)
    plain = (values == 0) | ((magnitude >= _PLAIN_LOW) & (magnitude < _PLAIN_HIGH))
    for row in np.flatnonzero(~plain).tolist():
        texts[row] = _with_exponent(float(values[row]))
    return texts


def six_decimals(values: Iterable[float]) -> list[str]:
    """`format_number(x, 6)` of finite numbers below 1e16: rounded to nearest, commas between thousands."""
    return [f"{value:,.6f}" for value in values]


def micro_units(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """`cast(round(x * 1e6) as long)`: half away from zero after a product in double precision; NaN gives 0."""
    scaled = np.nan_to_num(values * 1e6, nan=0.0)
    whole = np.trunc(scaled)
    return (whole + np.copysign(np.abs(scaled - whole) >= 0.5, scaled)).astype(np.int64)


def _with_exponent(value: float) -> str:
    text = repr(value)
    if text in _NAMED:
        return _NAMED[text]
    sign = "-" if text.startswith("-") else ""
    mantissa, _, exponent = text.lstrip("-").partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or 0) if whole != "0" else len(digits) - len(fraction) + int(exponent or 0)
    digits = digits.rstrip("0") or "0"
    return f"{sign}{digits[0]}.{digits[1:] or '0'}E{point - 1}"

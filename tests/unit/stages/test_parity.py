"""Parity: equal sources agree, and every way to differ is named."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from pipeline.contracts.anchors import ParityLimits
from pipeline.contracts.errors import ContractError
from pipeline.stages.parity import compare_stamps, match_stamps, parity_verdict

LIMITS = ParityLimits()
SIGMA = 0.002


def stamp(seed: int, size: int = 64) -> np.ndarray:
    """A galaxy on noise."""
    y, x = np.mgrid[:size, :size] - size // 2
    noise = np.random.default_rng(seed).normal(0.0, SIGMA, (size, size))
    return (0.2 * np.exp(-np.hypot(x, y) / 3.0) + noise).astype(np.float32)


def verdict_of(other: list[np.ndarray], bands: tuple[str, ...] = ("r",)) -> dict[str, object]:
    """Verdict about stamps 0, 1, ... against changed ones, the same in every band."""
    rows = [
        {"band": band, **dataclasses.asdict(compare_stamps(stamp(seed), changed, LIMITS))}
        for seed, changed in enumerate(other)
        for band in bands
    ]
    return parity_verdict(pd.DataFrame(rows), bands, LIMITS)


def test_equal_pixels_are_identical() -> None:
    """Also with the same NaN in both."""
    stamps = [stamp(seed) for seed in range(4)]
    assert verdict_of(stamps)["verdict"] == "identical"
    holed = stamps[0].copy()
    holed[3, 3] = np.nan
    assert compare_stamps(holed, holed, LIMITS).identical


def test_a_tenth_of_a_sigma_agrees() -> None:
    """Rounding by a lossy file is no difference; the statistics say how large it is."""
    generator = np.random.default_rng(9)
    result = verdict_of([stamp(seed) + generator.normal(0, 0.1 * SIGMA, (64, 64)).astype("f4") for seed in range(5)])
    assert result["verdict"] == "agree"
    assert result["problems"] == []
    statistics = result["bands"]["r"]  # type: ignore[index]
    assert statistics["median_rms_sigma"] == pytest.approx(0.1, rel=0.1)
    assert statistics["ratio"]["median"] == pytest.approx(1.0, abs=0.005)
    assert statistics["ratio"]["n"] == 5


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda image: image * np.float32(1.05), "median flux ratio 1.05"),
        (lambda image: image + np.float32(0.5 * SIGMA), "backgrounds differ by"),
        (lambda image: np.roll(image, 1, axis=1), "5 of 5 stamps are shifted"),
        (lambda image: image[::-1].copy(), "pixels differ"),
    ],
)
def test_each_difference_is_named(change: object, problem: str) -> None:
    """Another zero point, background, centring or orientation."""
    result = verdict_of([change(stamp(seed)) for seed in range(5)])  # type: ignore[operator]
    assert result["verdict"] == "differ"
    assert any(problem in text for text in result["problems"])  # type: ignore[attr-defined]


def test_one_odd_stamp_does_not_decide() -> None:
    """Medians over stamps; the odd one shows in the largest difference."""
    stamps = [stamp(seed) for seed in range(7)]
    stamps[3] = stamps[3] * np.float32(3.0)
    result = verdict_of(stamps)
    assert result["verdict"] == "agree"
    assert result["bands"]["r"]["largest_difference_sigma"] > 50  # type: ignore[index]


def test_the_shift_is_that_of_the_second_stamp() -> None:
    """Positive towards larger column and row."""
    pair = compare_stamps(stamp(1), np.roll(stamp(1), (-1, 2), axis=(0, 1)), LIMITS)
    assert (pair.shift_x_px, pair.shift_y_px) == (2, -1)


def test_the_middle_of_the_larger_stamp_is_compared() -> None:
    """Old stamps may be larger; the pixel size // 2 is the centre of both."""
    large = stamp(1, 80)
    assert compare_stamps(large[8:72, 8:72].copy(), large, LIMITS).identical
    with pytest.raises(ContractError, match="no common middle"):
        compare_stamps(stamp(1, 64), stamp(1, 65), LIMITS)


def test_too_few_or_too_faint_stamps_give_no_verdict() -> None:
    """Fails closed: nothing that could be compared is not agreement."""
    few = verdict_of([stamp(seed) * np.float32(1.001) for seed in range(2)])
    assert few["verdict"] == "insufficient"
    noise = [np.random.default_rng(seed).normal(0, SIGMA, (64, 64)).astype("f4") for seed in range(8)]
    rows = [{"band": "r", **dataclasses.asdict(compare_stamps(image, 2 * image, LIMITS))} for image in noise]
    assert parity_verdict(pd.DataFrame(rows), ("r",), LIMITS)["verdict"] == "insufficient"
    blank = np.full((64, 64), np.nan, np.float32)
    assert verdict_of([blank] * 5)["verdict"] == "insufficient"


def test_a_band_that_was_never_compared_gives_no_verdict() -> None:
    """Identical r says nothing about z."""
    rows = [{"band": "r", **dataclasses.asdict(compare_stamps(stamp(s), stamp(s), LIMITS))} for s in range(4)]
    assert parity_verdict(pd.DataFrame(rows), ("r", "z"), LIMITS)["verdict"] == "insufficient"


def test_positions_are_matched_on_the_sphere() -> None:
    """Each of a has its nearest of b, or none."""
    rows_a, rows_b = match_stamps([10.0, 20.0, 30.0], [60.0] * 3, [30.0002, 10.0], [60.0] * 2, 0.5)
    assert rows_a.tolist() == [0, 2]
    assert rows_b.tolist() == [1, 0]
    assert match_stamps([], [], [1.0], [1.0], 1.0)[0].size == 0

"""Completeness on injections whose true surface is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pipeline.contracts.errors import VerificationError
from pipeline.contracts.evaluation import SELECTION_FUNCTION_COLUMNS, EvaluationSettings
from pipeline.stages.completeness import (
    DetectionThreshold,
    completeness_surfaces,
    detection_thresholds,
    failure_table,
    selection_function,
    surface_accounting,
)
from pipeline.stages.evaluation import operating_point, roc_curve

SETTINGS = EvaluationSettings()
HALF = (DetectionThreshold("fixed", float("nan"), 0.0, True),)


def _truth(theta_e: np.ndarray, psf_fwhm: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-4.0 * (theta_e - psf_fwhm)))


def _injections(n: int = 60_000, seed: int = 1) -> pd.DataFrame:
    """Detected with probability C(theta_E, PSF). theta_E is drawn from a density linear in it; the prior is flat."""
    generator = np.random.default_rng(seed)
    low, high = 0.375, 3.125
    uniform = generator.uniform(size=n)
    theta = np.sqrt(low**2 + uniform * (high**2 - low**2))
    psf = generator.uniform(0.825, 1.875, n)
    frame = pd.DataFrame({"theta_e": theta, "psf_fwhm": psf, "weight": 1.0 / theta, "host_id": np.arange(n) // 2})
    frame["theta_e_over_psf"] = theta / psf
    frame["depth_5sig"] = generator.choice([23.0, 24.0], n)
    frame["source_mag"] = generator.uniform(23.0, 26.0, n)
    frame["lensed_mag"] = generator.uniform(20.0, 24.0, n)
    frame["host_mag"] = 19.5
    frame["arc_snr"] = generator.uniform(1.0, 30.0, n)
    frame["logit"] = np.where(generator.uniform(size=n) < _truth(theta, psf), 2.0, -2.0)
    frame["failed"] = False
    frame["reject_reason"] = "none"
    return frame


def _with_failures(frame: pd.DataFrame) -> pd.DataFrame:
    """The last 30 rows failed: 10 masked without any coordinate, 20 exhausted whose host is known."""
    frame = frame.copy()
    failed = np.arange(len(frame)) >= len(frame) - 30
    frame["failed"] = failed
    frame.loc[failed, ["logit", "theta_e", "source_mag", "lensed_mag", "arc_snr", "theta_e_over_psf"]] = np.nan
    frame.loc[failed, "weight"] = 0.0
    frame.loc[failed, "reject_reason"] = ["masked"] * 10 + ["sampler_exhausted"] * 20
    frame.loc[frame["reject_reason"] == "masked", ["psf_fwhm", "depth_5sig"]] = np.nan
    return frame


def _surface(table: pd.DataFrame, name: str) -> pd.DataFrame:
    return table[table["surface"] == name].reset_index(drop=True)


def test_weights_recover_the_completeness_of_the_prior() -> None:
    """Over a flat prior C is the plane's mean; without weights the drawn density's, which is higher."""
    row = _surface(completeness_surfaces(_injections(), HALF, SETTINGS), "").iloc[0]
    theta, psf = np.meshgrid(np.linspace(0.375, 3.125, 801), np.linspace(0.825, 1.875, 401))
    expected = float(_truth(theta, psf).mean())
    assert row["completeness"] == pytest.approx(expected, abs=0.01)
    assert row["jeffreys95_lo"] < expected < row["jeffreys95_hi"]
    assert row["completeness_unweighted"] > expected + 0.05
    weight = _injections()["weight"]
    assert row["n_effective"] == pytest.approx(weight.sum() ** 2 / (weight**2).sum())
    assert row["n_effective"] < row["n_injections"] == 60_000
    assert row["n_hosts"] == 30_000


def test_the_plane_of_theta_and_psf_is_recovered_cell_by_cell() -> None:
    """77 cells; 95 % intervals hold the cell's true value in 88 to 100 % of them, 68 % ones in 50 to 85 %."""
    cells = _surface(completeness_surfaces(_injections(), HALF, SETTINGS), "theta_e,psf_fwhm")
    assert len(cells) == 77
    middle = np.linspace(0.5 / 21, 1 - 0.5 / 21, 21)
    theta = cells["theta_e_low"].to_numpy()[:, None, None] + 0.25 * middle[:, None]
    psf = cells["psf_fwhm_low"].to_numpy()[:, None, None] + 0.15 * middle
    truth = _truth(theta, psf).mean(axis=(1, 2))
    for name, least, most in (("95", 0.88, 1.0), ("68", 0.5, 0.85)):
        for method in ("wilson", "jeffreys"):
            inside = (cells[f"{method}{name}_lo"] <= truth) & (truth <= cells[f"{method}{name}_hi"])
            assert least <= inside.mean() <= most
    assert np.abs(cells["completeness"] - truth).max() < 0.1


def test_selection_function_has_exactly_the_published_columns_and_rows() -> None:
    """385 cells by threshold; magnitude rows for occupied cells only; empty cells NaN and not sufficient."""
    negatives = np.r_[np.ones(3), np.zeros(2000)]
    curve = roc_curve(negatives, np.r_[[9.0, 8.0, 7.0], np.linspace(-5.0, 5.0, 2000)])
    thresholds = detection_thresholds([operating_point(curve, rate) for rate in (1e-2, 1e-3)], SETTINGS)
    table = selection_function(_with_failures(_injections(6000)), thresholds, SETTINGS)
    assert tuple(table.columns) == SELECTION_FUNCTION_COLUMNS
    assert table["threshold_type"].unique().tolist() == ["fixed", "FPR=1.0e-02", "FPR=1.0e-03"]
    whole = table[table["source_mag_bin"] == "all"]
    assert len(whole) == 385 * 5
    assert table["source_mag_bin"].nunique() == 1 + 8 + 5
    assert {"23-24", "lensed_20-22"} <= set(table["source_mag_bin"])
    empty = whole[whole["n_injections"] == 0]
    assert empty["completeness"].isna().all() and not empty["sufficient"].any()
    assert set(table.loc[table["n_injections"] == 0, "depth_5sig"]) >= {22.5, 23.5, 24.5}
    assert whole["n_injections"].sum() == 5 * 5970
    one = whole[(whole["threshold"] == 0.5) & (whole["theta_e"] == 1.0) & (whole["depth_5sig"] == 23.0)]
    assert one["psf_fwhm"].tolist() == pytest.approx([0.9, 1.05, 1.2, 1.35, 1.5, 1.65, 1.8])
    small = whole[(whole["n_injections"] > 0) & (whole["n_injections"] < 20)]
    assert len(small) and not small["sufficient"].any()


def test_a_rate_without_negatives_gives_nan_never_an_extrapolation() -> None:
    """FPR 1e-3 from 2000 negatives is not sufficient: threshold, C and intervals are NaN, counts of injections stay."""
    curve = roc_curve(np.r_[np.ones(2), np.zeros(2000)], np.arange(2002.0))
    thresholds = detection_thresholds([operating_point(curve, 1e-3)], SETTINGS)
    assert np.isnan(thresholds[-1].score)
    table = completeness_surfaces(_injections(2000), thresholds, SETTINGS)
    rows = table[table["threshold_type"] == "FPR=1.0e-03"]
    assert rows[["threshold", "completeness", "wilson95_lo", "jeffreys68_hi"]].isna().all(axis=None)
    assert not rows["sufficient"].any()
    assert _surface(rows, "")["n_injections"].tolist() == [2000]


def test_failures_are_counted_apart_and_never_enter_completeness() -> None:
    """C is that of the scored rows; every failure is in a cell or counted as unplaced; reasons keep their counts."""
    scored = _injections(6000)
    frame = _with_failures(scored)
    table = completeness_surfaces(frame, HALF, SETTINGS)
    reference = completeness_surfaces(scored.iloc[:-30], HALF, SETTINGS)
    assert _surface(table, "")["completeness"].tolist() == _surface(reference, "")["completeness"].tolist()
    assert _surface(table, "")["n_failed"].tolist() == [30]
    assert _surface(table, "psf_fwhm")["n_failed"].sum() == 20
    assert _surface(table, "theta_e")["n_failed"].sum() == 0
    for entry in surface_accounting(frame, SETTINGS):
        placed = _surface(table, entry["surface"])
        assert placed["n_injections"].sum() + entry["n_scored_outside"] == entry["n_scored"] == 5970
        assert placed["n_failed"].sum() + entry["n_failed_unplaced"] == entry["n_failed"] == 30
        assert entry["n_asked"] == 6000
    failures = failure_table(frame, SETTINGS)
    assert failures.groupby("reject_reason")["n_failed"].sum().to_dict() == {"masked": 10, "sampler_exhausted": 20}
    assert failures.loc[failures["reject_reason"] == "masked", "psf_fwhm_low"].isna().all()
    assert failure_table(scored, SETTINGS).empty


def test_equal_weights_give_plain_counts_and_ties_are_detected() -> None:
    """k of n with n_eff = n; a score at the threshold counts as detected; few injections are flagged."""
    frame = _injections(29).assign(weight=3.0, logit=np.r_[np.zeros(10), np.full(19, -1e-9)])
    row = _surface(completeness_surfaces(frame, HALF, SETTINGS), "").iloc[0]
    assert (row["n_detected"], row["n_effective"]) == (10, pytest.approx(29))
    assert row["completeness"] == pytest.approx(10 / 29)
    assert not row["sufficient"]
    enough = _surface(completeness_surfaces(_injections(31).assign(weight=3.0), HALF, SETTINGS), "").iloc[0]
    assert enough["sufficient"]


def test_one_heavy_injection_is_not_sufficient() -> None:
    """1000 injections of which one carries nearly all the weight have an effective number of 1."""
    frame = _injections(1000).assign(weight=np.r_[1e9, np.ones(999)])
    row = _surface(completeness_surfaces(frame, HALF, SETTINGS), "").iloc[0]
    assert row["n_effective"] == pytest.approx(1.0, abs=1e-3)
    assert not row["sufficient"]


def test_results_do_not_depend_on_the_order_of_rows() -> None:
    """Counts are equal and sums equal to rounding for shuffled rows."""
    frame = _injections(3000)
    shuffled = frame.sample(frac=1.0, random_state=3).reset_index(drop=True)
    first, second = (completeness_surfaces(rows, HALF, SETTINGS) for rows in (frame, shuffled))
    pd.testing.assert_frame_equal(first, second, rtol=1e-10)


def test_unusable_injections_are_refused() -> None:
    """No scored row, zero weights, missing scores, or a failed row with a score are errors."""
    frame = _injections(100)
    cases = (
        (frame.assign(failed=True, logit=np.nan), "scored injections"),
        (frame.assign(weight=0.0), "positive weights"),
        (frame.assign(logit=np.nan), "finite score"),
        (frame.assign(failed=np.arange(100) < 5), "finite score"),
    )
    for broken, reason in cases:
        with pytest.raises(VerificationError, match=reason):
            completeness_surfaces(broken, HALF, SETTINGS)

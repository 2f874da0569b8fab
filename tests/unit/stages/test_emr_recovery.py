"""SNR completeness against the tables of EMR phase 4d."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.contracts.errors import ContractError
from pipeline.stages.emr_recovery import RECOVERY_INPUT, cell_widths, recovery_completeness

GOLDEN = Path(__file__).parents[4] / "shared" / "data" / "emr_golden"
KEYS = ["region_split", "selection_set_id", "ranking_mode", "theta_e_arcsec", "src_dmag", "src_reff_arcsec", "src_e",
        "shear", "psf_bin", "depth_bin"]  # fmt: skip


def metrics(**replaced: list[object]) -> pd.DataFrame:
    """Five rows of one cell: two injections, a failed one, one without SNR, and a control with the cell's keys."""
    rows = {
        **{name: [0.1] * 5 for name in ("src_dmag", "src_reff_arcsec", "src_e", "shear")},
        **{name: ["a"] * 5 for name in ("selection_set_id", "ranking_mode", "region_split")},
        "theta_e_arcsec": [1.0, 1.0, 1.0, 1.0, 0.0],
        "cutout_ok": [1, 1, 0, 1, 1],
        "arc_snr": [7.0, 4.0, 9.0, np.nan, np.nan],
        "psfsize_r": [1.29] * 5,
        "psfdepth_r": [24.4] * 5,
    }
    return pd.DataFrame({**rows, **replaced})


def test_only_injections_that_could_be_recovered_count() -> None:
    """One of two is recovered; the EMR number has the failures too; controls have a cell of their own."""
    table = recovery_completeness(metrics(), 5.0, 0.7)
    cell, controls = table[table["theta_e_arcsec"] == 1.0].iloc[0], table[table["theta_e_arcsec"] == 0.0].iloc[0]
    assert (cell["n"], cell["n_recovered"], cell["n_failed"], cell["n_emr"]) == (2, 1, 2, 4)
    assert (cell["completeness"], cell["completeness_emr"]) == (0.5, 0.25)
    assert (cell["psf_bin"], cell["depth_bin"]) == (12, 48)
    assert (controls["n"], controls["n_controls"], controls["n_emr"]) == (0, 1, 1)
    assert np.isnan(controls["completeness"])


def test_both_cuts_count() -> None:
    """An arc that is bright but unresolved is not recovered, nor one whose seeing is unknown."""
    assert recovery_completeness(metrics(), 5.0, 0.8)["n_recovered"].sum() == 0
    assert recovery_completeness(metrics(), 3.0, 0.7)["n_recovered"].sum() == 2
    assert recovery_completeness(metrics(psfsize_r=[0.0] * 5), 3.0, 0.7)["n_recovered"].sum() == 0


def test_drawn_parameters_are_counted_in_cells() -> None:
    """Values on no grid share a cell named by its middle; a grid and the controls keep their values."""
    distinct = {"theta_e_arcsec": 5000, "src_dmag": 4, "src_reff_arcsec": 65, "src_e": 2, "shear": 64}
    widths = cell_widths(distinct)
    assert widths == {"theta_e_arcsec": 0.25, "src_reff_arcsec": 0.1}
    table = recovery_completeness(metrics(theta_e_arcsec=[1.01, 1.2, 1.25, 1.3, 0.0]), 5.0, 0.7, widths)
    assert table["theta_e_arcsec"].tolist() == [0.0, 1.125, 1.375]
    assert table["n_emr"].tolist() == [1, 2, 2]
    assert table["src_dmag"].unique().tolist() == [0.1]


def test_missing_columns_are_named() -> None:
    """A table of another kind is refused."""
    with pytest.raises(ContractError, match="arc_snr, psfsize_r"):
        recovery_completeness(metrics().drop(columns=["arc_snr", "psfsize_r"]), 5.0, 0.8)


@pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"the EMR system's own tables are not here: {GOLDEN}")
@pytest.mark.parametrize(
    "run", ["sersic_moffat", "cosmos_moffat", "unp1_debug_sersic_moffat", "unp1_debug_cosmos_moffat"]
)
@pytest.mark.parametrize(("cut", "snr_min", "ratio_min"), [("default", 5.0, 0.8), ("snr25_th0.2", 25.0, 0.2)])
def test_emr_accounting_is_that_of_emr(run: str, cut: str, snr_min: float, ratio_min: float) -> None:
    """Cells, counts and SNR statistics agree; the EMR completeness comes back out of ours."""
    golden = pd.read_parquet(GOLDEN / "stage4d" / f"{run}__{cut}.parquet").sort_values(KEYS, ignore_index=True)
    table = pd.read_parquet(GOLDEN / "stage4c" / run / "metrics.parquet")
    ours = recovery_completeness(table[list(RECOVERY_INPUT)], snr_min, ratio_min)
    ours = ours.sort_values(KEYS, ignore_index=True)
    for name in KEYS:
        assert ours[name].tolist() == golden[name].tolist()
    assert ours["n_emr"].tolist() == golden["n"].tolist()
    assert ours["n_recovered"].tolist() == golden["n_recovered"].tolist()
    assert ours["completeness_emr"].tolist() == golden["completeness"].tolist()
    np.testing.assert_array_equal(ours["arc_snr_p50"], golden["arc_snr_p50"])
    np.testing.assert_allclose(ours["arc_snr_mean"], golden["arc_snr_mean"], rtol=1e-14)
    assert (ours["completeness"].fillna(1.0) >= ours["completeness_emr"]).all()
    assert ours["n"].sum() < ours["n_emr"].sum()

"""Exports of every golden run of the EMR system: rows, metrics and pixels, through manifest, cubes and `dhs export`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from pipeline.driver.emr_export import finish_export, plan_export
from pipeline.driver.emr_shards import export_shard
from pipeline.kernels.arc_draws import MIRROR, PHI
from pipeline.kernels.psf import psf_fwhm_arcsec
from pipeline.stages.arcs import ArcRenderer, InjectionAssets
from pipeline.stages.draws import frozen_arc
from pipeline.stages.manifest import emr_rows
from pipeline.storage.emr_layout import EmrLayout
from pipeline.storage.locations import Location
from pipeline.storage.source_bank import read_bank
from pipeline.storage.stamp_blobs import decode_stamp

BANDS = ("g", "r", "z")
ERROR = "Processing error: "


@dataclass(frozen=True)
class Expected:
    """What a golden folder can be compared in.

    Attributes:
        snr: rows whose arc_snr is that of an arc we were given.
        stamps: controls and injected rows whose pixels must be equal.
        bands: bands in which the arcs that we were given are those of the run.
    """

    snr: int
    stamps: tuple[int, int]
    bands: tuple[str, ...] = BANDS


GOLDEN_RUNS = {
    "sersic_moffat": Expected(18, (32, 33)),
    "sersic_moffat_core5": Expected(18, (32, 33)),
    "sersic_moffat_psfmaps": Expected(13, (32, 25), ("r",)),
    "cosmos_moffat": Expected(27, (32, 52)),
    "arc_sersic_moffat": Expected(18, (32, 33)),
    "arc_sersic_gaussian": Expected(10, (32, 20)),
    "arc_cosmos_moffat": Expected(27, (32, 52)),
    "arc_cosmos_gaussian": Expected(6, (32, 14)),
    "unp1_sersic_moffat": Expected(10, (16, 15)),
    "unp1_debug_sersic_moffat": Expected(0, (0, 0)),
    "unp1_debug_cosmos_moffat": Expected(0, (0, 0)),
}


@pytest.mark.parametrize("name", GOLDEN_RUNS)
def test_export_is_that_of_emr(name: str, golden_run_of: Callable[[str], Any], tmp_path: Path) -> None:
    """Every column of rows and metrics bit for bit, SNR to 1e-6 given the same arc, control and given pixels too."""
    golden, expected = golden_run_of(name), GOLDEN_RUNS[name]
    layout = EmrLayout(Location(str(tmp_path)), "v6_golden")
    metrics_only = bool(golden.rows["metrics_only"].iloc[0])
    planned = plan_export(golden.layout, layout, ("stamps", "metrics"), metrics_only=metrics_only)
    finish_export(planned, {task.shard: export_shard(task, planned.export) for task in planned.tasks}, layout.phase4)
    experiment = planned.export.experiment_id
    stamps, metrics = (read_table(folder) for folder in (layout.stamps(experiment), layout.metrics(experiment)))
    assert compare(stamps, golden.rows, golden.arcs) == expected.snr
    assert compare(metrics, golden.metrics, golden.arcs) == expected.snr
    assert same_stamps(stamps, golden, expected.bands) == expected.stamps


def test_templates_lie_behind_the_lens_as_those_of_emr(golden_run_of: Callable[[str], Any]) -> None:
    """Rendered on EMR's grid, the template's arc resembles EMR's, and less so if it is mirrored or turned."""
    golden = golden_run_of("arc_cosmos_gaussian")
    config = golden.config
    bank = read_bank(Location(config.injection.source.url))
    renderer = ArcRenderer(config, InjectionAssets(bank))
    frame = pd.read_parquet(config.manifest.url)
    rows = emr_rows(frame, BANDS, 64)
    alike: dict[tuple[float, float], list[float]] = {(1.0, 0.0): [], (-1.0, 0.0): [], (1.0, np.pi): []}
    for index in np.flatnonzero(frame["task_id"].isin(list(golden.arcs))):
        emr = golden.arcs[frame["task_id"][index]][1]
        seeing = np.array([frame[f"psfsize_{band}"][index] for band in BANDS], np.float32)
        assert psf_fwhm_arcsec(seeing, "gaussian", 3.5) == pytest.approx(seeing, rel=1e-3)
        psf = renderer.psf(seeing, "")
        draw = frozen_arc(rows, int(index), (0.0, 0.0), renderer.source)
        assert draw is not None
        for (mirror, phi_rad), found in alike.items():
            draw.components.table[0, [PHI, MIRROR]] = phi_rad, mirror
            ours = renderer.stamps(draw, renderer.render(draw, psf), psf, slice(1, 2))[0]
            found.append(np.corrcoef(ours.ravel(), emr.ravel())[0, 1])
    right = np.array(alike.pop((1.0, 0.0)))
    assert right.min() > 0.995
    for found in alike.values():
        assert (right > np.array(found)).sum() >= 12


def read_table(folder: Location) -> pd.DataFrame:
    """A whole table by task_id, as a Hive reader sees it."""
    return pq.read_table(folder.path).to_pandas().set_index("task_id")


def compare(ours: pd.DataFrame, golden: pd.DataFrame, arcs: dict[str, np.ndarray]) -> int:
    """Compare every column of a golden table; the number of rows whose arc_snr was compared."""
    assert set(ours.index) == set(golden.index)
    ours = ours.loc[golden.index]
    given = golden.index.isin(list(arcs))
    failed = np.zeros(len(golden), dtype=bool)
    if "physics_warnings" in golden:
        failed = golden["physics_warnings"].fillna("").str.startswith(ERROR).to_numpy()
        assert ours["physics_warnings"].fillna("").str.startswith(ERROR).tolist() == failed.tolist()
    n_snr = 0
    for name in golden.columns:
        left, right = ours.get(name), golden[name]
        if name.startswith(("sha256", "npz")) or name == "magnification":
            continue
        if name in ("arc_snr", "arc_snr_sum", "lensed_hlr_arcsec"):
            assert left.isna().tolist() == right.isna().tolist(), name
            known = right.notna().to_numpy() & given
            np.testing.assert_allclose(left[known].astype(float), right[known].astype(float), rtol=1e-6)
            n_snr = int(known.sum()) if name == "arc_snr" else n_snr
            continue
        # The texts of errors are our own, and those of faint arcs quote the arc_snr.
        kept = given & ~failed if name == "physics_warnings" else np.ones(len(golden), dtype=bool)
        assert values(left[kept]) == values(right[kept]), name
    return n_snr


def values(column: pd.Series) -> list[Any]:
    """Values with one kind of NULL."""
    return [None if pd.isna(value) else value for value in column.tolist()]


def same_stamps(ours: pd.DataFrame, golden: Any, bands: tuple[str, ...]) -> tuple[int, int]:
    """Controls and injected rows whose pixels were compared, by the digests of their bands."""
    counts = [0, 0]
    for task, row in golden.rows.iterrows():
        blob = ours.loc[task, "stamp_npz"]
        if row["npz_keys"] != "image_g,image_r,image_z" or (row["is_control"] == 0 and task not in golden.arcs):
            continue
        stamp = dict(zip(BANDS, decode_stamp(blob, BANDS), strict=True))
        for band in BANDS if row["is_control"] else bands:
            assert hashlib.sha256(stamp[band].astype("<f4").tobytes()).hexdigest() == row[f"sha256_{band}"], task
        counts[0 if row["is_control"] else 1] += 1
    return counts[0], counts[1]

"""The score table of a training cube."""

from __future__ import annotations

import numpy as np
import xarray as xr

from pipeline.storage.score_tables import SCORE_COLUMNS, example_table

TEXTS = ("task_id", "region_split")
PER_BAND = ("psfsize_arcsec", "src_mag")


def columns(n: int = 4) -> xr.Dataset:
    """SCORE_COLUMNS of some rows, two bands."""
    values: dict[str, object] = {}
    for number, name in enumerate(SCORE_COLUMNS):
        if name in TEXTS:
            values[name] = ("sample", np.array([f"{name}-{row}" for row in range(n)], object))
        elif name in PER_BAND:
            values[name] = (("sample", "band"), np.tile(np.float32([number, number + 1]), (n, 1)))
        else:
            values[name] = ("sample", np.full(n, number))
    return xr.Dataset(values)


def test_table_has_the_trainers_and_the_completeness_columns() -> None:
    """Source columns are null for controls; seeing is that of band r."""
    label = np.array([1, 0, 0, 1], np.uint8)
    logit = np.arange(4, dtype=np.float32)
    split = np.array(["test"] * 4, object)
    table = example_table(columns(), label, logit, logit / 10, split, ("g", "r"))
    assert table.schema.names[:9] == [
        "task_id", "pair_id", "host_id", "label", "logit", "score", "split", "arc_snr", "theta_e_arcsec"
    ]  # fmt: skip
    assert table["src_dmag"].is_null().to_pylist() == [False, True, True, False]
    assert table["src_reff_arcsec"].is_null().to_pylist() == [False, True, True, False]
    assert table["psfsize_r"].to_pylist() == [SCORE_COLUMNS.index("psfsize_arcsec") + 1.0] * 4
    assert table["y_true"].to_pylist() == label.tolist()
    assert table["logit"].to_pylist() == logit.tolist()


def test_without_r_there_is_no_seeing_and_no_magnitude_offset() -> None:
    """Both are defined in r alone."""
    nothing = columns(0)
    empty = np.empty(0, np.float32)
    table = example_table(nothing, empty.astype(np.uint8), empty, empty, np.empty(0, object), ("g", "z"))
    assert not {"psfsize_r", "src_dmag"} & set(table.schema.names)
    assert table.num_rows == 0

"""The input columns against the EMR system's own files."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pipeline.contracts.manifest import (
    EMR_COLUMNS,
    FROZEN_COLUMNS,
    PARENT_COLUMNS,
    PARENT_OPTIONAL_COLUMNS,
    ROWS,
)

FAMILIES = {"string", "integer", "number"}


def test_families_are_known_and_sets_are_disjoint() -> None:
    """Every column has a known family; no parent column is both needed and optional."""
    assert set((EMR_COLUMNS | PARENT_COLUMNS | PARENT_OPTIONAL_COLUMNS).values()) == FAMILIES
    assert not set(PARENT_COLUMNS) & set(PARENT_OPTIONAL_COLUMNS)


def test_frozen_columns_are_numbers_of_the_manifest_and_of_the_rows() -> None:
    """A frozen column is read from the manifest and handed on as float64."""
    for name in FROZEN_COLUMNS:
        assert EMR_COLUMNS[name] == "number"
        assert ROWS[name].dtype == "float64"


def test_golden_manifests_have_every_column(golden_manifests: list[Path]) -> None:
    """The EMR system's manifests hold all required columns with the declared families."""
    kinds = {"string": "OT", "integer": "iu", "number": "iuf"}
    for path in golden_manifests:
        frame = pd.read_parquet(path, columns=list(EMR_COLUMNS))
        for name, family in EMR_COLUMNS.items():
            if family != "string":
                assert frame[name].dtype.kind in kinds[family], name
            else:
                assert frame[name].map(type).eq(str).all(), name

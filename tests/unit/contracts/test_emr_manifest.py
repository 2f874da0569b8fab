"""Columns of a manifest, beside what reads them."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from pipeline.contracts.emr_manifest import MANIFEST_TYPES, experiment_name
from pipeline.contracts.manifest import EMR_COLUMNS

_FAMILIES = {"string": "string", "int32": "integer", "int64": "integer", "float": "number", "double": "number"}


def test_every_column_that_a_run_reads_is_written() -> None:
    """With a type of the family that the reader accepts; counts may be read as numbers."""
    for name, family in EMR_COLUMNS.items():
        assert _FAMILIES[MANIFEST_TYPES[name]] in (family, "integer"), name


def test_columns_are_those_of_the_emr_system(golden_manifests: list[Path]) -> None:
    """Names, order and types of every golden manifest."""
    for path in golden_manifests:
        schema = pq.ParquetFile(path).schema_arrow
        assert [(field.name, str(field.type)) for field in schema] == list(MANIFEST_TYPES.items())


def test_experiment_name() -> None:
    """Grid names already begin with "grid"."""
    assert experiment_name("train", 64, "grz", "grid_sota") == "train_stamp64_bandsgrz_gridgrid_sota"

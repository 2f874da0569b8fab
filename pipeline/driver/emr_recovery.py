"""The completeness table of EMR phase 4d from a metrics table, new or old."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.contracts.emr_columns import PARTITION
from pipeline.contracts.errors import ContractError
from pipeline.stages.emr_recovery import CELL_WIDTHS, RECOVERY_INPUT, cell_widths, recovery_completeness
from pipeline.storage.emr_layout import REMAKES, SUCCESS, EmrLayout
from pipeline.storage.emr_tables import parquet_files, partition_of, read_batches, write_emr_file
from pipeline.storage.locations import Location
from pipeline.storage.runs import utc_now, write_json

_BINS = ("psf_bin", "depth_bin")


def write_completeness(
    metrics: Location, layout: EmrLayout, experiment_id: str, snr_min: float = 5.0, theta_over_psf_min: float = 0.8
) -> dict[str, Any]:
    """Write the completeness table of one experiment, one file per split, then its configuration and its marker.

    Args:
        metrics: folder of a metrics or stamps table, with one folder region_split=<value> per split.
        layout: where to; its variant must be new.
        experiment_id: name of the table's folder.
        snr_min, theta_over_psf_min: what makes an arc recovered.

    Returns:
        rows read, cells, injections, recovered, controls, failed, widths of the cells of parameters that are on no
        grid, and the table's folder.

    Raises:
        ConfigError: an old variant.
        ContractError: no such table, or one without the columns needed.
    """
    target = layout.for_writing().completeness(experiment_id)
    by_split: dict[str, list[str]] = {}
    for name in parquet_files(metrics):
        by_split.setdefault(partition_of(name) or "", []).append(name)
    if not by_split or "" in by_split:
        raise ContractError(f"{metrics.url}: expected parquet files below {PARTITION}=<split>/, found none there")
    target.join(SUCCESS).remove()
    widths = cell_widths(_distinct_values(metrics))
    totals = dict.fromkeys(("rows", "cells", "n", "n_recovered", "n_controls", "n_failed"), 0)
    for split, names in sorted(by_split.items()):
        frames = [
            pd.DataFrame(pa.Table.from_batches([batch]).to_pandas())
            for name in names
            for batch in read_batches(metrics.join(name), RECOVERY_INPUT, rows=100_000)
        ]
        read = pd.concat(frames, ignore_index=True).assign(**{PARTITION: split})
        table = recovery_completeness(read, snr_min, theta_over_psf_min, widths)
        table = table.astype(dict.fromkeys(_BINS, "Int32")).drop(columns=PARTITION)
        arrow = pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata(None)
        write_emr_file(target.join(f"{PARTITION}={split}", "part-00000.c000.snappy.parquet"), arrow)
        totals["rows"] += len(read)
        totals["cells"] += len(table)
        for name in ("n", "n_recovered", "n_controls", "n_failed"):
            totals[name] += int(table[name].sum())
    stage = {
        "stage": "4d",
        "timestamp_utc": utc_now(),
        "variant": layout.variant,
        "output_s3": layout.phase4.url,
        "experiment_id": experiment_id,
        "inputs": {"metrics": metrics.url},
        "recovery": {"snr_thresh": snr_min, "theta_over_psf": theta_over_psf_min},
        "cell_widths": widths,
        "idempotency": REMAKES,
    }
    write_json(layout.stage_config("4d", experiment_id), stage)
    target.join(SUCCESS).write_bytes(b"")
    return {**totals, "cell_widths": widths, "table": target.url}


def _distinct_values(metrics: Location) -> dict[str, int]:
    """Distinct values of every parameter over all splits, so that all of them have the same cells."""
    found: dict[str, NDArray[np.float64]] = dict.fromkeys(CELL_WIDTHS, np.zeros(0))
    for name in parquet_files(metrics):
        for batch in read_batches(metrics.join(name), [*CELL_WIDTHS], rows=100_000):
            for column in batch.schema.names:
                values = batch[column].to_numpy(zero_copy_only=False)
                found[column] = np.union1d(found[column], values)
    return {name: values.size for name, values in found.items()}

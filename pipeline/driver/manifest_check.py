"""Checking a stored manifest, ours or one of the EMR system, row by row against its contract."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from pipeline.contracts.errors import ContractError
from pipeline.stages.manifest_audit import audit_manifest_rows
from pipeline.storage.locations import Location
from pipeline.storage.manifest_files import manifest_pieces

PIECE_ROWS = 2**17
_NAMED_ROWS = 3
_KEY_DIGITS = 32


def check_stored_manifest(folder: Location, split_seed: int) -> dict[str, Any]:
    """Read every row and compare it with what its own columns imply.

    Args:
        folder: folder of one manifest, or one of its files.
        split_seed: seed of the build.

    Returns:
        Counts of rows, positives, controls, splits, selection sets and bricks.

    Raises:
        ContractError: one error that counts every kind of violation and names rows.
    """
    problems: dict[str, list[int]] = {}
    counts: Counter[str] = Counter()
    splits: Counter[str] = Counter()
    sets: Counter[str] = Counter()
    bricks: set[str] = set()
    keys = []
    for table in manifest_pieces(folder, PIECE_ROWS):
        rows = table.to_pandas()
        for what, wrong in audit_manifest_rows(rows, split_seed).items():
            problems.setdefault(what, []).extend((counts["rows"] + np.flatnonzero(wrong)).tolist())
        counts.update(rows=len(rows), controls=int((rows["is_control"] == 1).sum()))
        splits.update(rows["region_split"].dropna())
        sets.update(rows["selection_set_id"].dropna())
        bricks.update(rows["brickname"].dropna().unique())
        keys.append(rows["task_id"].fillna("").str[:_KEY_DIGITS].to_numpy(dtype=f"S{_KEY_DIGITS}"))
    ordered = np.sort(np.concatenate(keys))
    if twice := int((ordered[1:] == ordered[:-1]).sum()):
        problems["a task_id that another row has"] = [-1] * twice
    if problems:
        told = [f"{len(rows)} rows with {what}{_named(rows)}" for what, rows in problems.items()]
        raise ContractError(f"{folder.url}: not a phase-4a manifest ({counts['rows']} rows read): " + "; ".join(told))
    return {
        "rows": counts["rows"],
        "positives": counts["rows"] - counts["controls"],
        "controls": counts["controls"],
        "bricks": len(bricks),
        "by_split": dict(sorted(splits.items())),
        "by_selection_set": dict(sorted(sets.items())),
    }


def _named(rows: list[int]) -> str:
    known = [str(row) for row in rows[:_NAMED_ROWS] if row >= 0]
    return f" (rows {', '.join(known)}{' ...' if len(rows) > _NAMED_ROWS else ''})" if known else ""

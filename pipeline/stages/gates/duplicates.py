"""Gate on duplicates: one galaxy in two splits under two names, and stamps that occur twice."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from pipeline.contracts.datasets import INJECTED_ROLES, SPLITS
from pipeline.stages.gates.result import NO_NULL, SHARE_AT_FAULT, GateInput, Measurement, has_role, wilson_interval


def audit_duplicates(sample: GateInput) -> Measurement:
    """No galaxy is in two splits under two host ids, no two hosts have equal pixels, no injected stamp occurs twice.

    * positions of different hosts nearer than `duplicate_radius_arcsec`, over all used rows outside the
      guard: an error if their splits differ (bricks overlap, so one galaxy can have two ids); otherwise
      counted only.
    * control stamps of different hosts equal in every pixel, and injected stamps of different pairs equal in
      every pixel, among the sampled stamps. Repeats of a host have equal control stamps by design.

    The value is the number of offences; the interval is that of the share of sampled stamp rows with equal pixels
    where none may be.
    """
    radius_arcsec = sample.config.gates.duplicate_radius_arcsec
    near, near_in_two_splits = _near_hosts(sample.columns, radius_arcsec)
    stamps = sample.stamps
    host_id = stamps["host_id"].to_numpy()
    is_pair = np.flatnonzero(has_role(stamps, *INJECTED_ROLES))
    used = np.flatnonzero(has_role(stamps, "pair", "control"))
    controls = _groups_of_equal(stamps["control"].to_numpy(), used)
    shared = [rows for rows in controls if np.unique(host_id[rows]).size > 1]
    split = stamps["split"].to_numpy()
    injected = _groups_of_equal(stamps["injected"].to_numpy(), is_pair)
    counts = {
        "hosts_at_one_place_in_two_splits": near_in_two_splits,
        "hosts_with_equal_pixels": len(shared),
        "injected_stamps_repeated": sum(rows.size - 1 for rows in injected),
    }
    offending = {name: count for name, count in counts.items() if count}
    at_fault = np.unique(np.concatenate([np.empty(0, np.int64), *shared, *injected])).size
    return Measurement(
        passed=not offending,
        value=float(sum(counts.values())),
        bound="0 duplicates",
        detail={
            **counts,
            "hosts_at_one_place": near,
            "equal_pixels_in_two_splits": sum(np.unique(split[rows]).size > 1 for rows in shared),
            "radius_arcsec": radius_arcsec,
            "stamp_rows": used.size,
            "repeated_hosts": int(used.size - np.unique(host_id[used]).size),
        },
        message=f"offending: {offending}" if offending else f"no duplicate of {used.size} stamp rows or any position",
        interval_95=wilson_interval(at_fault, np.union1d(used, is_pair).size),
        null=NO_NULL,
        interval_of=SHARE_AT_FAULT,
    )


def _near_hosts(columns: xr.Dataset, radius_arcsec: float) -> tuple[int, int]:
    """Pairs of different hosts within a radius, and those of them in two splits."""
    split = columns["split"].to_numpy()
    rows = np.flatnonzero(has_role(columns, *INJECTED_ROLES, "control") & (split != SPLITS.index("guard")))
    rows = rows[np.unique(columns["host_id"].to_numpy()[rows], return_index=True)[1]]
    ra, dec = (np.radians(columns[name].to_numpy()[rows].astype(np.float64)) for name in ("ra_deg", "dec_deg"))
    directions = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1)
    if not np.isfinite(directions).all():
        raise ValueError("ra_deg or dec_deg of a used row is not finite")
    chord = 2.0 * math.sin(math.radians(radius_arcsec / 3600.0) / 2.0)
    close = cKDTree(directions).query_pairs(chord, output_type="ndarray") if rows.size else np.empty((0, 2), np.int64)
    in_two = split[rows[close[:, 0]]] != split[rows[close[:, 1]]]
    return len(close), int(in_two.sum())


def _groups_of_equal(stamps: NDArray[np.float32], rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Groups of two and more of the rows whose stamps are equal byte for byte."""
    groups: dict[bytes, list[int]] = {}
    for row in rows.tolist():
        digest = hashlib.blake2b(np.ascontiguousarray(stamps[row]).tobytes(), digest_size=16).digest()
        groups.setdefault(digest, []).append(row)
    return [np.array(members) for members in groups.values() if len(members) > 1]

"""Real lenses from catalogues to tiers: where the stages that judge them meet the tables and cubes they come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from pipeline.contracts.anchors import (
    ANCHORS,
    FOOTPRINT_STATES,
    VISIBILITY_TIERS,
    AnchorLimits,
    ParityLimits,
    VisibilityLimits,
)
from pipeline.contracts.datasets import CUTOUTS, REJECT_REASONS, ROLES
from pipeline.contracts.errors import ContractError, VerificationError
from pipeline.contracts.manifest import PARENT_COLUMNS, PARENT_OPTIONAL_COLUMNS
from pipeline.contracts.survey import PIXEL_SCALE_ARCSEC
from pipeline.driver.provenance import code_version
from pipeline.stages.anchor_visibility import good_pixels, judge_anchors, measure_visibility, unmeasured
from pipeline.stages.anchors import anchor_counts, build_anchors, compare_positions, source_entries
from pipeline.stages.footprint import check_brick_table
from pipeline.stages.parity import compare_stamps, match_stamps, parity_verdict
from pipeline.storage.anchor_tables import (
    list_brick_folders,
    packaged_lens_catalogue,
    read_anchor_table,
    read_brick_table,
    read_position_list,
    write_anchor_table,
)
from pipeline.storage.cube import PublishedCube, is_published, open_cube
from pipeline.storage.locations import Location
from pipeline.storage.runs import write_json
from pipeline.storage.stamp_folder import read_stamp_folder
from pipeline.storage.tables import table_bytes

_STAMPS = ("image", "invvar", "maskbits")
_PLACES = ("ra_deg", "dec_deg", "centre_dx_px", "centre_dy_px", "psfsize_arcsec", "reject_reason")
_NAMED_MISSES = 5


def write_anchors(
    folder: Location,
    lists: Sequence[Location],
    catalogue: Location | None,
    bricks: frozenset[str] | None,
    limits: AnchorLimits,
) -> dict[str, Any]:
    """Build the anchor tables and store them.

    Args:
        folder: gets anchors and entries (parquet, CSV), manifest.parquet (the anchors as a parent catalogue, to be
            cut out) and summary.json, which is also returned.
        lists: CSV lists of lenses.
        catalogue: CSV of known lenses; None takes the one of the installed package.
        bricks: bricks of the survey, None if unknown.
        limits: see AnchorLimits.

    Raises:
        ContractError: a table cannot be used.
    """
    known, source = known_lenses(catalogue)
    sources, listed = [source], []
    for location in lists:
        table, digest = read_position_list(location)
        name = location.url.rsplit("/", 1)[-1].removesuffix(".csv")
        listed.append(source_entries(table, name))
        sources.append(f"{name} sha256:{digest}")
    names = [entries["source"].iloc[0] for entries in (known, *listed)]
    if len(set(names)) < len(names):
        raise ContractError(f"anchors: expected lists of different names, got {names}")
    anchors, entries = build_anchors(known, listed, bricks, limits)
    accepted = anchors[anchors["reject_reason"] == "none"]
    summary = {
        "sources": sources,
        "limits": asdict(limits),
        "bricks": None if bricks is None else len(bricks),
        "entries": len(entries),
        "invalid_positions": int((entries["reject_reason"] == "invalid_position").sum()),
        "rows": len(anchors),
        "anchors": len(accepted),
        **anchor_counts(anchors),
        "code_version": code_version(),
    }
    write_anchor_table(folder, "anchors", anchors)
    write_anchor_table(folder, "entries", entries)
    folder.join("manifest.parquet").write_bytes(table_bytes(anchor_manifest(accepted)))
    write_json(folder.join("summary.json"), summary)
    return summary


def known_lenses(catalogue: Location | None) -> tuple[pd.DataFrame, str]:
    """Entries of the catalogue of known lenses, and what it was read from."""
    if catalogue is None:
        table, source = packaged_lens_catalogue()
        return source_entries(table, "lenscat"), source
    table, digest = read_position_list(catalogue)
    name = catalogue.url.rsplit("/", 1)[-1].removesuffix(".csv")
    return source_entries(table, name), f"{name} sha256:{digest}"


def known_bricks(table: Location | None, root: Location | None, bands: Sequence[str]) -> frozenset[str] | None:
    """Names of the bricks that a table lists or that have a folder; None if neither is given."""
    if table is not None and root is not None:
        raise ContractError("footprint: expected a table of bricks or their folder, got both")
    if table is not None:
        rows = read_brick_table(table, bands)
        check_brick_table(rows)
        return frozenset(rows["brickname"].tolist())
    return None if root is None else list_brick_folders(root)


def check_list(location: Location, catalogue: Location | None, limits: AnchorLimits) -> pd.DataFrame:
    """Compare every position of a list with the known lenses; see `stages.anchors.compare_positions`."""
    known, _ = known_lenses(catalogue)
    table, _ = read_position_list(location)
    return compare_positions(source_entries(table, location.url.rsplit("/", 1)[-1]), known, limits)


def demand_matches(compared: pd.DataFrame, limits: AnchorLimits, where: str) -> None:
    """VerificationError that lists the nearest separations if a position is no known lens and that is not allowed."""
    missed = compared[~compared["matched"].to_numpy(dtype=bool)]
    if limits.allow_unmatched or missed.empty:
        return
    shown = ", ".join(
        f"{row['name'] or row['ra_deg']} {row['separation_arcsec']:.1f}"
        for _, row in missed.sort_values("separation_arcsec").head(_NAMED_MISSES).iterrows()
    )
    raise VerificationError(
        f"{where}: {len(missed)} of {len(compared)} positions have no known lens within "
        f"{limits.match_radius_arcsec} arcsec (median distance {missed['separation_arcsec'].median():.0f} arcsec, "
        f"nearest: {shown}); mend the positions, or allow unmatched ones"
    )


def measure_anchors(
    folder: Location, anchors: Location, cube: Location, band: str, limits: VisibilityLimits, match_arcsec: float
) -> dict[str, Any]:
    """Measure every accepted anchor on its cutout and store the two tiers, each in its own table.

    Args:
        folder: gets measured (every row), tier_a, tier_b, rejected (parquet, CSV) and tiers.json, also returned.
        anchors: table that `write_anchors` stored.
        cube: published cutouts cube.
        band: band to measure.
        limits: see VisibilityLimits.
        match_arcsec: a cutout nearer than this to an anchor is its cutout. [arcsec]

    Raises:
        ContractError: the cube is no cutouts cube, or lacks the band.
    """
    table = read_anchor_table(anchors, ANCHORS)
    cutouts = _open_cutouts(cube, band)
    measured = pd.concat([table, unmeasured(len(table), band)], axis=1)
    places = cutouts.columns(["ra_deg", "dec_deg"])
    rows, cube_rows = match_stamps(
        table["ra_deg"].to_numpy(),
        table["dec_deg"].to_numpy(),
        places["ra_deg"].to_numpy(),
        places["dec_deg"].to_numpy(),
        match_arcsec,
    )
    accepted = (table["reject_reason"] == "none").to_numpy()[rows]
    rows, cube_rows = rows[accepted], cube_rows[accepted]
    measured.loc[rows, "cube_row"] = cube_rows
    for shard in np.unique(cube_rows // cutouts.shard_samples).tolist():
        first, _ = cutouts.shard_range(shard)
        stamps = cutouts.read_shard(shard, [*_STAMPS, *_PLACES])
        here = cube_rows // cutouts.shard_samples == shard
        for row, cube_row in zip(rows[here].tolist(), cube_rows[here].tolist(), strict=True):
            values = _measure_row(
                stamps.isel(sample=cube_row - first), cutouts.attrs["bands"].index(band), band, limits
            )
            measured.loc[row, list(values)] = list(values.values())
    measured = judge_anchors(measured, limits)
    return _store_tiers(folder, measured, cutouts, limits)


def compare_sources(
    first: Location, second: Location, bands: Sequence[str], limits: ParityLimits
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Compare the stamps of two sources at the positions they share.

    Args:
        first: published cutouts cube, the reference.
        second: another cutouts cube, a training cube such as `dhs import` makes of old stamps, whose controls are
            compared, or a folder of FITS or NPZ stamps.
        bands: bands to compare.
        limits: see ParityLimits.

    Returns:
        The verdict of `stages.parity.parity_verdict` with the number of positions, and one row per stamp and band.
    """
    a, b = _stamps_of(first, bands), _stamps_of(second, bands)
    rows_a, rows_b = match_stamps(a[0], a[1], b[0], b[1], limits.match_radius_arcsec)
    compared = []
    for row_a, row_b in zip(rows_a.tolist(), rows_b.tolist(), strict=True):
        for index, band in enumerate(bands):
            pair = compare_stamps(a[2][row_a][index], b[2][row_b][index], limits)
            compared.append({"row_a": row_a, "row_b": row_b, "band": band, **asdict(pair)})
    if not compared:
        raise ContractError(
            f"parity: {first.url} and {second.url} share no position within {limits.match_radius_arcsec} arcsec"
        )
    pairs = pd.DataFrame(compared)
    verdict = parity_verdict(pairs, bands, limits)
    return {"positions": len(rows_a), "of": [len(a[0]), len(b[0])], **verdict}, pairs


def anchor_manifest(accepted: pd.DataFrame) -> pd.DataFrame:
    """The anchors as a parent catalogue by brick; lens catalogues know neither magnitudes nor the brick's numbers."""
    named = {"brickname": "brickname", "ra_deg": "ra", "dec_deg": "dec"}
    manifest = accepted[list(named)].rename(columns=named).sort_values(["brickname", "ra", "dec"], ignore_index=True)
    numbers = [name for name, family in (PARENT_COLUMNS | PARENT_OPTIONAL_COLUMNS).items() if family == "number"]
    return manifest.assign(**{name: np.nan for name in numbers if name not in manifest})


def _open_cutouts(location: Location, *bands: str) -> PublishedCube:
    cube = open_cube(location)
    if cube.attrs["schema"] != CUTOUTS.name:
        raise ContractError(f"{location.url}: expected a cutouts cube, got a {cube.attrs['schema']} cube")
    return _demand_bands(cube, *bands)


def _demand_bands(cube: PublishedCube, *bands: str) -> PublishedCube:
    location = cube.location
    missing = [band for band in bands if band not in cube.attrs["bands"]]
    if missing:
        raise ContractError(f"{location.url}: expected band {', '.join(missing)}, it has {cube.attrs['bands']}")
    return cube


def _measure_row(stamp: xr.Dataset, index: int, band: str, limits: VisibilityLimits) -> dict[str, Any]:
    reason = REJECT_REASONS[int(stamp["reject_reason"])]
    if reason != "none":
        return {"cutout_reject_reason": reason}
    image, invvar = (stamp[name].to_numpy()[index] for name in ("image", "invvar"))
    middle = image.shape[-1] // 2
    centre = (middle + float(stamp["centre_dx_px"]), middle + float(stamp["centre_dy_px"]))
    seeing = float(stamp["psfsize_arcsec"].to_numpy()[index]) / PIXEL_SCALE_ARCSEC
    good = good_pixels(image, invvar, stamp["maskbits"].to_numpy(), band)
    return {"cutout_reject_reason": reason, **asdict(measure_visibility(image, good, centre, seeing, limits))}


def _store_tiers(
    folder: Location, measured: pd.DataFrame, cutouts: PublishedCube, limits: VisibilityLimits
) -> dict[str, Any]:
    tables = {
        "tier_a": measured[measured["visibility_tier"] == "A"],
        "tier_b": measured[measured["visibility_tier"] == "B"],
        "rejected": measured[measured["reject_reason"] != "none"],
    }
    summary: dict[str, Any] = {
        "cutouts": cutouts.location.url,
        "cutouts_plan_sha256": cutouts.attrs.get("plan_sha256"),
        "limits": asdict(limits),
        "tiers": {
            name: {
                "anchors": len(tables[name]),
                "by_grade_tier": {str(k): int(n) for k, n in tables[name]["grade_tier"].value_counts().items()},
                "by_footprint": {state: int((tables[name]["footprint"] == state).sum()) for state in FOOTPRINT_STATES},
            }
            for name in ("tier_a", "tier_b")
        },
        "annulus_tier": {tier: int((measured["annulus_tier"] == tier).sum()) for tier in VISIBILITY_TIERS},
        "rejected_by_reason": {
            str(k): int(n) for k, n in tables["rejected"]["reject_reason"].value_counts().sort_index().items()
        },
        "code_version": code_version(),
    }
    write_anchor_table(folder, "measured", measured)
    for name, table in tables.items():
        write_anchor_table(folder, name, table)
    write_json(folder.join("tiers.json"), summary)
    return summary


def _stamps_of(location: Location, bands: Sequence[str]) -> tuple[np.ndarray, np.ndarray, Sequence[np.ndarray]]:
    """Right ascension, declination [deg] and images (band, y, x) [nmgy] of the stamps of a source."""
    if not is_published(location):
        stamps = read_stamp_folder(location, bands)
        return stamps.ra_deg, stamps.dec_deg, stamps.images
    cube = _demand_bands(open_cube(location), *bands)
    chosen = [cube.attrs["bands"].index(band) for band in bands]
    # Imported stamps are a training cube, whose controls are the hosts as observed.
    pixels, flag = ("image", "cutout_ok") if cube.attrs["schema"] == CUTOUTS.name else ("control", "role")
    shards = [cube.read_shard(shard, [pixels, "ra_deg", "dec_deg", flag]) for shard in range(cube.n_shards)]
    stamps_of_cube = xr.concat(shards, "sample")
    flags = stamps_of_cube[flag].to_numpy()
    there = flags == 1 if flag == "cutout_ok" else np.isin(flags, [ROLES.index(name) for name in ("pair", "control")])
    stamps_of_cube = stamps_of_cube.isel(sample=np.flatnonzero(there))
    image = stamps_of_cube[pixels].to_numpy()[:, chosen]
    return stamps_of_cube["ra_deg"].to_numpy(), stamps_of_cube["dec_deg"].to_numpy(), list(image)

"""From lens catalogues and lists to anchors: one row per lens, with all grades, methods and references it has.

Entries nearer than the match radius to one another, also through a third, are one lens. A listed position is
trusted only as far as a known lens lies there.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Collection, Hashable, Iterable, Mapping
from typing import Any

import astropy.units as u
import numpy as np
import pandas as pd
from astropy.coordinates import SkyCoord, angular_separation, search_around_sky
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from pipeline.contracts.anchors import (
    ANCHOR_REASONS,
    ANCHORS,
    CLUSTER_SURVEY,
    ENTRIES,
    GRADE_TIERS,
    REQUIRED_SOURCE_COLUMNS,
    SOURCE_COLUMNS,
    UNKNOWN_METHOD,
    AnchorLimits,
)
from pipeline.contracts.errors import ContractError
from pipeline.contracts.lens_references import METHOD_OF_REFERENCE
from pipeline.stages.footprint import brick_names, footprint_states

_SEPARATOR = " | "
_EMPTY = frozenset({"", "-", "nan", "none"})
_NUMBER = re.compile(r"\d+(\.\d*)?|\.\d+")


def source_entries(table: pd.DataFrame, source: str) -> pd.DataFrame:
    """Bring one catalogue or list to the columns of ENTRIES.

    Args:
        table: text columns under any of the names in SOURCE_COLUMNS; positions are needed. [deg]
        source: name of the table, kept with every entry.

    Returns:
        One row per row of the table, same order. A position that is no number, or out of range, is
        `invalid_position`; right ascensions of -180..0 are not guessed at.

    Raises:
        ContractError: no column holds positions.
    """
    found = {
        ours: next((name for name in names if name in table.columns), None) for ours, names in SOURCE_COLUMNS.items()
    }
    missing = [" or ".join(map(repr, SOURCE_COLUMNS[name])) for name in REQUIRED_SOURCE_COLUMNS if found[name] is None]
    if missing:
        raise ContractError(f"{source}: missing column {', '.join(missing)}; it has {list(map(str, table.columns))}")
    columns: dict[str, object] = {}
    for ours, name in found.items():
        text = table[name].fillna("").astype(str).str.strip() if name else pd.Series([""] * len(table), dtype=str)
        numbers = ours in REQUIRED_SOURCE_COLUMNS
        columns[ours] = pd.to_numeric(text, errors="coerce").to_numpy(np.float64) if numbers else text.tolist()
    entries = pd.DataFrame(columns)
    entries["source"], entries["source_row"] = source, np.arange(len(table), dtype=np.int64)
    entries["grade"] = entries["grade"].str.lower()
    stated = entries["discovery_method"]
    entries["discovery_method"] = [
        method if method.lower() not in _EMPTY else _SEPARATOR.join(reference_methods(reference))
        for method, reference in zip(stated, entries["reference"], strict=True)
    ]
    ra, dec = entries["ra_deg"], entries["dec_deg"]
    valid = (ra >= 0) & (ra < 360) & (dec.abs() <= 90)
    entries["reject_reason"] = np.where(valid, "none", "invalid_position")
    entries["anchor_id"], entries["nearest_known"], entries["known_separation_arcsec"] = "", "", np.nan
    return entries[[variable.name for variable in ENTRIES.variables]]


def reference_methods(reference: str) -> list[str]:
    """Distinct discovery methods of the publications that a text quotes, sorted; ["unknown"] if none is known."""
    return sorted({method for key, method in METHOD_OF_REFERENCE.items() if key in reference}) or [UNKNOWN_METHOD]


def compare_positions(listed: pd.DataFrame, known: pd.DataFrame, limits: AnchorLimits) -> pd.DataFrame:
    """Find for each listed position the nearest known lens, and where the catalogue puts a lens of that name.

    Args:
        listed: entries of a list.
        known: entries of the catalogues of known lenses.
        limits: see AnchorLimits; cluster surveys are no lenses unless it says so.

    Returns:
        One row per listed entry, same order: name, ra_deg, dec_deg, separation_arcsec, nearest_known,
        same_name_separation_arcsec (NaN if the catalogue has no such name), matched, reject_reason.

    Raises:
        ContractError: there is no known lens to compare with.
    """
    lenses = _lenses(known, limits)
    result = listed[["name", "ra_deg", "dec_deg", "reject_reason"]].reset_index(drop=True)
    valid = (result["reject_reason"] == "none").to_numpy()
    separation, nearest = np.full(len(result), np.nan), np.full(len(result), "", dtype=object)
    here = _sky(result[valid])
    if valid.any():
        index, distance, _ = here.match_to_catalog_sky(_sky(lenses))
        separation[valid] = distance.arcsec
        nearest[valid] = lenses["name"].to_numpy(dtype=object)[index]
    result["separation_arcsec"], result["nearest_known"] = separation, nearest
    result["same_name_separation_arcsec"] = _same_name_separations(result, valid, lenses)
    result["matched"] = separation <= limits.match_radius_arcsec
    result.loc[valid & ~result["matched"].to_numpy(), "reject_reason"] = "unmatched"
    return result


def build_anchors(
    known: pd.DataFrame,
    listed: Iterable[pd.DataFrame],
    bricks: Collection[str] | None,
    limits: AnchorLimits,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Merge catalogues and lists into anchors.

    Args:
        known: entries of the catalogues of known lenses, in order of preference.
        listed: entries of each list, whose positions must match a known lens.
        bricks: names of the bricks of the survey; None if they are not known.
        limits: see AnchorLimits.

    Returns:
        anchors, the columns of ANCHORS, by right ascension and declination; entries, the columns of ENTRIES, in the
        order given. Nothing is dropped: rows that are no anchors say why in `reject_reason`.

    Raises:
        ContractError: no known lens.
    """
    lists = []
    for frame in listed:
        compared = compare_positions(frame, known, limits)
        separation, nearest = (compared[name].to_numpy() for name in ("separation_arcsec", "nearest_known"))
        lists.append(frame.assign(known_separation_arcsec=separation, nearest_known=nearest))
    lenses = _lenses(known, limits)
    known = known.assign(known_separation_arcsec=np.nan)
    known.loc[lenses.index, "known_separation_arcsec"] = 0.0
    known.loc[lenses.index, "nearest_known"] = lenses["name"]
    entries = pd.concat([known, *lists], ignore_index=True)
    valid = entries[entries["reject_reason"] == "none"]
    group = _groups(_sky(valid), limits.match_radius_arcsec)
    order = valid.assign(entry=valid.index, group=group, priority=np.where(valid["grade"] == "confident", 0, 1))
    order["rank"] = order.groupby("source", sort=False).ngroup()
    order = order.sort_values(["group", "rank", "priority", "source_row"])
    rows = [
        _merged(list(members))
        for _, members in itertools.groupby(order.to_dict("records"), key=lambda entry: entry["group"])
    ]
    anchors = pd.DataFrame(row for row, _ in rows).sort_values(["ra_deg", "dec_deg"], ignore_index=True)
    identity = {index: row["anchor_id"] for row, members in rows for index in members}
    anchors["nearest_anchor_arcsec"] = _nearest_other(anchors)
    anchors["brickname"] = brick_names(anchors["ra_deg"].to_numpy(), anchors["dec_deg"].to_numpy())
    state, outside = footprint_states(
        anchors["brickname"].to_numpy(), anchors["dec_deg"].to_numpy(), bricks, limits.dec_range_deg
    )
    anchors["footprint"] = state
    anchors["reject_reason"] = _reasons(anchors, outside, limits)
    entries["anchor_id"] = [str(identity.get(index, "")) for index in entries.index]
    of_anchor = dict(zip(anchors["anchor_id"], anchors["reject_reason"], strict=True))
    entries["reject_reason"] = [
        of_anchor[anchor] if anchor else reason
        for anchor, reason in zip(entries["anchor_id"], entries["reject_reason"], strict=True)
    ]
    return (
        anchors[[variable.name for variable in ANCHORS.variables]],
        entries[[variable.name for variable in ENTRIES.variables]],
    )


def anchor_counts(anchors: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Rows by reject reason, and accepted rows by grade tier and by footprint state."""
    accepted = anchors[anchors["reject_reason"] == "none"]
    reasons = anchors["reject_reason"].value_counts()
    return {
        "by_reason": {name: int(reasons[name]) for name in ANCHOR_REASONS if name in reasons},
        "accepted_by_grade_tier": {name: int((accepted["grade_tier"] == name).sum()) for name in GRADE_TIERS},
        "accepted_by_footprint": {str(k): int(n) for k, n in accepted["footprint"].value_counts().sort_index().items()},
    }


def _sky(rows: pd.DataFrame) -> SkyCoord:
    return SkyCoord(rows["ra_deg"].to_numpy() * u.deg, rows["dec_deg"].to_numpy() * u.deg)


def _lenses(known: pd.DataFrame, limits: AnchorLimits) -> pd.DataFrame:
    kept = known["reject_reason"] == "none"
    if not limits.keep_cluster_surveys:
        kept &= known["discovery_method"] != CLUSTER_SURVEY
    if not kept.any():
        raise ContractError("anchors: expected known lenses to compare positions with, got none")
    return known[kept]


def _same_name_separations(result: pd.DataFrame, valid: NDArray[np.bool_], lenses: pd.DataFrame) -> NDArray[np.float64]:
    places: dict[str, list[int]] = {}
    for row, text in enumerate(lenses["name"]):
        for name in _distinct([text]):
            places.setdefault(_plain(name), []).append(row)
    names = [_plain(str(name)) for name in result["name"]]
    pairs = [(row, lens) for row in np.flatnonzero(valid).tolist() for lens in places.get(names[row], [])]
    separation = np.full(len(result), np.nan)
    if pairs:
        rows, named = np.array(pairs, dtype=np.int64).T
        apart = _sky(result.iloc[rows]).separation(_sky(lenses.iloc[named])).arcsec
        np.fmin.at(separation, rows, apart)
    return separation


def _plain(name: str) -> str:
    """A designation without spaces and survey prefix: J0029-0055."""
    packed = re.sub(r"[^A-Z0-9.+-]", "", name.upper())
    designation = re.search(r"J\d{4}.*", packed)
    return designation.group() if designation else packed


def _groups(sky: SkyCoord, radius_arcsec: float) -> NDArray[np.int64]:
    first, second, _, _ = search_around_sky(sky, sky, radius_arcsec * u.arcsec)
    links = coo_matrix((np.ones(len(first), np.int8), (first, second)), shape=(len(sky), len(sky)))
    return np.asarray(connected_components(links, directed=False)[1], dtype=np.int64)


def _merged(members: list[dict[Hashable, Any]]) -> tuple[dict[str, object], list[int]]:
    """One anchor from its entries, the one that gives the position first; and the index of each entry."""

    def texts(name: str) -> list[str]:
        return [str(member[name]) for member in members]

    head = members[0]
    ra, dec = float(head["ra_deg"]), float(head["dec_deg"])
    extents = [
        float(angular_separation(*np.radians([ra, dec, member["ra_deg"], member["dec_deg"]]))) for member in members
    ]
    separations = [(float(member["known_separation_arcsec"]), str(member["nearest_known"])) for member in members]
    known = [pair for pair in separations if math.isfinite(pair[0])]
    separation, nearest = min(known, key=lambda pair: pair[0]) if known else (math.nan, "")
    grades = [f"{source}:{grade or '-'}" for source, grade in zip(texts("source"), texts("grade"), strict=True)]
    row: dict[str, object] = {
        "anchor_id": f"J{ra:09.5f}{dec:+09.5f}",
        "ra_deg": ra,
        "dec_deg": dec,
        "names": _SEPARATOR.join(_distinct(texts("name"))),
        "sources": _SEPARATOR.join(_distinct(texts("source"))),
        "n_entries": len(members),
        "extent_arcsec": math.degrees(max(extents)) * 3600.0,
        "lens_types": _SEPARATOR.join(_distinct(texts("lens_type"))),
        "lens_redshift": _first_number(texts("redshift_text")),
        "grades": _SEPARATOR.join(grades),
        "grade_tier": _grade_tier(set(texts("grade"))),
        "discovery_methods": _SEPARATOR.join(_methods(texts("discovery_method"))),
        "references": _SEPARATOR.join(_distinct(texts("reference"))),
        "known_separation_arcsec": separation,
        "nearest_known": nearest,
    }
    return row, [int(member["entry"]) for member in members]


def _reasons(anchors: pd.DataFrame, outside: NDArray[np.object_], limits: AnchorLimits) -> NDArray[np.object_]:
    kinds = [set(_distinct([text])) for text in anchors["lens_types"]]
    only_clusters = (anchors["discovery_methods"] == CLUSTER_SURVEY).to_numpy() & (not limits.keep_cluster_surveys)
    excluded = np.array(
        [bool(limits.lens_types and kind) and not kind & set(limits.lens_types) for kind in kinds], dtype=bool
    )
    unmatched = ~(anchors["known_separation_arcsec"] <= limits.match_radius_arcsec).to_numpy()
    checks: Mapping[str, NDArray[np.bool_]] = {
        "cluster_survey_only": only_clusters,
        "type_excluded": excluded,
        "unmatched": unmatched & (not limits.allow_unmatched),
    }
    reason = np.full(len(anchors), "none", dtype=object)
    for name, applies in checks.items():
        reason[(reason == "none") & applies] = name
    return np.where(reason == "none", outside, reason)


def _nearest_other(anchors: pd.DataFrame) -> NDArray[np.float64]:
    if len(anchors) < 2:
        return np.full(len(anchors), np.nan)
    sky = _sky(anchors)
    return np.asarray(sky.match_to_catalog_sky(sky, nthneighbor=2)[1].arcsec, dtype=np.float64)


def _distinct(texts: Iterable[str]) -> list[str]:
    """Parts between | in order of appearance, each once; empty ones and dashes are left out."""
    parts = (part.strip() for text in texts for part in text.split("|"))
    return list(dict.fromkeys(part for part in parts if part.lower() not in _EMPTY))


def _methods(texts: Iterable[str]) -> list[str]:
    """Distinct methods, sorted; "unknown" only if nothing else is there."""
    methods = sorted(set(_distinct(texts)))
    return [method for method in methods if method != UNKNOWN_METHOD] or [UNKNOWN_METHOD]


def _first_number(texts: Iterable[str]) -> float:
    numbers = (part for part in _distinct(texts) if _NUMBER.fullmatch(part))
    return float(next(numbers, "nan"))


def _grade_tier(grades: set[str]) -> str:
    for tier in GRADE_TIERS[:2]:
        if tier.removeprefix("grade_") in grades:
            return tier
    return GRADE_TIERS[2]

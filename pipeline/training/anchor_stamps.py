"""Cutouts of real lenses as the network takes them, from a cutouts cube or a folder of stamps."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.contracts.anchors import MEASURED_ANCHORS
from pipeline.contracts.datasets import CUTOUTS, REJECT_REASONS
from pipeline.contracts.errors import ContractError
from pipeline.contracts.network_gate_config import AnchorStampsSection
from pipeline.storage.anchor_tables import read_anchor_table
from pipeline.storage.cube import is_published, open_cube
from pipeline.storage.locations import Location
from pipeline.storage.stamp_folder import read_stamp_folder

_NO_REASON = REJECT_REASONS[0]


@dataclass(frozen=True)
class AnchorStamps:
    """Real lenses that can be shown to a network.

    Attributes:
        stamps: (anchor, band, y, x) float32 finite. [nmgy]
        psfsize_arcsec: (anchor,) seeing in the band asked for; NaN where the source does not say. [arcsec]
        left_out: reason -> anchors that could not be used.
    """

    stamps: NDArray[np.float32]
    psfsize_arcsec: NDArray[np.float64]
    left_out: dict[str, int]

    def counts(self) -> dict[str, int]:
        """Used anchors and those left out, for the record."""
        return {"used": len(self.stamps), **{f"left out: {reason}": n for reason, n in sorted(self.left_out.items())}}


def read_lens_stamps(
    section: AnchorStampsSection,
    bands: tuple[str, ...],
    band: str,
    size_px: int,
    region: str | None,
    endpoint: str | None,
) -> AnchorStamps:
    """Read the stamps of real lenses, cut to the network's size about their middle pixel.

    Args:
        section: where they are.
        bands: bands of the network in order.
        band: band of `psfsize_arcsec`.
        size_px: rows and columns of the network's stamps; smaller ones are left out. [pixel]
        region: AWS region of s3:// URLs.
        endpoint: S3 endpoint other than AWS.

    Raises:
        ContractError: neither a published cutouts cube nor a folder of stamps, a band is missing, or a table without
            a cube or with rows that the cube does not have.
    """
    location = Location(section.url, region, endpoint)
    left_out: Counter[str] = Counter()
    if is_published(location):
        rows = None if section.table is None else _rows_of(Location(section.table, region, endpoint), left_out)
        images, seeing = _from_cube(location, rows, bands, band, left_out)
    elif section.table is not None:
        raise ContractError(f"gates.network.anchors.table needs a published cutouts cube, {location.url} is none")
    else:
        images = read_stamp_folder(location, bands).images
        seeing = [np.nan] * len(images)
    used: list[NDArray[np.float32]] = []
    used_seeing: list[float] = []
    for image, fwhm in zip(images, seeing, strict=True):
        if min(image.shape[1:]) < size_px:
            left_out["smaller than the network's stamps"] += 1
            continue
        top, left = (side // 2 - size_px // 2 for side in image.shape[1:])
        stamp = image[:, top : top + size_px, left : left + size_px]
        if not np.isfinite(stamp).all():
            left_out["pixels that are not finite"] += 1
            continue
        used.append(stamp)
        used_seeing.append(fwhm)
    stamps = np.stack(used) if used else np.empty((0, len(bands), size_px, size_px), dtype=np.float32)
    return AnchorStamps(stamps, np.array(used_seeing, dtype=np.float64), dict(left_out))


def _rows_of(table: Location, left_out: Counter[str]) -> NDArray[np.int64]:
    """Cube rows of a measured table; anchors that were rejected or have no cutout are counted."""
    measured = read_anchor_table(table, MEASURED_ANCHORS)
    row = measured["cube_row"].to_numpy(np.int64)
    accepted = (measured["reject_reason"] == _NO_REASON).to_numpy() & (row >= 0)
    left_out["rejected or without cutout in the table"] += int((~accepted).sum())
    return np.unique(row[accepted])


def _from_cube(
    location: Location,
    wanted: NDArray[np.int64] | None,
    bands: tuple[str, ...],
    band: str,
    left_out: Counter[str],
) -> tuple[list[NDArray[np.float32]], list[float]]:
    """Images and seeing of the usable rows of a cutouts cube."""
    cube = open_cube(location)
    held = [str(name) for name in cube.attrs.get("bands", ())]
    if cube.attrs["schema"] != CUTOUTS.name or not {*bands, band} <= set(held):
        raise ContractError(f"{location.url}: expected a cutouts cube with bands {bands}, got {cube.attrs}")
    reason = cube.columns(["reject_reason"])["reject_reason"].to_numpy()
    rows = np.arange(cube.n_samples) if wanted is None else wanted
    if rows.size and rows[-1] >= cube.n_samples:
        raise ContractError(f"{location.url} has {cube.n_samples} rows, the table names row {rows[-1]}")
    for code, count in zip(*np.unique(reason[rows], return_counts=True), strict=True):
        if REJECT_REASONS[code] != _NO_REASON:
            left_out[f"cutout {REJECT_REASONS[code]}"] += int(count)
    rows = rows[reason[rows] == REJECT_REASONS.index(_NO_REASON)]
    chosen = [held.index(name) for name in bands]
    images: list[NDArray[np.float32]] = []
    seeing: list[float] = []
    for shard in np.unique(rows // cube.shard_samples).tolist():
        first, stop = cube.shard_range(shard)
        local = rows[(rows >= first) & (rows < stop)] - first
        data = cube.read_shard(shard, ["image", "psfsize_arcsec"]).isel(sample=local)
        images += list(data["image"].to_numpy()[:, chosen])
        seeing += data["psfsize_arcsec"].to_numpy()[:, held.index(band)].astype(float).tolist()
    return images, seeing

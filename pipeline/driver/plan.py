"""The plan: which rows of which files make which shard. Pure, deterministic, hashed.

Shard k holds rows [k S, (k + 1) S) of the manifest in file order, so a plan needs footers, not rows,
and a task needs only the row groups of its own rows. Tables sorted by brick keep a shard's bricks few.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
import xarray as xr

from pipeline.contracts.config import RunConfig
from pipeline.contracts.datasets import SPLITS
from pipeline.contracts.errors import ContractError
from pipeline.contracts.manifest import EMR_COLUMNS, PARENT_COLUMNS, PARENT_OPTIONAL_COLUMNS
from pipeline.stages.manifest import emr_rows, parent_rows
from pipeline.stages.splits import assign_splits
from pipeline.storage.cube import CubeShape
from pipeline.storage.locations import Location
from pipeline.storage.tables import TablePart, TablePiece, find_parts, pieces_of, read_pieces

# Sections that decide a cube's bytes; the others may change between runs of the same plan.
SCIENCE_SECTIONS = ("survey", "manifest", "quality", "injection", "sampling", "splits")


@dataclass(frozen=True)
class Plan:
    """The frozen shard table of a run.

    Attributes:
        shape: rows, shard size and stamp dimensions of both cubes.
        parts: files that hold the planned rows.
        limit: number of shards the plan was cut to, or None.
        sha256: hash of everything that decides the cubes' bytes.
        cutouts_sha256: the same for the cutouts cube alone.
    """

    shape: CubeShape
    parts: tuple[TablePart, ...]
    limit: int | None
    sha256: str
    cutouts_sha256: str

    def pieces(self, shard: int) -> list[TablePiece]:
        """Where the rows of a shard lie."""
        rows = self.shape.rows(shard)
        return pieces_of(self.parts, rows.start, rows.stop)

    def document(self) -> dict[str, Any]:
        """The plan as stored."""
        return {
            "sha256": self.sha256,
            "cutouts_sha256": self.cutouts_sha256,
            "limit_shards": self.limit,
            "n_rows": self.shape.sizes["sample"],
            "n_shards": self.shape.n_shards,
            "shard_samples": self.shape.shard_samples,
            "inner_chunk": self.shape.inner_chunk,
            "parts": [
                {
                    "url": part.location.url,
                    "size_bytes": part.size_bytes,
                    "rows": part.n_rows,
                    "digest": part.digest,
                }
                for part in self.parts
            ],
        }


def make_plan(config: RunConfig, limit_shards: int | None = None) -> Plan:
    """Plan a run; with a limit, only the files that hold the first shards are opened.

    Raises:
        ContractError: no rows, or an S3 object that is not a table.
    """
    shards = config.shards
    rows_needed = None if limit_shards is None else limit_shards * shards.samples
    parts: list[TablePart] = []
    for table in manifest_locations(config):
        missing = None if rows_needed is None else rows_needed - sum(part.n_rows for part in parts)
        if missing is None or missing > 0:
            parts += find_parts(table, missing)
    n_rows = sum(part.n_rows for part in parts)
    if rows_needed is not None:
        n_rows = min(n_rows, rows_needed)
    size = config.survey.stamp_size_px
    sizes = {"sample": n_rows, "band": len(config.survey.bands), "y": size, "x": size}
    identity = {
        "shape": [shards.samples, shards.inner_chunk, sizes],
        "rows": n_rows,
        "parts": [(part.location.url, part.digest, part.n_rows) for part in parts],
    }
    cutouts = {
        **identity,
        "config": config.sha256("survey", "manifest", "quality"),
        "psfsize_from": config.injection.psf.psfsize_from,
    }
    # The tolerance judges the splits and decides no byte.
    splits = config.splits.model_copy(update={"tolerance": 1.0})
    deciding = config.model_copy(update={"splits": splits}).sha256(*SCIENCE_SECTIONS)
    injected = {**identity, "config": deciding, "seed": config.run.seed}
    shape = CubeShape(sizes, shards.samples, shards.inner_chunk)
    return Plan(shape, tuple(parts), limit_shards, _sha256(injected), _sha256(cutouts))


def _sha256(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def manifest_locations(config: RunConfig) -> list[Location]:
    """Where the manifest's tables lie, reached with the run's region and endpoint."""
    urls = (config.manifest.url, *config.manifest.also)
    return [Location(url, config.run.region, config.run.endpoint_url) for url in urls]


def read_rows(config: RunConfig, pieces: list[TablePiece]) -> xr.Dataset:
    """The manifest rows of some pieces as `contracts.manifest.ROWS`; ContractError lists what is wrong."""
    try:
        return _read_rows(config, pieces)
    except ContractError as error:
        where = ", ".join(f"{piece.location.url} rows {piece.start}-{piece.stop}" for piece in pieces)
        raise ContractError(f"{where}: {error}") from error


def _read_rows(config: RunConfig, pieces: list[TablePiece]) -> xr.Dataset:
    if config.manifest.kind == "stamps":
        raise ContractError("stamps are imported whole; they have no manifest rows to read")
    if config.manifest.kind == "emr":
        return emr_rows(read_pieces(pieces, EMR_COLUMNS, {}), config.survey.bands, config.survey.stamp_size_px)
    optional = dict(PARENT_OPTIONAL_COLUMNS)
    required = dict(PARENT_COLUMNS)
    if config.injection.extinction:
        required["ebv"] = optional.pop("ebv")
    return parent_rows(read_pieces(pieces, required, optional), config.survey.bands)


def check_rows(config: RunConfig, plan: Plan) -> dict[str, int | dict[str, int]]:
    """Read the identity columns of every planned row, shard by shard, and check them as a whole.

    Returns:
        Counts: rows, controls, hosts, bricks, bricks per shard, and rows that ask for a pair by split.

    Raises:
        ContractError: violations in any shard, or a task_id that occurs in two shards.
    """
    identities = list(_identities(config, plan))
    rows = pd.concat(identities, ignore_index=True)
    duplicates = rows["task_key"].duplicated()
    if duplicates.any():
        where = rows.index[duplicates][:3].tolist()
        raise ContractError(f"manifest: {int(duplicates.sum())} rows with a duplicate task_id (rows {where})")
    return {
        "rows": len(rows),
        "controls": int(rows["is_control"].sum()),
        "hosts": int(rows["host_id"].nunique()),
        "bricks": int(rows["brick_key"].nunique()),
        "pairs_by_split": {
            name: int(((rows["split"] == code) & (rows["is_control"] == 0)).sum()) for code, name in enumerate(SPLITS)
        },
        "bricks_per_shard": round(sum(int(frame["brick_key"].nunique()) for frame in identities) / len(identities)),
    }


def _identities(config: RunConfig, plan: Plan) -> Iterator[pd.DataFrame]:
    for shard in range(plan.shape.n_shards):
        rows = read_rows(config, plan.pieces(shard))
        ra, dec = rows["ra_deg"].to_numpy(), rows["dec_deg"].to_numpy()
        yield pd.DataFrame(
            {
                "task_key": pd.util.hash_array(rows["task_id"].to_numpy(), categorize=False),
                "brick_key": pd.util.hash_array(rows["brickname"].to_numpy(), categorize=False),
                "host_id": rows["host_id"].to_numpy(),
                "is_control": rows["is_control"].to_numpy(),
                "split": assign_splits(ra, dec, config.run.seed, config.splits)[0],
            }
        )

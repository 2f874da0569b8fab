"""What a Dask worker runs: one shard in, one receipt out. Reads and writes through storage only."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.contracts.config import QualitySection, RunConfig, SurveySection
from pipeline.contracts.datasets import CUTOUTS, HOST_COLUMNS, TRAINING
from pipeline.contracts.errors import BrickCorruptError, BrickError, ConfigError, ContractError
from pipeline.driver.injection_assets import read_assets
from pipeline.driver.plan import read_rows
from pipeline.stages.cutouts import judge, measure_stamps, place_stamps, reason_code, reason_counts
from pipeline.stages.injection import Injector
from pipeline.stages.pairs import make_pairs
from pipeline.stages.pilot_draws import draw_on_hosts
from pipeline.stages.sampling import Pilot, PilotDraws
from pipeline.storage.bricks import Brick, Key, Windows
from pipeline.storage.cube import CubeShape, open_cube, write_shard
from pipeline.storage.locations import Location, RunLayout
from pipeline.storage.receipts import Receipt, write_receipt
from pipeline.storage.tables import TablePiece

_MAX_NOTES = 5
# Rows after which a survey without a single brick is called mistyped.
_ROWS_TO_JUDGE = 64


@dataclass(frozen=True)
class ShardTask:
    """Everything a worker needs to make one shard; small, because it travels with the task."""

    config: RunConfig
    layout: RunLayout
    shape: CubeShape
    shard: int
    pieces: tuple[TablePiece, ...]
    plan_sha256: str
    code_version: str


@dataclass(frozen=True)
class StampSource:
    """Where stamps are cut out, and beyond which limits they are kept out.

    Attributes:
        survey: bricks, bands and stamp size.
        quality: limits of a usable stamp.
        psfsize_from: "map" reads the seeing from the bricks' maps, "manifest" takes it from the rows.
        region, endpoint_url: reach the bricks on S3.
    """

    survey: SurveySection
    quality: QualitySection
    psfsize_from: Literal["map", "manifest"]
    region: str | None
    endpoint_url: str | None

    @classmethod
    def of(cls, config: RunConfig) -> StampSource:
        """That of a run."""
        run = config.run
        return cls(config.survey, config.quality, config.injection.psf.psfsize_from, run.region, run.endpoint_url)

    @property
    def bricks(self) -> Location:
        """Folder of the bricks."""
        return Location(self.survey.bricks, self.region, self.endpoint_url)

    def demand_root(self) -> None:
        """ConfigError if the folder of the bricks does not exist; a mistyped bucket is not a sky without bricks."""
        if self.bricks.scheme in ("file", "s3") and not self.bricks.exists():
            raise ConfigError(f"survey.bricks: {self.bricks.url} does not exist")

    def demand_bricks(self, n_rows: int, receipts: Sequence[Receipt]) -> None:
        """ContractError if every row of the first shards lacks its brick: a mistyped layout or folder.

        Args:
            n_rows: rows of all shards.
            receipts: of the shards that were made so far.
        """
        rows = sum(receipt.rows for receipt in receipts)
        missing = sum(receipt.counts.get("brick_missing", 0) for receipt in receipts)
        if rows == missing and rows >= min(_ROWS_TO_JUDGE, n_rows):
            raise ContractError(
                f"no brick of the first {rows} rows was found under {self.survey.bricks} with survey.layout "
                f"{self.survey.layout!r}; "
                f"for example {next((note for receipt in receipts for note in receipt.notes), 'no note')}"
            )


def make_cutouts_shard(task: ShardTask) -> Receipt:
    """Cut the stamps of a shard out of their bricks and store them."""
    return _make_cutouts(task, "cutouts")


def make_anchors_shard(task: ShardTask) -> Receipt:
    """The same for real lenses, stored in a cube of their own."""
    return _make_cutouts(task, "anchors")


def _make_cutouts(task: ShardTask, cube: str) -> Receipt:
    started = time.monotonic()
    cutouts, work, notes = cut_stamps(StampSource.of(task.config), read_rows(task.config, list(task.pieces)))
    return _store(task, cube, cutouts, cutouts["reject_reason"].to_numpy(), work, notes, started)


def cut_stamps(source: StampSource, rows: xr.Dataset) -> tuple[xr.Dataset, dict[str, float], list[str]]:
    """Cut the stamps of manifest rows out of their bricks, measured and judged.

    Args:
        source: where from.
        rows: brickname, ra_deg, dec_deg, psfsize_manifest_arcsec if the seeing comes from there, and any of
            HOST_COLUMNS, which are carried over.

    Returns:
        The cutouts cube's variables of the rows, counters of the reading, and notes about unusable files.
    """
    arrays = _blank(rows, source.survey)
    work = {"brick_openings": 0.0, "bytes_fetched": 0.0, "requests": 0.0}
    notes: list[str] = []
    bricknames = rows["brickname"].to_numpy()
    for brickname in sorted(set(bricknames.tolist())):
        index = np.flatnonzero(bricknames == brickname)
        brick = _open_brick(source, brickname)
        notes += _cut_brick(brick, rows, index, arrays, source)
        work["brick_openings"] += 1
        work["bytes_fetched"] += brick.bytes_fetched
        work["requests"] += brick.requests
    cutouts = xr.Dataset({variable.name: (variable.dims, arrays[variable.name]) for variable in CUTOUTS.variables})
    return judge(cutouts, source.quality), work, notes


def make_training_shard(task: ShardTask, pilot: Pilot | None) -> Receipt:
    """Inject arcs into the stamps of a shard and store pairs."""
    started = time.monotonic()
    rows = read_rows(task.config, list(task.pieces))
    cutouts = open_cube(task.layout.cube("cutouts")).read_shard(task.shard, [v.name for v in CUTOUTS.variables])
    assets, notes = read_assets(task.config, cutouts["brickname"].to_numpy().tolist())
    injector = Injector(task.config, pilot, assets)
    first_row = task.shape.rows(task.shard).start
    pairs = make_pairs(cutouts, rows, first_row, task.config, injector)
    return _store(task, "training", pairs, pairs["reject_reason"].to_numpy(), injector.work(), notes, started)


def draw_pilot(task: ShardTask, n_draws: int) -> PilotDraws:
    """Prior draws spread over the usable, non-control rows of one shard."""
    cutouts = open_cube(task.layout.cube("cutouts")).read_shard(task.shard, [v.name for v in CUTOUTS.variables])
    assets, _ = read_assets(task.config, cutouts["brickname"].to_numpy().tolist())
    injector = Injector(task.config, None, assets, drawing_only=True)
    return draw_on_hosts(cutouts, injector, n_draws, task.shape.rows(task.shard).start)


def _blank(rows: xr.Dataset, survey: SurveySection) -> dict[str, NDArray[Any]]:
    side = survey.stamp_size_px
    sizes = {"sample": rows.sizes["sample"], "band": len(survey.bands), "y": side, "x": side}
    carried = {variable.name for variable in HOST_COLUMNS} & set(map(str, rows.data_vars))
    arrays: dict[str, NDArray[Any]] = {}
    for variable in CUTOUTS.variables:
        if variable.name in carried:
            arrays[variable.name] = rows[variable.name].to_numpy()
        else:
            fill = 0 if variable.is_pixels else variable.fill_value
            arrays[variable.name] = np.full([sizes[dim] for dim in variable.dims], fill, dtype=variable.dtype)
    return arrays


def _open_brick(source: StampSource, brickname: str) -> Brick:
    root = source.bricks
    keys: list[Key] = [(kind, band) for kind in ("image", "invvar") for band in source.survey.bands]
    keys.append(("maskbits", ""))
    if source.psfsize_from == "map":
        keys += [("psfsize", band) for band in source.survey.bands]
    return Brick.open(root.filesystem, root.path, source.survey.layout, brickname, keys)


def _cut_brick(
    brick: Brick, rows: xr.Dataset, index: NDArray[np.intp], arrays: dict[str, NDArray[Any]], source: StampSource
) -> list[str]:
    """Fill the rows `index` of the shard's arrays; return notes about files that could not be used."""
    size, bands = source.survey.stamp_size_px, source.survey.bands
    stamps = [(kind, band) for kind in ("image", "invvar") for band in bands]
    broken = [brick.problems[key] for key in stamps if key in brick.problems]
    if broken:
        arrays["reject_reason"][index] = _brick_reason(broken[0])
        return [str(broken[0])][:_MAX_NOTES]
    x_px, y_px = brick.wcs.world_to_pixel_values(rows["ra_deg"].to_numpy()[index], rows["dec_deg"].to_numpy()[index])
    place = place_stamps(np.asarray(x_px), np.asarray(y_px), size, brick.shape)
    stamp_windows = Windows(place.x0, place.y0, size)
    host_windows = Windows(place.x0 + size // 2, place.y0 + size // 2, 1)
    readable = [key for key in (*stamps, ("maskbits", "")) if key not in brick.problems]
    wanted: dict[Key, Windows] = dict.fromkeys(readable, stamp_windows)
    if source.psfsize_from == "map":
        wanted |= {("psfsize", band): host_windows for band in bands if ("psfsize", band) not in brick.problems}
    read = brick.read(wanted)
    broken = [brick.problems[key] for key in stamps if key in brick.problems]
    if broken:
        arrays["reject_reason"][index] = _brick_reason(broken[0])
        return [str(broken[0])]
    image = np.stack([read["image", band] for band in bands], axis=1)
    invvar = np.stack([read["invvar", band] for band in bands], axis=1)
    mask_readable = ("maskbits", "") in read
    maskbits = read.get(("maskbits", ""), np.zeros((len(index), size, size), np.int32))
    measured: Mapping[str, NDArray[Any]] = {
        **measure_stamps(image, invvar, maskbits, mask_readable),
        "image": image,
        "invvar": invvar,
        "maskbits": maskbits,
        "brick_x_px": place.x_px,
        "brick_y_px": place.y_px,
        "centre_dx_px": place.x_px - (place.x0 + size // 2),
        "centre_dy_px": place.y_px - (place.y0 + size // 2),
        "in_bounds": place.in_bounds,
        "cutout_ok": place.in_bounds,
        "psfsize_arcsec": (
            _mapped_psfsize(read, len(index), bands)
            if source.psfsize_from == "map"
            else rows["psfsize_manifest_arcsec"].to_numpy()[index]
        ),
    }
    for name, values in measured.items():
        arrays[name][index] = values
    return [str(problem) for problem in brick.problems.values()][:_MAX_NOTES]


def _mapped_psfsize(read: Mapping[Key, NDArray[Any]], n_rows: int, bands: tuple[str, ...]) -> NDArray[np.float32]:
    missing = np.full((n_rows, 1, 1), np.nan, np.float32)
    return np.stack([read.get(("psfsize", band), missing)[:, 0, 0] for band in bands], axis=1)


def _brick_reason(problem: BrickError) -> int:
    return reason_code("brick_corrupt" if isinstance(problem, BrickCorruptError) else "brick_missing")


_SCHEMAS = {"cutouts": CUTOUTS, "training": TRAINING, "anchors": CUTOUTS}


def _store(
    task: ShardTask,
    cube: str,
    dataset: xr.Dataset,
    reasons: NDArray[np.uint8],
    work: Mapping[str, float],
    notes: list[str],
    started: float,
) -> Receipt:
    objects = write_shard(task.layout.cube(cube), _SCHEMAS[cube], task.shape, task.shard, dataset)
    receipt = Receipt(
        cube=cube,
        shard=task.shard,
        plan_sha256=task.plan_sha256,
        code_version=task.code_version,
        rows=dataset.sizes["sample"],
        objects=objects,
        counts=reason_counts(reasons),
        work=dict(work),
        notes=tuple(notes[:_MAX_NOTES]),
        seconds=round(time.monotonic() - started, 3),
        worker=platform.node(),
    )
    write_receipt(task.layout.receipts(cube), receipt)
    return receipt

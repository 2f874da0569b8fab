"""A synthetic survey on disk or in a bucket: bricks in the DR10 format and their parent catalogue."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context

import pandas as pd

from pipeline.contracts.errors import ContractError
from pipeline.stages.synthetic_sky import make_brick, make_parent_rows
from pipeline.stages.synthetic_sources import SyntheticSky
from pipeline.storage.brick_writer import write_brick
from pipeline.storage.locations import Location
from pipeline.storage.runs import read_json, write_json
from pipeline.storage.tables import table_bytes


def write_survey(root: Location, sky: SyntheticSky, n_bricks: int, layout: str, processes: int) -> Location:
    """Write `coadd/` and `parent.parquet`; a survey that is already there is kept.

    Args:
        root: folder of the survey.
        sky: what the sky holds.
        n_bricks: number of bricks, indices 0 to n_bricks - 1.
        layout: "cache" or "public".
        processes: bricks made at the same time; one is made in this process.

    Returns:
        The parent catalogue, sorted by brick.

    Raises:
        ContractError: another survey already lies there.
    """
    parent = root.join("parent.parquet")
    description = {"sky": asdict(sky), "n_bricks": n_bricks, "layout": layout}
    marker = root.join("survey.json")
    if marker.exists():
        found = read_json(marker)
        if found != read_back(description):
            raise ContractError(f"{root.url} holds another survey: {found}; expected {description}")
        return parent
    jobs = [(root.join("coadd"), sky, index, layout) for index in range(n_bricks)]
    if processes == 1:
        frames = [_write_one(job) for job in jobs]
    else:
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            frames = list(pool.map(_write_one, jobs))
    catalogue = pd.concat(frames, ignore_index=True).sort_values(["brickname", "objid"], ignore_index=True)
    parent.write_bytes(table_bytes(catalogue))
    write_json(marker, description)
    return parent


def read_back(description: dict[str, object]) -> dict[str, object]:
    """The description as JSON gives it back: tuples become lists."""
    sky = {key: list(value) if isinstance(value, tuple) else value for key, value in dict(description["sky"]).items()}  # type: ignore[call-overload]
    return {**description, "sky": sky}


def _write_one(job: tuple[Location, SyntheticSky, int, str]) -> pd.DataFrame:
    folder, sky, index, layout = job
    write_brick(folder.filesystem, folder.path, layout, make_brick(sky, index))
    return make_parent_rows(sky, index)

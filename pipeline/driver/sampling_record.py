"""sampling.json: what the sampler of a run did, from its receipts, its pilot and the columns of its pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from pipeline.contracts.config import RunConfig
from pipeline.contracts.errors import VerificationError
from pipeline.stages.sampling import Pilot
from pipeline.stages.sampling_diagnostics import COLUMNS, sampling_document
from pipeline.storage.cube import open_cube
from pipeline.storage.locations import RunLayout
from pipeline.storage.receipts import Receipt
from pipeline.storage.runs import read_json, write_json


def record_sampling(
    config: RunConfig, layout: RunLayout, plan_sha256: str, receipts: Mapping[int, Receipt], pilot: Pilot | None
) -> None:
    """Write sampling.json and read it back; nothing happens if that of this plan is there.

    Raises:
        VerificationError: it reads back differently than it was written.
    """
    if layout.sampling.exists() and read_json(layout.sampling).get("plan_sha256") == plan_sha256:
        return
    work: Counter[str] = Counter()
    for receipt in receipts.values():
        work.update(receipt.work)
    cube = open_cube(layout.cube("training"))
    columns = cube.columns([*COLUMNS, *((config.sampling.metric,) if config.sampling.metric not in COLUMNS else ())])
    document = {"plan_sha256": plan_sha256, **sampling_document(columns, work, config, pilot)}
    write_json(layout.sampling, document)
    if read_json(layout.sampling) != document:
        raise VerificationError(f"{layout.sampling.url} reads back differently than it was written")

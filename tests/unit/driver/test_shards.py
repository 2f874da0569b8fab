from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.contracts.errors import PlanChangedError
from pipeline.driver.shards import finished_shards
from pipeline.storage.locations import Location, RunLayout
from pipeline.storage.receipts import Receipt, write_receipt


def leave_receipt(layout: RunLayout, shard: int, plan: str = "plan", code: str = "code") -> None:
    """One object of four bytes and its receipt."""
    layout.cube("cutouts").join(f"cube.zarr/image/c/{shard}").write_bytes(b"four")
    objects = {f"cube.zarr/image/c/{shard}": {"bytes": 4, "sha256": "0"}}
    write_receipt(
        layout.receipts("cutouts"), Receipt("cutouts", shard, plan, code, 1, objects, {}, {}, (), 0.1, "host")
    )


def test_receipts_with_objects_are_finished(tmp_path: Path) -> None:
    """A shard is finished if its receipt is there and its object has the receipt's size."""
    layout = RunLayout(Location(str(tmp_path)))
    for shard in range(3):
        leave_receipt(layout, shard)
    layout.cube("cutouts").join("cube.zarr/image/c/1").write_bytes(b"cut")
    assert set(finished_shards(layout, "cutouts", "plan", "code")) == {0, 2}


@pytest.mark.parametrize(("plan", "code"), [("other", "code"), ("plan", "other")])
def test_receipts_of_another_plan_or_code_are_refused(tmp_path: Path, plan: str, code: str) -> None:
    """One shard made otherwise stops the run and both versions are named."""
    layout = RunLayout(Location(str(tmp_path)))
    leave_receipt(layout, 0, plan, code)
    with pytest.raises(PlanChangedError, match=r"other.*Give the run another name"):
        finished_shards(layout, "cutouts", "plan", "code")

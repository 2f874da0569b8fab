"""Receipts: what a shard left in the store, and noticing when it is no longer there."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from pipeline.contracts.errors import VerificationError
from pipeline.storage.locations import Location
from pipeline.storage.receipts import Receipt, missing_objects, read_receipts, verify_objects, write_receipt


def receipt(shard: int, **changes: object) -> Receipt:
    """A receipt of one object of six bytes."""
    made = Receipt(
        cube="cutouts",
        shard=shard,
        plan_sha256="p" * 64,
        code_version="c",
        rows=128,
        objects={f"cube.zarr/image/c/{shard}": {"bytes": 6, "sha256": "?"}},
        counts={"none": 120, "masked": 8},
        work={"bricks": 2.0},
        notes=("brick 0591m305 is missing",),
        seconds=1.5,
        worker="w",
    )
    return dataclasses.replace(made, **changes)


def test_receipts_survive_the_round_trip(tmp_path: Path) -> None:
    """Every written receipt is read back equal, by shard, in any number."""
    folder = Location(str(tmp_path / "receipts"))
    written = {shard: receipt(shard, rows=shard) for shard in (0, 7, 123_456, 2_000_000)}
    for one in written.values():
        write_receipt(folder, one)
    assert read_receipts(folder) == written


def test_a_second_receipt_replaces_the_first(tmp_path: Path) -> None:
    """A shard has one receipt, the last."""
    folder = Location(str(tmp_path))
    write_receipt(folder, receipt(3, rows=1))
    write_receipt(folder, receipt(3, rows=2))
    assert {shard: one.rows for shard, one in read_receipts(folder).items()} == {3: 2}


def test_absent_folder_has_no_receipts_and_other_files_are_ignored(tmp_path: Path) -> None:
    """No folder means no receipts; files that are not JSON are not receipts."""
    assert read_receipts(Location(str(tmp_path / "none"))) == {}
    (tmp_path / "000001.json.abc.partial").write_bytes(b"{")
    assert read_receipts(Location(str(tmp_path))) == {}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"{}", b"\xff", b'{"notes": []}', b'{"notes": 3}'])
def test_a_damaged_receipt_is_an_error_with_its_url(tmp_path: Path, content: bytes) -> None:
    """A file that is not a receipt is named."""
    (tmp_path / "000004.json").write_bytes(content)
    with pytest.raises(VerificationError, match=r"000004\.json is not a receipt"):
        read_receipts(Location(str(tmp_path)))


def test_a_receipt_with_an_unknown_field_is_an_error(tmp_path: Path) -> None:
    """Fields of another version are not silently dropped."""
    content = {**dataclasses.asdict(receipt(1)), "extra": 1}
    (tmp_path / "000001.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(VerificationError, match="extra"):
        read_receipts(Location(str(tmp_path)))


def test_a_receipt_under_another_shards_name_is_an_error(tmp_path: Path) -> None:
    """A file name and its content must agree on the shard, else one receipt would hide another."""
    write_receipt(Location(str(tmp_path)), receipt(1))
    (tmp_path / "000001.json").rename(tmp_path / "000002.json")
    with pytest.raises(VerificationError, match=r"000002\.json"):
        read_receipts(Location(str(tmp_path)))


def test_objects_that_are_absent_or_of_another_size_are_reported_by_shard(tmp_path: Path) -> None:
    """One listing finds the shards whose objects are not as their receipts say."""
    cube = Location(str(tmp_path / "cube"))
    for shard, data in {0: b"pixels", 1: b"pix"}.items():
        cube.join(f"cube.zarr/image/c/{shard}").write_bytes(data)
    problems = missing_objects(cube, [receipt(shard) for shard in (0, 1, 2)])
    assert set(problems) == {1, 2}
    assert "expected 6 bytes, found 3" in problems[1]
    assert "found None" in problems[2]
    assert missing_objects(Location(str(tmp_path / "nothing")), [receipt(0)]).keys() == {0}


def test_digest_tells_changed_bytes_of_the_same_size(tmp_path: Path) -> None:
    """verify_objects passes on the right bytes and names the object whose bytes changed."""
    cube = Location(str(tmp_path))
    good = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    cube.join("a").write_bytes(b"x")
    verify_objects(cube, receipt(0, objects={"a": {"bytes": 1, "sha256": good}}))
    cube.join("a").write_bytes(b"y")
    with pytest.raises(VerificationError, match=r"shard 0: a has sha256 a1fce436.* receipt says 2d711642"):
        verify_objects(cube, receipt(0, objects={"a": {"bytes": 1, "sha256": good}}))
    with pytest.raises(VerificationError, match="gone is missing or empty"):
        verify_objects(cube, receipt(0, objects={"gone": {"bytes": 1, "sha256": good}}))

"""Receipts: one small JSON per finished shard, written after the shard was read back."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pipeline.contracts.errors import VerificationError
from pipeline.storage.locations import Location

_READERS = 16


@dataclass(frozen=True)
class Receipt:
    """What a task left in the store.

    Attributes:
        objects: object name -> {"bytes", "sha256"} as read back from the store.
        counts: reject reason -> rows; "none" counts the rows that can be used.
        work: counters of the task, such as attempts, renders, bytes_fetched, requests.
        notes: up to a few messages, such as the cause of a missing brick.
    """

    cube: str
    shard: int
    plan_sha256: str
    code_version: str
    rows: int
    objects: Mapping[str, Mapping[str, int | str]]
    counts: Mapping[str, int]
    work: Mapping[str, float]
    notes: tuple[str, ...]
    seconds: float
    worker: str


def write_receipt(folder: Location, receipt: Receipt) -> None:
    """Store a receipt under its shard number."""
    content = json.dumps(dataclasses.asdict(receipt), indent=1)
    folder.join(f"{receipt.shard:06d}.json").write_bytes(content.encode())


def read_receipts(folder: Location) -> dict[int, Receipt]:
    """Every receipt of a cube by shard; VerificationError for one that is not a receipt."""
    names = [name for name in folder.names() if name.endswith(".json")]
    with ThreadPoolExecutor(_READERS) as pool:
        receipts = pool.map(lambda name: _parse(folder.join(name)), names)
    return {receipt.shard: receipt for receipt in receipts}


def missing_objects(cube: Location, receipts: Iterable[Receipt]) -> dict[int, str]:
    """Shard -> reason, for receipts whose objects are absent or have another size in the store."""
    sizes = cube.sizes()
    problems: dict[int, str] = {}
    for receipt in receipts:
        for name, entry in receipt.objects.items():
            if sizes.get(name) != entry["bytes"]:
                problems[receipt.shard] = f"{name}: expected {entry['bytes']} bytes, found {sizes.get(name)}"
                break
    return problems


def verify_objects(cube: Location, receipt: Receipt) -> None:
    """Read every object of a shard and compare its digest; VerificationError names the first difference."""
    for name, entry in receipt.objects.items():
        if not cube.join(name).size():
            raise VerificationError(f"{cube.url} shard {receipt.shard}: {name} is missing or empty")
        digest = hashlib.sha256(cube.join(name).read_bytes()).hexdigest()
        if digest != entry["sha256"]:
            raise VerificationError(
                f"{cube.url} shard {receipt.shard}: {name} has sha256 {digest}, its receipt says {entry['sha256']}"
            )


def _parse(location: Location) -> Receipt:
    try:
        content = json.loads(location.read_bytes())
        content["notes"] = tuple(content["notes"])
        receipt = Receipt(**content)
    except (ValueError, TypeError, KeyError) as error:
        raise VerificationError(f"{location.url} is not a receipt: {error}") from error
    if location.url.rsplit("/", 1)[-1] != f"{receipt.shard:06d}.json":
        raise VerificationError(f"{location.url} is the receipt of shard {receipt.shard}")
    return receipt

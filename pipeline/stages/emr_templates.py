"""Which galaxy of a bank the EMR system lensed for a row of a manifest."""

from __future__ import annotations

import hashlib


def emr_template(task_id: str, salt: str, n_templates: int) -> int:
    """Row of the bank: the 8-byte blake2b digest of task_id and salt in UTF-8, little-endian, modulo the bank's size.

    Templates that a bank marks as unusable are counted, for the EMR system knew no such mark.

    Args:
        task_id: of the row.
        salt: that of the EMR run, often empty.
        n_templates: rows of the bank, at least 1.
    """
    digest = hashlib.blake2b((task_id + salt).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % n_templates

"""Names of the EMR system's data sets, which are read but never written."""

from __future__ import annotations

import re

_OF_EMR = re.compile(r"^(v[345](?![0-9])|cosmos_corrected)")


def belongs_to_emr(variant: str) -> bool:
    """True for v3 to v5, whatever follows that is no digit, and for cosmos_corrected."""
    return _OF_EMR.match(variant) is not None

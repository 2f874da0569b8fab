"""Facts about the style sheet."""

from __future__ import annotations

import re

from pipeline.report.style import STYLE_SHEET


def test_style_sheet_fetches_nothing() -> None:
    """No import, no url, no font file: the page works without a network."""
    assert not re.search(r"@import|url\(|@font-face|https?:", STYLE_SHEET)


def test_style_sheet_braces_balance() -> None:
    """Every block that opens also closes."""
    assert STYLE_SHEET.count("{") == STYLE_SHEET.count("}") > 20

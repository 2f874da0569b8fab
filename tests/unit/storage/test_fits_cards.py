"""Keywords read from header bytes."""

from __future__ import annotations

import pytest
from astropy.io import fits

from pipeline.contracts.errors import BrickCorruptError
from pipeline.storage.fits_cards import FITS_BLOCK_BYTES, FitsCards, header_end

HEADER = fits.Header(
    [
        ("SIMPLE", True),
        ("NAXIS", 2, "number / of axes"),
        ("CRVAL1", -1.25e-7),
        ("OBJECT", "it's / here ", "a comment"),
        ("EMPTY", ""),
        ("GRATING", False),
        ("COMMENT", "SIMPLE  = F"),
    ]
)
CARDS = FitsCards(HEADER.tostring().encode(), "a.fits")


def test_cards_are_typed() -> None:
    """Strings, integers, floats and logicals come back as astropy wrote them."""
    assert CARDS.flag("SIMPLE") and not CARDS.flag("GRATING") and not CARDS.flag("ABSENT")
    assert CARDS.integer("NAXIS") == 2
    assert CARDS.real("CRVAL1") == -1.25e-7
    assert CARDS.real("NAXIS") == 2.0
    assert CARDS.text("OBJECT") == "it's / here"
    assert CARDS.text("EMPTY") == ""
    assert "OBJECT" in CARDS and "ABSENT" not in CARDS


def test_card_exponent_d() -> None:
    """A double-precision exponent D is read."""
    assert FitsCards(b"ZZERO   = 1.5D-03".ljust(80), "a.fits").real("ZZERO") == 1.5e-3


def test_card_defaults() -> None:
    """A default stands in for a missing keyword only."""
    assert CARDS.integer("ABSENT", 7) == 7
    assert CARDS.real("ABSENT", 0.5) == 0.5
    assert CARDS.text("ABSENT", "none") == "none"
    assert CARDS.integer("NAXIS", 7) == 2


@pytest.mark.parametrize(
    ("method", "keyword"), [("integer", "OBJECT"), ("integer", "CRVAL1"), ("real", "OBJECT"), ("text", "NAXIS")]
)
def test_card_of_another_type(method: str, keyword: str) -> None:
    """A keyword of another type is an error that names file and keyword."""
    with pytest.raises(BrickCorruptError, match=rf"^a.fits: expected {keyword} to be"):
        getattr(CARDS, method)(keyword)


def test_card_missing() -> None:
    """A missing keyword without default is an error that names it."""
    with pytest.raises(BrickCorruptError, match="a.fits: the header has no ABSENT"):
        CARDS.integer("ABSENT")


def test_header_end_is_a_block_boundary() -> None:
    """The header ends with the block of its END card; a cut header has no end."""
    header = HEADER.tostring().encode()
    longer = fits.Header([(f"KEY{i}", i) for i in range(100)]).tostring().encode()
    assert header_end(header, 0) == len(header) == FITS_BLOCK_BYTES
    assert header_end(header + longer, len(header)) == len(header) + len(longer)
    assert header_end(longer[:-1], 0) is None
    assert header_end(b"", 0) is None

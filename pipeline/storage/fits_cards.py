"""Keywords of a FITS header, read from its bytes without building a header object."""

from __future__ import annotations

import re

from pipeline.contracts.errors import BrickCorruptError

FITS_BLOCK_BYTES = 2880
CARD_BYTES = 80


class FitsCards:
    """Keywords of one header, converted when asked for; the first card of a name counts.

    Every reading method raises BrickCorruptError, beginning with the file's name, where the keyword has another type
    or is missing and no default was given.
    """

    def __init__(self, header: bytes, name: str) -> None:
        """header: whole cards of CARD_BYTES; name: the file's, for messages."""
        self._name = name
        self._values: dict[str, str] = {}
        text = header.decode("latin-1")
        for at in range(0, len(text), CARD_BYTES):
            if text[at + 8 : at + 10] == "= ":
                self._values.setdefault(text[at : at + 8].rstrip(), text[at + 10 : at + CARD_BYTES])

    def __contains__(self, keyword: str) -> bool:
        return keyword in self._values

    def text(self, keyword: str, default: str | None = None) -> str:
        """A string keyword, without trailing blanks."""
        if default is not None and keyword not in self:
            return default
        match = re.match(r" *'((?:[^']|'')*)'", self._raw(keyword))
        if match is None:
            raise self.corrupt(f"expected {keyword} to be a string, got {self._raw(keyword).strip()!r}")
        return match[1].replace("''", "'").rstrip()

    def integer(self, keyword: str, default: int | None = None) -> int:
        """An integer keyword of at most 18 digits."""
        if default is not None and keyword not in self:
            return default
        number = self._raw(keyword).split("/")[0].strip()
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", number):
            raise self.corrupt(f"expected {keyword} to be an integer, got {number!r}")
        return int(number)

    def real(self, keyword: str, default: float | None = None) -> float:
        """A floating-point keyword, with exponent E or D."""
        if default is not None and keyword not in self:
            return default
        number = self._raw(keyword).split("/")[0].strip()
        try:
            return float(number.replace("D", "E"))
        except ValueError as error:
            raise self.corrupt(f"expected {keyword} to be a number, got {number!r}") from error

    def flag(self, keyword: str) -> bool:
        """A logical keyword; a missing one is false."""
        return self._values.get(keyword, "").split("/")[0].strip() == "T"

    def corrupt(self, problem: str) -> BrickCorruptError:
        """The error that says that this file has `problem`; to be raised by the caller."""
        return BrickCorruptError(f"{self._name}: {problem}")

    def _raw(self, keyword: str) -> str:
        if keyword not in self._values:
            raise self.corrupt(f"the header has no {keyword}")
        return self._values[keyword]


def header_end(content: bytes, start: int) -> int | None:
    """One past the block that holds the END card of the header at byte `start`; None if `content` ends before it."""
    for block in range(start, len(content) - FITS_BLOCK_BYTES + 1, FITS_BLOCK_BYTES):
        end = block + FITS_BLOCK_BYTES
        if any(content.startswith(b"END     ", at) for at in range(block, end, CARD_BYTES)):
            return end
    return None

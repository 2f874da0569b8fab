"""Facts about the HTML primitives."""

from __future__ import annotations

import pytest

from pipeline.report.markup import (
    Html,
    bytes_text,
    count_text,
    element,
    escaped,
    figure,
    link,
    number_text,
    section,
    share_text,
    table,
)

HOSTILE = "<script>alert(\"x\")</script> & 'y'"


def test_text_is_escaped_and_html_is_not() -> None:
    """Plain text is escaped once; Html passes as it stands."""
    assert escaped(HOSTILE) == "&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt; &amp; &#x27;y&#x27;"
    assert escaped(escaped(HOSTILE)) == escaped(HOSTILE)
    assert element("p", Html("<b>x</b>")) == "<p><b>x</b></p>"


@pytest.mark.parametrize(
    "content",
    [
        element("p", HOSTILE),
        table((HOSTILE,), [(HOSTILE,)], caption=HOSTILE),
        link(HOSTILE, HOSTILE),
        section(HOSTILE, HOSTILE, HOSTILE),
        figure(b"png", HOSTILE, HOSTILE),
    ],
)
def test_no_primitive_lets_markup_through(content: str) -> None:
    """A hostile string reaches the page neither as an element nor out of an attribute."""
    assert "<script" not in content
    assert 'alert("x")' not in content


def test_table_aligns_text_columns_and_marks_the_total() -> None:
    """Only the named columns carry the class text; the last row is the total."""
    made = table(("a", "b"), [("x", "1"), ("all", "2")], total_row=True)
    assert made.count('class="text"') == 3
    assert '<tr class="total"><td class="text">all</td><td>2</td></tr>' in made


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "\u2013"),
        (float("nan"), "\u2013"),
        (float("inf"), "\u221e"),
        (0.0, "0"),
        (0.012345, "0.0123"),
        (12345.6, "12,346"),
        (9.87, "9.87"),
        (-1.5, "-1.50"),
        (1.2e-7, "1.20e-07"),
    ],
)
def test_numbers_have_three_significant_digits(value: float | None, text: str) -> None:
    """Numbers are short, absent ones a dash."""
    assert number_text(value) == text


def test_counts_shares_and_bytes_are_readable() -> None:
    """Thousands are separated, shares are per cent, bytes have decimal prefixes."""
    assert count_text(1234567) == "1,234,567"
    assert share_text(1, 8) == "12.50\u202f%"
    assert share_text(0, 0) == "\u2013"
    assert [bytes_text(value) for value in (None, 12, 4.5e3, 2.5e9)] == ["\u2013", "12 B", "4.5 kB", "2.5 GB"]

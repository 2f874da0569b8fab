"""HTML by small functions: every string is escaped where it enters the page, unless it is Html already."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Collection, Sequence

DASH = "\u2013"


class Html(str):
    """Text that is HTML already; any other string is text and gets escaped."""

    __slots__ = ()


def escaped(content: str) -> Html:
    """The content as HTML: as it stands if it is Html, escaped if it is text."""
    return content if isinstance(content, Html) else Html(html.escape(content, quote=True))


def joined(*parts: str) -> Html:
    """The parts one after the other; text among them is escaped."""
    return Html("\n".join(escaped(part) for part in parts))


def element(tag: str, content: str, css_class: str = "") -> Html:
    """One element around escaped content."""
    attribute = f' class="{html.escape(css_class, quote=True)}"' if css_class else ""
    return Html(f"<{tag}{attribute}>{escaped(content)}</{tag}>")


def paragraph(content: str) -> Html:
    """A paragraph of running text."""
    return element("p", content)


def note(content: str) -> Html:
    """A paragraph in small grey type: method, caveat, unit."""
    return element("p", content, "note")


def missing(content: str) -> Html:
    """What a section says in place of content that is not there, and why."""
    return element("p", content, "missing")


def banner(content: str, kind: str) -> Html:
    """A coloured strip; kind is good, bad or neutral."""
    return element("div", content, f"banner {kind}")


def section(anchor: str, title: str, *parts: str) -> Html:
    """A titled section that the table of contents links to."""
    return Html(f'<section id="{escaped(anchor)}">\n<h2>{escaped(title)}</h2>\n{joined(*parts)}\n</section>')


def heading(title: str) -> Html:
    """A heading inside a section."""
    return element("h3", title)


def link(relative_url: str, title: str) -> Html:
    """A link to a file beside the page."""
    return Html(f'<a href="{escaped(relative_url)}">{escaped(title)}</a>')


def details(summary: str, *parts: str) -> Html:
    """Content that stays folded until asked for."""
    return Html(f"<details><summary>{escaped(summary)}</summary>\n{joined(*parts)}\n</details>")


def preformatted(content: str) -> Html:
    """Fixed-width text, line breaks kept."""
    return element("pre", content)


def bullets(items: Sequence[str]) -> Html:
    """An unordered list."""
    return Html("<ul>" + "".join(element("li", item) for item in items) + "</ul>")


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    caption: str = "",
    text_columns: Collection[int] = (0,),
    total_row: bool = False,
) -> Html:
    """A table: numbers to the right, the named columns to the left.

    Args:
        head: column titles.
        rows: cells, one per column.
        caption: sentence above the table.
        text_columns: columns that hold text.
        total_row: set the last row apart.
    """
    lines = ['<div class="scroll"><table>']
    if caption:
        lines.append(element("caption", caption))
    lines.append("<thead>" + _row("th", head, text_columns, "") + "</thead><tbody>")
    for number, cells in enumerate(rows):
        is_total = total_row and number == len(rows) - 1
        lines.append(_row("td", cells, text_columns, "total" if is_total else ""))
    lines.append("</tbody></table></div>")
    return Html("\n".join(lines))


def image(png: bytes, alternative: str, css_class: str = "") -> Html:
    """A PNG inside the page."""
    data = base64.b64encode(png).decode()
    return Html(f'<img class="{escaped(css_class)}" alt="{escaped(alternative)}" src="data:image/png;base64,{data}">')


def figure(png: bytes, alternative: str, caption: str) -> Html:
    """A picture of full width with a caption below."""
    return Html(f"<figure>{image(png, alternative)}<figcaption>{escaped(caption)}</figcaption></figure>")


def count_text(value: float | None) -> str:
    """A count with thousands separators; a dash for None."""
    return DASH if value is None else f"{value:,.0f}"


def number_text(value: float | None, digits: int = 3) -> str:
    """A number to some significant digits, without an exponent between 1e-4 and 1e6; a dash for None and NaN."""
    if value is None or math.isnan(value):
        return DASH
    if math.isinf(value):
        return "\u221e" if value > 0 else "-\u221e"
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}"
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{value:,.{max(decimals, 0)}f}"


def share_text(part: float, whole: float) -> str:
    """A part of a whole in per cent; a dash where there is no whole."""
    return DASH if not whole else f"{part / whole:.2%}".replace("%", "\u202f%")


def bytes_text(value: float | None) -> str:
    """Bytes with a decimal prefix."""
    if value is None:
        return DASH
    for factor, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value:.0f} B"


def _row(tag: str, cells: Sequence[str], text_columns: Collection[int], css_class: str) -> str:
    inner = "".join(element(tag, cell, "text" if number in text_columns else "") for number, cell in enumerate(cells))
    return element("tr", Html(inner), css_class)

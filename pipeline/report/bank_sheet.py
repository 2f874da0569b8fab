"""A source bank as a picture of its templates, a page and a list of numbers."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipeline.contracts.source_bank import TEMPLATE_REJECT_REASONS, SourceBank
from pipeline.report.charts import (
    COLOUR_CONTROL,
    COLOUR_POSITIVE,
    add_legend,
    as_png,
    common_edges,
    draw_steps,
    label_axes,
    new_figure,
)
from pipeline.report.markup import (
    DASH,
    Html,
    banner,
    count_text,
    element,
    figure,
    image,
    joined,
    note,
    number_text,
    section,
    share_text,
    table,
)
from pipeline.report.stamps import Stretch, lupton_rgb
from pipeline.report.style import STYLE_SHEET
from pipeline.stages.template_quality import BankQuality
from pipeline.storage.locations import Location

SHEET_TEMPLATES = 100
_SHEET_COLUMNS = 10
_SOFTENING = 20.0
# Seeing at and above which most DR10 bricks lie; smaller seeing shows the resolution of the templates earlier.
SEEING_FWHM_ARCSEC = 0.9
_MAGNIFICATIONS = (1.0, 3.0, 10.0, 30.0)
_CONTACT_SHEET = "contact_sheet.png"


def write_bank_sheet(folder: Location, bank: SourceBank, quality: BankQuality) -> Location:
    """Write contact_sheet.png, quality.json and index.html into a folder.

    Returns:
        The page.
    """
    sheet = contact_sheet(bank)
    numbers = quality_numbers(bank, quality)
    folder.join(_CONTACT_SHEET).write_bytes(sheet)
    folder.join("quality.json").write_bytes((json.dumps(numbers, indent=1, allow_nan=False) + "\n").encode())
    page = folder.join("index.html")
    page.write_bytes(_page(bank, quality, numbers, sheet).encode())
    return page


def quality_numbers(bank: SourceBank, quality: BankQuality) -> dict[str, Any]:
    """What is known about a bank, as JSON: counts, medians over usable templates, verdict; null where unknown."""
    usable = bank.usable
    columns = {name: values.astype(np.float64) for name, values in bank.columns.items()}
    medians = {
        "hlr_arcsec": quality.hlr_arcsec,
        "hlr_stored_arcsec": columns["hlr_arcsec"],
        "clumpiness": quality.clumpiness,
        "pedestal_fraction": quality.pedestal_fraction,
        "pedestal_fraction_before": columns["pedestal_fraction"],
        "snr": columns["snr"],
        "mag": columns["mag"],
        "redshift": columns["redshift"],
    }
    psf = bank.psf_fwhm_arcsec
    return {
        "n_templates": quality.n_templates,
        "n_usable": quality.n_usable,
        "n_by_reason": quality.n_by_reason,
        "median": {name: _finite(_median(values[usable])) for name, values in medians.items()},
        "stamp_size_px": bank.stamp_size_px,
        "pixel_scale_arcsec": bank.pixel_scale_arcsec,
        "psf_fwhm_arcsec": _finite(psf),
        "flat_hlr_arcsec": quality.flat_hlr_arcsec,
        "seeing_fwhm_arcsec": SEEING_FWHM_ARCSEC,
        "magnification_at_which_psf_equals_seeing": _finite((SEEING_FWHM_ARCSEC / psf) ** 2),
        "image_broadening": {
            f"{magnification:g}": _finite(image_broadening(psf, magnification, SEEING_FWHM_ARCSEC))
            for magnification in _MAGNIFICATIONS
        },
        "pedestal_dominated": quality.is_pedestal_dominated,
        "message": quality.message,
        "galaxy_kind": bank.galaxy_kind,
        "source": bank.source,
        "created_utc": bank.created_utc,
        "digest": bank.digest,
    }


def image_broadening(psf_fwhm_arcsec: float, magnification: float, seeing_fwhm_arcsec: float) -> float:
    """Width of a lensed point of the template over the seeing alone, sqrt(1 + mu (psf / seeing)**2).

    A point of the source is as wide as the template's PSF; lensing stretches it by sqrt(mu) on average over
    direction, and the seeing adds in quadrature. 1 means that the resolution of the bank cannot be seen.
    """
    return math.sqrt(1.0 + magnification * (psf_fwhm_arcsec / seeing_fwhm_arcsec) ** 2)


def summary_text(numbers: dict[str, Any]) -> str:
    """The numbers of `quality_numbers` as a table for a terminal."""
    reasons = {name: count for name, count in numbers["n_by_reason"].items() if count and name != "none"}
    rows = [
        ("templates", f"{numbers['n_templates']:,}"),
        ("usable", f"{numbers['n_usable']:,} ({numbers['n_usable'] / numbers['n_templates']:.1%})"),
        *((f"  {name}", f"{count:,}") for name, count in reasons.items()),
        *((f"median {name}", number_text(value)) for name, value in numbers["median"].items()),
        ("psf_fwhm_arcsec", number_text(numbers["psf_fwhm_arcsec"])),
        ("digest", numbers["digest"][:16]),
        ("verdict", numbers["message"]),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def contact_sheet(bank: SourceBank) -> bytes:
    """Up to 100 templates, evenly spread over the bank, as one PNG; rejected ones carry the reason in colour."""
    n_templates = bank.images.shape[0]
    n_shown = min(SHEET_TEMPLATES, n_templates)
    rows = (np.arange(n_shown) * n_templates) // n_shown
    n_lines = -(-n_shown // _SHEET_COLUMNS)
    sheet, axes = new_figure(n_lines, _SHEET_COLUMNS, 1.32 * n_lines)
    for axis in axes:
        axis.set_axis_off()
    for axis, row in zip(axes, rows.tolist(), strict=False):
        axis.imshow(_picture(bank.images[row]), origin="lower", interpolation="nearest")
        reason = TEMPLATE_REJECT_REASONS[int(bank.columns["reject_reason"][row])]
        text = f"{int(bank.columns['index'][row])}: "
        text += f"{bank.hlr_arcsec[row]:.2f}\u2033" if bank.usable[row] else reason.replace("_", " ")
        axis.set_title(text, fontsize=6.5, color=COLOUR_CONTROL if bank.usable[row] else COLOUR_POSITIVE, pad=2)
    return as_png(sheet)


def _picture(template: NDArray[np.float32]) -> NDArray[np.uint8]:
    peak = float(template.max())
    channels = np.repeat(template[None].astype(np.float64), 3, axis=0)
    return lupton_rgb(channels, Stretch(0.0, peak if peak > 0 else 1.0, softening=_SOFTENING))


def _page(bank: SourceBank, quality: BankQuality, numbers: dict[str, Any], sheet: bytes) -> str:
    failed = quality.is_pedestal_dominated or not quality.n_usable
    shown = min(SHEET_TEMPLATES, quality.n_templates)
    body = joined(
        element("h1", "Source bank"),
        note(f"{bank.galaxy_kind}; {bank.source}; written {bank.created_utc}; digest {bank.digest}"),
        banner(f"Verdict: {quality.message}.", "bad" if failed else "good"),
        section("counts", "Templates", _counts(quality), _medians(numbers)),
        section("distributions", "Distributions", _distributions(bank, quality)),
        section("resolution", "Resolution", *_resolution(numbers)),
        section(
            "sheet",
            "Contact sheet",
            figure(
                sheet,
                "templates of the bank",
                f"{shown} of {quality.n_templates} templates, {bank.stamp_size_px} px of "
                f"{bank.pixel_scale_arcsec:g}\u2033 a side, asinh stretch from zero to the peak; above each its index "
                "and half-light radius, or the reason why it is not used.",
            ),
        ),
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Source bank</title>\n<style>{STYLE_SHEET}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _counts(quality: BankQuality) -> Html:
    rows = [
        ("usable" if name == "none" else name, count_text(count), share_text(count, quality.n_templates))
        for name, count in quality.n_by_reason.items()
    ]
    rows.append(("all", count_text(quality.n_templates), share_text(quality.n_templates, quality.n_templates)))
    return table(("Outcome", "Templates", "Share"), rows, total_row=True)


def _medians(numbers: dict[str, Any]) -> Html:
    rows = [(name, number_text(value)) for name, value in numbers["median"].items()]
    return joined(
        table(("Quantity", "Median of usable"), rows),
        note(
            "hlr_arcsec, clumpiness and pedestal_fraction are measured on the templates now; hlr_stored_arcsec is what "
            "the file says, pedestal_fraction_before what the stamp would have had with its negatives clipped and no "
            f"background subtracted. An empty stamp on a pedestal has {numbers['flat_hlr_arcsec']:.3f}\u2033."
        ),
    )


def _distributions(bank: SourceBank, quality: BankQuality) -> Html:
    chart, axes = new_figure(1, 3, 3.2)
    usable = bank.usable
    panels = (
        ("Half-light radius", "arcsec", quality.hlr_arcsec),
        ("Clumpiness", "sum |image - blurred| / sum", quality.clumpiness),
        ("Pedestal share", "share of the light", quality.pedestal_fraction),
    )
    for axis, (title, unit, values) in zip(axes, panels, strict=True):
        edges = common_edges([values], 24)
        draw_steps(axis, values[usable], edges, COLOUR_CONTROL, "usable", filled=True)
        if not usable.all():
            draw_steps(axis, values[~usable], edges, COLOUR_POSITIVE, "rejected")
        label_axes(axis, title, unit, "share of templates")
    axes[0].axvline(quality.flat_hlr_arcsec, color=COLOUR_POSITIVE, linestyle=":", label="empty stamp")
    add_legend(axes[0])
    return _chart(chart)


def _chart(chart: Figure) -> Html:
    return Html(f"<figure>{image(as_png(chart), 'distributions over the templates')}</figure>")


def _resolution(numbers: dict[str, Any]) -> list[Html]:
    psf = numbers["psf_fwhm_arcsec"]
    if psf is None:
        return [note("The bank does not say what resolution its templates have.")]
    rows = [
        (magnification, DASH if value is None else f"{value:.3f}")
        for magnification, value in numbers["image_broadening"].items()
    ]
    return [
        note(
            f"Templates keep a PSF of {psf:.3f}\u2033 FWHM. Smaller structure is absent, and a galaxy of half-light "
            f"radius R appears with about sqrt(R\u00b2 + ({psf / 2:.3f}\u2033)\u00b2). At seeing "
            f"{SEEING_FWHM_ARCSEC}\u2033 a lensed point is wider than the seeing by the factor below; template PSF "
            "and seeing are equally wide at magnification "
            f"{numbers['magnification_at_which_psf_equals_seeing']:.0f}."
        ),
        table(("Magnification", "Width / seeing"), rows),
    ]


def _median(values: NDArray[np.floating]) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else math.nan


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None

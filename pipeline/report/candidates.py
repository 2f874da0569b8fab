"""The best ranked positions of a search as one self-contained page: colour pictures, scores, coordinates."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from pipeline.report.charts import COLOUR_CONTROL, COLOUR_POSITIVE, add_legend, as_png, label_axes, new_figure
from pipeline.report.markup import (
    Html,
    banner,
    count_text,
    element,
    figure,
    image,
    joined,
    missing,
    note,
    number_text,
    section,
    share_text,
    table,
)
from pipeline.report.stamps import colour_channels, lupton_rgb, noise_stretch, peak_stretch, stamp_png
from pipeline.report.style import STYLE_SHEET
from pipeline.storage.locations import Location

_PIXEL_FACTOR = 3
_HISTOGRAM_BINS = 60
_GRID_STYLE = """
.candidates { display: grid; grid-template-columns: repeat(auto-fill, minmax(176px, 1fr));
  gap: 18px 14px; margin: 16px 0; }
.candidate img { width: 100%; display: block; image-rendering: pixelated; background: #000; }
.candidate b { font-variant-numeric: tabular-nums; }
.candidate div { font-size: 12.5px; line-height: 1.4; overflow-wrap: anywhere; }
.candidate .soft { color: var(--soft); }
"""


def write_candidate_page(
    page: Location,
    summary: Mapping[str, Any],
    scores: pd.DataFrame,
    candidates: pd.DataFrame,
    stamps: xr.Dataset | None,
) -> None:
    """Write the page: pictures and style inside, nothing loaded from elsewhere.

    Args:
        page: index.html.
        summary: of the search: target, rows_by_reason, network, digests, time.
        scores: columns of `search_scores`.
        candidates: columns of `search_candidates`, best first.
        stamps: image (sample, band, y, x) and sky_sigma_nmgy (sample, band) of the candidates in their order; None
            without candidates. [nmgy]
    """
    page.write_bytes(candidate_page(summary, scores, candidates, stamps).encode())


def candidate_page(
    summary: Mapping[str, Any], scores: pd.DataFrame, candidates: pd.DataFrame, stamps: xr.Dataset | None
) -> str:
    """The page as one HTML document; arguments as `write_candidate_page`."""
    bands = tuple(summary["network"]["bands"])
    usable = int(summary["rows_by_reason"].get("none", 0))
    verdict = f"{count_text(usable)} of {count_text(summary['rows'])} positions were scored."
    body = joined(
        element("h1", "Lens candidates"),
        element("dl", _identity(summary), "identity"),
        banner(verdict, "good" if usable else "bad"),
        section("candidates", f"The {len(candidates)} highest scores", *_gallery(candidates, stamps, bands)),
        section("scores", "All scores", *_distribution(scores, candidates)),
        section("rejected", "Positions by outcome", _outcomes(summary)),
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Lens candidates</title>\n<style>{STYLE_SHEET}{_GRID_STYLE}</style></head>\n<body>\n{body}\n"
        "</body></html>\n"
    )


def candidate_picture(stamp: NDArray[np.float32], sky_sigma_nmgy: NDArray[np.float32], bands: tuple[str, ...]) -> bytes:
    """A stamp (band, y, x) [nmgy] as a colour PNG, scaled by its sky noise, or by its peak where that is not known."""
    channels = colour_channels(stamp, bands)
    known = bool(np.isfinite(sky_sigma_nmgy).all() and (sky_sigma_nmgy > 0).all())
    stretch = noise_stretch(sky_sigma_nmgy, bands) if known else peak_stretch(channels)
    return stamp_png(lupton_rgb(channels, stretch), _PIXEL_FACTOR)


def _identity(summary: Mapping[str, Any]) -> Html:
    network = summary["network"]
    facts = {
        "Positions": summary["target"],
        "Network": f"{network['model']}, sha256 {summary['network_sha256']}",
        "Checkpoint": f"sha256 {network['checkpoint_sha256']}",
        "Stamps": f"{', '.join(network['bands'])}, {network['stamp_size_px']} px at "
        f"{network['pixel_scale_arcsec']:g}\u2033",
        "Written": f"{summary['created_utc']} by code {summary['code_version']}",
        "Time": f"{summary['seconds']:.0f} s, "
        f"{number_text(summary['stamps_per_task_second'])} stamps per second and worker",
    }
    return Html("".join(element("dt", name) + element("dd", value) for name, value in facts.items()))


def _gallery(candidates: pd.DataFrame, stamps: xr.Dataset | None, bands: tuple[str, ...]) -> list[Html]:
    if stamps is None:
        return [missing("No position could be scored; the reasons are below.")]
    pixels, sky = stamps["image"].to_numpy(), stamps["sky_sigma_nmgy"].to_numpy()
    records = candidates.to_dict("records")
    cards = [_card(record, pixels[index], sky[index], bands) for index, record in enumerate(records)]
    return [
        Html('<div class="candidates">' + "\n".join(cards) + "</div>"),
        note(
            f"Bands {', '.join(bands)}; asinh stretch of Lupton et al. (2004), scaled by the sky noise of each stamp. "
            "North is up, East is left. A score is the logistic of the network's output and no probability that the "
            "object is a lens: how many lenses to expect among these follows from the evaluation of the training. Rows "
            "that show one position are one candidate; candidates.csv and candidates.parquet hold this list."
        ),
    ]


def _card(
    record: Mapping[Hashable, Any], pixels: NDArray[np.float32], sky: NDArray[np.float32], bands: tuple[str, ...]
) -> Html:
    rank = int(record["rank"])
    seeing = next(band for band in ("r", *bands) if band in bands)
    coordinates = f"{record['ra_deg']:.5f} {record['dec_deg']:+.5f}"
    facts = [
        f"brick {record['brickname']}",
        f"seeing {record[f'psfsize_{seeing}_arcsec']:.2f}\u2033 in {seeing}",
        f"depth {number_text(float(record[f'depth_{seeing}_mag']), 4)} mag",
    ]
    if record["n_rows"] > 1:
        facts.append(f"{int(record['n_rows'])} rows")
    lines = (
        element("div", joined(element("b", f"{rank}. {float(record['score']):.3f}"), f" logit {record['logit']:.2f}")),
        element("div", coordinates),
        element("div", str(record["position_id"]), "soft"),
        element("div", " \u00b7 ".join(facts), "soft"),
    )
    picture = image(candidate_picture(pixels, sky, bands), f"candidate {rank}")
    return element("div", joined(picture, *lines), "candidate")


def _distribution(scores: pd.DataFrame, candidates: pd.DataFrame) -> list[Html]:
    logit = scores["logit"].to_numpy(np.float64)
    logit = logit[np.isfinite(logit)]
    if not logit.size:
        return [missing("No position could be scored.")]
    chart, (axis,) = new_figure(1, 1, 3.0)
    low, high = float(logit.min()), float(logit.max())
    edges = np.linspace(low, high if high > low else low + 1.0, _HISTOGRAM_BINS + 1)
    axis.hist(logit, bins=edges.tolist(), color=COLOUR_CONTROL, log=True)
    faintest = float(candidates["logit"].min())
    axis.axvline(faintest, color=COLOUR_POSITIVE, linestyle="--", label=f"candidate {len(candidates)}: {faintest:.2f}")
    add_legend(axis)
    label_axes(axis, "Scored positions", "logit", "positions per bin")
    return [figure(as_png(chart), "histogram of the logits", "Logits of all scored positions.")]


def _outcomes(summary: Mapping[str, Any]) -> Html:
    reasons: Mapping[str, int] = summary["rows_by_reason"]
    rows = [
        ("scored" if name == "none" else name, count_text(count), share_text(count, summary["rows"]))
        for name, count in reasons.items()
    ]
    rows.append(("all", count_text(summary["rows"]), share_text(summary["rows"], summary["rows"])))
    return table(("Outcome", "Positions", "Share"), rows, total_row=True)

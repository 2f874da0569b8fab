"""Pairs from faint to bright as colour pictures; the only part of the report that reads pixels."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.contracts.datasets import SPLITS
from pipeline.report.arc_figure import critical_curve_px, draw_pair
from pipeline.report.inputs import RunInputs, has_role_code, in_split
from pipeline.report.markup import Html, element, escaped, image, missing, note, number_text, paragraph, section
from pipeline.storage.cube import PublishedCube

GALLERY_PAIRS = 12
MAX_SHARDS = 6
MAX_ROWS_READ = 20_000
_LENS = ("theta_e_arcsec", "lens_q", "lens_phi_rad", "shear_gamma1", "shear_gamma2", "lens_x_arcsec", "lens_y_arcsec")
_LENS_SLOPE = "lens_slope"
_ISOTHERMAL_SLOPE = 2.0
_TITLE = "2. Gallery: pairs from faint to bright"


def gallery_section(inputs: RunInputs) -> Html:
    """Section 2: host, arc with critical curve, injected stamp and difference of pairs from faint to bright."""
    if inputs.cube is None or inputs.columns is None:
        return section("gallery", _TITLE, missing(inputs.why_no_cube("training")))
    scores = _score_by_task(inputs)
    noise_known = (inputs.columns["sky_sigma_nmgy"].to_numpy() > 0).all(axis=1)
    candidates = has_role_code(inputs.columns, "pair") & noise_known
    in_test = candidates & in_split(inputs.columns, "test")
    preferred = bool(scores) and int(in_test.sum()) >= GALLERY_PAIRS
    rows = choose_rows(inputs.columns, in_test if preferred else candidates, inputs.cube)
    if not rows.size:
        why = inputs.without_pairs("The training cube holds no pair with an arc and a known sky noise.")
        return section("gallery", _TITLE, missing(why))
    stamps = _read_stamps(inputs.cube, rows)
    cards = [_card(stamps.isel(sample=index), inputs.bands, scores) for index in range(rows.size)]
    return section(
        "gallery",
        _TITLE,
        paragraph(
            "From left to right: the host as observed (the control of the pair); the arc alone (injected minus "
            "control), on its own scale, with the critical curve of its lens; the injected stamp; their difference."
        ),
        Html('<div class="gallery">' + "\n".join(cards) + "</div>"),
        note(
            f"Bands {', '.join(inputs.bands)}; asinh stretch of Lupton et al. (2004), scaled by the sky noise and the "
            "same for host, injected and difference; the arc alone is scaled to its own peak, however faint it is. "
            "North is up, East is left; 0.262\u2033 per pixel. Pairs lie nearest to "
            f"{rows.size} equally spaced quantiles of arc_snr, out of at most {MAX_SHARDS} shards"
            + (", test split only, because the network scored no other." if preferred else ".")
        ),
    )


def choose_rows(columns: xr.Dataset, candidates: NDArray[np.bool_], cube: PublishedCube) -> NDArray[np.int64]:
    """Rows whose arc_snr is nearest to equally spaced quantiles of that of all candidates, faint first.

    Args:
        columns: columns of the training cube.
        candidates: (sample,) rows that may be shown.
        cube: gives the shards; at most MAX_SHARDS of them, and MAX_ROWS_READ rows, will have to be read.

    Returns:
        (row,) int64 distinct rows, at most GALLERY_PAIRS.
    """
    all_rows = np.flatnonzero(candidates & (columns["arc_snr"].to_numpy() > 0))
    if not all_rows.size:
        return np.empty(0, dtype=np.int64)
    snr = np.log(columns["arc_snr"].to_numpy().astype(np.float64))
    n_wanted = min(GALLERY_PAIRS, all_rows.size)
    targets = np.quantile(snr[all_rows], (np.arange(n_wanted) + 0.5) / n_wanted)
    shards = np.unique(all_rows // cube.shard_samples)
    n_shards = max(1, min(MAX_SHARDS, MAX_ROWS_READ // cube.shard_samples, shards.size))
    chosen_shards = shards[(np.arange(n_shards) * shards.size) // n_shards]
    pool = all_rows[np.isin(all_rows // cube.shard_samples, chosen_shards)].tolist()
    chosen: list[int] = []
    for target in targets.tolist():
        if pool:
            nearest = min(pool, key=lambda row: (abs(snr[row] - target), row))
            pool.remove(nearest)
            chosen.append(nearest)
    return np.array(sorted(chosen, key=lambda row: (snr[row], row)), dtype=np.int64)


def _read_stamps(cube: PublishedCube, rows: NDArray[np.int64]) -> xr.Dataset:
    names = ["injected", "control", "task_id", "arc_snr", "mag_r", "split", "sky_sigma_nmgy", *_LENS]
    names += [_LENS_SLOPE] if _LENS_SLOPE in cube.column_names() else []
    pieces, order = [], []
    for shard in np.unique(rows // cube.shard_samples).tolist():
        start, stop = cube.shard_range(shard)
        wanted = rows[(rows >= start) & (rows < stop)]
        pieces.append(cube.read_shard(shard, names).isel(sample=wanted - start))
        order += wanted.tolist()
    joined_pieces = xr.concat(pieces, dim="sample")
    position = {row: index for index, row in enumerate(order)}
    return joined_pieces.isel(sample=[position[row] for row in rows.tolist()])


def _score_by_task(inputs: RunInputs) -> dict[str, float]:
    if inputs.training is None:
        return {}
    scores = inputs.training.scores
    positives = scores[scores["label"] == 1]
    return dict(zip(positives["task_id"].tolist(), positives["score"].tolist(), strict=True))


def _card(stamp: xr.Dataset, bands: tuple[str, ...], scores: dict[str, float]) -> str:
    control, injected = stamp["control"].to_numpy(), stamp["injected"].to_numpy()
    panels = draw_pair(
        control, injected, injected - control, bands, stamp["sky_sigma_nmgy"].to_numpy(), _critical_curve(stamp)
    )
    pictures = [
        f"<div>{image(panel.png, f'{panel.name} of a pair')}<span>{panel.name}</span></div>" for panel in panels
    ]
    task_id = str(stamp["task_id"].item())
    facts = [
        f"arc_snr {number_text(float(stamp['arc_snr']))}",
        f"\u03b8_E {float(stamp['theta_e_arcsec']):.2f}\u2033",
        f"host r {number_text(float(stamp['mag_r']), 4)} mag",
        SPLITS[int(stamp["split"])],
    ]
    if task_id in scores:
        facts.append(f"score {scores[task_id]:.3f}")
    caption = element("div", " \u00b7 ".join(facts), "facts")
    return f'<div class="pair" title="{escaped(task_id)}"><div class="stamps">{"".join(pictures)}</div>{caption}</div>'


def _critical_curve(stamp: xr.Dataset) -> NDArray[np.float64] | None:
    """Critical curve of a row's lens; None for lens models that have no slope, and without lens."""
    values = {name: float(stamp[name]) for name in _LENS}
    slope = float(stamp[_LENS_SLOPE]) if _LENS_SLOPE in stamp else _ISOTHERMAL_SLOPE
    if math.isnan(slope) or not values["theta_e_arcsec"] > 0.0:
        return None
    return critical_curve_px(lens_slope=slope, size_px=stamp.sizes["x"], **values)

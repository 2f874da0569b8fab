"""Pictures of lens systems: one system with its geometry and numbers, and the panels of an injected pair."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from pipeline.contracts.datasets import SNR_METRICS
from pipeline.contracts.survey import PIXEL_SCALE_ARCSEC, mag_from_flux_nmgy
from pipeline.kernels.arc_snr import combine_bands
from pipeline.kernels.critical_curves import critical_curves
from pipeline.report.charts import as_png, label_axes
from pipeline.report.markup import DASH, number_text
from pipeline.report.stamps import Stretch, colour_channels, lupton_rgb, noise_stretch, peak_stretch, stamp_png
from pipeline.stages.arc_scene import SCENE_BANDS, ArcScene
from pipeline.stages.lens_system import LensPlane

COLOUR_TANGENTIAL = "#56b4e9"
COLOUR_RADIAL = "#f0e442"

_INK = "#1c2228"
_SOFT = "#5b6670"
_FIGURE_INCH = (13.0, 9.3)
_DOTS_PER_INCH = 150
# Magnitudes from the brightest shown surface brightness to black.
_SHOWN_MAG = 6.0
_PANEL_FACTOR = 4
_PANEL_DPI = 100
_PAIR_CURVE_VERTICES = 512


class PairPanel(NamedTuple):
    """One picture of a pair: what it shows and its PNG, North up and East left."""

    name: str
    png: bytes


def draw_system(scene: ArcScene, noise_nmgy: NDArray[np.float32] | None = None) -> Figure:
    """Source plane beside image plane, colour composite, stamps and the SNR table of one system.

    Args:
        scene: from `make_scene`.
        noise_nmgy: (band, y, x) added to the stamps and the composite; None shows them without noise. The SNR does
            not depend on it. [nmgy/pixel]
    """
    layout = ConstrainedLayoutEngine(w_pad=0.09, h_pad=0.09)
    figure = Figure(figsize=_FIGURE_INCH, dpi=_DOTS_PER_INCH, layout=layout)
    rows = figure.add_gridspec(2, 1, height_ratios=(4.3, 3.7))
    planes = rows[0].subgridspec(1, 3)
    stamps = rows[1].subgridspec(1, 4, width_ratios=(1.0, 1.0, 1.0, 1.45))
    shown = scene.arcs_nmgy if noise_nmgy is None else scene.arcs_nmgy + noise_nmgy
    figure.suptitle(_parameters(scene), fontsize=10, color=_INK, ha="left", x=0.012, linespacing=1.5)

    source, image = figure.add_subplot(planes[0]), figure.add_subplot(planes[1])
    curves = scene.curves
    picture = _draw_plane(source, scene, scene.source_plane)
    _draw_plane(image, scene, scene.image_plane)
    _draw_curves(source, curves.tangential_caustic, curves.radial_caustic, _radial_name(scene, "caustic"))
    _draw_curves(image, curves.tangential, curves.radial, _radial_name(scene, "curve"))
    label_axes(source, "Source plane and caustics", "x [arcsec]", "y [arcsec]")
    label_axes(image, "Image plane and critical curves", "x [arcsec]", "y [arcsec]")
    bar = figure.colorbar(picture, ax=[source, image], location="right", shrink=0.82, aspect=28, pad=0.01)
    bar.ax.invert_yaxis()
    bar.ax.tick_params(labelsize=8, colors=_SOFT)
    bar.set_label("r surface brightness [mag arcsec$^{-2}$]", fontsize=9, color=_INK)

    _draw_composite(figure.add_subplot(planes[2]), scene, shown, noisy=noise_nmgy is not None)
    for index in range(len(SCENE_BANDS)):
        _draw_stamp(figure.add_subplot(stamps[index]), scene, shown[index], index, noisy=noise_nmgy is not None)
    _draw_table(figure.add_subplot(stamps[3]), scene)
    return figure


def draw_pair(
    host: NDArray[np.float32],
    injected: NDArray[np.float32],
    arc: NDArray[np.float32],
    bands: Sequence[str],
    sky_sigma_nmgy: NDArray[np.float32],
    curve_px: NDArray[np.float64] | None,
) -> list[PairPanel]:
    """Host, arc with the lens's critical curve, injected stamp and difference as colour pictures.

    Args:
        host: (band, y, x) the control of the pair. [nmgy/pixel]
        injected: (band, y, x) the positive. [nmgy/pixel]
        arc: (band, y, x) what to show on its own scale, however faint. [nmgy/pixel]
        bands: names in the order of the first axis.
        sky_sigma_nmgy: (band,) noise that scales all pictures but the arc's. [nmgy/pixel]
        curve_px: (vertex, 2) x, y in 0-based pixel coordinates, from `critical_curve_px`; None draws none.
    """
    stretch = noise_stretch(sky_sigma_nmgy, bands)
    channels = colour_channels(arc, bands)
    return [
        PairPanel("host", _panel_png(colour_channels(host, bands), stretch, None)),
        PairPanel("arc, own scale", _panel_png(channels, peak_stretch(channels), curve_px)),
        PairPanel("injected", _panel_png(colour_channels(injected, bands), stretch, None)),
        PairPanel("difference", _panel_png(colour_channels(injected - host, bands), stretch, None)),
    ]


def critical_curve_px(
    theta_e_arcsec: float,
    lens_q: float,
    lens_phi_rad: float,
    lens_slope: float,
    shear_gamma1: float,
    shear_gamma2: float,
    lens_x_arcsec: float,
    lens_y_arcsec: float,
    size_px: int,
) -> NDArray[np.float64]:
    """Tangential critical curve of a row's lens, (vertex, 2) x, y in 0-based pixel coordinates of its stamp.

    Raises:
        ContractError: a lens parameter outside the range of `critical_curves`.
    """
    curve = critical_curves(
        theta_e_arcsec, lens_q, lens_phi_rad, lens_slope, shear_gamma1, shear_gamma2, _PAIR_CURVE_VERTICES
    ).tangential
    position_arcsec = curve + np.array([lens_x_arcsec, lens_y_arcsec])
    return np.asarray(position_arcsec / PIXEL_SCALE_ARCSEC + size_px // 2, dtype=np.float64)


def _panel_png(channels: NDArray[np.float64], stretch: Stretch, curve_px: NDArray[np.float64] | None) -> bytes:
    """A picture of _PANEL_FACTOR dots a pixel without margins."""
    picture = lupton_rgb(channels, stretch)
    if curve_px is None:
        return stamp_png(picture, _PANEL_FACTOR)
    height, width = picture.shape[:2]
    figure = Figure(figsize=(width * _PANEL_FACTOR / _PANEL_DPI, height * _PANEL_FACTOR / _PANEL_DPI), dpi=_PANEL_DPI)
    axis = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axis.set_axis_off()
    axis.imshow(picture, origin="lower", interpolation="nearest", aspect="auto")
    axis.plot(*curve_px.T, color=COLOUR_TANGENTIAL, linewidth=0.9)
    axis.set_xlim(-0.5, width - 0.5)
    axis.set_ylim(-0.5, height - 0.5)
    return as_png(figure)


def _draw_plane(axis: Axes, scene: ArcScene, plane: LensPlane) -> AxesImage:
    """Surface brightness, on the same scale for both planes because lensing conserves it."""
    flux = scene.flux_nmgy[SCENE_BANDS.index("r")]
    brightest = float(mag_from_flux_nmgy(np.array(flux * scene.source_plane.brightness.max(), np.float64)))
    faintest = brightest + _SHOWN_MAG
    shown = np.nan_to_num(mag_from_flux_nmgy(flux * plane.brightness.astype(np.float64)), nan=np.inf)
    half_width = plane.axis_arcsec[-1]
    axis.set_xlim(-half_width, half_width)
    axis.set_ylim(-half_width, half_width)
    axis.set_aspect("equal")
    axis.tick_params(labelsize=8, colors=_SOFT)
    return axis.imshow(
        np.minimum(shown, faintest), origin="lower", cmap="magma_r", vmin=brightest, vmax=faintest,
        extent=(-half_width, half_width, -half_width, half_width), interpolation="bilinear",
    )  # fmt: skip


def _draw_curves(axis: Axes, tangential: NDArray[np.float64], radial: NDArray[np.float64], radial_name: str) -> None:
    axis.plot(*tangential.T, color=COLOUR_TANGENTIAL, linewidth=1.2, label="tangential")
    if radial_name:
        axis.plot(*radial.T, color=COLOUR_RADIAL, linewidth=1.1, linestyle="--", label=radial_name)
    axis.plot(0.0, 0.0, "+", color="#ffffff", markersize=7, markeredgewidth=0.9, linestyle="none", label="lens")
    axis.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3, frameon=True, fontsize=8, labelcolor="#ffffff",
        facecolor="#23202b", edgecolor="none", handlelength=1.6, columnspacing=1.2,
    )  # fmt: skip


def _radial_name(scene: ArcScene, of: str) -> str:
    """What the radial curve is called at the slope of the lens; empty where there is nothing to draw."""
    slope = scene.system.lens_slope
    if slope == 2.0:
        return "cut" if of == "caustic" else ""
    return "radial" if slope < 2.0 else ""


def _draw_composite(axis: Axes, scene: ArcScene, shown: NDArray[np.float32], noisy: bool) -> None:
    channels = colour_channels(shown, SCENE_BANDS)
    stretch = (
        noise_stretch(scene.observation.sigma_nmgy.astype(np.float32), SCENE_BANDS) if noisy else peak_stretch(channels)
    )
    half_width = _show_pixels(axis, lupton_rgb(channels, stretch), None, None)[1]
    axis.plot([-0.9 * half_width, -0.9 * half_width + 2.0], [-0.86 * half_width] * 2, color="#ffffff", linewidth=2.0)
    axis.text(-0.9 * half_width, -0.83 * half_width, "2\u2033", color="#ffffff", fontsize=9, va="bottom", ha="left")
    label_axes(axis, f"{', '.join(SCENE_BANDS)} composite", "x [arcsec], West to the right", "")


def _draw_stamp(axis: Axes, scene: ArcScene, pixels: NDArray[np.float32], index: int, noisy: bool) -> None:
    sigma = float(scene.observation.sigma_nmgy[index])
    low = -3.0 * sigma if noisy else 0.0
    picture, _ = _show_pixels(axis, pixels, low, max(float(pixels.max()), 5.0 * sigma if noisy else 0.0))
    band, observation = SCENE_BANDS[index], scene.observation
    label_axes(axis, f"{band}: arc {_arc_magnitude(scene, index)}", "", "")
    bar = axis.figure.colorbar(
        picture, ax=axis, location="bottom", shrink=0.82, aspect=22, pad=0.02, ticks=MaxNLocator(4)
    )
    bar.ax.tick_params(labelsize=7, colors=_SOFT)
    psfsize, depth = observation.psfsize_arcsec[index], observation.depth_mag[index]
    bar.set_label(
        f"nmgy per pixel, \u03c3 {number_text(sigma, 2)}\npsfsize {psfsize:.2f}\u2033, depth {depth:.1f} mag",
        fontsize=8, color=_INK,
    )  # fmt: skip


def _show_pixels(
    axis: Axes, pixels: NDArray[np.generic], low: float | None, high: float | None
) -> tuple[AxesImage, float]:
    """A stamp on arcsec axes about the centre of pixel size // 2; also half its width."""
    size = pixels.shape[0]
    first, last = (-(size // 2) - 0.5) * PIXEL_SCALE_ARCSEC, (size - size // 2 - 0.5) * PIXEL_SCALE_ARCSEC
    picture = axis.imshow(
        pixels, origin="lower", cmap="gray_r", vmin=low, vmax=high, interpolation="nearest",
        extent=(first, last, first, last),
    )  # fmt: skip
    axis.tick_params(labelsize=8, colors=_SOFT)
    return picture, last


def _draw_table(axis: Axes, scene: ArcScene) -> None:
    """SNR of each band and of all bands, for the metrics whose quadrature sum means something."""
    axis.set_axis_off()
    rows = []
    for metric, values in scene.snr.items():
        combined = _snr_text(float(combine_bands(values))) if metric in SNR_METRICS else DASH
        rows.append([metric, *(_snr_text(float(value)) for value in values), combined])
    table = axis.table(
        rows, colLabels=["SNR", *SCENE_BANDS, "all"], colWidths=[0.46, 0.135, 0.135, 0.135, 0.135],
        cellLoc="right", loc="upper center", edges="horizontal",
    )  # fmt: skip
    table.auto_set_font_size(False)
    table.set_fontsize(8.5)
    table.scale(1.0, 1.5)
    for (row, column), cell in table.get_celld().items():
        cell.set_edgecolor("#d9dee3")
        cell.set_text_props(
            color=_INK, fontweight="bold" if row == 0 else "normal", ha="left" if column == 0 else "right"
        )
    axis.text(
        0.0, 0.0,
        "Definitions in pipeline.kernels.arc_snr; constant noise per band from the\n"
        "depth and psfsize, the arc's own shot noise left out. All: in quadrature.",
        transform=axis.transAxes, fontsize=7.5, color=_SOFT, va="bottom", ha="left",
    )  # fmt: skip


def _snr_text(value: float) -> str:
    return "< 0.01" if value < 0.01 else number_text(value)


def _parameters(scene: ArcScene) -> str:
    system, shape = scene.system, scene.shape
    lens = (
        f"Lens: $\\theta_E$ {system.theta_e_arcsec:.3g}\u2033, q {system.lens_q:.3g}, "
        f"$\\varphi$ {math.degrees(system.lens_phi_rad):.4g}\u00b0, slope {system.lens_slope:.3g}, "
        f"$\\gamma$ ({system.shear_gamma1:.3g}, {system.shear_gamma2:.3g})"
    )
    source = (
        f"Source: ({system.src_x_arcsec:.3g}\u2033, {system.src_y_arcsec:.3g}\u2033) from the lens, "
        f"R$_e$ {system.src_re_arcsec:.3g}\u2033, n {system.src_n:.3g}, q {system.src_q:.3g}, "
        f"$\\varphi$ {math.degrees(system.src_phi_rad):.4g}\u00b0, r {system.mag_r:.2f}, "
        f"g\u2212r {system.gr:.2f}, r\u2212z {system.rz:.2f}, E(B\u2212V) {scene.observation.ebv_mag:.3g}"
    )
    arc = (
        f"Arc: magnification {number_text(scene.magnification)}, mean radius {shape.mean_radius_arcsec:.2f}\u2033, "
        f"extent {math.degrees(shape.tangential_extent_rad):.0f}\u00b0 of angle"
    )
    return f"{lens}\n{source}\n{arc}"


def _arc_magnitude(scene: ArcScene, index: int) -> str:
    flux = float(scene.arcs_nmgy[index].sum(dtype=np.float64))
    return f"{float(mag_from_flux_nmgy(np.array(flux))):.2f} mag" if flux > 0 else "no light"

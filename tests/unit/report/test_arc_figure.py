"""Facts about the figure of a lens system and the panels of a pair."""

from __future__ import annotations

import dataclasses
import io
import itertools
from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text

from pipeline.contracts.errors import ContractError
from pipeline.report.arc_figure import critical_curve_px, draw_pair, draw_system
from pipeline.report.markup import number_text
from pipeline.stages.arc_scene import SCENE_METRICS, ArcScene, Observation, make_scene, sky_noise_nmgy
from pipeline.stages.lens_system import LensSystem

BANDS = ("g", "r", "z")
SIGMA = np.full(3, 0.01, np.float32)


@pytest.fixture(scope="module")
def scene_of(lens_system: LensSystem, observation: Observation) -> Callable[..., ArcScene]:
    """The system with some numbers changed, as observed."""

    def make(**changes: float) -> ArcScene:
        return make_scene(dataclasses.replace(lens_system, **changes), observation)

    return make


def drawn_texts(figure: Figure) -> list[Text]:
    """Every text that is drawn, tick labels inside the limits and table cells included."""
    texts = [*figure.texts, *([figure._suptitle] if figure._suptitle else [])]
    for axes in figure.axes:
        texts += [axes.title, axes._left_title, axes._right_title, *axes.texts]
        texts += [cell.get_text() for table in axes.tables for cell in table.get_celld().values()]
        texts += axes.get_legend().get_texts() if axes.get_legend() else []
        for axis in (axes.xaxis, axes.yaxis) if axes.axison else ():
            low, high = sorted(axis.get_view_interval())
            inside = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            texts += [axis.label, *(label for tick in inside for label in (tick.label1, tick.label2))]
    return [text for text in dict.fromkeys(texts) if text.get_visible() and text.get_text().strip()]


@pytest.mark.parametrize(
    ("changes", "size_px", "noisy"),
    [
        ({}, 64, False),
        ({"lens_slope": 1.7, "src_n": 4.0}, 64, True),
        ({"lens_slope": 2.3, "theta_e_arcsec": 12.0, "mag_r": 28.125, "gr": -0.25}, 160, True),
        (
            {"lens_q": 1.0, "shear_gamma1": 0.0, "shear_gamma2": 0.0, "src_x_arcsec": 0.0, "src_y_arcsec": 0.0},
            32,
            False,
        ),
    ],
)
def test_labels_lie_inside_the_page_and_apart(
    changes: dict[str, float], size_px: int, noisy: bool, lens_system: LensSystem, observation: Observation
) -> None:
    """No text leaves the figure, no two texts overlap by more than a hair, in arcs of very different size."""
    sized = dataclasses.replace(observation, size_px=size_px)
    made = make_scene(dataclasses.replace(lens_system, **changes), sized)
    figure = draw_system(made, sky_noise_nmgy(sized, 1) if noisy else None)
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    page = figure.bbox
    boxes = [(text.get_text(), text.get_window_extent(renderer).padded(-1.0)) for text in drawn_texts(figure)]
    assert len(boxes) > 60
    for name, box in boxes:
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1, name
    for (name, box), (other, other_box) in itertools.combinations(boxes, 2):
        assert not box.overlaps(other_box), (name, other)


def test_figure_shows_curves_and_snr(scene_of: Callable[..., ArcScene]) -> None:
    """Caustics in one plane and critical curves in the other, as the scene has them, and every metric in the table."""
    made = scene_of()
    figure = draw_system(made)
    source, image = figure.axes[0], figure.axes[1]
    lines = {line.get_label(): line.get_xydata() for line in source.lines}
    assert (lines["tangential"] == made.curves.tangential_caustic).all()
    assert (lines["cut"] == made.curves.radial_caustic).all()
    assert (image.lines[0].get_xydata() == made.curves.tangential).all()
    texts = [text.get_text() for text in drawn_texts(figure)]
    assert set(SCENE_METRICS) <= set(texts)
    assert number_text(float(made.snr["arc_snr_matched"][1])) in texts


@pytest.mark.parametrize(("slope", "source_lines", "image_lines"), [(1.8, 3, 3), (2.0, 3, 2), (2.2, 2, 2)])
def test_radial_curve_is_drawn_where_there_is_one(
    slope: float, source_lines: int, image_lines: int, scene_of: Callable[..., ArcScene]
) -> None:
    """Both planes below slope 2, the cut alone at 2, none above; the lens is a marker in each."""
    figure = draw_system(scene_of(lens_slope=slope))
    assert [len(axis.lines) for axis in figure.axes[:2]] == [source_lines, image_lines]


def test_noise_is_in_the_stamps(scene_of: Callable[..., ArcScene], observation: Observation) -> None:
    """The r stamp shows arc plus noise if noise is given, the arc alone if not."""
    made = scene_of()
    noise = sky_noise_nmgy(observation, 5)
    shown = [
        [image.get_array() for axis in figure.axes for image in axis.images]
        for figure in (draw_system(made), draw_system(made, noise))
    ]
    assert any(array.shape == (64, 64) and np.array_equal(array, made.arcs_nmgy[1]) for array in shown[0])
    assert any(array.shape == (64, 64) and np.array_equal(array, made.arcs_nmgy[1] + noise[1]) for array in shown[1])


def test_critical_curve_lies_on_the_images_of_a_ring() -> None:
    """A round lens off the middle: a circle of theta_E about its pixel."""
    curve = critical_curve_px(1.31, 1.0, 0.0, 2.0, 0.0, 0.0, 0.524, -0.262, 64)
    assert np.hypot(curve[:, 0] - 34.0, curve[:, 1] - 31.0) == pytest.approx(np.full(len(curve), 5.0))
    with pytest.raises(ContractError, match="theta_e_arcsec"):
        critical_curve_px(0.0, 1.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 64)


def test_pair_is_host_arc_injected_and_difference() -> None:
    """Four pictures of one size; only the arc's has the curve, at its place, row 0 at the bottom."""
    host = np.zeros((3, 32, 32), np.float32)
    arc = np.zeros((3, 32, 32), np.float32)
    arc[:, 24, 8] = 0.5
    curve = critical_curve_px(1.31, 1.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 32)
    panels = draw_pair(host, host + arc, arc, BANDS, SIGMA, curve)
    assert [panel.name for panel in panels] == ["host", "arc, own scale", "injected", "difference"]
    pictures = {panel.name: imread(io.BytesIO(panel.png))[..., :3] for panel in panels}
    assert {picture.shape for picture in pictures.values()} == {(128, 128, 3)}
    assert (pictures["injected"] == pictures["difference"]).all()
    assert pictures["injected"][28:32, 32:36].max(axis=2).min() > 0.9
    assert np.ptp(pictures["host"]) == 0
    drawn = pictures["arc, own scale"]
    bare = draw_pair(host, host + arc, arc, BANDS, SIGMA, None)[1]
    changed = np.abs(drawn - imread(io.BytesIO(bare.png))[..., :3]).max(axis=2) > 0.1
    rows, columns = np.nonzero(changed)
    radius_px = np.hypot((columns + 0.5) / 4 - 0.5 - 16, 31.5 - (rows + 0.5) / 4 - 16)
    assert changed.sum() > 100
    assert radius_px == pytest.approx(np.full(radius_px.size, 5.0), abs=0.6)

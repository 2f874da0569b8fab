"""Facts about figures."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.image import imread

from pipeline.report.charts import (
    add_legend,
    as_png,
    common_edges,
    draw_steps,
    label_axes,
    new_figure,
    pin_log_ticks,
    say_empty,
)


def test_figure_is_a_png_of_twice_the_page_width_and_repeats() -> None:
    """A figure is 2200 px wide, and the same drawing gives the same bytes."""

    def draw() -> bytes:
        figure, axes = new_figure(1, 2, 2.0)
        draw_steps(axes[0], np.arange(1.0, 5.0), np.linspace(1, 5, 5), "#000000", "x")
        label_axes(axes[0], "title", "x [px]", "y")
        pin_log_ticks(axes[0], (1, 2, 5))
        add_legend(axes[0])
        say_empty(axes[1], "nothing")
        return as_png(figure)

    assert imread(io.BytesIO(draw())).shape[:2] == (400, 2200)
    assert draw() == draw()


def test_edges_hold_all_finite_values() -> None:
    """Edges span the finite values of all samples, the positive ones on a log axis."""
    samples = [np.array([1.0, np.nan, 4.0]), np.array([-2.0, np.inf])]
    assert common_edges(samples, 6)[[0, -1]].tolist() == [-2.0, 4.0]
    np.testing.assert_allclose(common_edges(samples, 2, log=True), [1.0, 2.0, 4.0])


def test_edges_of_one_value_and_of_none_are_increasing() -> None:
    """A constant and an empty sample still have bins."""
    for sample in (np.full(3, 7.0), np.zeros(2), np.array([np.nan])):
        assert (np.diff(common_edges([sample], 5)) > 0).all()


def test_steps_are_shares_of_the_finite_values() -> None:
    """The heights of a step histogram sum to 1 without the NaN."""
    _, [axis] = new_figure(1, 1, 2.0)
    draw_steps(axis, np.array([0.5, 1.5, 1.6, np.nan]), np.array([0.0, 1.0, 2.0]), "#000000", "x")
    np.testing.assert_allclose(axis.patches[0].get_data().values, [1 / 3, 2 / 3])
